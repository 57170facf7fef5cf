"""Whatever is in the files of a run, of the cache or beside the images: a message, or a result."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import i2ikit
from i2ikit.data.images import load_image
from i2ikit.data.openmoji import _names_in
from i2ikit.evaluation import evaluate
from i2ikit.packages import survey as surveys
from i2ikit.pretrained.weights import ALEXNET, load_weights
from i2ikit.run import Run
from tests.fake_packages import NORM, norm, put
from tests.hostile.files import (
    damaged_bytes,
    damaged_json,
    damaged_lines,
    damaged_safetensors,
    signed_checkpoint,
    signed_weights,
)
from tests.hostile.tally import tried
from tests.image_files import make_folders
from tests.tiny import QUIET, tiny_recipe
from tests.translating import translated

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Generating overly large repr")]
some = settings(max_examples=max(settings.default.max_examples // 10, 12))

LAST = "checkpoints/step-000000002"
JSON = ("data.json", f"{LAST}/state.json", f"{LAST}/manifest.json", "eval/l1-diversity-a2b-seed0.json")
LINES = ("metrics.jsonl", "translations/translations.jsonl")
TENSORS = ("networks", "ema", "optimizers")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with a report and translations, and its images in data/ beside it."""
    root = tmp_path_factory.mktemp("hostile")
    data = make_folders(root / "data")
    recipe = tiny_recipe(data, "training.checkpoint_every=1", "training.keep=1")
    i2ikit.train(recipe, root / "run", console=QUIET)
    list(evaluate(root / "run", "l1-diversity"))
    translate(root / "run")
    return root / "run"


@pytest.fixture(scope="module")
def run(whole: Path) -> Path:
    """A copy, which tests may damage; `changed` restores it."""
    return Path(shutil.copytree(whole, whole.with_name("copy")))


@contextlib.contextmanager
def changed(run: Path, name: str, content: bytes) -> Iterator[None]:
    """Within the block, one file of the run has other content."""
    (run / name).write_bytes(content)
    try:
        yield
    finally:
        shutil.rmtree(run)
        shutil.copytree(run.with_name("run"), run)


def translate(run: Path) -> None:
    picture = next((run.parent / "data" / "testA").glob("*.png"))
    list(translated(Run(run, "cpu").model, [picture], 1, [], None, None, 0, run / "translations"))


def measure(run: Path) -> None:
    list(evaluate(run, "l1-diversity", reuse=True))


def resume(run: Path) -> None:
    """Without another step: only that would use what the optimizers keep, whose form is theirs alone."""
    i2ikit.resume(run, console=QUIET)


def start_from(run: Path) -> None:
    recipe = tiny_recipe(run.parent / "data")
    i2ikit.train(recipe, run / "new", weights_from=run / "weights.safetensors", console=QUIET)


def compared(run: Path) -> None:
    from i2ikit.comparison import _facts

    assert len(_facts(Run(run, "cpu"))) == 4


def contents(
    whole: Path, names: tuple[str, ...], strategy: Callable[[bytes], st.SearchStrategy[bytes]]
) -> st.SearchStrategy[tuple[str, bytes]]:
    return st.sampled_from(names).flatmap(
        lambda name: st.tuples(
            st.just(name),
            st.one_of(strategy((whole / name).read_bytes()), damaged_bytes((whole / name).read_bytes())),
        )
    )


@some
@given(data=st.data())
def test_a_damaged_json_file(whole: Path, run: Path, data: st.DataObject) -> None:
    """The record of the images, a checkpoint's state and manifest, a report."""
    name, content = data.draw(contents(whole, JSON, damaged_json))
    with changed(run, name, content):
        if name.endswith("state.json"):
            signed_checkpoint(run / LAST)
        for read in (measure, resume):
            with tried("JSON files of a run", 5):
                read(run)


@some
@given(data=st.data())
def test_damaged_lines(whole: Path, run: Path, data: st.DataObject) -> None:
    """The log of a run, and the index of translations."""
    name, content = data.draw(contents(whole, LINES, damaged_lines))
    with changed(run, name, content):
        for read in (translate, compared, resume):
            with tried("JSON lines of a run", 5):
                read(run)


@some
@given(data=st.data())
def test_damaged_or_forged_weights(whole: Path, run: Path, data: st.DataObject) -> None:
    content = data.draw(damaged_safetensors((whole / "weights.safetensors").read_bytes()))
    is_signed = data.draw(st.booleans())
    with changed(run, "weights.safetensors", signed_weights(content) if is_signed else content):
        for read in (translate, start_from):
            with tried("weights of a run", 5):
                read(run)


@some
@given(data=st.data())
def test_damaged_or_forged_checkpoints(whole: Path, run: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(TENSORS))
    content = data.draw(damaged_safetensors((whole / LAST / f"{name}.safetensors").read_bytes()))
    is_signed = data.draw(st.integers(0, 3)) > 0
    with changed(run, f"{LAST}/{name}.safetensors", content):
        if is_signed:
            signed_checkpoint(run / LAST)
        with tried("checkpoints", 5):
            resume(run)


@some
@given(data=st.data())
def test_a_damaged_resolved_recipe(whole: Path, run: Path, data: st.DataObject) -> None:
    text = (whole / "resolved.toml").read_bytes()
    content = data.draw(damaged_bytes(text if data.draw(st.booleans()) else text.partition(b"\n")[2]))
    with changed(run, "resolved.toml", content), tried("resolved.toml", 5):
        translate(run)


@given(data=st.data())
def test_damaged_pretrained_weights(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "pretrained"
    folder.mkdir(exist_ok=True)
    tensors = {"features.0.weight": torch.ones(2, 3), "features.0.bias": torch.zeros(2)}
    save_file(tensors, folder / "x.safetensors")
    torch.save(tensors, folder / "x.pth")
    file = folder / data.draw(st.sampled_from(("x.safetensors", "x.pth")))
    strategy = damaged_safetensors if file.suffix == ".safetensors" else damaged_bytes
    file.write_bytes(data.draw(strategy(file.read_bytes())))
    with tried("pretrained weights"):
        load_weights(ALEXNET, file)


@given(data=st.data())
def test_damaged_caches(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, folders_kept: tuple[Path, Path]
) -> None:
    """Rendered drawings, and what is known of images that were decoded before."""
    index, scans = folders_kept
    content = json.dumps({"credit": "x", "train": ["1F600", "1F601"], "test": ["1F602"]}).encode()
    (index / "index.json").write_bytes(data.draw(st.one_of(damaged_json(content), damaged_bytes(content))))
    with tried("caches"):
        _names_in(index)
    scan = json.dumps({"0.png": [100, 5, ""], "1.png": [100, 5, "damaged"]}).encode()
    for file in scans.glob("scans/*.json"):
        file.write_bytes(data.draw(st.one_of(damaged_json(scan), damaged_bytes(scan))))
    from i2ikit.data.scan import damage

    with tried("caches"):
        damage({path: 3 for path in sorted((index.parent / "data" / "testA").glob("*.png"))})


@pytest.fixture(scope="module")
def folders_kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("caches")
    make_folders(root / "data")
    index = root / "openmoji"
    for domain, name in ((domain, name) for domain in "ab" for name in ("1F600", "1F601", "1F602")):
        (index / domain).mkdir(parents=True, exist_ok=True)
        (index / domain / f"{name}.png").touch()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("I2IKIT_CACHE", str(root / "cache"))
        patched.setattr("i2ikit.data.scan.LEAST_S", -1.0)
        from i2ikit.data.scan import damage

        damage({path: 3 for path in (root / "data" / "testA").glob("*.png")})
        assert list((root / "cache" / "scans").glob("*.json"))
    return index, root / "cache"


@given(data=st.data())
def test_damaged_arrays(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    file = tmp_path_factory.getbasetemp() / "array.npy"
    np.save(file, np.zeros((64, 64, 5), np.float32))
    file.write_bytes(data.draw(damaged_bytes(file.read_bytes())))
    with tried("arrays"):
        load_image(file, 5, 64)


@given(data=st.data())
def test_damaged_metadata_of_packages(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    site = tmp_path_factory.getbasetemp() / "site"
    shutil.rmtree(site, ignore_errors=True)
    folder = put(site, "good", norm("good-x", "good:Norm"), NORM)
    file = folder / data.draw(st.sampled_from(("entry_points.txt", "METADATA")))
    file.write_bytes(data.draw(damaged_bytes(file.read_bytes() * data.draw(st.sampled_from((1, 1, 5000))))))
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(site))
        surveys.survey.cache_clear()
        with tried("metadata of packages", 3):
            surveys.survey()
    surveys.survey.cache_clear()

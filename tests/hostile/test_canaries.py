"""No command runs code from a file: in the place of each file that one reads, payloads are put."""

from __future__ import annotations

import contextlib
import io
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

import i2ikit
from i2ikit.data.images import load_image
from i2ikit.data.openmoji import _names_in
from i2ikit.data.shards import Shards
from i2ikit.evaluation import evaluate
from i2ikit.inputs import input_files
from i2ikit.metrics.classifier import ConditionalInception
from i2ikit.packages import survey as surveys
from i2ikit.pretrained import weights as pretrained
from i2ikit.pretrained.weights import ALEXNET, load_weights
from i2ikit.recipe import load_recipe
from i2ikit.run import Run
from tests.hostile.canaries import PAYLOADS, is_alive
from tests.hostile.files import signed_checkpoint
from tests.hostile.tally import Kind, kinds, tried
from tests.image_files import make_folders, write_tars
from tests.tiny import QUIET, tiny_recipe
from tests.translating import translated

pytestmark = pytest.mark.slow

LAST = "checkpoints/step-000000002"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that commands read: a run, images, tar files, a cache, weights, a package."""
    root = tmp_path_factory.mktemp("canaries")
    recipe = tiny_recipe(make_folders(root / "data"), "training.checkpoint_every=1", "training.keep=1")
    i2ikit.train(recipe, root / "run", console=QUIET)
    list(evaluate(root / "run", "l1-diversity"))
    shutil.copy(root / "run" / "weights.safetensors", root / "run" / "best.safetensors")
    picture = root / "data" / "testA" / "0.png"
    list(
        translated(
            Run(root / "run", "cpu").model, [picture], 1, [], None, None, 0, root / "run" / "translations"
        )
    )
    write_tars(root / "tars", tars=1)
    (root / "tars" / "trainA" / "sizes.json").write_text('{"0000.tar": 3}')
    np.save(root / "array.npy", np.zeros((64, 64, 5), np.float32))
    (root / "recipe.toml").write_text('extends = "base.toml"\n')
    (root / "base.toml").write_text('extends = "munit"\n')
    torch.save({"features.0.weight": torch.ones(2)}, root / "mine.pth")
    for name in ("mine.safetensors", "classifier.onnx", "classifier.pt2", "model.onnx", "model.pt2"):
        (root / name).touch()
    for name in ("latest_net_G.pth", "gen_00000001.pt", "config.yaml"):
        (root / name).touch()
    (root / "site" / "x-1.0.dist-info").mkdir(parents=True)
    for name in ("METADATA", "entry_points.txt"):
        (root / "site" / "x-1.0.dist-info" / name).touch()
    for domain in "ab":
        (root / "cache" / "openmoji" / domain).mkdir(parents=True)
    (root / "cache" / "openmoji" / "index.json").touch()
    (root / "cache" / "pretrained-alexnet").mkdir()
    (root / "cache" / "pretrained-alexnet" / "weights.safetensors").touch()
    (root / "torch" / "hub" / "checkpoints").mkdir(parents=True)
    (root / "torch" / "hub" / "checkpoints" / ALEXNET.file).touch()
    return root


def translate(root: Path) -> None:
    run = Run(root / "run", "cpu")
    files, _ = input_files(run.model, [root / "data" / "testA"], None, None, root / "out")
    list(
        translated(
            run.model,
            files,
            1,
            [root / "data" / "testB" / "0.png"],
            None,
            None,
            0,
            root / "run" / "translations",
        )
    )


def translate_best(root: Path) -> None:
    list(
        translated(
            Run(root / "run", "cpu", best=True).model,
            [root / "data" / "testA" / "0.png"],
            1,
            [],
            None,
            None,
            0,
            root / "o",
        )
    )


def measure(root: Path) -> None:
    list(evaluate(root / "run", "l1-diversity", reuse=True))


def resume(root: Path) -> None:
    signed_checkpoint(root / "run" / LAST)
    i2ikit.resume(root / "run", "training.steps=3", console=QUIET)


def resume_unsigned(root: Path) -> None:
    i2ikit.resume(root / "run", "training.steps=3", console=QUIET)


def from_weights(root: Path) -> None:
    i2ikit.train(tiny_recipe(root / "data"), root / "new", weights_from=root / "run", console=QUIET)


def read_tars(root: Path) -> None:
    data = Shards(root=str(root / "tars"), size=64)
    data.image("test", "a", 0)
    next(data.stream(0, 0, 1, 0))


def read_arrays(root: Path) -> None:
    load_image(root / "array.npy", 5, 64)


def read_recipe(root: Path) -> None:
    load_recipe(root / "recipe.toml")


def load_named(root: Path) -> None:
    for name in ("mine.pth", "mine.safetensors"):
        load_weights(ALEXNET, root / name)


def classify(root: Path) -> None:
    for name in ("classifier.onnx", "classifier.pt2"):
        ConditionalInception(classifier=str(root / name), num_samples=2)


def use_exported(root: Path) -> None:
    for name in ("model.onnx", "model.pt2"):
        with contextlib.suppress(i2ikit.I2IKitError):
            i2ikit.load(root / name)


def import_official(root: Path) -> None:
    for files in (["latest_net_G.pth"], ["gen_00000001.pt", "config.yaml"]):
        with contextlib.suppress(i2ikit.I2IKitError):
            i2ikit.import_weights([root / name for name in files], root / "imported")


def look_up(root: Path) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(root / "site"))
        surveys.survey.cache_clear()
        surveys.survey()
    surveys.survey.cache_clear()


def read_cache(root: Path) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("I2IKIT_CACHE", str(root / "cache"))
        patched.setenv("TORCH_HOME", str(root / "torch"))
        for name in ("fetch_url", "fetch_sdist"):
            patched.setattr(pretrained, name, _no_network)
        with contextlib.redirect_stderr(io.StringIO()):
            load_weights(ALEXNET)


def _no_network(*asked: object) -> None:
    raise i2ikit.errors.FetchError("no network")


def read_drawings(root: Path) -> None:
    _names_in(root / "cache" / "openmoji")


PLACES: dict[str, tuple[Callable[[Path], None], ...]] = {
    "recipe.toml": (read_recipe,),
    "base.toml": (read_recipe,),
    "run/recipe.toml": (resume,),
    "run/resolved.toml": (translate, resume, measure),
    "run/weights.safetensors": (translate, resume, measure, from_weights),
    "run/best.safetensors": (translate_best,),
    "run/data.json": (resume, measure),
    "run/metrics.jsonl": (resume,),
    "run/eval/l1-diversity-a2b-seed0.json": (measure,),
    "run/translations/translations.jsonl": (translate,),
    **{
        f"run/{LAST}/{name}": (resume, resume_unsigned, from_weights)
        for name in (
            "manifest.json",
            "state.json",
            "networks.safetensors",
            "ema.safetensors",
            "optimizers.safetensors",
        )
    },
    "data/trainA/0.png": (resume,),
    "data/testA/0.png": (translate, measure, resume),
    "data/testB/0.png": (translate,),
    "array.npy": (read_arrays,),
    "tars/trainA/0000.tar": (read_tars,),
    "tars/testA/0000.tar": (read_tars,),
    "tars/trainA/sizes.json": (read_tars,),
    "mine.pth": (load_named,),
    "mine.safetensors": (load_named,),
    "classifier.onnx": (classify,),
    "classifier.pt2": (classify,),
    "model.onnx": (use_exported,),
    "model.pt2": (use_exported,),
    "latest_net_G.pth": (import_official,),
    "gen_00000001.pt": (import_official,),
    "config.yaml": (import_official,),
    "cache/pretrained-alexnet/weights.safetensors": (read_cache,),
    "cache/openmoji/index.json": (read_drawings,),
    f"torch/hub/checkpoints/{ALEXNET.file}": (read_cache,),
    "site/x-1.0.dist-info/METADATA": (look_up,),
    "site/x-1.0.dist-info/entry_points.txt": (look_up,),
}


def test_the_payloads_are_sharp(tmp_path: Path) -> None:
    """Each pickle creates the canary where it is unpickled."""
    for name in ("pickle", "pickle of protocol 0"):
        canary = tmp_path / name
        pickle.loads(PAYLOADS[name](canary))
        assert not is_alive(canary)
    for name in ("torch.save", "torch.save of 2019"):
        canary = tmp_path / name
        torch.load(io.BytesIO(PAYLOADS[name](canary)), weights_only=False)
        assert not is_alive(canary)
    canary = tmp_path / "npy"
    np.load(io.BytesIO(PAYLOADS["npy with objects"](canary)), allow_pickle=True)
    assert not is_alive(canary)
    exec(PAYLOADS["Python"](tmp_path / "python"))
    assert not is_alive(tmp_path / "python")


@pytest.mark.parametrize("place", PLACES)
def test_nothing_is_run_from(place: str, whole: Path, tmp_path: Path) -> None:
    kind = kinds.setdefault("files with a canary", Kind(note=f"{len(PLACES)} places, 0 ran"))
    assert kind.count >= 0
    most = len(PAYLOADS) if settings.default.max_examples >= 1000 else 2
    for name, payload in list(PAYLOADS.items())[:most]:
        root = tmp_path / name
        for command in PLACES[place]:
            shutil.copytree(whole, root)
            run = root / "run" / "resolved.toml"
            run.write_bytes(_moved(run.read_bytes(), whole, root))
            canary = tmp_path / "canary"
            (root / place).write_bytes(payload(canary))
            with tried("files with a canary", 10):
                command(root)
            assert is_alive(canary), f"{name} in the place of {place} was run"
            shutil.rmtree(root)


def _moved(resolved: bytes, old: Path, new: Path) -> bytes:
    """The recipe of a run whose images have moved with it; without its checksum."""
    return resolved.partition(b"\n")[2].replace(str(old).encode(), str(new).encode())

"""Methods written from outside, as packages, without a change of i2ikit: see tests/outside/."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from PIL import Image
from typer.testing import CliRunner

import i2ikit
from i2ikit.cli.main import app
from i2ikit.packages.survey import survey
from i2ikit.testing import check_component, check_recipe, check_translator
from tests.fake_packages import put
from tests.tiny import assert_same_training, stopped_at

OFFERS = {
    "blobs": {"datasets": {"blobs": "Blobs"}, "metrics": {"blob-distance": "Distance"}},
    "augmented": {"discriminators": {"augmented": "Augmented", "own-noise": "OwnNoise"}},
    "cutlike": {"translators": {"cut-like": "CutLike", "own-permutation": "OwnPermutation"}},
    "stars": {"translators": {"stars": "Stars", "counting": "Counting", "summed-penalty": "SummedPenalty"}},
    "pooling": {
        "translators": {
            "pooling": "Pooling",
            "own-list": "OwnList",
            "attached": "Attached",
            "trains-colours": "TrainsColours",
        }
    },
}
THREE = ["cat", "dog", "wild-2"]

TABLES: dict[str, dict[str, Any]] = {
    "cut-like": {"data": {"domains": ["a", "b"], "channels": [3]}},
    "stars": {
        "data": {"domains": THREE, "channels": [3]},
        "optimizer": {"style_encoder": {"name": "adamw", "lr": 1e-3}},
    },
    "pooling": {
        "data": {"domains": ["in_1", "out-2"], "channels": [5, 3]},
        "translator": {"discriminator": {"name": "augmented"}},
        "optimizer": {"discriminators": {"name": "rmsprop", "lr": 1e-3}},
    },
    "munit": {
        "data": {"domains": ["a", "b"], "channels": [13, 4]},
        "translator": {
            "style_dim": 4,
            "content_encoder": {"width": 4, "num_residual": 1},
            "style_encoder": {"width": 4, "num_downsample": 3},
            "decoder": {"num_residual": 1, "mlp_width": 8},
            "discriminator": {"name": "augmented"},
        },
    },
    "cyclegan": {
        "data": {"domains": ["a", "b"], "channels": [1]},
        "translator": {
            "noise_dim": 0,
            "pool_size": 8,
            "generator": {"width": 4, "num_downsample": 5, "dropout": 0.5},
            "discriminator": {"name": "augmented"},
            "weights": {"generator": {"identity": 5.0, "cycle_recon/a": 5.0}},
        },
    },
}
"""What differs from `recipe`, by translator; also two that ship, with parts from outside."""


@pytest.fixture(scope="module", autouse=True)
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The packages, installed in a folder of their own."""
    folder = tmp_path_factory.mktemp("site")
    for package, kinds in OFFERS.items():
        lines = [
            f"[i2ikit.{kind}]\n" + "".join(f"{name} = {package}:{target}\n" for name, target in names.items())
            for kind, names in kinds.items()
        ]
        put(
            folder, package, "".join(lines), (Path(__file__).parent / "outside" / f"{package}.py").read_text()
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        patch.setenv("OMP_NUM_THREADS", "1")
        survey.cache_clear()
        yield folder
    survey.cache_clear()


def recipe(name: str, folder: Path) -> Path:
    """A recipe of six steps, with a cosine schedule, a warm-up and clipping."""
    own = TABLES[name]
    table = {
        "seed": 3,
        "data": {"name": "blobs", "size": 32, **own["data"]},
        "translator": {"name": name, **own.get("translator", {})},
        "optimizer": {
            "lr": 1e-3, "decay": "cosine", "warmup_steps": 2, "max_grad_norm": 10.0, **own.get("optimizer", {}),
        },
        "training": {
            "steps": 6, "batch_size": 4, "log_every": 1, "sample_every": 0, "checkpoint_every": 1, "keep": 9,
        },
    }  # fmt: skip
    path = folder / f"{name}.toml"
    path.write_text(tomli_w.dumps(table))
    return path


def command(*words: str) -> str:
    """A command of i2ikit in this process; its output."""
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def launched(processes: int, *words: str) -> None:
    """A command of i2ikit in processes of its own."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    done = subprocess.run(
        [sys.executable, *(launch if processes > 1 else []), "-m", "i2ikit", *words],
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


KEPT = {"pooling", "cyclegan"}
IN_CI = {(1, 5), (4, 2)}


@pytest.mark.parametrize("name", TABLES)
def test_it_trains_resumes_translates_and_is_evaluated(name: str, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    command("run", str(recipe(name, tmp_path)), "--out", str(whole))
    assert (whole / "checkpoints/step-000000006/kept.safetensors").is_file() == (name in KEPT)
    parts = stopped_at(whole, 3, tmp_path / "parts")
    command("resume", str(parts))
    assert_same_training(whole, parts)
    run = i2ikit.load(whole)
    x = run.dataset().image("test", run.translator.directions[0].source, 0)
    made = run.translate(x, styles=3)
    one = run.translator.is_deterministic(run.translator.directions[0].to)
    assert made.shape == (1 if one else 3, run.images.channels[run.translator.directions[0].to], 32, 32)
    out = command("eval", str(whole), "--metric", "blob-distance", "--set", "blob-distance.num_inputs=2")
    assert f"({run.translator.directions[0]}, seed 0)" in out


@pytest.mark.long
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("stop", [1, 3, 5])
@pytest.mark.parametrize("name", TABLES)
def test_it_resumes_bit_for_bit(name: str, stop: int, processes: int, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    launched(processes, "run", str(recipe(name, tmp_path)), "--out", str(whole))
    parts = stopped_at(whole, stop, tmp_path / "parts")
    launched(processes, "resume", str(parts))
    assert_same_training(whole, parts)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cut-like", "stars", "pooling"])
def test_it_keeps_the_contract_in_one_process_and_in_two(name: str) -> None:
    """Gradients of two processes are those of one to 1e-9."""
    options = {"discriminator": {"name": "augmented"}} if name != "stars" else {}
    check_translator(name, options, size=32)


def test_a_component_with_draws_of_its_own_keeps_the_contract() -> None:
    check_component("discriminators", "augmented")


@pytest.mark.parametrize("name", TABLES)
def test_its_recipe_trains(name: str, tmp_path: Path) -> None:
    check_recipe(recipe(name, tmp_path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own-permutation", "phase 'generator': it draws from torch's own generator"),
        ("counting", "phase 'generator': it depends on something, or changes something, that checkpoints"),
        (
            "own-list",
            "phase 'discriminator': it depends on something, or changes something, that checkpoints",
        ),
        ("attached", "phase 'discriminator': it keeps .* but returns"),
        (
            "trains-colours",
            "phase 'generator': it trains colors; the networks are generators, discriminators",
        ),
    ],
)
def test_a_wrong_variant_is_found_out(name: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_translator(name, size=32, two_processes=False)


def test_a_component_that_draws_by_itself_is_found_out() -> None:
    with pytest.raises(AssertionError, match="phase 'generator': it draws from torch's own generator"):
        check_translator("pooling", {"discriminator": {"name": "own-noise"}}, size=32, two_processes=False)


@pytest.mark.slow
def test_a_penalty_that_is_a_sum_is_found_out_by_two_processes() -> None:
    with pytest.raises(AssertionError, match=r"differs by .* between two processes and one"):
        check_translator("summed-penalty", size=32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("channels", "domains"),
    [
        pytest.param(channels, domains, marks=[] if (channels, domains) in IN_CI else pytest.mark.long)
        for channels, domains in itertools.product((1, 3, 4, 5, 13), (2, 3, 5))
    ],
)
def test_any_number_of_channels_and_domains_goes_through_every_command(
    channels: int, domains: int, tmp_path: Path
) -> None:
    """Run, resume, translate, eval and compare."""
    path = recipe("stars", tmp_path)
    names = ["one", "two", "three", "four", "five"][:domains]
    change = (f"data.domains={json.dumps(names)}", f"data.channels=[{channels}]", "training.sample_every=3")
    words = [word for text in change for word in ("--set", text)]
    runs = [tmp_path / "runs" / name for name in ("first", "second")]
    for run in runs:
        command("run", str(path), "--out", str(run), *words)
    pictures = {path.name for path in (runs[0] / "samples").glob("step-000006*.png")}
    others = {f"step-000006-{names[1]}-to-one.png"} | {f"step-000006-one-to-{name}.png" for name in names[2:]}
    assert pictures == {"step-000006.png", *others}
    stop = stopped_at(runs[0], 4, tmp_path / "again")
    command("resume", str(stop))
    assert_same_training(runs[0], stop)
    image = tmp_path / ("x.png" if channels in (1, 3) else "x.npy")
    if channels in (1, 3):
        Image.new("L", (40, 32), 90).save(image)
    else:
        np.save(image, np.random.default_rng(0).random((40, 32, channels), dtype=np.float32))
    made = tmp_path / "made"
    direction = ("--from", names[-1], "--to", "one")
    command("translate", str(runs[0]), str(image), "--styles", "2", *direction, "--out", str(made))
    ending = image.suffix
    start = f"x-{names[-1]}-to-one-seed0"
    results = {f"{start}-style-{n}-of-2{ending}" for n in (1, 2)} | {f"{start}-sheet-of-2.png"}
    assert {p.name for p in made.glob("x*")} == results
    out = command("eval", str(runs[0]), "--metric", "l1-diversity", *direction)
    assert f"({names[-1]}-to-one, seed 0)" in out
    page = tmp_path / "page.html"
    out = command("compare", *map(str, runs), *direction, "--out", str(page))
    assert f"Direction {names[-1]}-to-one" in out
    assert page.is_file()

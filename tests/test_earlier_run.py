"""A run folder made by an earlier version (see earlier_run/make.py) is used as it was there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from i2ikit import comparison
from i2ikit.run import Run
from tests.earlier_run.make import IMAGE
from tests.image_files import make_folders
from tests.tiny import quick_columns

EARLIER = Path(__file__).parent / "earlier_run"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder that holds the earlier run, and its data."""
    work = tmp_path_factory.mktemp("earlier")
    make_folders(work / "data")
    shutil.copytree(EARLIER / "run", work / "run")
    shutil.copytree(EARLIER / "run", work / "again")
    return work


def i2ikit(*arguments: str, cwd: Path) -> None:
    command = [sys.executable, "-m", "i2ikit", *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def losses(path: Path) -> list[dict[str, float]]:
    """Lines of metrics.jsonl that hold losses, without times, and without learning rates, which are newer."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    others = ("elapsed_s", "steps_per_s", "learning_rate/")
    plain = [{k: v for k, v in line.items() if not k.startswith(others)} for line in lines]
    return [line for line in plain if "generator/adversarial/a" in line]


@pytest.mark.slow
def test_it_translates_as_it_did(folder: Path) -> None:
    i2ikit("translate", "run", IMAGE, "--styles", "2", "--out", "made", cwd=folder)
    for n in (1, 2):
        name = f"0-a2b-seed0-style-{n}-of-2.png"
        before = EARLIER / "expected" / f"0-style-{n}.png"
        with Image.open(folder / "made" / name) as made, Image.open(before) as expected:
            off = np.abs(np.asarray(made, dtype=int) - np.asarray(expected, dtype=int))
        assert off.max() <= 1


@pytest.mark.slow
def test_it_is_measured(folder: Path) -> None:
    options = ("--set", "l1-diversity.num_inputs=3", "--metric", "l1-diversity", "--metric", "style-health")
    i2ikit("eval", "run", *options, cwd=folder)
    reports = [json.loads(path.read_text()) for path in (folder / "run" / "eval").glob("*.json")]
    assert {(report["metric"], report["trained"]["step"]) for report in reports} == {
        ("l1-diversity", 2),
        ("style-health", 2),
    }


@pytest.mark.slow
def test_it_is_compared(
    folder: Path, alexnet_file: str, vgg_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "COLUMNS", quick_columns(alexnet_file, vgg_file))
    monkeypatch.chdir(folder)
    found = comparison.compare([Run(Path("run")), Run(Path("again"))])
    assert found.headings.index("parameters") >= 5
    one, two = (row[1 : found.headings.index("parameters")] for row in found.rows)
    assert one == two
    assert found.picture is not None


@pytest.mark.slow
def test_it_is_resumed_to_the_same_losses(folder: Path) -> None:
    """Up to the rounding of another machine; two machines of one kind agree to the last bit."""
    i2ikit("resume", "again", cwd=folder)
    found, expected = (
        losses(folder / "again" / "metrics.jsonl"),
        losses(EARLIER / "expected" / "metrics.jsonl"),
    )
    assert [line["step"] for line in found] == [1, 2, 3, 4]
    for mine, theirs in zip(found, expected, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3)

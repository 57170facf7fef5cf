"""Paths in recipes: absolute once they are checked, so that a run finds its files from every directory."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest

import i2ikit
from i2ikit.checking import check
from i2ikit.data.dataset import DATASET_SLOT
from i2ikit.evaluation import evaluate
from i2ikit.metrics.subject import METRIC_SLOT
from i2ikit.paths import pasted
from tests.tiny import QUIET, tiny_recipe


@pytest.mark.parametrize(
    ("given", "expected"),
    [("data", "HERE/data"), ("./x/../data", "HERE/data"), ("~/data", "HOME/data"), ("/data", "/data")],
)
def test_a_path_is_absolute_once_it_is_checked(
    given: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Roots of data, and files of weights."""
    here, home = tmp_path / "here", tmp_path / "home"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    path = expected.replace("HERE", str(here)).replace("HOME", str(home))
    for name in ("folders", "side-by-side", "shards"):
        spec, _ = check({"name": name, "root": given}, "data", DATASET_SLOT)
        assert spec.options["root"] == path
    for name in ("lpips-diversity", "lpips-to-target", "fid", "kid"):
        assert check({"name": name, "weights": given}, name, METRIC_SLOT)[0].options["weights"] == path
        assert check({"name": name}, name, METRIC_SLOT)[0].options["weights"] is None


def test_a_run_is_measured_and_resumed_on_its_own_data_from_every_directory(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the other directory lies another `data`; the report is that of the first, and used again."""
    first, other = tmp_path / "first", tmp_path / "other"
    first.mkdir()
    other.mkdir()
    folders.rename(first / "data")
    shutil.copytree(first / "data", other / "data")
    for file in (other / "data" / "testA").iterdir():
        shutil.copy(next((other / "data" / "testB").iterdir()), file)
    monkeypatch.chdir(first)
    run = i2ikit.train(tiny_recipe(Path("data")), "run", console=QUIET).folder.absolute()
    found = []
    for place in (first, other):
        monkeypatch.chdir(place)
        (finding,) = evaluate(run, ["l1-diversity"], overrides=["l1-diversity.num_inputs=2"])
        assert not isinstance(finding.found, str)
        found.append(finding.found.values)
    assert found[0] == found[1]
    assert len(list((run / "eval").glob("*.json"))) == 1


def test_a_command_can_be_pasted() -> None:
    words = ["i2ikit", "resume", "my runs/it's; rm -rf"]
    assert shlex.split(pasted(*words)) == words

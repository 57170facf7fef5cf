"""The images on which a run is measured: its own, from wherever, or others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import i2ikit
from i2ikit.data.record import DATA_FILE, record_of, write_record
from i2ikit.errors import DataError, RunError
from i2ikit.evaluation import Finding, evaluate
from i2ikit.run import RESOLVED, Run
from tests.image_files import make_folders, save, side_by_side, write_tars
from tests.tiny import tiny_recipe, untrained

METRIC = "l1-diversity"


def run_on(data: Path, folder: Path, *overrides: str) -> Path:
    """An untrained run that has recorded its images."""
    recipe = tiny_recipe(data, *overrides)
    run = untrained(recipe, folder)
    if record := record_of(recipe.data()):
        write_record(run, record)
    return run


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("I2IKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return run_on(make_folders(tmp_path / "data"), tmp_path / "runs" / "one")


def measured(run: Path, **options: object) -> Finding:
    (finding,) = evaluate(Run(run), METRIC, **options)
    assert not isinstance(finding.found, str), finding.found
    return finding


def other_folders(root: Path, held_out: int = 4) -> Path:
    """Held-out images only, and other ones than those of `make_folders`."""
    rng = np.random.default_rng(7)
    for domain in "AB":
        (root / f"test{domain}").mkdir(parents=True)
        for index in range(held_out):
            pixels = rng.integers(0, 256, (66, 70, 3), dtype=np.uint8)
            save(root / f"test{domain}" / f"{index}.png", Image.fromarray(pixels))
    return root


def test_from_three_directories_there_is_one_number_and_one_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although each has its own data/, and the recipe names a relative one."""
    work = tmp_path / "work"
    make_folders(work / "data")
    other_folders(tmp_path / "data")
    other_folders(work / "runs" / "data")
    monkeypatch.chdir(work)
    run_on(Path("data"), Path("runs/one"))
    found = []
    for place, folder in ((work, "runs/one"), (tmp_path, "work/runs/one"), (work / "runs", "one")):
        monkeypatch.chdir(place)
        found.append(measured(Path(folder)).found)
    assert found[0] == found[1] == found[2]
    assert [path.name for path in (work / "runs/one/eval").glob("*.json")] == [f"{METRIC}-a2b-seed0.json"]


def test_held_out_images_alone_are_enough(run: Path, tmp_path: Path) -> None:
    before = measured(run).found
    for letter in "AB":
        shutil.rmtree(tmp_path / "data" / f"train{letter}")
    assert measured(run).found == before
    shutil.rmtree(tmp_path / "data" / "testA")
    with pytest.raises(DataError, match=r"root = '.*data' contains no folder testA/"):
        measured(run)
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(DataError, match=r"root = '.*data' is not a folder"):
        measured(run)


def test_the_report_says_which_files_were_measured_and_that_they_have_changed(
    run: Path, tmp_path: Path
) -> None:
    finding = measured(run)
    assert finding.path is not None
    record = json.loads((run / DATA_FILE).read_text())
    assert json.loads(finding.path.read_text())["files"] == record["test"]
    assert not any("differ" in note for note in finding.found.notes)
    (tmp_path / "data" / "testB" / "0.png").unlink()
    (tmp_path / "data" / "trainA" / "0.png").unlink()  # is not measured
    notes = list(measured(run).found.notes)
    assert notes[-1] == "The held-out images of domain b differ from those in data.json: 2 files now, 3 then."
    assert json.loads(finding.path.read_text())["notes"] == notes


def test_runs_without_a_record_or_with_a_damaged_one_are_measured_with_a_note(run: Path) -> None:
    (run / DATA_FILE).write_text("{")
    assert "data.json is damaged, so it is not known whether" in measured(run).found.notes[-1]
    (run / DATA_FILE).unlink()
    assert measured(run).found.notes[-1] == (
        "This run has no data.json, so it is not known whether these are still its images."
    )


def test_reports_of_other_images_are_not_reused(run: Path, tmp_path: Path) -> None:
    """Of the same options and weights; neither are those of a version that did not record the images."""

    def reused() -> bool:
        (finding,) = evaluate(run, METRIC, reuse=True)
        assert finding.path is not None
        return json.loads(finding.path.read_text()).pop("measured") == "marked"

    def mark(**changes: object) -> None:
        path = run / "eval" / f"{METRIC}-a2b-seed0.json"
        report = {**json.loads(path.read_text()), "measured": "marked", **changes}
        path.write_text(json.dumps({key: value for key, value in report.items() if value is not None}))

    measured(run)
    mark()
    assert reused()
    mark(files=None)
    assert not reused()
    mark()
    save(tmp_path / "data" / "testB" / "0.png", Image.new("RGB", (70, 66)))
    assert not reused()


def test_other_images_have_reports_of_their_own(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also two folders whose names are equal; a relative path is the folder that it is from here."""
    own = measured(run).found.values
    one = other_folders(tmp_path / "one" / "näht & co")
    two = make_folders(tmp_path / "two" / "näht & co", held_out=2)
    monkeypatch.chdir(tmp_path / "one")
    first, again, second = (measured(run, data=path) for path in ("näht & co", one, two))
    assert first == again
    assert first.found.notes[-1] == f"Measured on {one}."
    assert len({str(finding.path) for finding in (first, second)}) == 2
    assert first.path is not None
    assert first.path.name.startswith(f"{METRIC}-a2b-seed0-data=näht_co-")
    assert json.loads(first.path.read_text())["data"]["root"] == str(one)
    assert first.found.values != own != second.found.values
    assert measured(run).found.values == own
    assert len([*(run / "eval").glob("*.json")]) == 3


def test_the_images_of_the_run_by_path_are_its_own(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy has the same numbers in a report of its own, which says so."""
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    monkeypatch.chdir(tmp_path)
    own, by_path, copy = measured(run), measured(run, data="data"), measured(run, data="copy")
    assert by_path == own
    assert copy.path != own.path
    assert copy.found.values == own.found.values
    assert copy.found.notes[-1] == (
        f"Measured on {tmp_path / 'copy'}, which has the run's held-out images (by names and sizes)."
    )


def test_of_a_copy_the_images_for_validation_are_left_out_and_of_others_none(tmp_path: Path) -> None:
    data = make_folders(tmp_path / "data", held_out=6)
    run = run_on(data, tmp_path / "run", "validation.metrics=['l1-diversity']", "validation.every=2")
    shutil.copytree(data, tmp_path / "copy")
    notes = [measured(run, data=path).found.notes[-1] for path in (None, tmp_path / "copy")]
    assert notes[0] == notes[1]
    assert notes[0].startswith("This run keeps 2 of 6 held-out images of domain a")
    other = measured(run, data=other_folders(tmp_path / "other", 3))
    assert not any("validation" in note for note in other.found.notes)


def test_damaged_images_elsewhere_are_all_named(run: Path, tmp_path: Path) -> None:
    """Those that are measured."""
    other = make_folders(tmp_path / "other")
    for place in ("testA/0.png", "testB/2.png", "trainA/0.png"):
        (other / place).write_text("no image")
    with pytest.raises(DataError) as caught:
        measured(run, data=other)
    text = str(caught.value)
    assert text.startswith("2 damaged images:\n")
    assert "testA/0.png: " in text
    assert "testB/2.png: " in text
    assert text.endswith("Repair or remove these files; held-out images cannot be replaced.")


def test_side_by_side_and_shards_have_a_root_too(tmp_path: Path) -> None:
    run = run_on(side_by_side(tmp_path / "pairs"), tmp_path / "run", "data.name=side-by-side")
    assert "pairs2-" in str(measured(run, data=side_by_side(tmp_path / "pairs2")).path)
    tars = run_on(write_tars(tmp_path / "tars"), tmp_path / "other", "data.name=shards")
    assert "Measured on" in measured(tars, data=write_tars(tmp_path / "tars2")).found.notes[-1]


def test_what_does_not_fit_is_said(run: Path, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "named" / "test" / name).mkdir(parents=True)
        save(tmp_path / "named" / "test" / name / "0.png", Image.new("RGB", (66, 66)))
    with pytest.raises(
        RunError, match=r"named do not fit .*: they have domain cat \(3 channels\), domain dog"
    ):
        measured(run, data=tmp_path / "named")
    with pytest.raises(DataError, match=r"root = '.*missing' is not a folder"):
        measured(run, data=tmp_path / "missing")
    text = (run / RESOLVED).read_text()
    start = text.index("[data]")
    (run / RESOLVED).write_text(
        text[:start] + '[data]\nname = "openmoji"\n\n' + text[text.index("\n[", start) :]
    )
    with pytest.raises(RunError, match="its dataset 'openmoji' has no option 'root'"):
        measured(run, data=tmp_path)


def test_compare_says_whose_images_have_changed(run: Path, tmp_path: Path) -> None:
    other = run_on(make_folders(tmp_path / "data 2"), tmp_path / "runs" / "two")
    (tmp_path / "data 2" / "testB" / "0.png").unlink()
    notes = i2ikit.compare([run, other]).notes
    assert (
        "two: The held-out images of domain b differ from those in data.json: 2 files now, 3 then." in notes
    )

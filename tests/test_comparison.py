"""Comparison of runs: one table, one picture, and a word where they must not be compared."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from i2ikit import comparison
from i2ikit.checkpoints import BEST_FILE, save_weights
from i2ikit.cli.main import _guarded, app
from i2ikit.comparison import Comparison, check_page, write_page
from i2ikit.errors import RunError
from i2ikit.recipe import load_recipe
from i2ikit.run import RESOLVED, Run
from i2ikit.runlog import METRICS
from i2ikit.training import new_translator
from tests.image_files import make_folders
from tests.tiny import NARROW, quick_columns, tiny_recipe

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _random_trunks(monkeypatch: pytest.MonkeyPatch, alexnet_file: str, vgg_file: str) -> None:
    """No weights are fetched, and a few inputs are enough."""
    monkeypatch.setattr(comparison, "COLUMNS", quick_columns(alexnet_file, vgg_file))


def compare(folders: list[Path], *, to: str | None, seed: int) -> Comparison:
    """Of runs that are opened now."""
    return comparison.compare([Run(folder) for folder in folders], to=to, seed=seed)


def untrained(root: Path, name: str, data: Path, *overrides: str, steps: int = 3) -> Path:
    """A run of initial weights on paired folders."""
    paired = ("data.name=folders", f'data.root="{data}"', "data.size=64", "data.paired=true")
    if name == "bicyclegan":
        recipe = load_recipe("bicyclegan", [*paired, *NARROW["bicyclegan"], *overrides])
    else:
        recipe = tiny_recipe(data, "data.paired=true", *overrides)
    images = recipe.data().images
    folder = root / name
    folder.mkdir(parents=True)
    (folder / RESOLVED).write_text(recipe.to_toml())
    (folder / METRICS).write_text(
        "".join(json.dumps({"step": 1, "steps_per_s": s}) + "\n" for s in (1, 4, 100))
    )
    save_weights(new_translator(recipe, images).eval(), images, steps, folder)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    data = make_folders(root / "data")
    return [untrained(root, name, data) for name in ("munit", "bicyclegan")]


def test_every_run_has_a_row_with_what_it_reaches_and_costs(runs: list[Path]) -> None:
    found = compare(runs, to=None, seed=0)
    assert [row[0] for row in found.rows] == ["munit", "bicyclegan"]
    munit = dict(zip(found.headings, found.rows[0], strict=True))
    for heading in ("diversity v0.0", "diversity v0.1", "to target v0.1", "best of 20 v0.1"):
        value, _, error = munit[heading].partition(" ± ")
        assert float(value) > 0
        assert float(error) >= 0
    for heading, network, digits in (("VGG-16", "vgg16", 3), ("AlexNet", "alexnet", 1)):
        (report,) = (runs[0] / "eval").glob(f"kid-a2b-seed0*network={network}*.json")
        expected = json.loads(report.read_text())["values"]["kernel_distance"]
        value, _, error = munit[f"kernel distance, {heading}"].partition(" ± ")
        assert float(value) == pytest.approx(expected, abs=0.6 * 10**-digits)
        assert float(error) >= 0
    assert munit["step time"] == "250 ms"
    assert munit["steps"] == "3 x 2"
    assert munit["data"] == "folders 64 px, pairs"
    assert munit["parameters"].endswith(" M")
    assert len(set(found.notes)) == len(found.notes)


def test_the_picture_has_the_input_the_answer_and_samples_of_each_run(runs: list[Path]) -> None:
    picture = compare(runs, to="b", seed=0).picture
    assert picture is not None
    assert picture.size == (2 + 66 * (2 + 2 * comparison.SAMPLES), 2 + 16 + 66 * 3)


def test_what_is_measured_already_is_not_measured_again(runs: list[Path]) -> None:
    first = compare(runs, to="b", seed=1)
    reports = sorted(path for run in runs for path in (run / "eval").glob("*seed1*.json"))
    before = [path.stat().st_mtime_ns for path in reports]
    assert len(reports) >= 6
    again = compare(runs, to="b", seed=1)
    assert [path.stat().st_mtime_ns for path in reports] == before
    assert again.rows == first.rows


def test_a_damaged_report_and_one_of_other_data_are_measured_anew(tmp_path: Path) -> None:
    data, elsewhere = (make_folders(tmp_path / name) for name in ("data", "elsewhere"))
    one, two = (untrained(tmp_path, name, data) for name in ("one", "two"))
    first = compare([one, two], to="b", seed=0)
    half_written = next((one / "eval").glob("line-contrast*.json"))
    half_written.write_text(half_written.read_text()[:40])
    assert compare([one, two], to="b", seed=0).rows == first.rows
    assert json.loads(half_written.read_text())["metric"] == "line-contrast"
    resolved = one / RESOLVED
    resolved.write_text(resolved.read_text().replace(str(data), str(elsewhere)))
    compare([one, two], to="b", seed=0)
    reports = [json.loads(path.read_text()) for path in (one / "eval").glob("*.json")]
    assert {report["data"]["root"] for report in reports} == {str(elsewhere)}


def test_other_weights_are_measured_anew(tmp_path: Path) -> None:
    data = make_folders(tmp_path / "data")
    one, two = (untrained(tmp_path / n, "munit", data) for n in "12")
    before = compare([one, two], to="b", seed=0)
    assert before.rows[0][0] != before.rows[1][0], "folders of one name are told apart by their paths"
    recipe = load_recipe(one / RESOLVED)
    other = new_translator(load_recipe(one / RESOLVED, ["seed=7"]), recipe.data().images).eval()
    save_weights(other, recipe.data().images, 5, one)
    after = compare([one, two], to="b", seed=0)
    assert after.rows[0][1] != before.rows[0][1]
    assert after.rows[1] == before.rows[1]
    assert "These runs were trained on different numbers of images." in after.notes


def test_a_run_that_could_not_be_trained_here_is_compared(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fp16 needs a GPU to train; its weights do not. So does a batch for many processes."""
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(runs[0], elsewhere)
    resolved = elsewhere / RESOLVED
    text = resolved.read_text().replace('precision = "fp32"', 'precision = "fp16"')
    resolved.write_text(re.sub("accumulation = .*", "accumulation = 8", text))
    assert 'precision = "fp16"' in resolved.read_text()
    compare([elsewhere, runs[1]], to=None, seed=0)


def test_runs_on_different_data_are_said_to_be(runs: list[Path], tmp_path: Path) -> None:
    data = make_folders(tmp_path / "data")
    for file in (data / "testA").iterdir():
        Image.new("RGB", (70, 66), "navy").save(file)
    found = compare([runs[0], untrained(tmp_path, "other", data)], to=None, seed=0)
    assert any("different held-out images" in note for note in found.notes)
    assert found.picture is None
    same = compare(runs, to=None, seed=0)
    assert not any("different held-out images" in note for note in same.notes)


def test_what_cannot_be_measured_is_a_dash_and_a_reason(runs: list[Path], tmp_path: Path) -> None:
    data = make_folders(tmp_path / "data")
    unpaired = untrained(tmp_path, "unpaired", data, "data.paired=false")
    found = compare([runs[0], unpaired], to=None, seed=0)
    assert dict(zip(found.headings, found.rows[1], strict=True))["to target v0.1"] == "-"
    assert any("no pairs, so translations cannot be compared" in note for note in found.notes)


def test_runs_that_differ_only_in_their_seed_get_a_row_of_means(tmp_path: Path) -> None:
    """± of a mean is the standard error over runs; a run with other options is not part of it."""
    data = make_folders(tmp_path / "data")
    seeds = [untrained(tmp_path, f"s{n}", data, f"seed={n}") for n in range(3)]
    other = untrained(tmp_path, "other", data, "seed=3", "optimizer.lr=0.5")
    rows = [
        dict(zip(found.headings, row, strict=True))
        for found in [compare([*seeds[:2], other, seeds[2]], to="b", seed=0)]
        for row in found.rows
    ]
    assert [row["run"] for row in rows] == ["s0", "s1", "other", "s2", "mean of s0, s1, s2"]
    single = [float(rows[n]["to target v0.1"].partition(" ± ")[0]) for n in (0, 1, 3)]
    assert len(set(single)) == 3
    mean, _, error = rows[-1]["to target v0.1"].partition(" ± ")
    assert float(mean) == pytest.approx(np.mean(single), abs=2e-4)
    assert float(error) == pytest.approx(np.std(single, ddof=1) / 3**0.5, abs=2e-4)
    assert rows[-1]["steps"] == rows[0]["steps"]


def test_no_mean_is_taken_of_runs_of_other_steps_of_one_seed_or_of_other_first_weights(
    tmp_path: Path,
) -> None:
    data = make_folders(tmp_path / "data")
    short, long = (untrained(tmp_path, f"s{n}", data, f"seed={n}", steps=3 + n) for n in range(2))
    copy = tmp_path / "copy"
    shutil.copytree(short, copy)
    other = untrained(tmp_path, "s2", data, "seed=2")
    started_elsewhere = untrained(tmp_path, "s3", data, "seed=3")
    with (started_elsewhere / RESOLVED).open("a") as file:
        file.write('\n[weights_from]\nrun = "elsewhere"\n')
    assert [row[0] for row in compare([short, long], to="b", seed=0).rows] == ["s0", "s1"]
    assert len(compare([short, copy, other], to="b", seed=0).rows) == 3, "one seed must not count twice"
    assert len(compare([other, started_elsewhere], to="b", seed=0).rows) == 2


def test_a_run_with_validation_and_one_without_are_measured_on_the_images_that_neither_used(
    tmp_path: Path,
) -> None:
    data = make_folders(tmp_path / "data", held_out=9)
    plain = untrained(tmp_path, "plain", data)
    validated = untrained(
        tmp_path, "validated", data, "validation.every=1", 'validation.metrics=["l1-diversity"]'
    )
    found = compare([plain, validated], to="b", seed=0)
    assert found.picture is not None
    assert not any("different held-out images" in note for note in found.notes)
    assert found.rows[0][1:] == found.rows[1][1:], "the weights are the same"
    assert any(re.match(r"plain: Not measured here: 3 of 9 held-out", note) for note in found.notes)
    alone = compare([plain, untrained(tmp_path, "again", data)], to="b", seed=0)
    assert not any("held-out images of domain" in note for note in alone.notes)
    assert alone.rows[0][1:] != found.rows[0][1:], "reports of other images are not reused"


def test_a_measure_that_no_run_has_is_left_out_with_a_note(runs: list[Path], tmp_path: Path) -> None:
    data = make_folders(tmp_path / "data")
    unpaired = [untrained(tmp_path, name, data, "data.paired=false") for name in ("one", "two")]
    found = compare(unpaired, to="b", seed=0)
    assert "to target v0.1" not in found.headings
    assert "diversity v0.1" in found.headings
    assert any(note.startswith("lpips-to-target: ") for note in found.notes)
    assert "halo, excess" not in found.headings
    assert any(note.startswith("region-colour") for note in found.notes)


def test_the_mean_of_a_value_that_is_not_finite_is_not_finite() -> None:
    mean = comparison._mean([(1.0, None), (float("nan"), 0.1)])
    assert mean is not None
    assert all(map(math.isnan, mean))


def test_the_page_is_markdown_with_a_picture_or_one_html_file(runs: list[Path], tmp_path: Path) -> None:
    found = compare(runs, to=None, seed=0)
    write_page(found, tmp_path / "table.md")
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert {line.count("|") for line in lines[:4]} == {len(found.headings) + 1}
    assert "](table.png)" in lines[-1]
    with Image.open(tmp_path / "table.png") as picture:
        assert picture.size == found.picture.size  # type: ignore[union-attr]
    write_page(found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("<tr>") == 3
    assert "data:image/png;base64," in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "table.md", "table.png"]


def test_last_and_best_weights_of_a_run_are_compared(runs: list[Path]) -> None:
    recipe = load_recipe(runs[0] / RESOLVED)
    save_weights(
        new_translator(recipe, recipe.data().images).eval(), recipe.data().images, 2, runs[0], BEST_FILE
    )
    found = comparison.compare([runs[0], runs[0] / BEST_FILE])
    assert [row[0] for row in found.rows] == ["munit", "munit (best)"]
    assert [row[-2] for row in found.rows] == ["3 x 2", "2 x 2"]
    assert found.picture is not None


def test_a_run_twice_and_a_direction_that_one_cannot_do_are_errors(runs: list[Path]) -> None:
    with pytest.raises(RunError, match="given twice"):
        compare([runs[0], runs[0]], to=None, seed=0)
    with pytest.raises(
        RunError, match="/bicyclegan: this translator does not translate from b to a; it translates a to b"
    ):
        compare(runs, to="a", seed=0)


def test_a_page_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"should end with \.md or \.html"):
        check_page(tmp_path / "page.pdf")
    with pytest.raises(RunError, match=r"the folder .* does not exist"):
        check_page(tmp_path / "no" / "page.md")


def test_the_command_prints_the_table_and_where_the_page_is(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(*words: str) -> int:
        return _guarded(lambda: app(["compare", *words], standalone_mode=False))

    page = tmp_path / "page.html"
    assert command(*map(str, runs), "--out", str(page)) == 0
    printed = capsys.readouterr().out
    assert "diversity v0.0" in printed
    assert "munit" in printed
    assert f"Page: {page}" in printed.replace("\n", "")
    assert command(str(runs[0])) == 2
    assert "two or more runs are needed" in capsys.readouterr().err

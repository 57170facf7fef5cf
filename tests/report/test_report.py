"""report.html and results.csv: complete, self-contained, small, and never in the way of training."""

from __future__ import annotations

import csv
import html
import io
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import i2ikit
from i2ikit import loop
from i2ikit.errors import RunError
from i2ikit.report import write_report
from i2ikit.report.writing import results_csv
from i2ikit.runlog import logged
from tests.image_files import make_folders
from tests.report.made_up import USUAL, made_up_run, won_from, write_log, write_samples
from tests.tiny import QUIET, assert_same_training, stopped_at, tiny_recipe

pytestmark = pytest.mark.slow

EARLIER = Path(__file__).parents[1] / "earlier_run"
LIMIT = 5_000_000


class Page(HTMLParser):
    """The text that a reader sees, the addresses that a browser would open, and the data of the scripts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.content = path.read_text("utf-8")
        self.within: list[str] = []
        self.texts: list[str] = []
        self.addresses: list[str] = []
        self.data: dict[str, object] = {}
        self.feed(self.content)
        self.text = re.sub(r"\s+", " ", " ".join(self.texts))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "link", "input", "img", "br"):
            self.within.append(f"{tag}#{dict(attributes).get('id')}")

    def handle_endtag(self, tag: str) -> None:
        while self.within and not self.within.pop().startswith(f"{tag}#"):
            pass

    def handle_data(self, data: str) -> None:
        inside = self.within[-1] if self.within else ""
        if inside in ("script#grids", "script#charts"):
            self.data[inside[7:]] = json.loads(data)
        elif not inside.startswith(("script", "style")):
            self.texts.append(data)


def reported(folder: Path) -> Page:
    return Page(write_report(folder))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps, with samples and checkpoints at each, and a validation."""
    place = tmp_path_factory.mktemp("report")
    options = (
        "training.steps=4",
        "training.checkpoint_every=1",
        "training.sample_every=2",
        "training.keep=9",
        "optimizer.lr=1e-5",
        'validation={every=2, metrics=["l1-diversity"], best="l1-diversity/diversity"}',
    )
    recipe = tiny_recipe(make_folders(place / "data", held_out=6), *options)
    return i2ikit.train(recipe, place / "run", console=QUIET).folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_training_leaves_a_complete_report(trained: Path) -> None:
    """With every part of it."""
    page = Page(trained / "report.html")
    assert "munit on folders; step 4 of 4 (100%)" in page.text
    for part in (
        "Is it learning? image_recon",
        "styles differ by",
        "step 4",
        "Best at step",
        "What differs from recipe.toml",  # the recipe extends none: what overrides changed
        "optimizer.content_encoders.lr 1e-05 0.0008",
        "64 px, unpaired; channels a: 3, b: 3",
        "names and sizes of training files:",
        "pixels of held-out images:",
        " threads), ",
        "torch 2.",
        "From step 0",
    ):
        assert part in page.text
    grids, charts = page.data["grids"], page.data["charts"]
    assert [grid["steps"] for grid in grids] == [[0, 2, 4], [0, 2, 4]]  # type: ignore[attr-defined]
    titles = [chart["title"] for chart in charts]  # type: ignore[attr-defined]
    assert titles[0] == "adversarial"
    assert {"effect of styles (mean difference, 0..1 scale)", "learning rate", "steps per second"} <= {
        *titles
    }
    assert "validation: l1-diversity/diversity" in titles


def test_the_report_opens_no_address(run: Path) -> None:
    """It refers to its own sections and pictures only; a policy forbids the browser anything else."""
    page = reported(run)
    assert page.addresses
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert "default-src 'none'" in page.content
    assert "Copyright (c) 2022 Leon Sorokin" in page.content  # which the licence of uPlot demands
    assert "@import" not in page.content
    assert "url(" not in page.content


def test_names_and_texts_cannot_become_code(run: Path) -> None:
    """A run folder, a recipe and a remark that hold HTML."""
    evil = '</script><script>alert("x")</script>'
    (run / "recipe.toml").write_text(f"# {evil}\n")
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 4, "remark": evil, f"validation/{evil}/x": 1.0}) + "\n")
    moved = run.rename(run.with_name("<img src=x onerror=alert(1)>"))
    page = reported(moved)
    assert page.content.count("</script>") == 4
    assert "alert(1)>" not in page.content.replace(html.escape("<img src=x onerror=alert(1)>"), "")
    assert evil in page.text
    assert "<img src=x onerror=alert(1)>" in page.text


def test_a_report_of_100_000_steps_stays_below_5_mb(tmp_path: Path) -> None:
    """10,000 lines of 30 curves, 200 large grids in two directions."""
    run = made_up_run(tmp_path / "run", 100_000)
    curves = {**USUAL, **{f"generator/more{n}/a": lambda step: 1.2345678 / step for n in range(22)}}
    write_log(run, range(10, 100_001, 10), curves)
    write_samples(run, [500], (660, 544))
    for suffix in ("", "-b2a"):
        for step in range(500, 100_001, 500):
            target = run / f"samples/step-{step:06d}{suffix}.png"
            if not target.exists():
                shutil.copyfile(run / "samples/step-000500.png", target)
    page = reported(run)
    assert len(page.content.encode()) < LIMIT
    assert page.data["charts"][0]["steps"][-1] == 100_000  # type: ignore[index]
    assert all(grid["steps"][-1] == 100_000 for grid in page.data["grids"])  # type: ignore[attr-defined]


def test_the_report_says_what_looks_wrong(tmp_path: Path) -> None:
    """A made-up log of a discriminator that has won at step 600, and of a style that lost its effect."""
    run = made_up_run(tmp_path / "run", 2000)
    styles = [{"step": 500, "diversity/a2b": 0.05}, {"step": 1000, "diversity/a2b": 0.001}]
    write_log(run, range(10, 1001, 10), won_from(600), *styles)
    text = reported(run).text
    assert "The discriminator has been too strong for 3" in text
    assert "(optimizer.discriminators.lr)" in text
    assert "The style has no effect on its translations a2b (0.0010)" in text
    assert "at step 500 they differed by 0.0500" in text
    assert "How much longer? 8 min, at the latest speed" in text
    assert "Nothing looks wrong" not in text


def test_runs_of_earlier_versions_have_a_report_too(tmp_path: Path) -> None:
    """Without sessions, learning rates and a record of the images; also one that was just begun."""
    run = Path(shutil.copytree(EARLIER / "run", tmp_path / "run"))
    page = reported(run)
    assert "trained by a version that did not note them. It began with" in page.text
    assert "training.trackers" not in page.text  # a key that is newer than the run does not count
    assert "There are no samples yet" in page.text
    assert page.data["charts"]
    (run / "metrics.jsonl").unlink()
    shutil.rmtree(run / "checkpoints")
    (run / "weights.safetensors").unlink()
    page = reported(run)
    assert "Nothing is logged yet" in page.text
    assert "step 0 of" in page.text


def test_what_was_measured_is_shown_with_its_notes(run: Path) -> None:
    """A damaged report is left out."""
    list(i2ikit.evaluate(run, "l1-diversity", overrides="l1-diversity.num_inputs=2"))
    (run / "eval" / "broken.json").write_text("{")
    (run / "eval" / "other.json").write_text('{"values": [1]}')
    page = reported(run)
    (file,) = (file for file in (run / "eval").glob("l1*.json"))
    known = json.loads(file.read_text())
    assert "l1-diversity, a2b" in page.text
    assert f"{known['values']['diversity']:.4f}" in page.text
    assert f"{known['values']['real_pairs']:.4f}" in page.text
    assert all(note in page.text for note in known["notes"])
    assert "broken" not in page.text


SESSION: dict[str, Any] = {
    **{key: "said" for key in ("began", "command", "machine", "processes", "precision")},
    "step": 0,
    "versions": {"torch": "2.0"},
    "images": {"size": 64, "channels": {"a": 3}, "counts": {"a": [5, 2]}, "paired": False},
}
DATA: dict[str, Any] = {
    "train": {"a": {"files": 5, "sha256": "abc"}, "b": {"files": 5, "sha256": "abc"}},
    "test": {"a": {"files": 2, "sha256": "abc"}},
    "damaged": {"a": {"x.png": "broken"}},
    "changes": [],
}


@pytest.mark.parametrize("value", [None, True, 7, -1.5, 10**400, "text", [], [1], {}, {"a": 1}, {"a": None}])
def test_damaged_files_leave_their_parts_out(tmp_path: Path, value: object) -> None:
    """One part of sessions.jsonl, data.json and a report of eval has another type."""
    run = made_up_run(tmp_path / "run", 10)
    (run / "eval").mkdir()
    lines = [{**SESSION, key: value} for key in SESSION]
    lines += [{**SESSION, "images": {**SESSION["images"], key: value}} for key in SESSION["images"]]
    (run / "sessions.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in [*lines, value]))
    write_report(run)
    tables = [{**DATA, key: value} for key in DATA]
    tables += [{**DATA, "train": {"a": {**DATA["train"]["a"], key: value}}} for key in ("files", "sha256")]
    for table in tables:
        (run / "data.json").write_text(json.dumps(table))
        (run / "eval" / "one.json").write_text(json.dumps({"metric": "m", "values": {"x": value}, **table}))
        write_report(run)


def test_a_domain_may_be_known_in_part_only(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run", 10)
    (run / "data.json").write_text(json.dumps(DATA))
    files = "names and sizes of training files: abc", "names and sizes of held-out files: abc"
    assert f"a 5 2 {' '.join(files)} b 5 – {files[0]}" in reported(run).text


def test_names_that_are_no_text_do_not_stop_it(tmp_path: Path) -> None:
    """The name of a folder in another encoding, and half a character in a remark."""
    run = made_up_run(tmp_path / "run-\udcff", 10)
    write_log(run, [1], {"a/\ud800": lambda step: 1.0}, {"step": 1, "remark": "half \ud800"})
    assert "Step 1: half ?" in reported(run).text


def test_very_many_and_very_long_parts_are_cut(tmp_path: Path) -> None:
    """Results, commands, remarks and the recipe; links that lead nowhere."""
    run = made_up_run(tmp_path / "run", 10)
    (run / "eval").mkdir()
    found = {"metric": "m", "direction": "a2b", "values": {"x": 1.0}, "notes": [], "seed": 0}
    found |= {"trained": {"step": 1, "sha256": "abc"}, "image_size": 64, "measured": "today"}
    for n in range(300):
        (run / f"eval/{n}.json").write_text(json.dumps(found))
    (run / "eval/loop.json").symlink_to("loop.json")
    os.mkfifo(run / "eval/pipe.json")
    line = json.dumps({**SESSION, "command": 100_000 * "x"}) + "\n"
    (run / "sessions.jsonl").write_text(200 * line)
    write_log(run, [1], {}, *(60 * [{"step": 1, "remark": 100_000 * "y"}]))
    (run / "recipe.toml").write_text("# " + 6_000_000 * "z")
    page = reported(run)
    assert len(page.content) < LIMIT / 2
    assert "100 older results are in eval/" in page.text


def test_differences_are_those_from_the_recipe_that_it_extends(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "run", 7, "optimizer.lr=3e-4")
    text = reported(run).text
    assert "What differs from munit , as that is installed now" in text
    assert "training.steps 7 920" in text
    assert "optimizer.decoders.lr 0.0003 0.0008" in text
    assert "training.ema" not in text.partition("resolved.toml")[0]
    (run / "recipe.toml").write_text('extends = "no-such-recipe"\n')
    assert "It cannot be compared with no-such-recipe here" in reported(run).text
    (run / "recipe.toml").unlink()
    assert "It cannot be compared with recipe.toml here" in reported(run).text


def test_a_resumed_run_is_the_same_and_lists_both_commands(run: Path, tmp_path: Path) -> None:
    """What changed on the way is said."""
    again = stopped_at(run, 2, tmp_path / "again")
    i2ikit.resume(again, console=QUIET)
    assert_same_training(run, again)
    assert results_without_times(run) == results_without_times(again)
    text = Page(again / "report.html").text
    assert "From step 2" in text
    assert "From step 0" in text
    i2ikit.resume(again, "training.steps=5", console=QUIET)
    assert "Changed after step 4: training.steps: 4 → 5" in Page(again / "report.html").text


def results_without_times(run: Path) -> list[dict[str, str]]:
    rows = list(csv.DictReader(io.StringIO((run / "results.csv").read_text())))
    return [{k: v for k, v in row.items() if k not in ("elapsed_s", "steps_per_s")} for row in rows]


def test_a_run_that_still_trains_has_a_report_of_its_latest_samples(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read before each step is done."""
    run, seen, original = tmp_path / "run", [], loop.update_ema

    def watched(*arguments: Any) -> None:
        seen.append(Page(run / "report.html").text)
        original(*arguments)

    monkeypatch.setattr(loop, "update_ema", watched)
    i2ikit.train(tiny_recipe(folders, "training.steps=3", "training.sample_every=1"), run, console=QUIET)
    assert [f"step {n} of 3" in text for n, text in enumerate(seen)] == [True, True, True]


def test_one_row_for_each_logged_step() -> None:
    """Losses, diversity and validation of a step in one row; empty without a value, nan if not finite."""
    lines = [
        {"step": 0, "diversity/a2b": 0.5},
        {"step": 2, "validation/m/x": 0.25},
        {"step": 2, "elapsed_s": 1.5, "steps_per_s": 2.0, "generator/kl": None},
        {"step": 2, "remark": "text, with a comma"},
        {"step": 3, "remark": "alone"},
        {"step": 4, "elapsed_s": 2.5, "steps_per_s": 2.0, "generator/kl": 7.0},
    ]
    assert results_csv(lines).splitlines() == [
        "step,diversity/a2b,validation/m/x,elapsed_s,steps_per_s,generator/kl",
        "0,0.5,,,,",
        "2,,0.25,1.5,2.0,nan",
        "4,,,2.5,2.0,7.0",
    ]
    assert results_csv([]) == "step\n"


def test_the_table_has_the_numbers_of_the_log(trained: Path) -> None:
    rows = list(csv.DictReader(io.StringIO((trained / "results.csv").read_text())))
    steps = sorted({line["step"] for line in logged(trained)})
    assert [int(row["step"]) for row in rows] == steps
    for line in logged(trained):
        row = rows[steps.index(line["step"])]
        assert all(float(row[key]) == value for key, value in line.items() if isinstance(value, float))


def test_a_report_that_cannot_be_written_is_an_error_with_its_name(run: Path) -> None:
    (run / "report.html").unlink()
    (run / "report.html").mkdir()
    with pytest.raises(RunError, match=r"cannot write .*report\.html"):
        write_report(run)


def test_the_commands(run: Path) -> None:
    """`report` writes it anew, `status` says the same in words; both also by the name of the folder alone."""
    (run / "report.html").unlink()

    def said(*words: str) -> str:
        command = [sys.executable, "-m", "i2ikit", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=run.parent).stdout

    assert said("report", "run") == "Report: run/report.html\n"
    assert (run / "report.html").is_file()
    assert said("status", "run").startswith("run\n  done: 4 steps\n  image_recon")

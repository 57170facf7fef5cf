"""Compare runs: a table of results and costs, and a picture of their translations of the same inputs."""

from __future__ import annotations

import base64
import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from i2ikit.data.dataset import Dataset
from i2ikit.data.record import held_out_pixels
from i2ikit.errors import RunError
from i2ikit.evaluation import evaluate
from i2ikit.metrics.subject import Measured, Subject
from i2ikit.report.page import page
from i2ikit.run import Run, open_run
from i2ikit.runlog import logged
from i2ikit.sampling import distinct_test_indices, pictures, png, sheet
from i2ikit.translator import Direction, chosen_direction
from i2ikit.writing import check_writable, replace_file

__all__ = ["Column", "Comparison", "check_page", "compare", "write_page"]

ROWS = 6
SAMPLES = 3
PIXELS_WIDE = 2400


@dataclass(frozen=True)
class Column:
    """One column of the table: its heading, and the source of its numbers.

    Args:
        metric, value: the metric, and the name of the value in its report.
        digits: number of decimals.
        options: options of the metric, as for `evaluate`.
    """

    heading: str
    metric: str
    value: str
    digits: int = 4
    options: Sequence[str] = ()


COLUMNS = (
    Column("diversity v0.0", "lpips-diversity", "LPIPS v0.0/diversity"),
    Column("diversity v0.1", "lpips-diversity", "LPIPS v0.1/diversity"),
    Column("to target v0.1", "lpips-to-target", "LPIPS v0.1/mean"),
    Column("best of 20 v0.1", "lpips-to-target", "LPIPS v0.1/best_of_20"),
    Column("kernel distance, VGG-16", "kid", "kernel_distance", 3, ["kid.network=vgg16"]),
    Column("kernel distance, AlexNet", "kid", "kernel_distance", 1, ["kid.network=alexnet"]),
    Column("lines kept", "line-contrast", "kept", 3),
    Column("halo, excess", "region-colour", "halo/excess"),
    Column("blotches, excess", "region-colour", "blotches/excess"),
)
"""Kernel distances use networks whose weights are available wherever LPIPS's are, unlike Inception's."""

Cell = tuple[float, float | None]
"""A value, and its standard error if it has one."""


@dataclass(frozen=True)
class Comparison:
    """The comparison of several runs.

    Args:
        names: names of the runs.
        headings: headings of the columns; one of a measure that no run has is left out.
        rows: one row of cells for each run, then one with the means of runs that differ only in their seed.
        notes: remarks that qualify the table.
        picture: inputs in rows, runs in columns; None if the runs have different inputs.
    """

    names: Sequence[str]
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]
    picture: Image.Image | None


@torch.no_grad()
def compare(
    runs: Sequence[Run | str | Path],
    *,
    to: str | None = None,
    source: str | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Measure runs in the same way (reusing their reports), and compare them.

    Args:
        runs: two or more runs, or their folders.
        to: the domain to translate into.
        source: the domain of the inputs. If one or both are None, the first direction of the first run's
            translator that fits is used.
        seed: seed for choosing inputs, styles and pairs.
        progress: called with a message when the measurement of a run starts.

    Raises:
        RunError: a run cannot be loaded, does not translate in this direction, or is given twice.
    """
    if isinstance(runs, str | Path):
        raise RunError("only one run was given; two or more can be compared")
    opened = [open_run(run) for run in runs]
    if len({(run.folder.resolve(), run.best) for run in opened}) < len(opened):
        raise RunError("a run is given twice")
    names = _names(opened)
    direction = _direction(opened[0], source, to)
    for run in opened[1:]:
        _direction(run, *direction)
    facts = [_facts(run) for run in opened]
    spare = any(run.validated for run in opened) and _equal([run.dataset() for run in opened])
    measured: list[list[Cell | None]] = []
    concerned: dict[str, list[str]] = {}
    for name, run in zip(names, opened, strict=True):
        progress(f"measuring {name}")
        cells, found = _measured(run, direction, seed, spare)
        measured.append(cells)
        for note in dict.fromkeys([*found, *run.notes]):
            concerned.setdefault(note, []).append(name)
    notes = [f"Direction {direction}, seed {seed}; ± is the standard error over inputs."]
    labels = [*names]
    for alike in _repeated(opened):
        labels.append(f"mean of {', '.join(names[n] for n in alike)}")
        measured.append([_mean(cells) for cells in zip(*(measured[n] for n in alike), strict=True)])
        facts.append(tuple(_common(texts) for texts in zip(*(facts[n] for n in alike), strict=True)))
    if len(labels) > len(names):
        notes.append("Runs of one mean differ only in their seed; ± is then the standard error over runs.")
    for note, some in concerned.items():
        notes.append(note if len(some) == len(opened) else f"{', '.join(some)}: {note}")
    if len({run.step * run.recipe.training.batch_size for run in opened}) > 1:
        notes.append("These runs were trained on different numbers of images.")
    data = [run.evaluation_data(spare_validation=spare) for run in opened]
    same = _equal(data)
    if not same:
        notes.append(
            "These runs have different held-out images: do not compare their numbers; the picture is omitted."
        )
    picture = _picture(names, opened, data[0], direction, seed) if same else None
    shown = [n for n in range(len(COLUMNS)) if any(cells[n] is not None for cells in measured)]
    headings = ["run", *(COLUMNS[n].heading for n in shown), "parameters", "step time", "steps", "data"]
    rows = [
        [name, *(_text(cells[n], COLUMNS[n].digits) for n in shown), *known]
        for name, cells, known in zip(labels, measured, facts, strict=True)
    ]
    return Comparison(names, headings, rows, notes, picture)


def _equal(data: Sequence[Dataset]) -> bool:
    """Whether all have the same held-out images."""
    return len({frozenset(held_out_pixels(each).items()) for each in data}) == 1


def _repeated(runs: Sequence[Run]) -> list[list[int]]:
    """The positions of runs that differ in their seeds and in nothing else, for each group of two or more."""
    alike: dict[str, list[int]] = {}
    for n, run in enumerate(runs):
        options = {name: value for name, value in run.recipe.flat().items() if name != "seed"}
        facts = json.dumps([options, run.origin, run.step, run.best], sort_keys=True, default=str)
        alike.setdefault(facts, []).append(n)
    return [found for found in alike.values() if 1 < len(found) == len({runs[n].recipe.seed for n in found})]


def _mean(cells: Sequence[Cell | None]) -> Cell | None:
    """Mean over runs and its standard error; None if a run has no value."""
    values = [cell[0] for cell in cells if cell is not None]
    if len(values) < len(cells):
        return None
    of_runs = torch.tensor(values, dtype=torch.float64)  # statistics.stdev fails on NaN
    return of_runs.mean().item(), of_runs.std().item() / math.sqrt(len(values))


def _common(texts: Sequence[str]) -> str:
    """The text that all runs have in common, else a dash."""
    return texts[0] if len(set(texts)) == 1 else "-"


def _text(cell: Cell | None, digits: int) -> str:
    if cell is None:
        return "-"
    value, error = round(cell[0], digits) + 0.0, cell[1]  # + 0.0 makes -0.0 a plain zero
    return f"{value:.{digits}f}" if error is None else f"{value:.{digits}f} ± {error:.{digits}f}"


def _names(runs: Sequence[Run]) -> list[str]:
    """The names of the folders, or their whole paths if two names are equal; says which are best weights."""
    names = [run.folder.resolve().name + " (best)" * run.best for run in runs]
    if len(set(names)) < len(names):
        names = [str(run.folder) + " (best)" * run.best for run in runs]
    return names


def _direction(run: Run, source: str | None, to: str | None) -> Direction:
    """The run's first direction with this source and target; an error names the run."""
    translator = run.translator
    try:
        return chosen_direction(translator, source, to)
    except RunError as error:
        raise RunError(f"{run.folder}: {error}") from error


def _facts(run: Run) -> tuple[str, ...]:
    """Parameters, step time, training steps and data of a run."""
    translator, data = run.translator, run.dataset()
    parameters = sum(
        p.numel() for role in translator.generative for p in translator.networks[role].parameters()
    )
    pairs = "pairs" if data.paired else "unpaired"
    return (
        f"{parameters / 1e6:.2f} M",
        _step_time(run),
        f"{run.step} x {run.recipe.training.batch_size}",
        f"{run.data.name} {data.images.size} px, {pairs}",
    )


def _step_time(run: Run) -> str:
    """The median over the run's log, which ignores pauses."""
    logged_speeds = (line.get("steps_per_s") for line in logged(run.folder))
    speeds = [speed for speed in logged_speeds if isinstance(speed, int | float) and 0 < speed < math.inf]
    return f"{1000 / statistics.median(speeds):.0f} ms" if speeds else "-"


def _measured(
    run: Run, direction: Direction, seed: int, spare_validation: bool
) -> tuple[list[Cell | None], list[str]]:
    """The cells of one run, one for each of COLUMNS, and the notes on them."""
    source, to = direction
    reports: dict[tuple[str, ...], Measured | str] = {}
    cells: list[Cell | None] = []
    notes = []
    for column in COLUMNS:
        asked = (column.metric, *column.options)
        if asked not in reports:
            (finding,) = evaluate(
                run,
                column.metric,
                to=to,
                source=source,
                seed=seed,
                overrides=column.options,
                strict=False,
                reuse=True,
                spare_validation=spare_validation,
            )
            reports[asked] = finding.found
        found = reports[asked]
        if isinstance(found, str):
            cells.append(None)
            notes.append(f"{column.metric}: {found}")
        elif column.value in found.values:
            cells.append((found.values[column.value], found.values.get(f"{column.value}_se")))
            notes += found.notes
        else:
            cells.append(None)
            notes.append(f"{column.metric} gives no '{column.value}' for this run on these images.")
    return cells, notes


def _picture(
    names: Sequence[str], runs: Sequence[Run], data: Dataset, direction: Direction, seed: int
) -> Image.Image:
    """Inputs in rows; columns: the input, its real target if there is one, and samples of each run."""
    source, to = direction
    indices = distinct_test_indices(data, source, ROWS, seed)
    samples = max(2, min(SAMPLES, PIXELS_WIDE // (data.images.size * len(runs))))
    inputs = torch.stack([data.image("test", source, index) for index in indices])
    columns = [("input", pictures(data, inputs, source))]
    if data.aligned:
        targets = torch.stack([data.image("test", to, index) for index in indices])
        columns.append(("target", pictures(data, targets, to)))
    for name, run in zip(names, runs, strict=True):
        subject = Subject(run.translator, data, direction, seed)
        each = 1 if run.translator.is_deterministic(to) else samples
        made = torch.stack([subject.case(index, each).outputs for index in indices], dim=1)
        columns += [(name, pictures(data, outputs, to)) for outputs in made]
    return sheet(columns)


def check_page(path: Path) -> None:
    """Check that a page can be written, before the runs are measured.

    Raises:
        RunError: the path does not end with .md or .html, or its folder is missing or read-only.
    """
    if path.suffix not in (".md", ".html"):
        raise RunError(f"--out {path}: should end with .md or .html")
    if not path.parent.is_dir():
        raise RunError(f"--out {path}: the folder {path.parent} does not exist; create it first")
    if path.is_dir():
        raise RunError(f"--out {path}: is a folder; give the name of a file in it")
    check_writable(path.parent)


def write_page(comparison: Comparison, path: Path) -> None:
    """Write the table, its notes and the picture: Markdown with a PNG beside it, or one HTML file.

    Args:
        path: a path that passes `check_page`.

    Raises:
        RunError: it cannot be written.
    """
    if path.suffix == ".md":
        if comparison.picture is not None:
            replace_file(path.with_suffix(".png"), png(comparison.picture))
        replace_file(path, _markdown(comparison, path.with_suffix(".png").name).encode())
    else:
        replace_file(path, _html(comparison).encode())


def _markdown(comparison: Comparison, picture: str) -> str:
    lines = [comparison.headings, ["---"] * len(comparison.headings), *comparison.rows]
    table = "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )
    notes = "\n".join(f"- {note}" for note in comparison.notes)
    shown = f"\n![Held-out inputs and their translations]({picture})\n" if comparison.picture else ""
    return f"{table}\n\n{notes}\n{shown}"


def _html(comparison: Comparison) -> str:
    picture = None if comparison.picture is None else base64.b64encode(png(comparison.picture)).decode()
    return page("comparison.html", **{**vars(comparison), "picture": picture})

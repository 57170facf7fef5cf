"""The commands about finished runs: `translate`, `eval` and `compare`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from i2ikit.cli.options import (
    DeviceOption,
    FromOption,
    PrecisionOption,
    RunOption,
    ToOption,
    complain,
    console,
    given_path,
    one_voice,
)
from i2ikit.errors import RunError

if TYPE_CHECKING:
    from i2ikit.evaluation import Finding
    from i2ikit.metrics.subject import Measured
    from i2ikit.model import Model
    from i2ikit.run import Run

__all__ = ["compare", "eval_", "translate"]

MOST_LISTED = 10


def translate(
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="[RUN] IMAGE...",
            parser=given_path,
            help="Run folder or exported .onnx file (default: newest run in ./runs); images or folders of "
            "images.",
        ),
    ],
    styles: Annotated[int, typer.Option(min=1, max=1000, help="Number of random styles.")] = 8,
    style_from: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="EXEMPLAR",
            parser=given_path,
            help="Use this image's style instead of random styles; repeatable.",
        ),
    ] = None,
    from_: FromOption = None,
    to: ToOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed for the random styles.")] = 0,
    device: DeviceOption = None,
    precision: PrecisionOption = "fp32",
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            parser=given_path,
            help="Output folder (default: translations in RUN, or beside the .onnx file).",
        ),
    ] = None,
) -> None:
    """Translate images: one output image per style, and a sheet with all of them.

    Of a folder, its images are translated, without those in sub-folders.

    An image that cannot be read is named, and the others are translated; the exit code is 1 then.

    The same command replaces its own results; no other file is replaced. translations.jsonl lists what each
    file shows.
    """
    from i2ikit.exchange.hub import address_of
    from i2ikit.pretrained.cache import progress_over
    from i2ikit.translation import Refused, input_files, translate_files

    given = _model_among(images)
    images = images if given is None else images[1:]
    if not images:
        raise RunError("no image given: i2ikit translate [RUN] IMAGE...")
    model = _opened(given, device)
    home = model.path if model.path.is_dir() else model.path.parent
    if given is not None and address_of(given):
        home = Path()  # the run is in a cache
    target = home / "translations" if out is None else out
    sheets: list[Path] = []
    count = 0
    files, refused = input_files(model, images, from_, to, target)
    for each in refused:
        complain(each.reason)
    if not files:
        raise typer.Exit(2)
    try:
        made = translate_files(model, files, styles, style_from or [], from_, to, seed, target, precision)
        for found in progress_over(made, len(files), "Translating") if len(files) > 1 else made:
            if isinstance(found, Refused):
                refused.append(found)
                complain(found.reason)
            else:
                sheets.append(found.sheet)
                count += len(found.files)
    except KeyboardInterrupt:
        console.print("Stopped.", end=" " if sheets else "\n")
        raise typer.Exit(130) from None
    finally:
        if sheets:
            _print_made(sheets, count, model.path, target)
    if refused:
        if sheets:
            complain(f"{_number(len(refused), 'input')} could not be translated, see above")
        raise typer.Exit(1 if sheets else 2)


def _opened(given: Path | None, device: str | None) -> Model:
    """The model of a run, whose notes are printed, or of an exported file."""
    from i2ikit.loading import load
    from i2ikit.model import Model

    found = load(given, device)
    if isinstance(found, Model):
        return found
    model = found.model
    _print_notes(found)
    return model


def _model_among(images: list[Path]) -> Path | None:
    """The run or the exported file, if the first path is one.

    Raises:
        RunError: it is none, and no image.
    """
    from i2ikit.data.reading import ARRAY_ENDING, IMAGE_ENDINGS
    from i2ikit.exchange.hub import address_of
    from i2ikit.run import find_run, is_run

    first = images[0]
    if is_run(first) or first.suffix.lower() in (".safetensors", ".onnx") or address_of(first):
        return first
    if not os.path.lexists(first) and first.suffix.lower() not in (*IMAGE_ENDINGS, ARRAY_ENDING):
        find_run(first)  # raises, and says which runs have a similar name
    return None


def _print_made(sheets: list[Path], count: int, model: Path, out: Path) -> None:
    """Say what was translated, and list the sheets if they are few."""
    made = f"{_number(count, 'translation')} and {_number(len(sheets), 'sheet')}"
    text = f"Translated {_number(len(sheets), 'image')} with {model}: {made} in {out}"
    listed = [f"  {sheet}" for sheet in sheets] if len(sheets) <= MOST_LISTED else []
    for line in (text, *listed):
        console.print(escape(line), highlight=False, soft_wrap=True)


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def eval_(
    run: RunOption = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Metric (see `i2ikit list metrics`); repeatable (default: the standard metrics)."),
    ] = None,
    from_: FromOption = None,
    to: ToOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed for choosing inputs, styles and pairs.")] = 0,
    device: DeviceOption = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            parser=given_path,
            help="Measure the held-out images in this folder instead: a value for data.root.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="METRIC.OPTION=VALUE",
            help="Set a metric's option, such as lpips-diversity.protocol=bicyclegan; repeatable.",
        ),
    ] = None,
) -> None:
    """Evaluate a run on held-out images; results are saved in RUN/eval/.

    RUN/best.safetensors in place of RUN evaluates its best weights.
    """
    from i2ikit.evaluation import evaluate
    from i2ikit.processes import processes
    from i2ikit.run import open_run

    options: dict[str, Any] = {"to": to, "source": from_, "seed": seed, "data": data}
    with processes() as group, one_voice(group), _kept("reports that were saved before are kept"):
        opened = open_run(run, device)
        _print_notes(opened)
        for finding in evaluate(opened, metric or None, overrides=set_ or [], **options):
            _print_finding(finding, seed)


@contextlib.contextmanager
def _kept(what: str) -> Iterator[None]:
    """Say what is kept if Ctrl-C ends the block."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.add_note(what)
        raise


def _print_finding(finding: Finding, seed: int) -> None:
    console.print(f"[bold]{escape(finding.metric)}[/]  ({finding.direction}, seed {seed})", highlight=False)
    _print_found(finding.found)
    if finding.path is not None:
        console.print(f"  Saved as {escape(str(finding.path))}", highlight=False, soft_wrap=True)
    console.print()


def _print_notes(run: Run) -> None:
    for note in run.notes:
        console.print(f"[yellow]note:[/] {escape(note)}", highlight=False, soft_wrap=True)


def _print_found(found: Measured | str) -> None:
    """Print a metric's values (keys `row/column` become a table) and its notes."""
    if isinstance(found, str):
        console.print(f"  {escape(found)}", highlight=False, soft_wrap=True)
        return
    rows: dict[str, dict[str, str]] = {}
    for key, value in found.values.items():
        row, _, column = key.rpartition("/")
        error = found.values.get(f"{key}_se")
        if not key.endswith("_se"):
            text = f"{value:.4f}" if error is None else f"{value:.4f} ± {error:.4f}"
            rows.setdefault(row or column, {})[column if row else ""] = text
    columns = dict.fromkeys(column for row in rows.values() for column in row)
    headings = [column.replace("_", " ") for column in columns]
    wrapped = (Column(heading, overflow="fold") for heading in ("", *headings))
    table = Table(*wrapped, box=None, padding=(0, 2), header_style="", show_header=any(columns))
    for name, cells in rows.items():
        table.add_row(name, *(cells.get(column, "") for column in columns))
    console.print(table)
    for note in found.notes:
        console.print(f"  {escape(note)}", highlight=False, soft_wrap=True)


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN", parser=given_path, help="Two or more run folders.")
    ],
    from_: FromOption = None,
    to: ToOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed for choosing inputs, styles and pairs.")] = 0,
    device: DeviceOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="PAGE",
            parser=given_path,
            help="Also write the table and a picture to PAGE.html or PAGE.md.",
        ),
    ] = None,
) -> None:
    """Evaluate runs on the same inputs and show them in one table; --out adds their translations."""
    from i2ikit.comparison import check_page, write_page
    from i2ikit.comparison import compare as compare_runs
    from i2ikit.processes import processes
    from i2ikit.run import open_run

    if len(runs) < 2:
        raise RunError("two or more runs are needed: i2ikit compare RUN RUN...")
    if out is not None:
        check_page(out)
    kept = "reports that were saved before are kept, and the same command goes on with them"
    with processes() as group, one_voice(group), _kept(kept):
        comparison = compare_runs(
            [open_run(run, device) for run in runs],
            to=to,
            source=from_,
            seed=seed,
            progress=lambda text: console.print(escape(text), highlight=False),
        )
    if not group.is_main:
        return
    table = Table(*comparison.headings, box=None, padding=(0, 1), header_style="")
    for row in comparison.rows:
        table.add_row(*map(escape, row))
    # A pipe has no width: do not wrap its lines.
    wide = console if console.is_terminal else Console(width=240)
    wide.print(table)
    for note in comparison.notes:
        console.print(f"  {escape(note)}", highlight=False, soft_wrap=True)
    if out is not None:
        write_page(comparison, out)
        console.print(f"Page: {escape(str(out))}", highlight=False, soft_wrap=True)
    else:
        console.print("Add --out compare.html for a page with the pictures.", highlight=False)

"""The commands about finished runs: `translate`, `eval` and `compare`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
from i2ikit.terminal import progress_bar

if TYPE_CHECKING:
    from i2ikit.evaluation import Finding
    from i2ikit.inputs import Refused
    from i2ikit.metrics.subject import Measured
    from i2ikit.model import Model
    from i2ikit.run import Run
    from i2ikit.translation import ContactPage, Translated

__all__ = ["compare", "eval_", "translate"]

MOST_LISTED = 10


def translate(
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="[RUN] IMAGE...",
            parser=given_path,
            help="Run folder or exported .onnx file (default: newest run in ./runs); images, folders of "
            "images, or quoted patterns such as 'photos/**/*.png'.",
        ),
    ],
    styles: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="Number of random styles (default: 8; 2 with --interpolate)."),
    ] = None,
    style_from: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="EXEMPLAR",
            parser=given_path,
            help="Use this image's style instead of random styles; repeatable.",
        ),
    ] = None,
    codes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", parser=given_path, help="Use the style codes in this .safetensors or .npy file."
        ),
    ] = None,
    save_codes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            parser=given_path,
            help="Save the style codes as .safetensors or .npy for --codes.",
        ),
    ] = None,
    interpolate: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=2,
            max=1000,
            help="Go from each style to the next in N pictures: a strip and an animation of each image.",
        ),
    ] = None,
    from_: FromOption = None,
    to: ToOption = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed for the random styles (default: 0).")] = None,
    size: Annotated[
        str,
        typer.Option(
            metavar="trained|original|N",
            help="Resize the shorter side to the training size or to N pixels, or keep the image's size.",
        ),
    ] = "trained",
    device: DeviceOption = None,
    precision: PrecisionOption = "fp32",
    format_: Annotated[
        Literal["png", "jpg", "webp"] | None,
        typer.Option("--format", help="Format of the translations (default: png)."),
    ] = None,
    contact_sheet: Annotated[
        bool, typer.Option("--contact-sheet", help="Also write pages with thumbnails of all images.")
    ] = False,
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

    The same command replaces its own results; no other file is replaced. translations.jsonl is an index.
    """
    from i2ikit.exchange.hub import address_of
    from i2ikit.inputs import input_files
    from i2ikit.styles import check_saved, chosen_styles, save_styles
    from i2ikit.translation import num_translations, translate_files

    chosen_size = _size(size)
    given = _model_among(images)
    images = images if given is None else images[1:]
    if not images:
        raise RunError("no image given: i2ikit translate [RUN] IMAGE...")
    model = _opened(given, device)
    home = model.path if model.path.is_dir() else model.path.parent
    if given is not None and address_of(given):
        home = Path()  # the run is in a cache
    target = home / "translations" if out is None else out
    chosen = chosen_styles(
        model, count=styles, seed=seed, exemplars=style_from or [], codes=codes, source=from_, to=to,
        interpolated=interpolate is not None,
    )  # fmt: skip
    for note in chosen.notes:
        _print_note(note)
    if save_codes is not None:
        check_saved(chosen, save_codes)
    files, refused = input_files(model, images, from_, to, target)
    for each in refused:
        complain(each.reason)
    if not files:
        raise typer.Exit(2)
    done = _Done(model.path, target, interpolate is not None, len(refused))
    try:
        with progress_bar(len(files) * num_translations(chosen, interpolate), "Translating") as progress:
            results = translate_files(
                model, files, chosen, target, interpolate=interpolate, size=chosen_size, image_format=format_,
                contact_sheet=contact_sheet, precision=precision, progress=progress,
            )  # fmt: skip
            if save_codes is not None:
                save_styles(chosen, save_codes)
            for found in results:
                done.add(found)
    except KeyboardInterrupt:
        console.print("Stopped.", end=" " if done.sheets else "\n")
        raise typer.Exit(130) from None
    finally:
        done.print()
    if save_codes is not None:
        _say(f"Style codes: {save_codes}")
    if done.refused:
        if done.sheets:
            complain(f"{_number(done.refused, 'input')} could not be translated, see above")
        raise typer.Exit(1 if done.sheets else 2)


def _size(text: str) -> Any:
    """The option --size: a number, or a word that the model checks."""
    return int(text) if text.isascii() and text.isdigit() else text


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
    from i2ikit.inputs import is_pattern
    from i2ikit.run import find_run, is_run

    first = images[0]
    if is_run(first) or first.suffix.lower() in (".safetensors", ".onnx") or address_of(first):
        return first
    if is_pattern(first):
        return None
    if not os.path.lexists(first) and first.suffix.lower() not in (*IMAGE_ENDINGS, ARRAY_ENDING):
        find_run(first)  # raises, and says which runs have a similar name
    return None


@dataclass
class _Done:
    """What `translate` has made so far.

    Args:
        model, out: the run or the file, and the output folder.
        interpolated: whether images become strips and animations.
        refused: number of inputs that could not be translated.
        sheets: a sheet, or a strip, of each image.
        listed: the sheets; or the strips and the animations.
        count: number of translations, or of animations.
        pages: of the contact sheet.
    """

    model: Path
    out: Path
    interpolated: bool
    refused: int
    sheets: list[Path] = field(default_factory=list)
    listed: list[Path] = field(default_factory=list)
    count: int = 0
    pages: list[Path] = field(default_factory=list)

    def add(self, found: Translated | Refused | ContactPage) -> None:
        """Count what was made of an image, or name what is wrong with it."""
        from i2ikit.inputs import Refused
        from i2ikit.translation import ContactPage

        if isinstance(found, Refused):
            self.refused += 1
            complain(found.reason)
        elif isinstance(found, ContactPage):
            self.pages.append(found.file)
        else:
            self.sheets.append(found.sheet)
            self.listed += [found.sheet, *(found.files if self.interpolated else ())]
            self.count += len(found.files)

    def print(self) -> None:
        """Say what was made, and list the sheets if they are few."""
        if not self.sheets:
            return
        names = ("animation", "strip") if self.interpolated else ("translation", "sheet")
        made = f"{_number(self.count, names[0])} and {_number(len(self.sheets), names[1])}"
        _say(f"Translated {_number(len(self.sheets), 'image')} with {self.model}: {made} in {self.out}")
        for file in self.listed if len(self.sheets) <= MOST_LISTED else []:
            _say(f"  {file}")
        if self.pages:
            more = f" and {_number(len(self.pages) - 1, 'more page')}" if len(self.pages) > 1 else ""
            _say(f"Contact sheet: {self.pages[0]}{more}")


def _say(text: str) -> None:
    console.print(escape(text), highlight=False, soft_wrap=True)


def _print_note(note: str) -> None:
    console.print(f"[yellow]note:[/] {escape(note)}", highlight=False, soft_wrap=True)


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
        _print_note(note)


def _print_found(found: Measured | str) -> None:
    """Print a metric's values (keys `row/column` become a table) and its notes."""
    from i2ikit.metrics.tables import value_table

    if isinstance(found, str):
        console.print(f"  {escape(found)}", highlight=False, soft_wrap=True)
        return
    shown = value_table(found.values)
    wrapped = (Column(heading, overflow="fold") for heading in ("", *shown.headings))
    table = Table(*wrapped, box=None, padding=(0, 2), header_style="", show_header=any(shown.headings))
    for name, cells in shown.rows.items():
        table.add_row(name, *cells)
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
        if group.count > 1:
            raise RunError("compare measures with one process: start it without torchrun")
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
    wide = console if console.is_terminal else Console(width=10_000)
    wide.print(table)
    for note in comparison.notes:
        console.print(f"  {escape(note)}", highlight=False, soft_wrap=True)
    if out is not None:
        write_page(comparison, out)
        console.print(f"Page: {escape(str(out))}", highlight=False, soft_wrap=True)
    else:
        console.print("Add --out compare.html for a page with the pictures.", highlight=False)

"""The `i2ikit` command. Each command calls one function; torch is imported only where it is used.

Exit codes: 0 done; 2 a message that says what to change; 130 stopped by Ctrl-C, 143 by SIGTERM, both
after saving. Of several processes only the first one speaks, but for errors.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import i2ikit
from i2ikit.cli.packages import doctor, list_, new_plugin, show
from i2ikit.errors import I2IKitError, ProcessError, RunError

if TYPE_CHECKING:
    from i2ikit.data.dataset import Dataset
    from i2ikit.metrics.subject import Measured
    from i2ikit.processes import Processes
    from i2ikit.recipe import Recipe
    from i2ikit.training import Stopped

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    help="Train networks that turn one image into many plausible images of another domain.\n\n"
    "Start with [bold]i2ikit run munit[/].",
)
console = Console()
_debug = False


class Domain(StrEnum):
    """One of the two domains."""

    a = "a"
    b = "b"


class Precision(StrEnum):
    """What the networks compute in; weights and losses stay fp32."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


RunOption = Annotated[
    Path | None, typer.Argument(metavar="[RUN]", help="Run folder; the newest below ./runs if not given.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the recipe; repeat it."),
]
ToOption = Annotated[
    Domain | None, typer.Option(help="The domain to translate into; b if not given, where the method can.")
]


def _print_version(asked: bool) -> None:
    if asked:
        console.print(f"i2ikit {i2ikit.__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    global _debug
    _debug = debug


@app.command()
def run(
    recipe: Annotated[
        str, typer.Argument(help="A recipe file, one that ships (munit), or one of a package (PACKAGE/NAME).")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="RUN_DIR", help="Run folder; runs/<recipe>-<time> if not given.")
    ] = None,
    precision: Annotated[
        Precision | None, typer.Option(help="Short for --set training.precision=...; fp16 needs a GPU.")
    ] = None,
    set_: SetOption = None,
) -> None:
    """Train what a recipe describes, in a new run folder.

    Several processes: torchrun --standalone --nproc_per_node N -m i2ikit run ...
    """
    from i2ikit.processes import processes
    from i2ikit.recipe import find_recipe, load_recipe
    from i2ikit.runs import RESOLVED, create_run

    overrides = [*(set_ or []), *([f"training.precision={precision}"] if precision else [])]
    started = time.perf_counter()
    with processes() as group, _one_voice(group):
        loaded = load_recipe(recipe, overrides, group.count)
        data = _load_data(loaded, group)

        def make_folder() -> Path:
            folder = create_run(out, loaded.name)
            shutil.copyfile(find_recipe(recipe), folder / "recipe.toml")
            (folder / RESOLVED).write_text(loaded.to_toml(), "utf-8")
            return folder

        folder = group.on_main(make_folder)
        stopped = _train(loaded, data, folder, group, resume=False)
    _farewell(stopped, folder, time.perf_counter() - started, group.is_main)


@app.command()
def resume(run: RunOption = None) -> None:
    """Continue a run from its newest checkpoint."""
    from i2ikit.processes import processes
    from i2ikit.recipe import load_recipe
    from i2ikit.runs import RESOLVED, find_run

    started = time.perf_counter()
    with processes() as group, _one_voice(group):
        folder = group.on_main(lambda: find_run(run))
        loaded = load_recipe(folder / RESOLVED, processes=group.count)
        stopped = _train(loaded, _load_data(loaded, group), folder, group, resume=True)
    _farewell(stopped, folder, time.perf_counter() - started, group.is_main)


@contextlib.contextmanager
def _one_voice(group: Processes) -> Iterator[None]:
    """Within: only the first process prints; and first of all what is odd about their number."""
    console.quiet = not group.is_main
    for remark in group.remarks():
        console.print(f"[yellow]warning:[/] {escape(remark)}", highlight=False, soft_wrap=True)
    yield


def _load_data(recipe: Recipe, group: Processes) -> Dataset:
    """The dataset, which may have to render images first: one process of each machine does."""
    with group.first_on_each_machine():
        dataset: Dataset = recipe.data()
    return dataset


def _train(recipe: Recipe, data: Dataset, folder: Path, group: Processes, *, resume: bool) -> Stopped:
    from i2ikit.metrics.style import DiversityProbe
    from i2ikit.training import train

    if group.is_main:
        _announce(recipe, data, folder, group)
    probe = DiversityProbe(data, recipe.seed)
    return train(recipe, data, folder, resume=resume, probe=probe, console=console)


def _announce(recipe: Recipe, data: Dataset, folder: Path, group: Processes) -> None:
    """What is about to happen, and where to look meanwhile."""
    counts = ", ".join(f"{data.count('train', d)} + {data.count('test', d)} held out ({d})" for d in "ab")
    options = recipe.training
    cut = f", in {options.accumulation} micro-batches" if options.accumulation > 1 else ""
    console.print(
        f"[bold]{recipe.translator.name}[/] on [bold]{recipe.data.name}[/] at {data.images.size} px: "
        f"{counts}\n"
        f"{options.steps} steps of {options.batch_size} images per domain{cut}, {options.precision}, "
        f"seed {recipe.seed}, {group}\n"
        f"Run folder: [bold]{escape(str(folder))}[/] "
        "(look at samples/ while you wait; Ctrl-C saves and stops)",
        highlight=False,
        soft_wrap=True,
    )


def _farewell(stopped: Stopped, folder: Path, seconds: float, is_main: bool) -> None:
    """Where the results are, and what to type next; in the first process."""
    if not is_main:
        raise typer.Exit(128 + stopped.signal if stopped.signal else 0)
    took = f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.0f} s"
    where = escape(str(folder))
    newest = escape(str(max((folder / "samples").glob(f"step-{stopped.step:06d}*.png"))))
    if stopped.signal is not None:
        console.print(f"Stopped after step {stopped.step} ({took}); everything is saved.", highlight=False)
        console.print(f"Continue: [bold]i2ikit resume {where}[/]", highlight=False, soft_wrap=True)
        raise typer.Exit(128 + stopped.signal)
    console.print(
        f"Done: {stopped.step} steps in {took}.\n"
        f"Pictures:  {newest}\n"
        f"Weights:   {escape(str(folder / 'weights.safetensors'))}\n"
        f"Next:      [bold]i2ikit translate {where} YOUR_IMAGE.png --styles 8[/]\n"
        f"Measure:   [bold]i2ikit eval {where}[/]",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def translate(
    images: Annotated[
        list[Path],
        typer.Argument(metavar="[RUN] IMAGE...", help="Images; before them a run folder, if not the newest."),
    ],
    styles: Annotated[int, typer.Option(min=1, max=1000, help="How many random styles.")] = 8,
    style_from: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="EXEMPLAR", help="Use the style of this image instead of random ones; repeat it."
        ),
    ] = None,
    to: ToOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the random styles.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the pictures; RUN/translations if not given.")
    ] = None,
) -> None:
    """Translate images: one picture for each style, and a sheet with all of them."""
    from i2ikit.runs import find_run, is_run
    from i2ikit.translation import translate_files

    named = is_run(images[0])
    folder = find_run(images[0] if named else None)
    files = images[1:] if named else images
    if not files:
        raise RunError("no image given: i2ikit translate [RUN] IMAGE...")
    target = out or folder / "translations"
    sheets = translate_files(folder, files, styles, style_from or [], to, seed, target)
    console.print(f"With the weights of {escape(str(folder))}:", highlight=False, soft_wrap=True)
    for sheet in sheets:
        console.print(f"  {escape(str(sheet))}", highlight=False, soft_wrap=True)


@app.command("eval")
def eval_(
    run: RunOption = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="What to measure (`i2ikit list metrics`); repeat it. The usual ones if not given."),
    ] = None,
    to: ToOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of inputs, styles and pairs.")] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="METRIC.OPTION=VALUE",
            help="Change an option, such as lpips-diversity.protocol=bicyclegan; repeat it.",
        ),
    ] = None,
) -> None:
    """Measure a run on held-out images; the numbers are kept in RUN/eval/."""
    from i2ikit.evaluation import evaluate
    from i2ikit.runs import find_run

    folder = find_run(run)
    findings = evaluate(folder, metric or None, to=to, seed=seed, overrides=set_ or [])
    for finding in findings:
        console.print(
            f"[bold]{escape(finding.metric)}[/]  ({finding.direction}, seed {seed})", highlight=False
        )
        _print_found(finding.found)
        if finding.path is not None:
            console.print(f"  Kept as {escape(str(finding.path))}", highlight=False, soft_wrap=True)
        console.print()


def _print_found(found: Measured | str) -> None:
    """A metric's numbers, `row/column` ones as a table, and what must be read with them."""
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
    table = Table("", *headings, box=None, padding=(0, 2), header_style="", show_header=any(columns))
    for name, cells in rows.items():
        table.add_row(name, *(cells.get(column, "") for column in columns))
    console.print(table)
    for note in found.notes:
        console.print(f"  {escape(note)}", highlight=False, soft_wrap=True)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN", help="Run folders, two or more.")],
    to: ToOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of inputs, styles and pairs.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(metavar="PAGE", help="Also write the table and a picture: PAGE.html, or PAGE.md."),
    ] = None,
) -> None:
    """Measure runs alike and show them in one table, and their translations in one picture."""
    from i2ikit.comparison import check_page, write_page
    from i2ikit.comparison import compare as compare_runs
    from i2ikit.runs import find_run

    if len(runs) < 2:
        raise RunError("name two runs or more: i2ikit compare RUN RUN...")
    if out is not None:
        check_page(out)
    folders = [find_run(run) for run in runs]
    comparison = compare_runs(
        folders, to=to, seed=seed, told=lambda text: console.print(escape(text), highlight=False)
    )
    table = Table(*comparison.headings, box=None, padding=(0, 1), header_style="")
    for row in comparison.rows:
        table.add_row(*map(escape, row))
    # A pipe has no width: let it have the whole lines.
    wide = console if console.is_terminal else Console(width=240)
    wide.print(table)
    for note in comparison.notes:
        console.print(f"  {escape(note)}", highlight=False, soft_wrap=True)
    if out is not None:
        write_page(comparison, out)
        console.print(f"Page: {escape(str(out))}", highlight=False, soft_wrap=True)
    else:
        console.print("Add --out compare.html for a page with the pictures.", highlight=False)


app.command("list")(list_)
app.command()(show)
app.command()(doctor)
app.command("new-plugin")(new_plugin)


def main() -> None:
    """Run the command line; our own errors become a message and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal in ASCII must not end a command
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _guarded(lambda: app(standalone_mode=True))
    except SystemExit as done:  # typer's way to end, whatever happened
        code = done.code if isinstance(done.code, int) else int(done.code is not None)
    except Exception:
        if "i2ikit.processes" not in sys.modules:
            raise
        sys.excepthook(*sys.exc_info())
        code = 1
    if "i2ikit.processes" in sys.modules:  # else there is no group to leave, and torch was not needed
        from i2ikit.processes import leave

        leave(code)
    sys.exit(code)


def _guarded(command: Callable[[], object]) -> int:
    try:
        command()
    except I2IKitError as error:
        if _debug:
            raise
        if not (isinstance(error, ProcessError) and error.told):
            text = escape(str(error))
            Console(stderr=True).print(f"[red]error:[/] {text}", highlight=False, soft_wrap=True)
        return 2
    return 0

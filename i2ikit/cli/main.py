"""The `i2ikit` command. Each command calls one function; torch is imported only where it is used.

Exit codes: 0 success; 1 `translate` has named inputs that it could not translate, and has translated the
others, or `doctor` has found problems; 2 an error with a message on what to change; 130 stopped by Ctrl-C,
143 by SIGTERM and 129 by SIGHUP, all after saving. With several processes only the first one prints; every
process reports its errors.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

import i2ikit
from i2ikit.cli.demo import demo
from i2ikit.cli.exchange import export, import_, push
from i2ikit.cli.options import RunOption, complain, console, given_path, interruptible, one_voice
from i2ikit.cli.packages import doctor, list_, new_plugin, show
from i2ikit.cli.results import compare, eval_, translate
from i2ikit.cli.watching import report, status
from i2ikit.errors import I2IKitError, ProcessError, of_the_system
from i2ikit.paths import pasted
from i2ikit.terminal import lasting_output

if TYPE_CHECKING:
    from i2ikit.loop import Stopped

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    help="Train networks that translate one image into many plausible images of another domain.\n\n"
    "To start: [bold]i2ikit run munit[/].",
)
_debug = False


SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set one key of the recipe; repeatable."),
]


def _print_version(asked: bool) -> None:
    if asked:
        console.print(f"i2ikit {i2ikit.__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    global _debug
    _debug = debug


def run(
    recipe: Annotated[
        str, typer.Argument(help="Recipe file, shipped recipe (munit) or recipe of a package (PACKAGE/NAME).")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN_DIR", parser=given_path, help="New run folder (default: runs/<recipe>-<time>)."
        ),
    ] = None,
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"] | None,
        typer.Option(help="Same as --set training.precision=...; fp16 needs a GPU."),
    ] = None,
    weights_from: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            parser=given_path,
            help="Start with the weights of this run, network by network where they fit.",
        ),
    ] = None,
    set_: SetOption = None,
) -> None:
    """Train a translator as a recipe describes, in a new run folder.

    To train with N processes: torchrun --standalone --nproc_per_node N -m i2ikit run ...
    """
    from i2ikit.processes import processes
    from i2ikit.recipe import load_recipe
    from i2ikit.start import train_in

    overrides = [*(set_ or []), *([f"training.precision={precision}"] if precision else [])]
    started = time.perf_counter()
    with processes() as group, one_voice(group):
        loaded = load_recipe(recipe, overrides, group.count)
        folder, stopped = train_in(group, loaded, out, console, weights_from)
    _farewell(stopped, folder, time.perf_counter() - started, group.is_main)


def resume(
    run: RunOption = None,
    set_: SetOption = None,
    data_changed: Annotated[
        bool, typer.Option("--data-changed", help="Continue with other images than those of the start.")
    ] = False,
) -> None:
    """Continue a run from its newest checkpoint.

    --set changes steps, intervals, learning rates (optimizer.lr) and data.root from now on.
    """
    from i2ikit.processes import processes
    from i2ikit.start import resume_in

    started = time.perf_counter()
    with processes() as group, one_voice(group):
        folder, stopped = resume_in(group, run, console, set_ or [], data_changed)
    _farewell(stopped, folder, time.perf_counter() - started, group.is_main)


def _farewell(stopped: Stopped, folder: Path, seconds: float, is_main: bool) -> None:
    """Print where the results are and which commands to run next; first process only."""
    if not is_main:
        raise typer.Exit(128 + stopped.signal if stopped.signal else 0)
    took = f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.0f} s"
    where = pasted(folder)
    if stopped.signal is not None:
        _say(f"Stopped after step {stopped.step} ({took}); everything is saved.")
        _say("To continue: ", f"i2ikit resume {where}")
        raise typer.Exit(128 + stopped.signal)
    if stopped.wrong:
        _say(f"Ended after {stopped.step} steps ({took}), but the run went wrong: see the warning above.")
    else:
        _say(f"Done: {stopped.step} steps in {took}.")
    files = {
        "Samples:   ": max((folder / "samples").glob(f"step-{stopped.step:06d}*.png"), default=None),
        "Weights:   ": folder / "weights.safetensors",
        "Best:      ": folder / "best.safetensors",
        "Report:    ": folder / "report.html",
    }
    for label, file in files.items():
        if file is not None and file.is_file():
            _say(f"{label}{file}")
    _say("Translate: ", f"i2ikit translate {where} YOUR_IMAGE.png")
    _say("Play:      ", f"i2ikit demo {where}")
    _say("Evaluate:  ", f"i2ikit eval {where}")


def _say(text: str, command: str = "") -> None:
    """Print a line, and a command to paste in bold."""
    console.print(f"{escape(text)}[bold]{escape(command)}[/]", highlight=False, soft_wrap=True)


_commands: dict[str, Callable[..., None]] = {
    "run": run,
    "resume": resume,
    "status": status,
    "report": report,
    "translate": translate,
    "eval": eval_,
    "compare": compare,
    "demo": demo,
    "export": export,
    "import": import_,
    "push": push,
    "list": list_,
    "show": show,
    "doctor": doctor,
    "new-plugin": new_plugin,
}
for _name, _command in _commands.items():
    app.command(_name)(interruptible(_command))


def main() -> None:
    """Run the command line; an I2IKitError becomes a message and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # an ASCII terminal must not crash a command
            stream.reconfigure(errors="backslashreplace")
    if (missing := _missing_directory()) is not None:
        complain(missing)
        sys.exit(2)
    try:
        with lasting_output():
            code = _guarded(lambda: app(standalone_mode=True))
    except SystemExit as done:  # typer always exits this way
        code = done.code if isinstance(done.code, int) else int(done.code is not None)
    except Exception:
        if "i2ikit.processes" not in sys.modules:
            raise
        sys.excepthook(*sys.exc_info())
        code = 1
    if "i2ikit.processes" in sys.modules:  # otherwise there is no process group to leave
        from i2ikit.processes import leave

        leave(code)
    sys.exit(code)


def _guarded(command: Callable[[], object]) -> int:
    try:
        command()
    except I2IKitError as error:
        if _debug:
            raise
        if not (isinstance(error, ProcessError) and error.silent):
            complain("\n".join([str(error), *_notes(error)]))
        return 2
    except OSError as error:  # of a disk, a folder or a file: no fault of this program
        if _debug:
            raise
        complain("\n".join([of_the_system(error), *_notes(error)]))
        return 2
    return 0


def _missing_directory() -> str | None:
    """What is wrong with the current directory; without one, importing torch ends the process."""
    try:
        os.getcwd()
    except OSError:
        return "the current directory no longer exists; change to another one"
    return None


def _notes(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])

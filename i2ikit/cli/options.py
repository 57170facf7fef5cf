"""The console and the options that several commands share."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from i2ikit.processes import Processes

__all__ = [
    "DeviceOption",
    "FromOption",
    "PrecisionOption",
    "RunOption",
    "ToOption",
    "complain",
    "console",
    "given_path",
    "interruptible",
    "one_voice",
    "readable",
]

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")

console = Console()


def readable(text: str) -> str:
    """The text to print: names and files may hold what a terminal would obey, or what rich would."""
    return escape(CONTROL.sub(lambda found: repr(found[0])[1:-1], text))


def complain(text: str) -> None:
    """Print an error on stderr."""
    Console(stderr=True).print(f"[red]error:[/] {readable(text)}", highlight=False, soft_wrap=True)


@contextlib.contextmanager
def one_voice(group: Processes) -> Iterator[None]:
    """Let only the first process print; it first prints warnings about the number of processes."""
    console.quiet = not group.is_main
    for remark in group.remarks():
        console.print(f"[yellow]warning:[/] {escape(remark)}", highlight=False, soft_wrap=True)
    yield


def interruptible(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command say what is kept when Ctrl-C ends it, which typer does in silence.

    The notes of the exception say it.
    """

    @functools.wraps(command)
    def worded(*arguments: Any, **options: Any) -> None:
        try:
            command(*arguments, **options)
        except KeyboardInterrupt as stop:
            complain("\n".join(["interrupted", *getattr(stop, "__notes__", ())]))
            raise

    return worded


def given_path(text: str) -> Path:
    """A path on the command line; ~ is the home directory, unless there is such a file here.

    Raises:
        BadParameter: it is empty, as an unset variable of a shell is; Path("") is the current directory.
    """
    if not text:
        raise typer.BadParameter("the path is empty; '.' is the current directory")
    return Path(text if os.path.lexists(text) else os.path.expanduser(text))


RunOption = Annotated[
    Path | None,
    typer.Argument(metavar="[RUN]", parser=given_path, help="Run folder (default: the newest in ./runs)."),
]
FromOption = Annotated[
    str | None,
    typer.Option("--from", metavar="DOMAIN", help="Source domain (default: the first one that fits --to)."),
]
ToOption = Annotated[
    str | None,
    typer.Option(metavar="DOMAIN", help="Target domain (default: the first one that fits --from)."),
]
DeviceOption = Annotated[
    str | None, typer.Option(help="Device, such as cpu or cuda:1 (default: a GPU if available).")
]
PrecisionOption = Annotated[
    Literal["fp32", "bf16"],
    typer.Option(help="bf16 is faster on recent processors, and colours differ slightly."),
]

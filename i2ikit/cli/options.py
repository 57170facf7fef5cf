"""The console and the options that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

__all__ = [
    "DeviceOption",
    "FromOption",
    "PrecisionOption",
    "RunOption",
    "ToOption",
    "complain",
    "console",
    "given_path",
]

console = Console()


def complain(text: str) -> None:
    """Print an error on stderr."""
    Console(stderr=True).print(f"[red]error:[/] {escape(text)}", highlight=False, soft_wrap=True)


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

"""The console and the options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

__all__ = ["DeviceOption", "Domain", "RunOption", "ToOption", "console"]

console = Console()


class Domain(StrEnum):
    """One of the two domains."""

    a = "a"
    b = "b"


RunOption = Annotated[
    Path | None, typer.Argument(metavar="[RUN]", help="Run folder (default: the newest in ./runs).")
]
ToOption = Annotated[
    Domain | None, typer.Option(help="Target domain (default: b if the translator supports it).")
]
DeviceOption = Annotated[
    str | None, typer.Option(help="Device, such as cpu or cuda:1 (default: a GPU if available).")
]

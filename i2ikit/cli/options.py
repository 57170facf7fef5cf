"""What several commands share: the terminal that they write to, and options that mean the same in each."""

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
    Path | None, typer.Argument(metavar="[RUN]", help="Run folder; the newest below ./runs if not given.")
]
ToOption = Annotated[
    Domain | None, typer.Option(help="The domain to translate into; b if not given, where the method can.")
]
DeviceOption = Annotated[
    str | None, typer.Option(help="Where to compute, such as cpu or cuda:1; a GPU if there is one.")
]

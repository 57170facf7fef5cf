"""The console and the options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

__all__ = ["DeviceOption", "FromOption", "PrecisionOption", "RunOption", "ToOption", "console"]

console = Console()


RunOption = Annotated[
    Path | None, typer.Argument(metavar="[RUN]", help="Run folder (default: the newest in ./runs).")
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

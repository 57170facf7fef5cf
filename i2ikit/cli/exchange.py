"""The commands by which models leave the tool: `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from i2ikit.cli.options import FromOption, RunOption, ToOption, console, given_path
from i2ikit.paths import pasted

__all__ = ["export"]


def export(
    run: RunOption = None,
    format_: Annotated[
        Literal["onnx", "pt2", "safetensors"] | None,
        typer.Option(
            "--format",
            help="ONNX, torch.export (pt2), or only the weights (default: the ending of --out, or onnx).",
        ),
    ] = None,
    from_: FromOption = None,
    to: ToOption = None,
    precision: Annotated[
        Literal["fp32", "fp16"],
        typer.Option(help="fp16 stores the weights in half the bytes; colours differ slightly."),
    ] = "fp32",
    licence: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="Licence of the weights, such as CC-BY-4.0; written into the file."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", parser=given_path, help="File (default: RUN/export/RUN-a2b.onnx and the like)."
        ),
    ] = None,
) -> None:
    """Export a trained translator for other programs, in one direction.

    The file takes images of any size and style codes. If the translator has a style encoder, it is written
    beside it. Both are compared with the trained networks first.

    `i2ikit translate FILE.onnx IMAGE...` uses an ONNX file without the run folder.
    """
    from i2ikit.exchange.export import export as export_run

    found = export_run(
        run,
        format_,
        to=to,
        source=from_,
        out=out,
        precision=precision,
        licence=licence,
        progress=lambda text: console.print(escape(text), highlight=False),
    )
    for file in found.files:
        _say(f"Wrote {file} ({file.stat().st_size / 1e6:.1f} MB)")
    first = found.files[0]
    if first.suffix != ".safetensors":
        _say(f"Largest difference from the trained networks: {found.difference:.1e}, of values in [-1, 1]")
    if first.suffix == ".onnx":
        console.print(
            "Translate: ",
            f"[bold]{escape(f'i2ikit translate {pasted(first)} YOUR_IMAGE.png')}[/]",
            sep="",
            highlight=False,
            soft_wrap=True,
        )


def _say(text: str) -> None:
    console.print(escape(text), highlight=False, soft_wrap=True)

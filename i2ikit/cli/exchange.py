"""The commands by which models leave the tool and come in: `export`, `import` and `push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from i2ikit.cli.options import FromOption, RunOption, ToOption, console, given_path
from i2ikit.paths import pasted

__all__ = ["export", "import_", "push"]


def export(
    run: RunOption = None,
    format_: Annotated[
        Literal["onnx", "pt2", "safetensors", "official"] | None,
        typer.Option(
            "--format",
            help="ONNX, torch.export (pt2), only the weights, or the files of the official repository "
            "(default: the ending of --out, or onnx).",
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
    if first.suffix in (".onnx", ".pt2"):
        _say(f"Largest difference from the trained networks: {found.difference:.1e}, of values in [-1, 1]")
    if first.suffix == ".onnx":
        _bold("Translate: ", f"i2ikit translate {pasted(first)} YOUR_IMAGE.png")


def import_(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            parser=given_path,
            help="The .pth or .pt files of one model, or their folder; and the YAML of a MUNIT.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="RUN_DIR", parser=given_path, help="New run folder (default: runs/NAME-TIME)."),
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            parser=given_path,
            help="Images with which it can be measured and trained on (default: ./data, later).",
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(min=8, max=4096, help="Side of the images in pixels (default: of the YAML, or 256)."),
    ] = None,
    old_unet: Annotated[
        bool, typer.Option("--old-unet", help="The U-Net is from before 2017-09-22, which no file shows.")
    ] = False,
) -> None:
    """Import weights of the official MUNIT, BicycleGAN, CycleGAN, pix2pix or CUT as a run.

    What they are is found out from the names and shapes of their tensors.
    """
    from i2ikit.exchange.import_run import import_weights

    found = import_weights(files, out, data_root=data_root, size=size, old_unet=old_unet)
    _say(f"Imported {found.name} into {found.run.folder}:")
    for file, what in found.taken.items():
        _say(f"  {file}: {what}")
    if found.fresh:
        _say(f"New, with random weights: {', '.join(found.fresh)}; they are needed only for training on.")
    for note in found.notes:
        console.print(f"[yellow]note:[/] {escape(note)}", highlight=False, soft_wrap=True)
    where = pasted(found.run.folder)
    _bold("Translate: ", f"i2ikit translate {where} YOUR_IMAGE.png")
    root = "" if data_root else " --set data.root=YOUR_IMAGES"
    _bold("Train on:  ", f"i2ikit resume {where}{root} --set training.steps=1000")


def push(
    run: Annotated[Path, typer.Argument(metavar="RUN", parser=given_path, help="Run folder.")],
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Repository on the Hugging Face Hub.")],
    licence: Annotated[
        str | None, typer.Option(metavar="ID", help="Licence of the weights, such as cc-by-4.0.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
) -> None:
    """Upload a run to the Hugging Face Hub: weights, recipe, and a model card with samples and metrics.

    `i2ikit translate hf://ORG/NAME IMAGE...` uses it. To log in: `hf auth login`.
    """
    from i2ikit.exchange.hub import push as push_run

    progress = lambda text: console.print(escape(text), highlight=False)  # noqa: E731
    _say(f"Uploaded: {push_run(run, repo, licence=licence, private=private, progress=progress)}")
    _bold("Translate: ", f"i2ikit translate hf://{repo} YOUR_IMAGE.png")


def _bold(label: str, command: str) -> None:
    console.print(f"{label}[bold]{escape(command)}[/]", highlight=False, soft_wrap=True)


def _say(text: str) -> None:
    console.print(escape(text), highlight=False, soft_wrap=True)

"""Translate image files with a trained run: random styles, or those of exemplars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from i2ikit.checkpoints import load_translator, trained_images
from i2ikit.data.images import load_image, to_picture
from i2ikit.errors import RunError
from i2ikit.sampling import random_styles, sheet
from i2ikit.translator import StyleEncoding, chosen_target, other

__all__ = ["translate_files"]


@torch.no_grad()
def translate_files(
    run: Path,
    files: Sequence[Path],
    num_styles: int,
    exemplars: Sequence[Path],
    to: str | None,
    seed: int,
    out: Path,
) -> list[Path]:
    """Translate each file in every style.

    An image's shorter side is resized to the size that the run was trained at; its shape is kept.

    Args:
        num_styles: random styles from `seed`, the same for each file; not used with exemplars.
        exemplars: images of domain `to` whose styles are used instead.
        to: the domain to translate into; the method's first one if None.
        out: where NAME-style-1.png, ... (or NAME-as-EXEMPLAR.png) and NAME-sheet.png go.

    Returns:
        The sheets, one for each file.

    Raises:
        RunError: the run cannot be loaded, does not translate into `to`, or follows no exemplars.
        DataError: an image cannot be read.
    """
    translator = load_translator(run)
    images = trained_images(run)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    translator = translator.to(device)
    to = chosen_target(translator, to)
    if exemplars:
        if not isinstance(translator, StyleEncoding):
            raise RunError(f"{run}: its method has no style encoder, so it cannot follow an exemplar")
        shown = [load_image(path, images.channels[to], images.size).to(device) for path in exemplars]
        labels = [f"as-{name}" for name in _distinct_names(exemplars)]
        styles = torch.cat([translator.encode_style(image[None], to) for image in shown])
    else:
        labels = [f"style-{n}" for n in range(1, num_styles + 1)]
        styles = random_styles(translator, num_styles, seed).to(device)
    names = _distinct_names(files)
    sources = [load_image(path, images.channels[other(to)], images.size) for path in files]
    out.mkdir(parents=True, exist_ok=True)
    sheets = []
    for name, source in zip(names, sources, strict=True):
        columns: list[tuple[str, Tensor]] = [("input", source[None])]
        for label, style in zip(labels, styles, strict=True):
            y = translator.translate(source[None].to(device), style[None], to)
            to_picture(y[0]).save(out / f"{name}-{label}.png")
            columns.append((label, y))
        sheets.append(out / f"{name}-sheet.png")
        sheet(columns).save(sheets[-1])
    return sheets


def _distinct_names(files: Sequence[Path]) -> list[str]:
    """The files' names without their endings; numbered where two would be the same."""
    names: list[str] = []
    for path in files:
        taken = sum(other == path.stem for other in (file.stem for file in files[: len(names)]))
        names.append(f"{path.stem}-{taken + 1}" if taken else path.stem)
    return names

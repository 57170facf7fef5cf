"""Translate image files with a trained run, in random styles or in those of exemplars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from i2ikit.data.images import load_image, to_picture
from i2ikit.run import Run
from i2ikit.sampling import sheet
from i2ikit.translator import other

__all__ = ["translate_files"]


def translate_files(
    run: Run,
    files: Sequence[Path],
    num_styles: int,
    exemplars: Sequence[Path],
    to: str | None,
    seed: int,
    out: Path,
) -> list[Path]:
    """Translate each file in every style.

    The shorter side of an image is resized to the training size; the aspect ratio is kept.

    Args:
        num_styles: number of random styles from `seed`, the same for each file; not used with exemplars.
        exemplars: images of domain `to` whose styles are used instead.
        to: the domain to translate into; the translator's default one if None.
        out: folder for NAME-style-1.png, ... (or NAME-as-EXEMPLAR.png) and NAME-sheet.png.

    Returns:
        The sheets, one for each file.

    Raises:
        RunError: the run cannot be loaded, does not translate into `to`, or cannot follow exemplars.
        DataError: an image cannot be read.
    """
    to = run.target(to)
    codes = run.codes(num_styles, exemplars, to, seed)
    labels = [f"as-{name}" for name in _distinct_names(exemplars)] if exemplars else []
    labels = labels or [f"style-{n}" for n in range(1, num_styles + 1)]
    # Read all files first, so that a wrong name fails before anything is translated.
    sources = [load_image(path, run.images.channels[other(to)], run.images.size) for path in files]
    out.mkdir(parents=True, exist_ok=True)
    sheets = []
    for name, source in zip(_distinct_names(files), sources, strict=True):
        columns: list[tuple[str, Tensor]] = [("input", source[None])]
        for label, y in zip(labels, run.translate(source, to=to, styles=codes), strict=True):
            to_picture(y).save(out / f"{name}-{label}.png")
            columns.append((label, y[None]))
        sheets.append(out / f"{name}-sheet.png")
        sheet(columns).save(sheets[-1])
    return sheets


def _distinct_names(files: Sequence[Path]) -> list[str]:
    """The file names without extensions; repeated names are numbered."""
    names: list[str] = []
    for path in files:
        taken = sum(other == path.stem for other in (file.stem for file in files[: len(names)]))
        names.append(f"{path.stem}-{taken + 1}" if taken else path.stem)
    return names

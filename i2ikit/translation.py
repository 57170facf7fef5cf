"""Translate image files with a trained run, in random styles or in those of exemplars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from i2ikit.data.images import load_image, write_image
from i2ikit.errors import RunError
from i2ikit.run import Run
from i2ikit.sampling import sheet

__all__ = ["translate_files"]


def translate_files(
    run: Run,
    files: Sequence[Path],
    num_styles: int,
    exemplars: Sequence[Path],
    source: str | None,
    to: str | None,
    seed: int,
    out: Path,
) -> list[Path]:
    """Translate each file in every style.

    The shorter side of an image is resized to the training size; the aspect ratio is kept.

    Args:
        num_styles: number of random styles from `seed`, the same for each file; not used with exemplars, nor
            by a deterministic translator, which makes one translation of each file.
        exemplars: images of domain `to` whose styles are used instead.
        source, to: domains of the direction; if one or both are None, the translator's first that fits.
        out: folder for NAME-style-1.png, ... (or NAME-as-EXEMPLAR.png, or NAME-translated.png), and
            NAME-sheet.png. Images with other numbers of channels than 1 and 3 are written as .npy, as they
            are read: arrays (H, W, C) in [0, 1].

    Returns:
        The sheets, one for each file.

    Raises:
        RunError: the run cannot be loaded, translate in this direction, or follow exemplars; or `out` cannot
            be created.
        DataError: an image cannot be read.
    """
    source, to = run.direction(source, to)
    codes = run.codes(num_styles, exemplars, to, seed)
    labels = [f"as-{name}" for name in _distinct_names(exemplars)] if exemplars else []
    labels = labels or [f"style-{n}" for n in range(1, num_styles + 1)]
    if run.translator.is_deterministic(to):
        labels = ["translated"]
    # Read all files first, so that a wrong name fails before anything is translated.
    inputs = [load_image(path, run.images.channels[source], run.images.size) for path in files]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot create the folder {out}: {error.strerror}") from error
    sheets = []
    for name, x in zip(_distinct_names(files), inputs, strict=True):
        columns = [("input", run.pictures(x[None], source))]
        translated = run.translate(x, source=source, to=to, styles=codes)
        for label, y in zip(labels, translated, strict=True):
            write_image(out / f"{name}-{label}", y)
            columns.append((label, run.pictures(y[None], to)))
        sheets.append(out / f"{name}-sheet.png")
        sheet(columns).save(sheets[-1])
    return sheets


def _distinct_names(files: Sequence[Path]) -> list[str]:
    """The file names without extensions; repeated names are numbered."""
    names: list[str] = []
    own = {path.stem for path in files}
    for path in files:
        name, number = path.stem, 1
        while name in names or (number > 1 and name in own):  # `x-2` may be a file of its own
            number += 1
            name = f"{path.stem}-{number}"
        names.append(name)
    return names

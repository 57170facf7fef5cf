"""Going from one style to another in small steps: the codes, a strip of pictures, an animation."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from i2ikit.errors import DataError
from i2ikit.sampling import cell_size, sheet

__all__ = ["animation", "between", "check_animated", "strip"]

SHOWN = 256
"""Smaller pictures are enlarged in an animation, by a whole number, to at most so many pixels."""
MILLISECONDS = 80  # per picture
PAUSE = 600  # milliseconds at each style
MOST_SIDE = 16383  # of WebP
MOST_PIXELS = 250_000_000
"""Pixels of all pictures of an animation, which are held with 8 bits while it is written: 750 MB."""

Rows = Sequence[Sequence[Image.Image]]
"""For each transition its pictures, from one style to the next; all of one size and number."""


def between(codes: Tensor, count: int) -> Tensor:
    """Style codes on the straight line from each code to the next, evenly spaced, with both ends.

    Straight lines, not arcs on a sphere: the latter are not defined between opposite codes, nor for encoded
    codes, which have any length.

    Shapes: codes (K, style_dim) -> (K - 1, count, style_dim); K and count are at least 2.
    """
    towards = torch.linspace(0, 1, count, dtype=codes.dtype, device=codes.device)[:, None]
    return torch.stack([torch.lerp(a, b, towards) for a, b in itertools.pairwise(codes)])


def strip(rows: Rows) -> Image.Image:
    """Pictures from one style to the next, each transition in a row, with the part of the way above."""
    last = len(rows[0]) - 1
    size = cell_size(rows[0][0].size, len(rows) * len(rows[0]))
    columns = zip(*rows, strict=True)
    return sheet(
        [(f"{100 * n / last:.0f} %", [_shrunk(x, size) for x in column]) for n, column in enumerate(columns)]
    )


def animation(rows: Rows) -> bytes:
    """An animated WebP that goes through all pictures and back, endlessly, and pauses at each style.

    Small pictures are enlarged, because WebP halves the resolution of colours.
    """
    size = _shown_size(*rows[0][0].size)
    there = [*rows[0], *itertools.chain.from_iterable(row[1:] for row in rows[1:])]
    there = [_shown(x, size) for x in there]
    styles = range(0, len(there), len(rows[0]) - 1)
    order = [*range(len(there)), *range(len(there) - 2, 0, -1)]
    file = io.BytesIO()
    there[0].save(
        file,
        "webp",
        save_all=True,
        append_images=[there[n] for n in order[1:]],
        duration=[PAUSE if n in styles else MILLISECONDS for n in order],
        loop=0,
        quality=90,
    )
    return file.getvalue()


def check_animated(width: int, height: int, count: int) -> None:
    """Check that an animation can have so many pictures of this size.

    Raises:
        DataError: it cannot.
    """
    if max(width, height) > MOST_SIDE:
        raise DataError(
            f"an animation (WebP) has at most {MOST_SIDE} px on a side, not {width}x{height}; choose a "
            "smaller --size"
        )
    shown = _shown_size(width, height)
    pixels = shown[0] * shown[1] * count
    if pixels > MOST_PIXELS:
        raise DataError(
            f"an animation of {count} pictures with {shown[0]}x{shown[1]} px has {pixels // 10**6} "
            f"megapixels, more than the limit of {MOST_PIXELS // 10**6}; choose a smaller --interpolate, a "
            "smaller --size or fewer styles"
        )


def _shown_size(width: int, height: int) -> tuple[int, int]:
    """Width and height of the pictures of an animation."""
    scale = max(1, SHOWN // max(width, height))
    return width * scale, height * scale


def _shown(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture in colour, enlarged; not copied if it is so."""
    colour = picture if picture.mode == "RGB" else picture.convert("RGB")
    return colour if colour.size == size else colour.resize(size, Image.Resampling.NEAREST)


def _shrunk(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    return picture if picture.size == size else picture.resize(size, Image.Resampling.BILINEAR)

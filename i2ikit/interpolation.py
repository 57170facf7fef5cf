"""Going from one style to another in small steps: the codes, a strip of pictures, an animation."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from i2ikit.data.images import to_picture
from i2ikit.sampling import sheet

__all__ = ["animation", "between", "strip"]

SHOWN = 256
"""Smaller pictures are enlarged in an animation, by a whole number, to at most so many pixels."""
MILLISECONDS = 80  # per picture
PAUSE = 600  # milliseconds at both ends


def between(codes: Tensor, count: int) -> Tensor:
    """Style codes on the straight line from each code to the next, evenly spaced, with both ends.

    Straight lines, not arcs on a sphere: the latter are not defined between opposite codes, nor for encoded
    codes, which have any length.

    Shapes: codes (K, style_dim) -> (K - 1, count, style_dim); K and count are at least 2.
    """
    towards = torch.linspace(0, 1, count, dtype=codes.dtype, device=codes.device)[:, None]
    return torch.stack([torch.lerp(a, b, towards) for a, b in itertools.pairwise(codes)])


def strip(rows: Sequence[Tensor]) -> Image.Image:
    """Pictures from one style to the next, each transition in a row, with the part of the way above.

    Args:
        rows: for each transition its pictures, (count, 1 or 3, H, W) in [-1, 1]; all of one shape.
    """
    images = torch.stack(list(rows))  # (K - 1, count, C, H, W)
    last = images.shape[1] - 1
    return sheet([(f"{100 * n / last:.0f} %", images[:, n]) for n in range(last + 1)])


def animation(images: Tensor) -> bytes:
    """An animated WebP that goes through pictures and back, endlessly.

    Args:
        images: (N, 1 or 3, H, W) in [-1, 1]. Small ones are enlarged, because WebP halves the resolution of
            colours.
    """
    height, width = images.shape[2:]
    scale = max(1, SHOWN // max(height, width))
    size = (width * scale, height * scale)
    there = [to_picture(x).convert("RGB").resize(size, Image.Resampling.NEAREST) for x in images]
    frames = [*there, *there[-2:0:-1]]
    durations = [PAUSE if n in (0, len(there) - 1) else MILLISECONDS for n in range(len(frames))]
    file = io.BytesIO()
    frames[0].save(
        file, "webp", save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=90
    )
    return file.getvalue()

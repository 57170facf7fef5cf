"""A pool of earlier translations, from which a discriminator sees some again."""

from __future__ import annotations

import torch
from torch import Tensor

from i2ikit.draws import Draw
from i2ikit.translator import Kept

__all__ = ["POOL_DRAW", "pool_keeps", "pooled"]

POOL_DRAW = Draw((2,), "uniform")
"""What `pooled` draws for each image: whether to swap it, and with which earlier one."""


def pool_keeps(size: int, channels: int, side: int) -> tuple[Kept, Kept]:
    """A pool of `size` images for a batch, and how many of its images are filled.

    Each place in the batch has its own pool, of size / batch_size images, rounded up.
    """
    return Kept((size, channels, side, side), divided=True), Kept((), torch.int64)


def pooled(x: Tensor, pool: Tensor, filled: Tensor, draws: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Replace about half of the images by earlier ones, once the pool is full.

    An image is added to the pool until that is full. Then, with probability 1/2, it changes places with a
    random image of the pool; otherwise it is returned, and not added.

    Shapes: x (N, C, H, W), pool (N, size, C, H, W), filled (N,), draws (N, 2) uniform
    Returns:
        The images for the discriminator, and the new `pool` and `filled`.
    Source: CycleGAN (arXiv 1703.10593), section 4. There, the images of a batch share one pool, which is the
        same for a batch of one image.
    """
    size, here = pool.shape[1], torch.arange(len(x), device=x.device)
    full = filled >= size
    swaps = full & (draws[:, 0] > 0.5)
    chosen = (draws[:, 1] * size).long().clamp(max=size - 1)  # rounding may reach `size`
    place = torch.where(full, chosen, filled)
    earlier = pool[here, place]
    by_image = (-1, 1, 1, 1)
    added = torch.where((swaps | ~full).view(by_image), x.to(pool.dtype), earlier)
    shown = torch.where(swaps.view(by_image), earlier.to(x.dtype), x)
    return shown, pool.index_put((here, place), added), (filled + 1).clamp(max=size)

"""Weights, images and noise from formulas, so that any implementation can rebuild them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor


def u(n: int, i: int) -> Tensor:
    """n numbers in (-1, 1) from a formula; `i` selects the sequence."""
    x = 43758.5453 * torch.sin(12.9898 * torch.arange(n, dtype=torch.float64) + 78.233 * i)
    return 2 * (x - x.floor()) - 1


def image(b: int, c: int, side: int, d: int) -> Tensor:
    """Images (b, c, side, side) of domain d (0 or 1) from a formula."""
    bb, cc, hh, ww = (
        torch.arange(n, dtype=torch.float64).view([-1 if i == axis else 1 for i in range(4)])
        for axis, n in enumerate((b, c, side, side))
    )
    wave = torch.sin(0.11 * hh * (cc + 1) + 0.07 * ww * (bb + 1) + 1.7 * d)
    return wave * torch.cos(0.05 * (hh + ww) * (d + 1) + 0.3 * bb)


@torch.no_grad()
def fill(keys: Mapping[str, Tensor | None], factor: float) -> None:
    """Give every parameter its formula's values, by the position of its official key in sorted order.

    None stands for a dummy of the official state dict.
    """
    for i, key in enumerate(sorted(keys)):
        parameter = keys[key]
        if parameter is None:
            continue
        values = u(parameter.numel(), i)
        if parameter.dim() > 1:
            values = math.sqrt(3) * math.sqrt(2 / (parameter.numel() / parameter.shape[0])) * values
        else:
            values = (1 if key.endswith("gamma") else 0) + 0.1 * values
        parameter.copy_(factor * values.view_as(parameter))


def noise(count: int, dim: int) -> Iterator[Tensor]:
    """Codes (count, dim) in the order in which the official code draws them."""
    k = 0
    while True:
        yield 1.5 * u(count * dim, 1000 + k).view(count, dim)
        k += 1

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
            values = (1 if key.endswith(("gamma", ".weight")) else 0) + 0.1 * values  # scales of norms
        parameter.copy_(factor * values.view_as(parameter))


def official_state(
    shapes: Mapping[str, tuple[int, ...]], factor: float = 1.0, *, statistics: bool = False
) -> dict[str, Tensor]:
    """An official state dict with these keys and shapes: parameters by `fill`, constants 0.

    Args:
        statistics: running statistics have values by formula as well; otherwise their initial ones.
    """
    state = {
        key: torch.zeros(shape, dtype=torch.long if key.endswith("tracked") else torch.float64)
        for key, shape in shapes.items()
    }
    buffers = ("running_mean", "running_var", "num_batches_tracked", "filt")
    fill({key: None if key.endswith(buffers) else x for key, x in state.items()}, factor)
    for i, key in enumerate(sorted(state)):
        if key.endswith("running_var"):
            state[key] += 1 + 0.5 * statistics * u(state[key].numel(), i)
        elif key.endswith("running_mean"):
            state[key] += 0.1 * statistics * u(state[key].numel(), i)
        elif key.endswith("num_batches_tracked"):
            state[key] += 7 * statistics
    return state


def figures(x: Tensor) -> dict[str, float]:
    """What the golden files state of an output."""
    flat = x.flatten()
    return {
        "mean": flat.mean().item(),
        "absmean": flat.abs().mean().item(),
        "l2": flat.norm().item(),
        "std": flat.std(correction=0).item(),
        "first": flat[0].item(),
        "last": flat[-1].item(),
    }


def noise(count: int, dim: int) -> Iterator[Tensor]:
    """Codes (count, dim) in the order in which the official code draws them."""
    k = 0
    while True:
        yield 1.5 * u(count * dim, 1000 + k).view(count, dim)
        k += 1

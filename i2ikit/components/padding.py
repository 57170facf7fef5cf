"""Padding, and convolutions with reflection padding."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ReflectionConv", "pad"]


def pad(x: Tensor, sides: tuple[int, ...], mode: Literal["constant", "reflect", "replicate"]) -> Tensor:
    """`F.pad` in the dtype of x; under autocast, F.pad casts bf16 to fp32 on CPUs, which takes longer."""
    with torch.autocast(x.device.type, enabled=False):
        return F.pad(x, sides, mode)


class ReflectionConv(nn.Conv2d):
    """A convolution with bias and reflection padding, the same on all sides.

    Equals nn.Conv2d with `padding_mode="reflect"`; see `pad`.

    Shapes: (N, in_channels, H, W) -> (N, out_channels, (H + 2 * padding - kernel) // stride + 1, ...)
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, padding, padding_mode="reflect")
        self.sides = (padding,) * 4

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x (N, in_channels, H, W)."""
        return F.conv2d(pad(x, self.sides, "reflect"), self.weight, self.bias, self.stride)

"""Squares of 2x2 pixels as one pixel with four times as many channels, and a convolution computed on them."""

from __future__ import annotations

import torch
from torch import Tensor

from i2ikit.components.padding import ReflectionConv, conv2d_after

__all__ = ["SpaceToDepthConv", "depth_to_space", "space_to_depth"]


def space_to_depth(x: Tensor) -> Tensor:
    """(N, C, 2H, 2W) -> (N, 4C, H, W), channels ordered by row and column in the square, then by C.

    Like F.pixel_unshuffle, whose order of channels makes it ten times as slow in channels_last.
    """
    n, c, h, w = x.shape
    squares = x.permute(0, 2, 3, 1).reshape(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5)
    return squares.reshape(n, h // 2, w // 2, 4 * c).permute(0, 3, 1, 2)


def depth_to_space(x: Tensor) -> Tensor:
    """The inverse of `space_to_depth`: (N, 4C, H, W) -> (N, C, 2H, 2W)."""
    n, c, h, w = x.shape
    squares = x.permute(0, 2, 3, 1).reshape(n, h, w, 2, 2, c // 4).permute(0, 1, 3, 2, 4, 5)
    return squares.reshape(n, 2 * h, 2 * w, c // 4).permute(0, 3, 1, 2)


class SpaceToDepthConv(ReflectionConv):
    """A 7x7 convolution with reflection padding and bias that is fast for few output channels.

    Equals `nn.Conv2d(in_channels, out_channels, 7, 1, 3, padding_mode="reflect")`, with the same
    parameters, but for rounding. Processors compute 16 or more output channels at a time, and an image has
    three. Each square of 2x2 pixels becomes one pixel with four times as many channels, for which the kernel
    is a 4x4 one: 64/49 of the multiplications, in less time. Images with an odd side are convolved as they
    are.

    Shapes: (N, in_channels, H, W) -> (N, out_channels, H, W)
    """

    placed: Tensor

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 7, 1, 3)
        self.register_buffer("placed", _placed_taps(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x (N, in_channels, H, W)."""
        if torch.compiler.is_exporting() or x.shape[2] % 2 or x.shape[3] % 2:
            return super().forward(x)
        weight = self.weight  # read once: a parametrised weight is computed at each access
        placed = self.placed.to(weight.dtype)
        with torch.autocast(x.device.type, enabled=False):  # the kernel consists of weights and zeros
            kernel = torch.einsum("pasi,qbtj,ocij->pqoabcst", placed, placed, weight)
        bias = None if self.bias is None else self.bias.repeat(4)
        return depth_to_space(conv2d_after(self._squares, x, kernel.flatten(3, 5).flatten(0, 2), bias))

    def _squares(self, x: Tensor) -> Tensor:
        return space_to_depth(self._padded(x))


def _placed_taps() -> Tensor:
    """Which tap of 7 meets which pixel: (parity of the output, parity of the pixel, square, tap), 0 or 1."""
    placed = torch.zeros(2, 2, 4, 7)
    for parity in range(2):
        for tap in range(7):
            placed[parity, (parity + tap) % 2, (parity + tap) // 2, tap] = 1
    return placed

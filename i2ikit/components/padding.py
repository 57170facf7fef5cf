"""Padding, and convolutions with reflection padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ReflectionConv", "conv2d_after", "pad"]


def pad(x: Tensor, sides: tuple[int, ...], mode: Literal["constant", "reflect", "replicate"]) -> Tensor:
    """`F.pad` in the dtype of x; under autocast, F.pad casts bf16 to fp32 on CPUs, which takes longer."""
    if mode == "replicate" and torch.compiler.is_dynamo_compiling():
        return _replicated(x, sides)
    with torch.autocast(x.device.type, enabled=False):
        return F.pad(x, sides, mode)


def _replicated(x: Tensor, sides: tuple[int, ...]) -> Tensor:
    """Padding by repeated edges, for sides of 0 or more, in programs that torch.compile makes.

    It expects wrong strides of F.pad's gradient in channels_last (torch 2.14).
    """
    left, right, above, below = sides
    x = torch.cat([x[..., :1].expand(-1, -1, -1, left), x, x[..., -1:].expand(-1, -1, -1, right)], 3)
    return torch.cat([x[:, :, :1].expand(-1, -1, above, -1), x, x[:, :, -1:].expand(-1, -1, below, -1)], 2)


def conv2d_after(
    prepare: Callable[[Tensor], Tensor],
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: tuple[int, ...] = (1, 1),
) -> Tensor:
    """`F.conv2d(prepare(x), weight, bias, stride)` that needs less memory.

    Until the backward pass it keeps x, which the activation before it keeps as well, instead of the prepared
    x; the backward pass prepares x again. Where autocast casts the prepared x, the cast one is kept. Hooks on
    saved tensors around it, such as those of torch.utils.checkpoint, do not see x.

    Raises:
        RuntimeError: in the backward pass, if x or the weight has been changed in place.
    """
    prepared = prepare(x)
    tracing = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    if tracing or not torch.is_grad_enabled():
        return F.conv2d(prepared, weight, bias, stride)
    try:
        kept, version, identity = x.detach(), x._version, _identity(prepared)
    except RuntimeError:  # in inference mode, and in torch.func's transforms
        return F.conv2d(prepared, weight, bias, stride)

    def unless_prepared(saved: Tensor) -> tuple[Tensor | None, int]:
        # torch does not check the versions of tensors that pass through hooks.
        return (None, version) if _identity(saved) == identity else (saved, saved._version)

    def again(packed: tuple[Tensor | None, int]) -> Tensor:
        saved, before = packed
        if (kept if saved is None else saved)._version != before:
            raise RuntimeError("the input or weight of a convolution was changed before its backward pass")
        return prepare(kept) if saved is None else saved

    with torch.autograd.graph.saved_tensors_hooks(unless_prepared, again):
        return F.conv2d(prepared, weight, bias, stride)


def _identity(x: Tensor) -> tuple[int, torch.Size, tuple[int, ...]]:
    """Equal for two tensors that are alive only if they have the same elements in the same memory."""
    return x.data_ptr(), x.shape, x.stride()


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
        return conv2d_after(self._padded, x, self.weight, self.bias, self.stride)

    def _padded(self, x: Tensor) -> Tensor:
        return pad(x, self.sides, "reflect")

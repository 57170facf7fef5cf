"""Norms: what each of them removes from a feature map, and over which part of it.

Shapes: (N, C, H, W) -> (N, C, H, W). Statistics are accumulated in at least fp32 whatever the
input's dtype; float64 stays float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Protocol, runtime_checkable

import torch
from pydantic import Field
from torch import Tensor, nn

from i2ikit.registry import Setting, Slot, Spec

__all__ = [
    "AdaIN",
    "AdaptiveNorm",
    "AdaptiveNormSpec",
    "BatchNorm",
    "InstanceNorm",
    "MunitLayerNorm",
    "NoNorm",
    "NormSpec",
]

EPS = 1e-5
FLAT = 1e-5
"""A map is flat if its variance is below this part of eps, a deviation of 1e-5: rounding, not layout."""


@runtime_checkable
class AdaptiveNorm(Protocol):
    """A norm whose scale and shift are given for each sample: `norm(x, params)`."""

    def param_count(self) -> int:
        """How many numbers `params` holds for each sample."""
        ...

    def forward(self, x: Tensor, params: Tensor) -> Tensor:
        """Normalise x (N, C, H, W) with params (N, param_count)."""
        ...


NormSpec = Annotated[Spec, Slot("norms", ("channels",), unlike=AdaptiveNorm)]
"""An option that holds a norm without parameters from outside."""

AdaptiveNormSpec = Annotated[Spec, Slot("norms", ("channels",), like=AdaptiveNorm)]
"""An option that holds a norm whose parameters are an argument."""


def _standardise(x: Tensor) -> tuple[Tensor, Tensor]:
    """x with zero mean and unit variance in each map, and a mask (N, C, 1, 1) of the maps that vary.

    A map without variance (a constant picture makes them) has no layout to keep, yet the gradient
    through 1/sqrt(var + eps) is 316 at each of some twenty norms in a row: the official MUNIT gets
    NaN from one white picture. Multiplying such maps by the mask's 0 gives their limit, and no
    gradient. Faint maps must live: initial weights as small as BicycleGAN's make no others.
    """
    n, c, h, w = x.shape
    y, _, _ = torch.native_group_norm(x.contiguous(), None, None, n, c, h * w, c, EPS)
    wide = torch.promote_types(y.dtype, torch.float32)
    size = torch.linalg.vector_norm(y.detach(), dim=(2, 3), keepdim=True, dtype=wide)
    varies = size > math.sqrt(FLAT * h * w)  # the mean square of y is var / (var + eps)
    return y, varies.to(y.dtype)


class InstanceNorm(nn.Module):
    """Zero mean and unit variance for each sample and channel: removes colour and contrast.

    No affine parameters and no running statistics; biased variance, eps 1e-5 inside the root.
    Maps whose deviation is below 1e-5 come out as zeros, without gradient.

    Shapes: (N, C, H, W) -> same
    Source: Ulyanov et al. (arXiv 1607.08022); as used in MUNIT's content encoder.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (N, C, H, W)."""
        y, varies = _standardise(x)
        return y * varies


class AdaIN(nn.Module):
    """Instance norm, then a scale and a shift that are given for each sample as an argument.

    Shapes: x (N, C, H, W), params (N, 2C) -> (N, C, H, W)

    Args:
        channels: C. `params` holds C shifts, then C scales; a scale is used as it is (no "1 +").

    Raises:
        ShapeError is raised by the owner that cuts `params`; here torch complains.
    Source: Huang & Belongie (arXiv 1703.06868), eq. 8; order and scale as the official MUNIT's.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def param_count(self) -> int:
        """Two for each channel."""
        return 2 * self.channels

    def forward(self, x: Tensor, params: Tensor) -> Tensor:
        """Normalise x (N, C, H, W), then scale and shift it with params (N, 2C)."""
        shift, scale = params.to(x.dtype)[:, :, None, None].chunk(2, dim=1)
        y, varies = _standardise(x)
        return torch.addcmul(shift, y, scale * varies)


class MunitLayerNorm(nn.Module):
    """MUNIT's layer norm: over C, H, W of each sample, then a learnt gain and bias per channel.

    Unlike `nn.GroupNorm(1, C)`: the standard deviation is unbiased (n - 1), eps 1e-5 is added to
    it (not to the variance), and the gain starts as U(0, 1).

    Shapes: (N, C, H, W) -> same
    Source: official MUNIT networks.py (behaviour); the paper (section 5.1) says "layer norm" only.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (N, C, H, W)."""
        wide = x if x.dtype == torch.float64 else x.float()
        var, mean = torch.var_mean(wide, dim=(1, 2, 3), correction=1, keepdim=True)
        # A root of zero has no gradient: where the deviation is below eps, the limit is the bias.
        varies = var > EPS**2
        std = torch.where(varies, var, torch.ones_like(var)).sqrt()
        scale = self.gain[:, None, None] * varies / (std + EPS)
        shift = self.bias[:, None, None] - mean * scale
        return torch.addcmul(shift, wide, scale).to(x.dtype)  # (N, C, H, W)


class BatchNorm(nn.Module):
    """Batch norm: zero mean and unit variance per channel over the batch, gain and bias learnt.

    In training with several samples it keeps what differs between them (their style), which
    instance norm removes. Eval mode uses the running statistics.

    Shapes: (N, C, H, W) -> same
    Args:
        momentum: weight of the newest batch in the running statistics.
    Source: Ioffe & Szegedy (arXiv 1502.03167).
    """

    def __init__(self, channels: int, *, momentum: Annotated[float, Field(gt=0, le=1)] = 0.1) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps=EPS, momentum=momentum)

    @staticmethod
    def problems(options: Mapping[str, Any], setting: Setting) -> Iterable[str]:
        """A batch of one turns it into instance norm."""
        if setting.batch_size == 1:
            yield (
                "norm 'bn' with training.batch_size = 1 is instance norm in training, and erases "
                "the style; use a batch of 2 or more, or norm 'none'"
            )

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (N, C, H, W)."""
        return self.norm(x)


class NoNorm(nn.Module):
    """x as it is: what MUNIT's style encoder and discriminator use, so that style survives.

    Shapes: any -> same
    """

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """x."""
        return x

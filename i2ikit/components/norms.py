"""Norms: what each of them removes from a feature map, and over which part of it.

Shapes: (N, C, H, W) -> (N, C, H, W). Statistics are accumulated in at least fp32 whatever the
input's dtype; float64 stays float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Protocol, runtime_checkable

import torch
import torch.distributed as dist
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
    "Norm",
    "NormSpec",
]

EPS = 1e-5
FLAT = 1e-5
"""A map is flat if its variance is below this part of eps, a deviation of 1e-5: rounding, not layout."""


class Norm(Protocol):
    """What a place for a norm asks of a module that is built from (channels)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (N, C, H, W); same shape and dtype."""
        ...


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
    instance norm removes. Eval mode uses the running statistics. Several processes normalise over
    the samples of all of them, as one process would.

    Shapes: (N, C, H, W) -> same
    Args:
        momentum: weight of the newest batch in the running statistics.
        local: normalise over this process's samples alone: saves two short exchanges per norm and
            pass, but the result depends on the number of processes.
    Source: Ioffe & Szegedy (arXiv 1502.03167). Not nn.SyncBatchNorm, which refuses CPU tensors.
    """

    def __init__(
        self,
        channels: int,
        *,
        momentum: Annotated[float, Field(gt=0, le=1)] = 0.1,
        local: bool = False,
    ) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps=EPS, momentum=momentum)
        self.momentum = momentum
        self.local = local

    @staticmethod
    def problems(options: Mapping[str, Any], setting: Setting) -> Iterable[str]:
        """A batch of one turns it into instance norm."""
        if setting.images_at_once == 1:
            yield (
                f"norm 'bn' over a single image (training.batch_size = {setting.batch_size}, "
                f"training.accumulation = {setting.accumulation}) is instance norm in training, and "
                "erases the style; use a batch of 2 or more, or norm 'none'"
            )
        elif options["local"] and setting.images_at_once < 2 * setting.processes:
            yield (
                f"local norm 'bn' with {setting.images_at_once} images at once shared out to "
                f"{setting.processes} processes is instance norm in training; use local = false"
            )

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (N, C, H, W)."""
        grouped = not self.local and dist.is_available() and dist.is_initialized()
        over_all = grouped and dist.get_world_size() > 1
        if self.training and (over_all or x.device.type == "cpu"):
            return self._in_float64(x, over_all)
        return self.norm(x)

    def _in_float64(self, x: Tensor, over_all: bool) -> Tensor:
        """With sums in float64, whose rounding nobody sees: the same for any share of the samples.

        torch's own kernel adds up in fp32 on CPUs, so that one process and two differ by a bit here
        and there. Several processes exchange counts, sums and sums of squares at once.
        """
        over = (0, 2, 3)
        sums = x.sum(over, dtype=torch.float64)
        squares = torch.linalg.vector_norm(x, dim=over, dtype=torch.float64).square()
        count = sums.new_full((1,), x.numel() // x.shape[1])
        if over_all:
            whole = _SumOverProcesses.apply(torch.cat([count, sums, squares]))
            count, sums, squares = whole.tensor_split([1, 1 + len(sums)])
        mean = sums / count
        var = squares / count - mean.square()
        self._remember(mean.detach(), (var * count / (count - 1).clamp(min=1)).detach())
        dtype = self.norm.weight.dtype
        scale = self.norm.weight * (var + EPS).rsqrt().to(dtype)
        centred = x.to(dtype) - mean.to(dtype)[:, None, None]
        return torch.addcmul(self.norm.bias[:, None, None], centred, scale[:, None, None]).to(x.dtype)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards those of this batch, as nn.BatchNorm2d does."""
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.num_batches_tracked is not None
        norm.running_mean.lerp_(mean.to(norm.running_mean), self.momentum)
        norm.running_var.lerp_(variance.to(norm.running_var), self.momentum)
        norm.num_batches_tracked.add_(1)


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes, and so of its gradients.

    Not torch.distributed.nn.functional.all_reduce, which does the same but is deprecated.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """SUM over processes."""
        summed = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Each process's x went into the result of every process."""
        return _SumOverProcesses.apply(grad)


class NoNorm(nn.Module):
    """x as it is: what MUNIT's style encoder and discriminator use, so that style survives.

    Shapes: any -> same
    """

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """x."""
        return x

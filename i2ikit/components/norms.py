"""Norms, and the statistics that each of them removes from a feature map.

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
"""A map is flat if its variance is below FLAT * EPS: a deviation of 1e-5, which is rounding, not layout."""


class Norm(Protocol):
    """Interface of a norm module, built from (channels)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (N, C, H, W); same shape and dtype."""
        ...


@runtime_checkable
class AdaptiveNorm(Protocol):
    """A norm whose scale and shift are an argument, per sample: `norm(x, params)`."""

    def param_count(self) -> int:
        """Length of `params` for each sample."""
        ...

    def forward(self, x: Tensor, params: Tensor) -> Tensor:
        """Normalise x (N, C, H, W) with params (N, param_count)."""
        ...


NormSpec = Annotated[Spec, Slot("norms", ("channels",), unlike=AdaptiveNorm)]
"""An option that holds a norm that is not adaptive."""

AdaptiveNormSpec = Annotated[Spec, Slot("norms", ("channels",), like=AdaptiveNorm)]
"""An option that holds an adaptive norm."""


def _standardise(x: Tensor) -> tuple[Tensor, Tensor]:
    """x with zero mean and unit variance in each map, and a mask (N, C, 1, 1) of the maps that vary.

    A constant image gives maps without variance. The gradient through 1/sqrt(var + eps) is then 316 at
    each of about twenty consecutive norms, so that a single white image gives NaN in the official MUNIT.
    Multiplying such maps by the mask's 0 gives their limit without gradient. Keep the threshold low:
    BicycleGAN's initialisation gives deviations near 5e-5.
    """
    n, c, h, w = x.shape
    y, _, _ = torch.native_group_norm(x.contiguous(), None, None, n, c, h * w, c, EPS)
    wide = torch.promote_types(y.dtype, torch.float32)
    size = torch.linalg.vector_norm(y.detach(), dim=(2, 3), keepdim=True, dtype=wide)
    varies = size > math.sqrt(FLAT * h * w)  # the mean square of y is var / (var + eps)
    return y, varies.to(y.dtype)


class InstanceNorm(nn.Module):
    """Zero mean and unit variance for each sample and channel; removes colour and contrast.

    No affine parameters and no running statistics; biased variance, eps 1e-5 inside the root.
    Maps whose standard deviation is below 1e-5 become 0, without gradient.

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
    """Adaptive instance norm: instance norm, then a scale and a shift per sample, given as an argument.

    Shapes: x (N, C, H, W), params (N, 2C) -> (N, C, H, W)

    Args:
        channels: C. `params` contains C shifts, then C scales; scales are used unchanged (no "1 +").

    Raises:
        RuntimeError: `params` has the wrong length; decoders check their codes earlier (ShapeError).
    Source: Huang & Belongie (arXiv 1703.06868), eq. 8; order and scale as in the official MUNIT code.
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
    """MUNIT's layer norm: over C, H, W of each sample, then a learned gain and bias per channel.

    Unlike `nn.GroupNorm(1, C)`: the standard deviation is unbiased (n - 1), eps 1e-5 is added to
    it (not to the variance), and the gain is initialised with U(0, 1).

    Shapes: (N, C, H, W) -> same
    Source: official MUNIT networks.py (behaviour); the paper (section 5.1) only says "layer norm".
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (N, C, H, W)."""
        wide = x if x.dtype == torch.float64 else x.float()
        var, mean = torch.var_mean(wide, dim=(1, 2, 3), correction=1, keepdim=True)
        # The gradient of sqrt is infinite at 0: where the deviation is below eps, the result is the bias.
        varies = var > EPS**2
        std = torch.where(varies, var, torch.ones_like(var)).sqrt()
        scale = self.gain[:, None, None] * varies / (std + EPS)
        shift = self.bias[:, None, None] - mean * scale
        return torch.addcmul(shift, wide, scale).to(x.dtype)  # (N, C, H, W)


class BatchNorm(nn.Module):
    """Batch norm: zero mean and unit variance per channel over the batch, then a learned gain and bias.

    In training with several samples it keeps the differences between them (their style), which
    instance norm removes. Eval mode uses the running statistics. Several processes normalise over
    all of their samples, so that the result equals that of one process.

    Shapes: (N, C, H, W) -> same
    Args:
        momentum: weight of the newest batch in the running statistics.
        local: normalise over this process's samples only; saves two small all-reduces per norm and
            pass, but the result depends on the number of processes.
    Source: Ioffe & Szegedy (arXiv 1502.03167). Not nn.SyncBatchNorm, which does not support CPU tensors.
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
        """With one image at a time, it is equal to instance norm."""
        if setting.images_at_once == 1:
            yield (
                f"norm 'bn' over a single image (training.batch_size = {setting.batch_size}, "
                f"training.accumulation = {setting.accumulation}) is instance norm in training, and "
                "removes the style; use a batch of 2 or more, or norm 'none'"
            )
        elif options["local"] and setting.images_at_once < 2 * setting.processes:
            yield (
                f"local norm 'bn' with {setting.images_at_once} images at once split over "
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
        """Normalise with sums in float64, so that the result does not depend on how samples are shared.

        torch's own CPU kernel sums in fp32, so that one and two processes differ by rounding. Several
        processes exchange counts, sums and sums of squares in a single all-reduce.
        """
        over = (0, 2, 3)
        sums = x.sum(over, dtype=torch.float64)
        squares = torch.linalg.vector_norm(x, dim=over, dtype=torch.float64).square()
        count = sums.new_full((1,), x.numel() // x.shape[1])
        if over_all:
            whole = _SumOverProcesses.apply(torch.cat([count, sums, squares]))
            count, sums, squares = whole.tensor_split([1, 1 + len(sums)])
        mean = sums / count
        # In fp32 this difference of two large numbers would lose the variance; in float64 it keeps it.
        var = squares / count - mean.square()
        self._remember(mean.detach(), (var * count / (count - 1).clamp(min=1)).detach())
        dtype = self.norm.weight.dtype
        scale = self.norm.weight * (var + EPS).rsqrt().to(dtype)
        centred = x.to(dtype) - mean.to(dtype)[:, None, None]
        return torch.addcmul(self.norm.bias[:, None, None], centred, scale[:, None, None]).to(x.dtype)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics, as nn.BatchNorm2d does."""
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.num_batches_tracked is not None
        norm.running_mean.lerp_(mean.to(norm.running_mean), self.momentum)
        norm.running_var.lerp_(variance.to(norm.running_var), self.momentum)
        norm.num_batches_tracked.add_(1)


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; gradients are summed as well.

    Replaces torch.distributed.nn.functional.all_reduce, which is deprecated.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """SUM over processes."""
        summed = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Sum the gradients: each process's x contributes to the result of every process."""
        return _SumOverProcesses.apply(grad)


class NoNorm(nn.Module):
    """No normalisation: x is returned unchanged; MUNIT's style encoder and discriminator use it.

    Shapes: any -> same
    """

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """x."""
        return x

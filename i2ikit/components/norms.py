"""Norms, and the statistics that each of them removes from a feature map.

Shapes: (N, C, H, W) -> (N, C, H, W). Statistics are accumulated in at least fp32 whatever the
input's dtype; float64 stays float64.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Protocol, runtime_checkable

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
    "norm_layer",
    "statistics_unchanged",
]

EPS = 1e-5
FLAT = 1e-5
"""A map is flat if its variance is below FLAT * EPS: a deviation of 1e-5, which is rounding, not layout."""


class Norm(Protocol):
    """Interface of a norm module, built from (channels).

    It gets a contiguous x, unless its class says `channels_last = True`: it then accepts that memory format
    too, and returns it for such an x, which saves time.
    """

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


def norm_layer(norm: Spec, channels: int) -> Any:
    """A norm for feature maps that may be in channels_last, the memory format of the components here.

    Norms that do not declare `channels_last = True` get a contiguous x, so that they may use `view`.
    """
    module: nn.Module = norm(channels)
    if not getattr(module, "channels_last", False):
        module.register_forward_pre_hook(_with_contiguous_input)
    return module


def _with_contiguous_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    x, *rest = inputs
    return (x.contiguous(), *rest)


def _instance_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Each map of x (N, C, H, W) with zero mean and unit variance, then scaled and shifted by (N, C) each.

    A constant image gives maps without variance. The gradient through 1/sqrt(var + eps) is then 316 at
    each of about twenty consecutive norms, so that a single white image gives NaN in the official MUNIT.
    The scale of such maps is set to 0, which gives their limit without gradient. Keep the threshold low:
    BicycleGAN's initialisation gives deviations near 5e-5.
    """
    if torch.compiler.is_exporting():
        return _plain_instance_norm(x, scale, shift)
    n, c, h, w = x.shape
    wide = torch.promote_types(x.dtype, torch.float32)  # batch norm's sums have the dtype of scale and shift
    # The mean is removed first, because those sums lose digits where it is large: a constant map would vary.
    x = x - x.detach().mean((2, 3), keepdim=True)
    size = torch.linalg.vector_norm(x.detach(), dim=(2, 3), dtype=wide)
    scale, shift = scale.to(wide) * (size > math.sqrt(FLAT * EPS * h * w)), shift.to(wide)
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        # Batch norm of one sample is instance norm, and the only fast kernel for this memory format: group
        # norm is 20 times slower, and the backward pass of F.instance_norm is wrong (torch 2.14).
        samples = zip(torch.split(x, 1), scale, shift, strict=True)
        return torch.cat([_batch_norm(one, a, b) for one, a, b in samples])
    return _batch_norm(x.reshape(1, n * c, h, w), scale.flatten(), shift.flatten()).view(n, c, h, w)


def _plain_instance_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """`_instance_norm` for exported programs: without a kernel that a number of samples or pixels selects."""
    x = x - x.mean((2, 3), keepdim=True)
    var = x.square().mean((2, 3), keepdim=True)
    scale = scale[:, :, None, None] * (var > FLAT * EPS)
    return torch.addcmul(shift[:, :, None, None], x, scale * (var + EPS).rsqrt())


def _batch_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Without running statistics; F.batch_norm refuses maps of one pixel, whose result is the shift."""
    return torch.batch_norm(x, scale, shift, None, None, True, 0.0, EPS, torch.backends.cudnn.enabled)


class InstanceNorm(nn.Module):
    """Zero mean and unit variance for each sample and channel; removes colour and contrast.

    No affine parameters and no running statistics; biased variance, eps 1e-5 inside the root.
    Maps whose standard deviation is below 1e-5 become 0, without gradient.

    Shapes: (N, C, H, W) -> same
    Source: Ulyanov et al. (arXiv 1607.08022); as used in MUNIT's content encoder.
    """

    channels_last: ClassVar[bool] = True

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (N, C, H, W)."""
        ones = x.new_ones(x.shape[:2])
        return _instance_norm(x, ones, torch.zeros_like(ones))


class AdaIN(nn.Module):
    """Adaptive instance norm: instance norm, then a scale and a shift per sample, given as an argument.

    Shapes: x (N, C, H, W), params (N, 2C) -> (N, C, H, W)

    Args:
        channels: C. `params` contains C shifts, then C scales; scales are used unchanged (no "1 +").

    Raises:
        RuntimeError: `params` has the wrong length; decoders check their codes earlier (ShapeError).
    Source: Huang & Belongie (arXiv 1703.06868), eq. 8; order and scale as in the official MUNIT code.
    """

    channels_last: ClassVar[bool] = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def param_count(self) -> int:
        """Two for each channel."""
        return 2 * self.channels

    def forward(self, x: Tensor, params: Tensor) -> Tensor:
        """Normalise x (N, C, H, W), then scale and shift it with params (N, 2C)."""
        shift, scale = params.chunk(2, dim=1)
        return _instance_norm(x, scale, shift)


class MunitLayerNorm(nn.Module):
    """MUNIT's layer norm: over C, H, W of each sample, then a learned gain and bias per channel.

    Unlike `nn.GroupNorm(1, C)`: the standard deviation is unbiased (n - 1), eps 1e-5 is added to
    it (not to the variance), and the gain is initialised with U(0, 1).

    Shapes: (N, C, H, W) -> same
    Source: official MUNIT networks.py (behaviour); the paper (section 5.1) only says "layer norm".
    """

    channels_last: ClassVar[bool] = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (N, C, H, W)."""
        n = x[0].numel()
        # Deviations from any offset have the same variance; from the mean, their squares lose no digits.
        deviations = x - x.detach().mean((1, 2, 3), keepdim=True)
        total, squares = _sums(deviations, (1, 2, 3), torch.promote_types(x.dtype, torch.float32))
        var = (squares - total.square() / n) / (n - 1)
        # The gradient of sqrt is infinite at 0: where the deviation is below eps, the result is the bias.
        varies = var > EPS**2
        std = torch.where(varies, var, torch.ones_like(var)).sqrt()
        scale = self.gain[:, None, None] * varies / (std + EPS)
        shift = self.bias[:, None, None] - total / n * scale
        return torch.addcmul(shift, deviations, scale).to(x.dtype)  # (N, C, H, W)


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

    channels_last: ClassVar[bool] = True

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
        sums, squares = (total.flatten() for total in _sums(x, (0, 2, 3), torch.float64))
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


@contextlib.contextmanager
def statistics_unchanged(network: nn.Module) -> Iterator[None]:
    """Within the context, forward passes do not update the running statistics of the network.

    They are the network's buffers, which are restored at the end. The passes need no gradient, because the
    backward pass of some layers reads buffers.
    """
    before = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)


def _sums(x: Tensor, over: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Sums and sums of squares over some dimensions, which are kept; accumulated and returned in `dtype`.

    Much faster than torch.var_mean, and than the backward passes of sum and vector_norm, on CPUs.
    """
    if torch.compiler.is_exporting():
        return x.sum(over, keepdim=True, dtype=dtype), x.to(dtype).square().sum(over, keepdim=True)
    total, squares = _Sums.apply(x, over, dtype)
    return total, squares


class _Sums(torch.autograd.Function):
    """`_sums`, whose backward pass reads x once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, over: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Both sums of x."""
        ctx.save_for_backward(x)
        total = x.sum(over, keepdim=True, dtype=dtype)
        return total, torch.linalg.vector_norm(x, dim=over, keepdim=True, dtype=dtype).square()

    @staticmethod
    def backward(ctx: Any, of_total: Tensor, of_squares: Tensor) -> tuple[Tensor, None, None]:
        """In operations that can be differentiated again."""
        (x,) = ctx.saved_tensors
        wide = torch.promote_types(x.dtype, torch.float32)
        return torch.addcmul(of_total.to(wide), x, 2 * of_squares.to(wide)).to(x.dtype), None, None


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

    channels_last: ClassVar[bool] = True

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """x."""
        return x

"""Convolution blocks of encoders, decoders and discriminators, and weight initialisation.

Order inside a block: reflection padding, convolution with bias, norm, activation.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from i2ikit.components.norms import norm_layer
from i2ikit.components.padding import ReflectionConv
from i2ikit.registry import Spec

__all__ = [
    "AdaptiveResidual",
    "ConvBlock",
    "Linear",
    "Residual",
    "conv_side",
    "drop",
    "initialise_kaiming",
    "initialise_normal",
    "initialise_xavier",
    "keep_weights",
    "with_code",
]


def conv_side(side: int, kernel: int, stride: int, padding: int) -> int:
    """Output side of `ReflectionConv` for a square of `side` pixels; 0 if it is too small for the padding."""
    return (side + 2 * padding - kernel) // stride + 1 if side > padding else 0


def with_code(x: Tensor, code: Tensor) -> Tensor:
    """x with a code as further channels: (N, C, H, W), (N, latent_dim) -> (N, C + latent_dim, H, W)."""
    maps = code[:, :, None, None].expand(-1, -1, *x.shape[2:])
    return torch.cat([x, maps.to(x.dtype)], dim=1)


def drop(x: Tensor, numbers: Tensor, rate: float) -> Tensor:
    """Dropout: 0 where `numbers`, uniform in [0, 1), are below `rate`; the rest is scaled to keep the mean.

    Shapes: x and numbers (N, C, H, W) -> same
    """
    return x * (numbers >= rate) / (1 - rate)


class ConvBlock(nn.Module):
    """Convolution, norm, activation.

    Shapes: (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride)

    Args:
        norm: spec of a norm that is not adaptive.
        slope: negative slope of the leaky ReLU; 0 is ReLU, None is no activation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        *,
        norm: Spec,
        slope: float | None = 0.0,
    ) -> None:
        super().__init__()
        self.conv = ReflectionConv(in_channels, out_channels, kernel, stride, padding)
        self.norm = norm_layer(norm, out_channels)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to x (N, in_channels, H, W)."""
        x = self.norm(self.conv(x))
        if self.slope is None:
            return x
        # F.relu keeps its output, which the next convolution keeps as well, and F.leaky_relu its input.
        return F.leaky_relu(x, self.slope) if self.slope else F.relu(x)


class Linear(nn.Linear):
    """A linear layer whose result for a sample is bitwise independent of the batch size (on CPUs).

    A single matrix product sums in an order that depends on the number of samples. Rounding can then
    flip a ReLU or an L1 sign and change gradients by about 1e-3, so that two processes with half a batch
    each would differ from one. Only observed, and only avoided, on CPUs, where convolutions are not
    affected.

    Shapes: (N, in_features) -> (N, out_features)
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, in_features)."""
        if x.device.type != "cpu" or torch.compiler.is_exporting():
            return super().forward(x)
        # One matrix product per sample: the summation order no longer depends on the batch size.
        weight = self.weight  # read once: a parametrised weight is computed at each access
        return torch.cat([F.linear(one, weight, self.bias) for one in torch.split(x, 1)])


class Residual(nn.Module):
    """Residual block: two 3x3 convolution blocks plus their input; no activation after the sum.

    Dropout between the two needs uniform numbers (see `drop`); without them there is none.

    Shapes: (N, channels, H, W) -> same
    """

    def __init__(self, channels: int, *, norm: Spec) -> None:
        super().__init__()
        self.first = ConvBlock(channels, channels, 3, 1, 1, norm=norm)
        self.second = ConvBlock(channels, channels, 3, 1, 1, norm=norm, slope=None)

    def forward(self, x: Tensor, numbers: Tensor | None = None, rate: float = 0.0) -> Tensor:
        """Apply the block to x (N, channels, H, W)."""
        y = self.first(x)
        return x + self.second(y if numbers is None else drop(y, numbers, rate))


class AdaptiveResidual(nn.Module):
    """A residual block with two adaptive norms, whose parameters are an argument.

    Shapes: x (N, channels, H, W), params (N, param_count) -> (N, channels, H, W)

    Args:
        norm: spec of an adaptive norm; the first norm gets the first half of `params`.
    """

    def __init__(self, channels: int, *, norm: Spec) -> None:
        super().__init__()
        self.conv_first = ReflectionConv(channels, channels, 3, 1, 1)
        self.norm_first = norm_layer(norm, channels)
        self.conv_second = ReflectionConv(channels, channels, 3, 1, 1)
        self.norm_second = norm_layer(norm, channels)
        self.param_counts: list[int] = [self.norm_first.param_count(), self.norm_second.param_count()]

    def param_count(self) -> int:
        """Length of `params` for each sample."""
        return sum(self.param_counts)

    def forward(self, x: Tensor, params: Tensor) -> Tensor:
        """Apply the block to x (N, channels, H, W) with params (N, param_count)."""
        first, second = torch.split(params, self.param_counts, dim=1)
        y = F.relu(self.norm_first(self.conv_first(x), first))
        return x + self.norm_second(self.conv_second(y), second)


_KEPT: weakref.WeakSet[nn.Module] = weakref.WeakSet()
SPECTRAL_ITERATIONS = 15
"""The number that torch uses when it adds spectral norm to a layer."""

M = TypeVar("M", bound=nn.Module)


def keep_weights(module: M) -> M:
    """Exclude the weights of a module (such as loaded ones) from `initialise_...`; returns the module.

    Frozen parameters are always excluded.
    """
    _KEPT.add(module)
    return module


def initialise_kaiming(module: nn.Module) -> None:
    """Kaiming normal, fan in, gain sqrt(2), for every convolution and linear layer; biases 0.

    All `initialise_...` functions skip frozen parameters and `keep_weights` modules, and initialise the
    underlying parameters of parametrised weights (spectral norm).
    """
    _initialise(module, lambda weight: nn.init.kaiming_normal_(weight, a=0, mode="fan_in"))


def initialise_normal(module: nn.Module, std: float) -> None:
    """N(0, std) for every convolution and linear layer; biases 0."""
    _initialise(module, lambda weight: nn.init.normal_(weight, 0.0, std))


def initialise_xavier(module: nn.Module, gain: float) -> None:
    """Xavier normal for every convolution and linear layer; biases 0."""
    _initialise(module, lambda weight: nn.init.xavier_normal_(weight, gain))


def _initialise(module: nn.Module, start: Callable[[Tensor], Tensor]) -> None:
    """Initialise every convolution and linear layer, except frozen parameters and `keep_weights` modules."""
    kept = {part for whole in module.modules() if whole in _KEPT for part in whole.modules()}
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and layer not in kept:
            _start_layer(layer, start)


@torch.no_grad()
def _start_layer(
    layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, start: Callable[[Tensor], Tensor]
) -> None:
    own = dict(layer.named_parameters(recurse=False))
    if parametrize.is_parametrized(layer, "weight"):
        behind = layer.get_submodule("parametrizations.weight")
        if any(p.requires_grad for p in behind.parameters()):
            # The weight is computed, so a change in place would be lost.
            layer.weight = start(torch.empty_like(layer.weight))
            _settle(layer)
    elif "weight" in own or "weight_orig" in own:  # "weight_orig": torch.nn.utils.spectral_norm
        weight = own.get("weight", own.get("weight_orig"))
        assert weight is not None
        if weight.requires_grad:
            # In the order of the indices, so that a seed gives the same weights in each memory format.
            weight.copy_(start(torch.empty(weight.shape, dtype=weight.dtype, device=weight.device)))
    else:
        raise TypeError(
            f"{type(layer).__name__} has no parameter 'weight' to initialise (it has {', '.join(own)}); use "
            "torch.nn.utils.parametrizations, or keep_weights(layer)"
        )
    if "bias" in own and own["bias"].requires_grad:
        own["bias"].zero_()


def _settle(layer: nn.Module) -> None:
    """Let spectral norm converge for the new weight: each access in training mode is one power iteration."""
    was_training = layer.training
    layer.train()
    for _ in range(SPECTRAL_ITERATIONS):
        _ = layer.weight
    layer.train(was_training)

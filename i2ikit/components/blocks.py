"""Convolution blocks that encoders, decoders and discriminators are made of, and their initial weights.

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

from i2ikit.registry import Spec

__all__ = [
    "AdaptiveResidual",
    "ConvBlock",
    "Linear",
    "Residual",
    "conv",
    "conv_side",
    "initialise_kaiming",
    "initialise_normal",
    "initialise_xavier",
    "keep_weights",
]


def conv(in_channels: int, out_channels: int, kernel: int, stride: int, padding: int) -> nn.Conv2d:
    """A convolution with reflection padding and bias."""
    return nn.Conv2d(
        in_channels, out_channels, kernel, stride, padding, padding_mode="reflect" if padding else "zeros"
    )


def conv_side(side: int, kernel: int, stride: int, padding: int) -> int:
    """Side of what `conv` returns for a square of `side` pixels; 0 where reflection is impossible."""
    return (side + 2 * padding - kernel) // stride + 1 if side > padding else 0


class ConvBlock(nn.Module):
    """Convolution, norm, activation.

    Shapes: (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride)

    Args:
        norm: spec of a plain norm.
        slope: of the leaky ReLU; 0 is ReLU, None is no activation.
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
        self.conv = conv(in_channels, out_channels, kernel, stride, padding)
        self.norm: nn.Module = norm(out_channels)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to x (N, in_channels, H, W)."""
        x = self.norm(self.conv(x))
        return x if self.slope is None else F.leaky_relu(x, self.slope)


class Linear(nn.Linear):
    """A linear layer that gives a sample the same result, to the last bit, in a batch of any size.

    One product of all samples adds up in another order for another number of them. That turns the odd
    ReLU, and the sign of the odd L1 term, and with it 1e-3 of a gradient, so that two processes with
    half a batch each would not do what one does. Measured, and mended, on CPUs only, where
    convolutions are safe.

    Shapes: (N, in_features) -> (N, out_features)
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, in_features)."""
        if x.device.type != "cpu":
            return super().forward(x)
        weights = self.weight.t().expand(len(x), -1, -1)
        return torch.baddbmm(self.bias, x[:, None], weights)[:, 0]


class Residual(nn.Module):
    """Two 3x3 blocks, their input added; no activation after the sum.

    Shapes: (N, channels, H, W) -> same
    """

    def __init__(self, channels: int, *, norm: Spec) -> None:
        super().__init__()
        self.first = ConvBlock(channels, channels, 3, 1, 1, norm=norm)
        self.second = ConvBlock(channels, channels, 3, 1, 1, norm=norm, slope=None)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to x (N, channels, H, W)."""
        return x + self.second(self.first(x))


class AdaptiveResidual(nn.Module):
    """A residual block whose two norms take their parameters from outside.

    Shapes: x (N, channels, H, W), params (N, param_count) -> (N, channels, H, W)

    Args:
        norm: spec of an adaptive norm; the first norm gets the first half of `params`.
    """

    def __init__(self, channels: int, *, norm: Spec) -> None:
        super().__init__()
        self.conv_first = conv(channels, channels, 3, 1, 1)
        self.norm_first = norm(channels)
        self.conv_second = conv(channels, channels, 3, 1, 1)
        self.norm_second = norm(channels)
        self.param_counts: list[int] = [self.norm_first.param_count(), self.norm_second.param_count()]

    def param_count(self) -> int:
        """How many numbers `params` holds for each sample."""
        return sum(self.param_counts)

    def forward(self, x: Tensor, params: Tensor) -> Tensor:
        """Apply the block to x (N, channels, H, W) with params (N, param_count)."""
        first, second = torch.split(params, self.param_counts, dim=1)
        y = F.relu(self.norm_first(self.conv_first(x), first))
        return x + self.norm_second(self.conv_second(y), second)


_KEPT: weakref.WeakSet[nn.Module] = weakref.WeakSet()
SPECTRAL_ITERATIONS = 15
"""As many as torch does when it makes a layer spectrally normalised."""

M = TypeVar("M", bound=nn.Module)


def keep_weights(module: M) -> M:
    """The module, whose weights (loaded ones, say) no `initialise_...` changes from now on.

    Frozen parameters need no mark: they are never initialised.
    """
    _KEPT.add(module)
    return module


def initialise_kaiming(module: nn.Module) -> None:
    """Kaiming normal, fan in, gain sqrt(2), for every convolution and linear layer; biases 0.

    This and the others leave frozen parameters and `keep_weights` modules as they are, and reach the
    parameters behind a computed weight (spectral norm).
    """
    _initialise(module, lambda weight: nn.init.kaiming_normal_(weight, a=0, mode="fan_in"))


def initialise_normal(module: nn.Module, std: float) -> None:
    """N(0, std) for every convolution and linear layer; biases 0."""
    _initialise(module, lambda weight: nn.init.normal_(weight, 0.0, std))


def initialise_xavier(module: nn.Module, gain: float) -> None:
    """Xavier normal for every convolution and linear layer; biases 0."""
    _initialise(module, lambda weight: nn.init.xavier_normal_(weight, gain))


def _initialise(module: nn.Module, start: Callable[[Tensor], Tensor]) -> None:
    """Start every convolution and linear layer anew, but those that are frozen or were kept."""
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
            # The weight itself is computed: a change in place would be lost.
            layer.weight = start(torch.empty_like(layer.weight))
            _settle(layer)
    elif "weight" in own or "weight_orig" in own:  # the latter: torch.nn.utils.spectral_norm
        weight = own.get("weight", own.get("weight_orig"))
        assert weight is not None
        if weight.requires_grad:
            start(weight)
    else:
        raise TypeError(
            f"{type(layer).__name__} has no parameter 'weight' to initialise (it has {', '.join(own)}); use "
            "torch.nn.utils.parametrizations, or keep_weights(layer)"
        )
    if "bias" in own and own["bias"].requires_grad:
        own["bias"].zero_()


def _settle(layer: nn.Module) -> None:
    """Let spectral norm find the norm of the new weight: each look in training mode is one iteration."""
    was_training = layer.training
    layer.train()
    for _ in range(SPECTRAL_ITERATIONS):
        _ = layer.weight
    layer.train(was_training)

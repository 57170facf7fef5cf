"""Optimizers: thin factories around torch's, with this project's defaults.

The keys of `[optimizer]` that are not options of the optimizer, such as `decay`, belong to every optimizer
(see `i2ikit.optimizer_options`). What an optimizer keeps must be tensors by parameter, because checkpoints
save it under the names of the parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Protocol, runtime_checkable

import torch
from pydantic import Field
from torch.nn import Parameter
from torch.optim import Optimizer

from i2ikit.registry import Setting, Slot

__all__ = ["OPTIMIZER_SLOT", "SGD", "Adam", "AdamW", "OptimizerFactory", "RMSprop"]

LearningRate = Annotated[float, Field(gt=0)]
Decay = Annotated[float, Field(ge=0)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
Epsilon = Annotated[float, Field(gt=0)]


@runtime_checkable
class OptimizerFactory(Protocol):
    """A component that makes the optimizer of one network; its option `lr` is the learning rate."""

    def optimizer(self, parameters: Sequence[Parameter]) -> Optimizer:
        """An optimizer of these parameters."""
        ...


OPTIMIZER_SLOT = Slot("optimizers", (), like=OptimizerFactory)
"""The slot of [optimizer]."""


class Adam:
    """Adam, with a first decay rate of 0.5, as is usual for GANs.

    Args:
        lr: learning rate.
        betas: decay rates of the two moments, per step.
        eps: added to the root of the second moment.
        weight_decay: L2 penalty, added to the gradient.
    Source: Kingma & Ba (arXiv 1412.6980); the defaults are those of MUNIT's and BicycleGAN's papers.
    """

    def __init__(
        self,
        *,
        lr: LearningRate = 1e-4,
        betas: tuple[Momentum, Momentum] = (0.5, 0.999),
        eps: Epsilon = 1e-8,
        weight_decay: Decay = 0.0,
    ) -> None:
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay

    def optimizer(self, parameters: Sequence[Parameter]) -> Optimizer:
        """torch's Adam."""
        return torch.optim.Adam(
            parameters, self.lr, self.betas, self.eps, self.weight_decay, fused=_can_fuse(parameters)
        )


class AdamW:
    """Adam with decoupled weight decay: weights shrink by lr * weight_decay, whatever their gradients are.

    Args:
        lr: learning rate.
        betas: decay rates of the two moments, per step.
        eps: added to the root of the second moment.
        weight_decay: fraction of the weights that is subtracted, times lr.
    Source: Loshchilov & Hutter (arXiv 1711.05101).
    """

    def __init__(
        self,
        *,
        lr: LearningRate = 1e-4,
        betas: tuple[Momentum, Momentum] = (0.5, 0.999),
        eps: Epsilon = 1e-8,
        weight_decay: Decay = 0.01,
    ) -> None:
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay

    def optimizer(self, parameters: Sequence[Parameter]) -> Optimizer:
        """torch's AdamW."""
        return torch.optim.AdamW(
            parameters, self.lr, self.betas, self.eps, self.weight_decay, fused=_can_fuse(parameters)
        )


class SGD:
    """Stochastic gradient descent, with optional momentum.

    Args:
        lr: learning rate.
        momentum: decay rate of the velocity, per step; 0 is plain gradient descent.
        nesterov: use Nesterov's momentum.
        weight_decay: L2 penalty, added to the gradient.
    """

    def __init__(
        self,
        *,
        lr: LearningRate = 1e-4,
        momentum: Momentum = 0.0,
        nesterov: bool = False,
        weight_decay: Decay = 0.0,
    ) -> None:
        self.lr, self.momentum, self.nesterov, self.weight_decay = lr, momentum, nesterov, weight_decay

    @staticmethod
    def problems(options: Mapping[str, Any], setting: Setting) -> Iterable[str]:
        """Nesterov's momentum without momentum."""
        if options["nesterov"] and not options["momentum"]:
            yield "nesterov = true needs a momentum above 0"

    def optimizer(self, parameters: Sequence[Parameter]) -> Optimizer:
        """torch's SGD."""
        # Not fused with momentum: that fails if a parameter is reached for the first time at a later step.
        return torch.optim.SGD(
            parameters,
            self.lr,
            self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
            fused=not self.momentum and _can_fuse(parameters),
        )


class RMSprop:
    """RMSprop: gradients divided by a moving average of their size.

    Args:
        lr: learning rate.
        alpha: decay rate of the mean square, per step.
        eps: added to its root.
        momentum: decay rate of the velocity, per step.
        weight_decay: L2 penalty, added to the gradient.
    """

    def __init__(
        self,
        *,
        lr: LearningRate = 1e-4,
        alpha: Momentum = 0.99,
        eps: Epsilon = 1e-8,
        momentum: Momentum = 0.0,
        weight_decay: Decay = 0.0,
    ) -> None:
        self.lr, self.alpha, self.eps = lr, alpha, eps
        self.momentum, self.weight_decay = momentum, weight_decay

    def optimizer(self, parameters: Sequence[Parameter]) -> Optimizer:
        """torch's RMSprop."""
        return torch.optim.RMSprop(
            parameters, self.lr, self.alpha, self.eps, self.weight_decay, self.momentum
        )


def _can_fuse(parameters: Sequence[Parameter]) -> bool:
    return all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)

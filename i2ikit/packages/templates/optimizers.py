"""An optimizer for i2ikit: makes a torch optimizer for the parameters of one network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch.nn import Parameter

__all__ = ["MyPlugin"]

Rate = Annotated[float, Field(ge=0, lt=1)]


class MyPlugin:
    """NAdam: Adam with Nesterov's momentum.

    What an optimizer keeps must be tensors or numbers for each parameter, so that checkpoints can save it.

    Args:
        lr: learning rate; the recipe's schedule multiplies it.
        betas: decay rates of the two moments, per step.
    """

    def __init__(
        self,
        *,
        lr: Annotated[float, Field(gt=0)] = 1e-4,
        betas: tuple[Rate, Rate] = (0.5, 0.999),
    ) -> None:
        self.lr = lr
        self.betas = betas

    def optimizer(self, parameters: Sequence[Parameter]) -> torch.optim.Optimizer:
        """The optimizer of these parameters."""
        # To add an option, such as weight_decay: make it a parameter after `*`, and pass it on here.
        # To write the update yourself, return your subclass of torch.optim.Optimizer: its defaults contain
        # "lr", step(self, closure: Any = None) -> Any updates, and self.state[p] keeps tensors.
        return torch.optim.NAdam(parameters, lr=self.lr, betas=self.betas)

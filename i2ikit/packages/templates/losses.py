"""A reconstruction loss for i2ikit: `loss(prediction, target)` returns an unweighted scalar.

An adversarial loss has the methods `discriminator(fake, real)` and `generator(fake)` instead; use
`check_adversarial_loss` in its test and `[translator.adversarial_loss]` in its recipe.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

__all__ = ["MyPlugin"]


class MyPlugin:
    """Charbonnier loss: mean(sqrt((prediction - target)**2 + eps**2)).

    Reduction: mean over all elements. Gradients flow to both arguments.

    Args:
        eps: the loss is nearly quadratic for differences below it and nearly L1 above it.
    """

    def __init__(self, *, eps: Annotated[float, Field(gt=0, le=1)] = 0.01) -> None:
        self.eps = eps

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The loss of two tensors of the same shape: a scalar."""
        # A mean over samples: each process computes the loss of its share, and the results are averaged.
        return ((prediction - target).square() + self.eps**2).sqrt().mean()

"""A reconstruction loss for i2ikit: `loss(prediction, target)` is an unweighted scalar.

One with the methods `discriminator(fake, real)` and `generator(fake)` is an adversarial loss.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

__all__ = ["MyPlugin"]


class MyPlugin:
    """Charbonnier's distance: mean(sqrt((prediction - target)**2 + eps**2)).

    Reduction: mean over everything. Gradients flow to both sides.

    Args:
        eps: below it the distance is nearly quadratic, above it nearly L1.
    """

    def __init__(self, *, eps: Annotated[float, Field(gt=0, le=1)] = 0.01) -> None:
        self.eps = eps

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Scalar from two tensors of one shape."""
        return ((prediction - target).square() + self.eps**2).sqrt().mean()

"""A norm for i2ikit: the parent component passes the parameters before `*`, the recipe the rest."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

__all__ = ["MyPlugin"]


class MyPlugin(nn.Module):
    """Subtracts the mean of each feature map; keeps its contrast.

    Shapes: (N, C, H, W) -> same

    Args:
        strength: the fraction of the mean that is subtracted.
    """

    def __init__(self, channels: int, *, strength: Annotated[float, Field(ge=0, le=1)] = 1.0) -> None:
        super().__init__()
        self.strength = strength
        # To learn a factor for each channel: self.gamma = nn.Parameter(torch.ones(channels, 1, 1)).

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (N, C, H, W)."""
        return x - self.strength * x.mean(dim=(2, 3), keepdim=True)

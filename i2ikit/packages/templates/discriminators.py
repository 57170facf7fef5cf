"""A discriminator for i2ikit: the parent component passes the parameters before `*`, the recipe the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from i2ikit.sizes import SizeRequirement
from pydantic import Field
from torch import Tensor, nn

__all__ = ["MyPlugin"]


class MyPlugin(nn.Module):
    """A PatchGAN discriminator at one scale.

    Shapes: (N, in_channels, H, W) -> one score map (N, 1, H / 8, W / 8)
    Values: input in [-1, 1]; scores unbounded (no sigmoid).

    Args:
        width: channels of the first layer; the next two double them.
    """

    def __init__(self, in_channels: int, *, width: Annotated[int, Field(gt=0, le=1024)] = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 4 * width, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * width, 1, 1),
        )

    @staticmethod
    def size_requirement(options: Mapping[str, Any]) -> SizeRequirement:
        """Three layers halve the sides: 8 px leave one."""
        return SizeRequirement(8)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Score maps of x (N, in_channels, H, W), one for each scale."""
        # For several scales, keep one nn.Sequential for each in an nn.ModuleList, and return a map from each.
        return [self.layers(x)]

"""A style encoder for i2ikit: the parent component passes the parameters before `*`, the recipe the rest.

A content encoder takes only in_channels, and has the attributes `out_channels` and `num_downsample`; use
`check_content_encoder` in its test and `[translator.content_encoder]` in its recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from i2ikit.sizes import SizeRequirement
from pydantic import Field
from torch import Tensor, nn

__all__ = ["MyPlugin"]


class MyPlugin(nn.Module):
    """Image to style code: three convolutions, then a mean over all positions and a linear layer.

    Shapes: (N, in_channels, H, W) -> (N, style_dim)
    Values: input in [-1, 1]; output unbounded.

    Args:
        width: channels of the first layer; each later one doubles them.
    """

    def __init__(
        self, in_channels: int, style_dim: int, *, width: Annotated[int, Field(gt=0, le=1024)] = 32
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, width, 7, 1, 3),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 4 * width, 4, 2, 1),
            nn.ReLU(),
        )
        self.head = nn.Linear(4 * width, style_dim)

    @staticmethod
    def size_requirement(options: Mapping[str, Any]) -> SizeRequirement:
        """Two layers halve the sides: 4 px leave one."""
        return SizeRequirement(4)

    def forward(self, x: Tensor) -> Tensor:
        """Encode x (N, in_channels, H, W)."""
        # The call of a module has type Any; the annotation states what it is.
        code: Tensor = self.head(self.layers(x).mean(dim=(2, 3)))
        return code

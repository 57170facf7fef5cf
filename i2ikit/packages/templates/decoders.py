"""A decoder for i2ikit: the parent component passes the parameters before `*`, the recipe the rest."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

__all__ = ["MyPlugin"]


class MyPlugin(nn.Module):
    """Content code and style code to image; the style is concatenated as constant maps.

    Shapes: content (N, content_channels, h, w), style (N, style_dim)
        -> (N, out_channels, h * 2**num_upsample, w * 2**num_upsample)
    Values: codes unbounded; output in (-1, 1) (tanh).

    Args:
        width: channels of each hidden layer.
    """

    def __init__(
        self,
        content_channels: int,
        out_channels: int,
        style_dim: int,
        num_upsample: int,
        *,
        width: Annotated[int, Field(gt=0, le=1024)] = 32,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(content_channels + style_dim, width, 3, 1, 1), nn.ReLU()]
        for _ in range(num_upsample):
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 5, 1, 2), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, out_channels, 7, 1, 3))

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        """Decode content (N, content_channels, h, w) with style (N, style_dim)."""
        maps = style[:, :, None, None].expand(-1, -1, *content.shape[2:])
        return torch.tanh(self.layers(torch.cat([content, maps], dim=1)))

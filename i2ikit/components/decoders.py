"""Decoders: a content code and a style code to an image."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from i2ikit.components.blocks import AdaptiveResidual, ConvBlock, conv
from i2ikit.components.encoders import Width
from i2ikit.components.norms import AdaptiveNormSpec, NormSpec
from i2ikit.errors import ShapeError
from i2ikit.registry import Slot, Spec

__all__ = ["AdaINDecoder", "DecoderSpec"]

DecoderSpec = Annotated[
    Spec, Slot("decoders", ("content_channels", "out_channels", "style_dim", "num_upsample"))
]
"""An option that holds a decoder: `decoder(content, style)` is an image in [-1, 1]."""


class AdaINDecoder(nn.Module):
    """Content code and style code to image; an MLP turns the style into AdaIN's parameters.

    Shapes: content (N, content_channels, h, w), style (N, style_dim)
        -> (N, out_channels, h * 2**num_upsample, w * 2**num_upsample)
    Values: codes unbounded; output in (-1, 1) (tanh).

    Args:
        num_residual: adaptive residual blocks; MUNIT uses 4.
        mlp_width: hidden units of the MLP's two hidden layers; MUNIT uses 256.
        norm: adaptive norm of the residual blocks.
        up_norm: norm after each upsampling; MUNIT uses its own layer norm, as instance norm
            would erase the mean and variance that carry the style.

    Raises:
        ShapeError: the style code has another length than style_dim.
    Source: MUNIT (arXiv 1804.04732), section 5.1 and appendix B.2: R256 x 4, u128, u64, c7s1-3.
    """

    def __init__(
        self,
        content_channels: int,
        out_channels: int,
        style_dim: int,
        num_upsample: int,
        *,
        num_residual: Annotated[int, Field(ge=1, le=16)] = 4,
        mlp_width: Width = 256,
        norm: AdaptiveNormSpec = Spec("norms", "adain"),
        up_norm: NormSpec = Spec("norms", "ln"),
    ) -> None:
        super().__init__()
        self.style_dim = style_dim
        residuals = [AdaptiveResidual(content_channels, norm=norm) for _ in range(num_residual)]
        self.residuals = nn.ModuleList(residuals)
        self.param_counts = [block.param_count() for block in residuals]
        self.mlp = nn.Sequential(
            nn.Linear(style_dim, mlp_width),
            nn.ReLU(),
            nn.Linear(mlp_width, mlp_width),
            nn.ReLU(),
            nn.Linear(mlp_width, sum(self.param_counts)),
        )
        width = content_channels
        layers: list[nn.Module] = []
        for _ in range(num_upsample):
            narrower = max(1, width // 2)
            layers.append(nn.Upsample(scale_factor=2))
            layers.append(ConvBlock(width, narrower, 5, 1, 2, norm=up_norm))
            width = narrower
        self.upsample = nn.Sequential(*layers)
        self.head = conv(width, out_channels, 7, 1, 3)

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        """Decode content (N, content_channels, h, w) in the style (N, style_dim)."""
        if style.shape[1:] != (self.style_dim,):
            raise ShapeError(f"decoder: style {tuple(style.shape)}; it should be (N, {self.style_dim})")
        x = content
        params = self.mlp(style).split(self.param_counts, dim=1)
        for block, block_params in zip(self.residuals, params, strict=True):
            x = block(x, block_params)
        return torch.tanh(self.head(self.upsample(x)))

"""Decoders: from content (a content code, or an image) and a style or latent code to an image."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from i2ikit.components.blocks import AdaptiveResidual, Linear, drop, with_code
from i2ikit.components.encoders import Width
from i2ikit.components.norms import AdaptiveNormSpec, NormSpec, norm_layer
from i2ikit.components.space_to_depth import SpaceToDepthConv
from i2ikit.components.upsampling import UpsamplingBlock
from i2ikit.draws import Draw
from i2ikit.errors import ComponentError, ShapeError
from i2ikit.registry import Slot, Spec
from i2ikit.sizes import SizeRequirement
from i2ikit.translator import Tensors

__all__ = ["AdaINDecoder", "DecoderSpec", "Decoding", "Generating", "GeneratorSpec", "UNet"]


class Decoding(Protocol):
    """Interface of a decoder module.

    Built from (content_channels, out_channels, style_dim, num_upsample).
    """

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        """Decode to images in [-1, 1].

        Shapes: (N, content_channels, h, w), (N, style_dim) -> (N, out_channels, h * 2**num_upsample, ...)
        """
        ...


class Generating(Protocol):
    """Interface of a generator module that translates whole images.

    Built from (in_channels, out_channels, latent_dim).
    """

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """(N, in_channels, H, W) in [-1, 1], (N, latent_dim) -> (N, out_channels, H, W) in [-1, 1]."""
        ...


DecoderSpec = Annotated[
    Spec, Slot("decoders", ("content_channels", "out_channels", "style_dim", "num_upsample"))
]
"""An option that holds a `Decoding`."""

GeneratorSpec = Annotated[Spec, Slot("decoders", ("in_channels", "out_channels", "latent_dim"))]
"""An option that holds a `Generating`."""


class AdaINDecoder(nn.Module):
    """Content code and style code to image; an MLP maps the style code to AdaIN parameters.

    Shapes: content (N, content_channels, h, w), style (N, style_dim)
        -> (N, out_channels, h * 2**num_upsample, w * 2**num_upsample)
    Values: codes unbounded; output in (-1, 1) (tanh).

    Args:
        num_residual: adaptive residual blocks; MUNIT uses 4.
        mlp_width: width of the MLP's two hidden layers; MUNIT uses 256.
        norm: adaptive norm of the residual blocks.
        up_norm: norm after each upsampling; MUNIT uses its own layer norm, because instance norm
            would remove the mean and variance that carry the style.

    Raises:
        ShapeError: the length of the style code is not style_dim.
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
            Linear(style_dim, mlp_width),
            nn.ReLU(),
            Linear(mlp_width, mlp_width),
            nn.ReLU(),
            Linear(mlp_width, sum(self.param_counts)),
        )
        width = content_channels
        blocks: list[nn.Module] = []
        for _ in range(num_upsample):
            narrower = max(1, width // 2)
            blocks.append(UpsamplingBlock(width, narrower, norm=up_norm))
            width = narrower
        # The names 1, 3, ... of saved weights: upsampling was once a module of its own before each block.
        self.upsample = nn.Sequential(OrderedDict((str(2 * n + 1), block) for n, block in enumerate(blocks)))
        self.head = SpaceToDepthConv(width, out_channels)
        self.to(memory_format=torch.channels_last)  # all feature maps have it then; it is faster

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        """Decode content (N, content_channels, h, w) in the style (N, style_dim)."""
        if style.shape[1:] != (self.style_dim,):
            raise ShapeError(f"decoder: the style should be (N, {self.style_dim}), got {tuple(style.shape)}")
        x = content
        if not torch.compiler.is_exporting():  # an exported program chooses its own memory formats
            x = content.contiguous(memory_format=torch.channels_last)
        params = self.mlp(style).split(self.param_counts, dim=1)
        for block, block_params in zip(self.residuals, params, strict=True):
            x = block(x, block_params)
        return torch.tanh(self.head(self.upsample(x))).contiguous()


class UNet(nn.Module):
    """U-Net from an image and a latent code to an image; the code is injected as constant maps.

    Shapes: x (N, in_channels, H, W), code (N, latent_dim) -> (N, out_channels, H, W)
    Values: x in [-1, 1], code unbounded; output in (-1, 1) (tanh).

    Args:
        width: channels of the first layer, doubled by each later one up to 8 * width.
        num_downsample: number of stride-2 convolutions; BicycleGAN uses 8, from 256 px to 1 px.
        inject: "all" concatenates the code to the input of every downsampling layer, "input" only to the
            first one's.
        norm: norm after every convolution except the first, the innermost and the last.
        dropout: dropout rate in the widest upsampling layers, except the innermost; BicycleGAN's
            training scripts use 0.5.

    Raises:
        ShapeError: H or W is not a multiple of 2**num_downsample, or the code has the wrong length.
        ComponentError: dropout in training, without draws.
    Source: BicycleGAN (arXiv 1711.11586), section 4 ("add_to_all", "add_to_input"); layers as in
        the official `unet_256`: skip connections without the code, zero padding, biases.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        latent_dim: int,
        *,
        width: Width = 64,
        num_downsample: Annotated[int, Field(ge=2, le=10)] = 6,
        inject: Literal["all", "input"] = "all",
        norm: NormSpec = Spec("norms", "in"),
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__()
        levels = range(num_downsample)
        inner = num_downsample - 1
        features = [width * min(2**n, 8) for n in levels]
        plain = Spec("norms", "none")
        self.injected = [inject == "all" or n == 0 for n in levels]
        self.down = nn.ModuleList()
        self.down_norms = nn.ModuleList()
        self.up = nn.ModuleList()
        self.up_norms = nn.ModuleList()
        for n in levels:
            below = features[n - 1] if n else in_channels
            above = features[n] if n == inner else 2 * features[n]
            self.down.append(nn.Conv2d(below + latent_dim * self.injected[n], features[n], 4, 2, 1))
            self.down_norms.append(norm_layer(norm if 0 < n < inner else plain, features[n]))
            self.up.append(nn.ConvTranspose2d(above, features[n - 1] if n else out_channels, 4, 2, 1))
            self.up_norms.append(norm_layer(norm if n else plain, features[n - 1]))
        self.dropout = {n: features[n - 1] for n in levels if dropout and 3 < n < inner}
        self.dropout_rate = dropout
        self.latent_dim = latent_dim
        self.multiple = 2**num_downsample

    @staticmethod
    def size_requirement(options: Mapping[str, Any]) -> SizeRequirement:
        """Both sides must be multiples of 2**num_downsample."""
        return SizeRequirement(multiple_of=2 ** options["num_downsample"])

    def draws(self, size: int) -> dict[str, Draw]:
        """One uniform number for each activation that dropout may remove."""
        sides = {n: size // 2**n for n in self.dropout}
        return {f"dropout_{n}": Draw((c, sides[n], sides[n]), "uniform") for n, c in self.dropout.items()}

    def forward(self, x: Tensor, code: Tensor, *, draws: Tensors | None = None) -> Tensor:
        """Translate x (N, in_channels, H, W) with code (N, latent_dim); dropout in training needs `draws`."""
        if x.shape[2] % self.multiple or x.shape[3] % self.multiple:
            raise ShapeError(
                f"U-Net: {x.shape[2]}x{x.shape[3]} px; both sides must be multiples of {self.multiple}"
            )
        if code.shape[1:] != (self.latent_dim,):
            raise ShapeError(f"U-Net: the code should be (N, {self.latent_dim}), got {tuple(code.shape)}")
        dropped = self.dropout if self.training else {}
        if dropped and not draws:
            raise ComponentError("U-Net: dropout needs random numbers; pass `draws` (see draws_of)")
        skips: list[Tensor] = []
        for n, (down, norm) in enumerate(zip(self.down, self.down_norms, strict=True)):
            x = with_code(x, code) if self.injected[n] else x
            x = norm(down(F.leaky_relu(x, 0.2) if n else x))
            skips.append(x)
        x = skips.pop()
        for n in reversed(range(len(self.up))):
            x = self.up_norms[n](self.up[n](F.relu(x)))
            if draws and n in dropped:
                x = drop(x, draws[f"dropout_{n}"], self.dropout_rate)
            x = torch.cat([x, skips.pop()], dim=1) if n else x
        return torch.tanh(x)

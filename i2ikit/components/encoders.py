"""Encoders: from an image to a content code (a map), a style code (a vector), or a code distribution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from i2ikit.components.blocks import ConvBlock, Linear, Residual
from i2ikit.components.norms import NormSpec, norm_layer
from i2ikit.errors import ShapeError
from i2ikit.registry import Slot, Spec
from i2ikit.sizes import SizeRequirement
from i2ikit.translator import padded

__all__ = [
    "ContentEncoder",
    "ContentEncoderSpec",
    "ContentEncoding",
    "DistributionEncoding",
    "LatentEncoder",
    "LatentEncoderSpec",
    "StyleEncoder",
    "StyleEncoderSpec",
    "VectorEncoding",
]


class ContentEncoding(Protocol):
    """Interface of a content encoder module, built from (in_channels)."""

    out_channels: int
    num_downsample: int

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W), values in [-1, 1] -> (N, out_channels, H / 2**num_downsample, ...)."""
        ...


class VectorEncoding(Protocol):
    """Interface of a style encoder module, built from (in_channels, style_dim)."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W), values in [-1, 1] -> (N, style_dim)."""
        ...


class DistributionEncoding(Protocol):
    """Interface of a latent encoder module, built from (in_channels, latent_dim)."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, in_channels, H, W), values in [-1, 1] -> means and log variances, (N, latent_dim) each."""
        ...


ContentEncoderSpec = Annotated[Spec, Slot("encoders", ("in_channels",))]
"""An option that holds a `ContentEncoding`."""

StyleEncoderSpec = Annotated[Spec, Slot("encoders", ("in_channels", "style_dim"))]
"""An option that holds a `VectorEncoding`."""

LatentEncoderSpec = Annotated[Spec, Slot("encoders", ("in_channels", "latent_dim"))]
"""An option that holds a `DistributionEncoding`."""

Count = Annotated[int, Field(ge=0, le=16)]
Width = Annotated[int, Field(gt=0, le=4096)]


class ContentEncoder(nn.Module):
    """Image to content code: keeps the spatial layout; instance norm removes the style.

    Shapes: (N, in_channels, H, W) -> (N, out_channels, H / 2**num_downsample, W / 2**num_downsample),
        where out_channels = width * 2**num_downsample
    Values: input in [-1, 1]; output unbounded.

    Args:
        width: channels of the first layer; MUNIT uses 64.
        num_downsample: number of stride-2 convolutions; MUNIT uses 2.
        num_residual: residual blocks at the lowest resolution; MUNIT uses 4.
        norm: norm after every convolution; MUNIT uses instance norm.

    Raises:
        ShapeError: H or W is not a multiple of 2**num_downsample.
    Source: MUNIT (arXiv 1804.04732), appendix B.2: c7s1-64, d128, d256, R256 x 4. The official code
        rounds other sides down, so that its reconstruction is smaller than its input.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        width: Width = 64,
        num_downsample: Annotated[int, Field(ge=0, le=8)] = 2,
        num_residual: Count = 4,
        norm: NormSpec = Spec("norms", "in"),
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvBlock(in_channels, width, 7, 1, 3, norm=norm)]
        for _ in range(num_downsample):
            layers.append(ConvBlock(width, 2 * width, 4, 2, 1, norm=norm))
            width *= 2
        layers += [Residual(width, norm=norm) for _ in range(num_residual)]
        self.layers = nn.Sequential(*layers)
        self.out_channels = width
        self.num_downsample = num_downsample
        self.to(memory_format=torch.channels_last)  # all feature maps have it then; it is faster

    @staticmethod
    def size_requirement(options: Mapping[str, Any]) -> SizeRequirement:
        """Multiples of 2**num_downsample that leave two pixels for reflection padding."""
        step = 2 ** options["num_downsample"]
        return SizeRequirement(max(4, 2 * step), step)

    def forward(self, x: Tensor) -> Tensor:
        """Encode x (N, in_channels, H, W)."""
        step = 2**self.num_downsample
        if x.shape[2] % step or x.shape[3] % step:
            raise ShapeError(
                f"content encoder: {x.shape[2]}x{x.shape[3]} px; both sides must be multiples of {step}"
            )
        return self.layers(x).contiguous()


class StyleEncoder(nn.Module):
    """Image to style code: keeps colours and texture; global average pooling removes the layout.

    Shapes: (N, in_channels, H, W) -> (N, style_dim)
    Values: input in [-1, 1]; output unbounded; training with style reconstruction makes it about N(0, I).

    Args:
        width: channels of the first layer; the later ones have 2 * width, then 4 * width.
        num_downsample: number of stride-2 convolutions; MUNIT uses 4.
        norm: norm after every convolution; the official code uses none. "bn" also keeps the style,
            because it removes only what a whole batch shares; instance norm would remove it.
    Source: MUNIT (arXiv 1804.04732), appendix B.2: c7s1-64, d128, d256, d256, d256, GAP, fc8.
    """

    def __init__(
        self,
        in_channels: int,
        style_dim: int,
        *,
        width: Width = 64,
        num_downsample: Annotated[int, Field(ge=1, le=8)] = 4,
        norm: NormSpec = Spec("norms", "none"),
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [ConvBlock(in_channels, width, 7, 1, 3, norm=norm)]
        channels = width
        for _ in range(num_downsample):
            wider = min(2 * channels, 4 * width)
            layers.append(ConvBlock(channels, wider, 4, 2, 1, norm=norm))
            channels = wider
        self.layers = nn.Sequential(*layers)
        self.head = Linear(channels, style_dim)
        self.to(memory_format=torch.channels_last)  # all feature maps have it then; it is faster

    @staticmethod
    def size_requirement(options: Mapping[str, Any]) -> SizeRequirement:
        """Sides that leave at least one pixel after downsampling."""
        return SizeRequirement(max(4, 2 ** options["num_downsample"]))

    def forward(self, x: Tensor) -> Tensor:
        """Encode x (N, in_channels, H, W)."""
        return self.head(self.layers(x).mean(dim=(2, 3)))


class LatentEncoder(nn.Module):
    """Image to a normal distribution of latent codes, by downsampling residual blocks.

    Shapes: (N, in_channels, H, W) -> mean (N, latent_dim), log variance (N, latent_dim)
    Values: input in [-1, 1]; outputs unbounded.

    Args:
        width: channels of the first layer; the blocks have 2, 3, 4, 4, ... times as many.
        num_blocks: residual blocks, which halve the sides, after a stride-2 convolution; BicycleGAN uses 4.
        norm: norm before both convolutions of a block; BicycleGAN uses instance norm.

    Source: BicycleGAN (arXiv 1711.11586), section 4 (residual encoder); layers as in the official
        `resnet_256`, with global average pooling instead of a fixed 8x8 window, which is the same
        at 256 px.
    """

    def __init__(
        self,
        in_channels: int,
        latent_dim: int,
        *,
        width: Width = 64,
        num_blocks: Annotated[int, Field(ge=1, le=8)] = 4,
        norm: NormSpec = Spec("norms", "in"),
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, width, 4, 2, 1)
        channels = [width * min(4, n + 1) for n in range(num_blocks + 1)]
        self.blocks = nn.Sequential(
            *(_HalvingResidual(channels[n], channels[n + 1], norm) for n in range(num_blocks))
        )
        self.mean = Linear(channels[-1], latent_dim)
        self.log_variance = Linear(channels[-1], latent_dim)

    @staticmethod
    def size_requirement(options: Mapping[str, Any]) -> SizeRequirement:
        """Sides that leave at least one pixel after downsampling."""
        return SizeRequirement(2 ** (options["num_blocks"] + 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Encode x (N, in_channels, H, W)."""
        x = F.leaky_relu(self.blocks(self.first(x)), 0.2).mean(dim=(2, 3))
        return self.mean(x), self.log_variance(x)


class _HalvingResidual(nn.Module):
    """(Norm, leaky ReLU, convolution) twice, then 2x2 average pooling; the shortcut is 2x2 average
    pooling and a 1x1 convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, norm: Spec) -> None:
        super().__init__()
        self.norm_first = norm_layer(norm, in_channels)
        self.conv_first = nn.Conv2d(in_channels, in_channels, 3, 1, 1)
        self.norm_second = norm_layer(norm, in_channels)
        self.conv_second = nn.Conv2d(in_channels, out_channels, 3, 1, 1)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_first(F.leaky_relu(self.norm_first(x), 0.2))
        y = self.conv_second(F.leaky_relu(self.norm_second(y), 0.2))
        return _halved(y) + self.shortcut(_halved(x))


def _halved(x: Tensor) -> Tensor:
    """2x2 average pooling that keeps one pixel of a one-pixel map, so that images of any size can be encoded.

    Shapes: (N, C, H, W) -> (N, C, ceil(H / 2), ceil(W / 2))
    """
    if torch.compiler.is_exporting():  # the result's size is not known to torch.export with ceil_mode
        return F.avg_pool2d(padded(x, SizeRequirement(multiple_of=2)), 2)
    return F.avg_pool2d(x, 2, ceil_mode=True)

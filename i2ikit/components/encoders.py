"""Encoders: an image to its content code (a map) or to its style code (a vector)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn

from i2ikit.components.blocks import ConvBlock, Residual
from i2ikit.components.norms import NormSpec
from i2ikit.errors import ShapeError
from i2ikit.registry import Setting, Slot, Spec

__all__ = ["ContentEncoder", "ContentEncoderSpec", "StyleEncoder", "StyleEncoderSpec"]

ContentEncoderSpec = Annotated[Spec, Slot("encoders", ("in_channels",))]
"""An option that holds an encoder (in_channels) with `out_channels` and `num_downsample`."""

StyleEncoderSpec = Annotated[Spec, Slot("encoders", ("in_channels", "style_dim"))]
"""An option that holds an encoder (in_channels, style_dim) to (N, style_dim)."""

Count = Annotated[int, Field(ge=0, le=16)]
Width = Annotated[int, Field(gt=0, le=4096)]


class ContentEncoder(nn.Module):
    """Image to content code: spatial layout kept, style removed by instance norm.

    Shapes: (N, in_channels, H, W) -> (N, out_channels, H / 2**num_downsample, W / 2**num_downsample),
        where out_channels = width * 2**num_downsample
    Values: input in [-1, 1]; output unbounded.

    Args:
        width: channels of the first layer; MUNIT uses 64.
        num_downsample: how many times the side is halved; MUNIT uses 2.
        num_residual: residual blocks at the lowest resolution; MUNIT uses 4.
        norm: after every convolution; MUNIT uses instance norm.

    Raises:
        ShapeError: H or W is not a multiple of 2**num_downsample.
    Source: MUNIT (arXiv 1804.04732), appendix B.2: c7s1-64, d128, d256, R256 x 4. The official code
        floors sides that are no multiple, so its reconstruction has another size than its input.
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

    @staticmethod
    def problems(options: Mapping[str, Any], setting: Setting) -> Iterable[str]:
        """Sides that cannot be halved often enough, or are too small for reflection padding."""
        if setting.size is None:
            return
        step = 2 ** options["num_downsample"]
        smallest = max(4, 2 * step)
        if setting.size < smallest:
            yield f"data.size = {setting.size} is too small: {smallest} px or more are needed"
        elif setting.size % step:
            lower = max(setting.size // step * step, smallest)
            yield (
                f"data.size = {setting.size} is no multiple of 2**num_downsample = {step}; "
                f"the nearest sizes are {lower} and {lower + step}"
            )

    def forward(self, x: Tensor) -> Tensor:
        """Encode x (N, in_channels, H, W)."""
        step = 2**self.num_downsample
        if x.shape[2] % step or x.shape[3] % step:
            raise ShapeError(
                f"content encoder: {x.shape[2]}x{x.shape[3]} px; both sides must be multiples of {step}"
            )
        return self.layers(x)


class StyleEncoder(nn.Module):
    """Image to style code: layout averaged away, colours and texture kept.

    Shapes: (N, in_channels, H, W) -> (N, style_dim)
    Values: input in [-1, 1]; output unbounded, N(0, I) where style reconstruction has done its work.

    Args:
        width: channels of the first layer; the later ones have 2 * width, then 4 * width.
        num_downsample: how many times the side is halved; MUNIT uses 4.
        norm: after every convolution; the official code uses none. "bn" keeps style too, as it
            removes only what a whole batch shares; instance norm would erase it.
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
        self.head = nn.Linear(channels, style_dim)

    @staticmethod
    def problems(options: Mapping[str, Any], setting: Setting) -> Iterable[str]:
        """Sides that the halvings use up."""
        smallest = max(4, 2 ** options["num_downsample"])
        if setting.size is not None and setting.size < smallest:
            yield (
                f"data.size = {setting.size} is too small for num_downsample = "
                f"{options['num_downsample']}: {smallest} px or more are needed"
            )

    def forward(self, x: Tensor) -> Tensor:
        """Encode x (N, in_channels, H, W)."""
        return self.head(self.layers(x).mean(dim=(2, 3)))

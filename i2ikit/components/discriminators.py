"""Discriminators: from an image to score maps, one for each scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from i2ikit.components.blocks import ConvBlock, conv_side
from i2ikit.components.encoders import Width
from i2ikit.components.norms import NormSpec, norm_layer
from i2ikit.registry import Slot, Spec
from i2ikit.sizes import SizeRequirement

__all__ = ["Discriminating", "DiscriminatorSpec", "MultiScaleDiscriminator", "PatchGAN"]


class Discriminating(Protocol):
    """Interface of a discriminator module, built from (in_channels)."""

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, in_channels, H, W), values in [-1, 1] -> score maps (N, 1, h, w), one for each scale."""
        ...


DiscriminatorSpec = Annotated[Spec, Slot("discriminators", ("in_channels",))]
"""An option that holds a `Discriminating`."""


class MultiScaleDiscriminator(nn.Module):
    """PatchGAN discriminators of equal width at several resolutions.

    Shapes: (N, in_channels, H, W) -> num_scales maps (N, 1, about H / 2**(num_layers + scale), ...)
    Values: input in [-1, 1]; scores unbounded (no sigmoid).

    Args:
        width: channels of the first layer, doubled by each later one.
        num_layers: stride-2 convolutions per scale; with 4, the receptive field of a score is 46 px.
        num_scales: number of scales; each one halves the image sides of the previous one.
        norm: norm after every convolution except the first; MUNIT uses none.
    Source: MUNIT (arXiv 1804.04732), appendix B.2: d64, d128, d256, d512; LSGAN at three scales
        as in pix2pixHD (arXiv 1711.11585, section 3.2). Three separate networks, as in the official
        code; average pooling ignores padding (count_include_pad False).
    """

    def __init__(
        self,
        in_channels: int,
        *,
        width: Width = 64,
        num_layers: Annotated[int, Field(ge=1, le=8)] = 4,
        num_scales: Annotated[int, Field(ge=1, le=6)] = 3,
        norm: NormSpec = Spec("norms", "none"),
    ) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            _patch_discriminator(in_channels, width, num_layers, norm) for _ in range(num_scales)
        )
        self.to(memory_format=torch.channels_last)  # all feature maps have it then; it is faster

    @staticmethod
    def size_requirement(options: Mapping[str, Any]) -> SizeRequirement:
        """Sides that leave at least one score at the coarsest scale."""
        return _least([(4, 2, 1)] * options["num_layers"], options["num_scales"])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Score maps of x (N, in_channels, H, W), finest scale first."""
        return _at_each_scale(self.scales, x)


class PatchGAN(nn.Module):
    """PatchGAN discriminators at several resolutions; each coarser one is half as wide.

    Shapes: (N, in_channels, H, W) -> num_scales maps (N, 1, about H / 2**(num_layers + scale), ...)
    Values: input in [-1, 1]; scores unbounded (no sigmoid).

    Args:
        width: channels of the first layer, doubled by each later one up to 8 * width.
        num_layers: stride-2 convolutions per scale, before two of stride 1; with 3, the receptive field
            of a score is 70 px.
        num_scales: number of scales; each one halves the image sides of the previous one.
        norm: norm after every convolution except the first and the last.
    Source: Isola et al. (arXiv 1611.07004), appendix 6.1.2, at two scales as in BicycleGAN (arXiv
        1711.11586), section 4; widths, zero padding and pooling as in the official `basic_256_multi`.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        width: Width = 64,
        num_layers: Annotated[int, Field(ge=1, le=8)] = 3,
        num_scales: Annotated[int, Field(ge=1, le=6)] = 2,
        norm: NormSpec = Spec("norms", "in"),
    ) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            _patchgan(in_channels, max(1, round(width / 2**scale)), num_layers, norm)
            for scale in range(num_scales)
        )

    @staticmethod
    def size_requirement(options: Mapping[str, Any]) -> SizeRequirement:
        """Sides that leave at least one score at the coarsest scale."""
        return _least([(4, 2, 1)] * options["num_layers"] + [(4, 1, 1)] * 2, options["num_scales"])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Score maps of x (N, in_channels, H, W), finest scale first."""
        return _at_each_scale(self.scales, x)


def _at_each_scale(networks: nn.ModuleList, x: Tensor) -> list[Tensor]:
    """The scores of each network for x; x is downsampled by 2 between networks."""
    scores = []
    for index, network in enumerate(networks):
        if index:
            x = F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
        scores.append(network(x))
    return scores


def _patchgan(in_channels: int, width: int, num_layers: int, norm: Spec) -> nn.Module:
    widths = [width * min(2**n, 8) for n in range(num_layers + 1)]
    layers: list[nn.Module] = [nn.Conv2d(in_channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
    for n in range(1, num_layers + 1):
        stride = 2 if n < num_layers else 1
        layers += [
            nn.Conv2d(widths[n - 1], widths[n], 4, stride, 1),
            norm_layer(norm, widths[n]),
            nn.LeakyReLU(0.2),
        ]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 1))


def _patch_discriminator(in_channels: int, width: int, num_layers: int, norm: Spec) -> nn.Module:
    first = ConvBlock(in_channels, width, 4, 2, 1, norm=Spec("norms", "none"), slope=0.2)
    layers: list[nn.Module] = [first]
    for _ in range(num_layers - 1):
        layers.append(ConvBlock(width, 2 * width, 4, 2, 1, norm=norm, slope=0.2))
        width *= 2
    return nn.Sequential(*layers, nn.Conv2d(width, 1, 1))


def _least(convs: Sequence[tuple[int, int, int]], num_scales: int) -> SizeRequirement:
    """The smallest side for which the convolutions (kernel, stride, padding) leave a pixel at each scale."""
    return SizeRequirement(next(side for side in range(1, 2**20) if _fits(side, convs, num_scales)))


def _fits(side: int, convs: Sequence[tuple[int, int, int]], num_scales: int) -> bool:
    """Whether the input of every convolution is large enough (also for reflection padding)."""
    for _ in range(num_scales):
        at_scale = side
        for conv in convs:
            at_scale = conv_side(at_scale, *conv)
            if at_scale < 1:
                return False
        side = (side + 1) // 2
    return True

"""Discriminators: an image to maps of scores, one for each scale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from i2ikit.components.blocks import ConvBlock, conv_side
from i2ikit.components.encoders import Width
from i2ikit.components.norms import NormSpec
from i2ikit.registry import Setting, Slot, Spec

__all__ = ["DiscriminatorSpec", "MultiScaleDiscriminator"]

DiscriminatorSpec = Annotated[Spec, Slot("discriminators", ("in_channels",))]
"""An option that holds a discriminator: `discriminator(x)` is a list of score maps."""


class MultiScaleDiscriminator(nn.Module):
    """PatchGAN discriminators of the same widths at several resolutions.

    Shapes: (N, in_channels, H, W) -> num_scales maps (N, 1, about H / 2**(num_layers + scale), ...)
    Values: input in [-1, 1]; scores unbounded (no sigmoid).

    Args:
        width: channels of the first layer, doubled by each later one.
        num_layers: stride-2 convolutions per scale; with 4 a score sees 46 px.
        num_scales: each scale sees the image at half the side of the one before.
        norm: after every convolution but the first; MUNIT uses none.
    Source: MUNIT (arXiv 1804.04732), appendix B.2: d64, d128, d256, d512; LSGAN at three scales
        as in pix2pixHD (arXiv 1711.11585, section 3.2). Three separate networks, as in the official
        code; borders are averaged over the pixels that exist (count_include_pad False).
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

    @staticmethod
    def problems(options: Mapping[str, Any], setting: Setting) -> Iterable[str]:
        """Images that are too small for the coarsest scale."""
        layers, scales = options["num_layers"], options["num_scales"]
        if setting.size is None or _fits(setting.size, layers, scales):
            return
        smallest = next(side for side in range(1, 2**20) if _fits(side, layers, scales))
        yield (
            f"data.size = {setting.size} is too small for num_scales = {scales} with num_layers = "
            f"{layers}: {smallest} px or more are needed, or fewer scales"
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Score maps of x (N, in_channels, H, W), finest scale first."""
        scores = []
        for index, scale in enumerate(self.scales):
            if index:
                x = F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
            scores.append(scale(x))
        return scores


def _patch_discriminator(in_channels: int, width: int, num_layers: int, norm: Spec) -> nn.Module:
    first = ConvBlock(in_channels, width, 4, 2, 1, norm=Spec("norms", "none"), slope=0.2)
    layers: list[nn.Module] = [first]
    for _ in range(num_layers - 1):
        layers.append(ConvBlock(width, 2 * width, 4, 2, 1, norm=norm, slope=0.2))
        width *= 2
    return nn.Sequential(*layers, nn.Conv2d(width, 1, 1))


def _fits(side: int, num_layers: int, num_scales: int) -> bool:
    """Whether every convolution of every scale has something to reflect."""
    for _ in range(num_scales):
        at_scale = side
        for _ in range(num_layers):
            at_scale = conv_side(at_scale, 4, 2, 1)
        if at_scale < 1:
            return False
        side = (side + 1) // 2
    return True

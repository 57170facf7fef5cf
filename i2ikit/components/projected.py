"""A discriminator on the features of a pretrained network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from i2ikit.components.discriminators import DiscriminatorSpec
from i2ikit.components.encoders import Width
from i2ikit.components.trunks import TRUNKS, TrunkName, load_trunk, trunk_features
from i2ikit.errors import ShapeError, WeightsError
from i2ikit.paths import FilePath
from i2ikit.registry import Setting, Spec

__all__ = ["ProjectedDiscriminator"]


class ProjectedDiscriminator(nn.Module):
    """Projected GAN: small heads on a frozen, pretrained trunk, plus an ordinary discriminator.

    The trunk's features represent edges, textures and parts of objects, so that the heads learn from a few
    thousand images within a few hundred steps. Each tap of the trunk has a head: a fixed random 1x1
    projection, then a 3x3 and a 1x1 convolution with spectral norm.

    Shapes: (N, 1 or 3, H, W) -> num_taps maps (N, 1, h, w), shallow to deep, then the maps of `beside`
    Values: input in [-1, 1]; scores unbounded (no sigmoid).

    Args:
        trunk: "alexnet" or "vgg16".
        num_taps: number of taps used, from the shallowest on.
        side: smaller images are enlarged so that their shorter side has this many pixels.
        width: channels of a projection.
        beside: the ordinary discriminator, which sees the image itself.
        weights: file of the trunk's weights; looked up or downloaded if not given. They are used only in
            training, and neither trained nor saved.

    Raises:
        ShapeError: the number of image channels is not 1 or 3.
        WeightsError: at the first use, if the trunk's weights are not available.
    Source: Projected GAN (arXiv 2111.01007), section 3, with the random projections across channels but
        not those across scales; AlexNet instead of EfficientNet, the recipe's loss instead of hinge.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        trunk: TrunkName = "alexnet",
        num_taps: Annotated[int, Field(ge=1, le=5)] = 4,
        side: Annotated[int, Field(ge=16, le=1024)] = 128,
        width: Width = 64,
        beside: DiscriminatorSpec = Spec("discriminators", "multiscale-patch"),
        weights: FilePath | None = None,
    ) -> None:
        super().__init__()
        if in_channels not in (1, 3):
            raise ShapeError(f"projected discriminator: images need 1 or 3 channels, got {in_channels}")
        self.trunk: TrunkName = trunk
        self.taps = range(num_taps)
        self.side = side
        self.weights = weights
        self.heads = nn.ModuleList(_head(TRUNKS[trunk].channels[tap], width) for tap in self.taps)
        self.beside: nn.Module = beside(in_channels)
        self.heads.to(memory_format=torch.channels_last)

    @staticmethod
    def problems(options: Mapping[str, Any], setting: Setting) -> Iterable[str]:
        """A `side` that is too small for the trunk; unavailable weights."""
        least = TRUNKS[options["trunk"]].least_side
        if options["side"] < least:
            yield f"side = {options['side']} is too small for trunk '{options['trunk']}'; use {least} or more"
        try:
            load_trunk(options["trunk"], options["weights"])
        except WeightsError as error:
            yield f"the trunk '{options['trunk']}' needs its weights: {error}"

    def forward(self, x: Tensor) -> list[Tensor]:
        """Score maps of x (N, in_channels, H, W): of the heads, then of `beside`."""
        features = trunk_features(self.trunk, self._enlarged(x), self.taps, self.weights)
        scores = [head(y) for head, y in zip(self.heads, features, strict=True)]
        return [*scores, *self.beside(x)]

    def _enlarged(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        factor = self.side / min(height, width)
        if factor <= 1:
            return x
        return F.interpolate(x, (round(height * factor), round(width * factor)), mode="bilinear")


def _head(in_channels: int, width: int) -> nn.Module:
    projection = nn.Conv2d(in_channels, width, 1, bias=False).requires_grad_(False)
    torch.nn.init.normal_(projection.weight, 0.0, in_channels**-0.5)
    return nn.Sequential(
        projection,
        spectral_norm(nn.Conv2d(width, width, 3, 1, 1)),
        nn.LeakyReLU(0.2),
        spectral_norm(nn.Conv2d(width, 1, 1)),
    )

"""A discriminator whose layers cannot stretch (spectral normalisation), and the loss that goes with it.

Source: Miyato et al. (arXiv 1802.05957), and the hinge loss as in SAGAN (arXiv 1805.08318).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from i2ikit.sizes import SizeRequirement

__all__ = ["Hinge", "SpectralPatchGAN"]


class SpectralPatchGAN(nn.Module):
    """A PatchGAN discriminator of one scale in which every convolution has spectral norm 1.

    Shapes: (N, in_channels, H, W) -> one map of scores (N, 1, H / 2**num_layers, W / 2**num_layers)
    Values: input in [-1, 1]; scores unbounded (no sigmoid).

    Args:
        width: channels of the first layer, doubled by each later one up to 8 * width.
        num_layers: convolutions of stride 2; with 4 a score sees 78 px.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        width: Annotated[int, Field(gt=0, le=1024)] = 64,
        num_layers: Annotated[int, Field(ge=1, le=8)] = 4,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for n in range(num_layers):
            wider = width * min(2**n, 8)
            layers += [spectral_norm(nn.Conv2d(channels, wider, 4, 2, 1)), nn.LeakyReLU(0.2)]
            channels = wider
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(channels, 1, 3, 1, 1)))

    @staticmethod
    def size_requirement(options: Mapping[str, Any]) -> SizeRequirement:
        """Sides that the strides do not use up."""
        return SizeRequirement(2 ** options["num_layers"])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Scores of x (N, in_channels, H, W)."""
        return [self.layers(x)]


class Hinge:
    """The hinge loss: only scores on the wrong side of their margin count.

    discriminator = SUM over scales of mean(max(0, 1 + fake)) + mean(max(0, 1 - real))
    generator = SUM over scales of -mean(fake)

    Reduction: mean over samples and patches, SUM over scales.
    """

    def discriminator(self, fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
        """Scalar from score maps (N, 1, h, w) per scale."""
        terms = [(1 + f).relu().mean() + (1 - r).relu().mean() for f, r in zip(fake, real, strict=True)]
        return torch.stack(terms).sum()

    def generator(self, fake: Sequence[Tensor]) -> Tensor:
        """Scalar from score maps (N, 1, h, w) per scale."""
        return -torch.stack([f.mean() for f in fake]).sum()

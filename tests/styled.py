"""A model without networks, whose translations are known: the mean of the image, plus the style."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from i2ikit.model import Model
from i2ikit.translator import ImageSpec, Phase, Translator


class Styled(Translator):
    """Translates an image into its mean, plus the first number of the style, everywhere."""

    generative = ()
    adversarial = ()
    num_domains = None

    def __init__(self, images: ImageSpec, style_dim: int) -> None:
        super().__init__(images, {}, {})
        self.style_dim = style_dim

    def phases(self) -> tuple[Phase, ...]:
        return ()

    def translate(self, x: Tensor, style: Tensor, *, source: str, to: str) -> Tensor:
        grey = x.mean(1, keepdim=True)
        grey = grey + style[:, :1, None, None] if self.style_dim else grey
        return grey.clamp(-1, 1).expand(-1, self.images.channels[to], -1, -1)

    def sample_style(self, n: int, to: str, generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(n, self.style_dim, generator=generator)

    def encode_style(self, x: Tensor, domain: str) -> Tensor:
        return x.mean((1, 2, 3))[:, None].expand(-1, self.style_dim)


def styled_model(
    folder: Path, channels: Mapping[str, int] | None = None, style_dim: int = 4, sha256: str = "0" * 64
) -> Model:
    """A model of 16 px; images of the domains a and b have three channels unless they are given."""
    images = ImageSpec(channels or {"a": 3, "b": 3}, 16)
    translator = Styled(images, style_dim).eval()
    return Model(folder, translator, images, torch.device("cpu"), 7, sha256, False, "folders")

"""A translator whose numbers are known beforehand, and data for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from i2ikit.data.folders import Folders
from i2ikit.metrics.subject import Subject
from i2ikit.translator import Direction, ImageSpec, Phase, Translator


class Painter(Translator):
    """Paints the light parts of an outline in the grey that the style names; reads it off a corner."""

    generative = ("painter",)
    adversarial = ()

    def __init__(self, deaf: bool = False) -> None:
        super().__init__(ImageSpec({"a": 3, "b": 3}, 64), {"painter": nn.Linear(1, 1)}, {})
        self.deaf = deaf

    def phases(self) -> tuple[Phase, ...]:
        return ()

    def translate(self, x: Tensor, style: Tensor, *, source: str, to: str) -> Tensor:
        grey = torch.zeros_like(style) if self.deaf else torch.tanh(style)
        return torch.where(x > 0, grey[:, :, None, None].expand_as(x), x)

    def encode_style(self, x: Tensor, domain: str) -> Tensor:
        return torch.atanh(x[:, :1, 0, 0].clamp(-0.999, 0.999))

    def reconstruct(self, x: Tensor, domain: str) -> Tensor:
        return x + 0.1

    def sample_style(self, n: int, to: str, generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(n, 1, generator=generator)


def outline_folders(root: Path, side: int) -> Folders:
    """White pictures with one black vertical line each (a), and grey ones (b); one outline twice."""
    for split in ("train", "test"):
        for domain in "AB":
            (root / f"{split}{domain}").mkdir(parents=True)
            for n in range(12):
                pixels = np.full((side, side, 3), 255 if domain == "A" else 20 * n, dtype=np.uint8)
                if domain == "A":
                    pixels[:, 2 + min(n, 10)] = 0
                Image.fromarray(pixels).save(root / f"{split}{domain}" / f"{n:02}.png")
    return Folders(root=str(root), size=side)


@pytest.fixture
def outlines(tmp_path: Path) -> Folders:
    """11 distinct outlines and 12 greys, 16 px."""
    return outline_folders(tmp_path, 16)


@pytest.fixture
def large_outlines(tmp_path: Path) -> Folders:
    """The same at 36 px, which AlexNet can see."""
    return outline_folders(tmp_path, 36)


@pytest.fixture
def subject() -> Callable[..., Subject]:
    """`subject(data, **options of the painter)`: into domain b, seed 0."""

    def make(data: Folders, seed: int = 0, **options: Any) -> Subject:
        return Subject(Painter(**options).eval(), data, Direction("a", "b"), seed)

    return make

"""A dataset for i2ikit: images of the domains "a" and "b", in the splits "train" and "test"."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from i2ikit.data.dataset import Split
from i2ikit.translator import ImageSpec
from pydantic import Field
from torch import Tensor

__all__ = ["MyPlugin"]


class MyPlugin:
    """Circles (a) and discs in random colours (b); index i has the same position and size in both domains.

    Values: [-1, 1].

    Args:
        size: image side in pixels.
        count: number of images per split and domain.
        paired: whether training gets each circle together with its own disc.
    """

    aligned = True

    def __init__(
        self,
        *,
        size: Annotated[int, Field(ge=8, le=1024)] = 64,
        count: Annotated[int, Field(ge=1)] = 500,
        paired: bool = False,
    ) -> None:
        self.images = ImageSpec({"a": 3, "b": 3}, size)
        self.total = count
        self.paired = paired

    def count(self, split: Split, domain: str) -> int:
        """Number of images."""
        return self.total

    def image(self, split: Split, domain: str, index: int, rng: np.random.Generator | None = None) -> Tensor:
        """The image (3, size, size); `rng` mirrors it at random; without `rng` it is not augmented."""
        size = self.images.size
        shape = np.random.default_rng([index, split == "test"])
        x, y = shape.uniform(0.3, 0.7, 2) * size
        radius = shape.uniform(0.1, 0.3) * size
        colour = torch.tensor(shape.uniform(-1, 1, 3), dtype=torch.float32)
        rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
        distance = ((rows - y).square() + (columns - x).square()).sqrt()
        picture = torch.ones(3, size, size)
        if domain == "b":
            picture[:, distance < radius] = colour[:, None]
        picture[:, (distance - radius).abs() < 1] = -1
        return picture.flip(2) if rng is not None and rng.random() < 0.5 else picture

    def name(self, split: Split, domain: str, index: int) -> str:
        """A name for messages and files."""
        return f"{split}-{index}"

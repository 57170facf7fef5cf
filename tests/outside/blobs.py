"""Discs in any number of domains with any number of channels, and a metric for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from i2ikit.draws import counted_generator
from i2ikit.metrics.subject import Case, Measured, Subject
from i2ikit.translator import ImageSpec


class Blobs:
    """Index i is a disc of the same place and size in all domains."""

    aligned = True

    def __init__(
        self,
        *,
        domains: list[str],
        channels: Annotated[list[int], Field(min_length=1)],
        size: Annotated[int, Field(ge=8)] = 32,
        paired: bool = False,
    ) -> None:
        self.images = self.image_spec({"domains": domains, "channels": channels, "size": size})
        self.paired = paired

    @staticmethod
    def image_spec(options: Mapping[str, Any]) -> ImageSpec:
        domains, channels = options["domains"], options["channels"]
        each = channels if len(channels) == len(domains) else channels[:1] * len(domains)
        return ImageSpec(dict(zip(domains, each, strict=True)), options["size"])

    def count(self, split: str, domain: str) -> int:
        return 8 if split == "train" else 4

    def name(self, split: str, domain: str, index: int) -> str:
        return f"{split}-{index}"

    def image(self, split: str, domain: str, index: int, rng: np.random.Generator | None = None) -> Tensor:
        size, channels = self.images.size, self.images.channels[domain]
        random = counted_generator("blobs", split, index)
        row, column, radius = random.uniform(0.3, 0.7), random.uniform(0.3, 0.7), random.uniform(0.1, 0.3)
        bands = torch.from_numpy(counted_generator("bands", split, domain, index).uniform(-1, 1, channels))
        grid = torch.arange(size) / size
        inside = (grid[:, None] - row).square() + (grid - column).square() < radius**2
        x = torch.where(inside, bands.float()[:, None, None], torch.tensor(0.8))
        return x.flip(2) if rng is not None and rng.random() < 0.5 else x


class Distance:
    """Mean absolute difference between translations and the targets of their inputs, for any channels.

    Args:
        num_inputs: number of held-out inputs.
    """

    def __init__(self, *, num_inputs: Annotated[int, Field(gt=0)] = 4) -> None:
        self.num_inputs = num_inputs

    def measure(self, subject: Subject) -> Measured:
        def distance(case: Case) -> Tensor:
            return (case.outputs - subject.target(case.index)).abs().mean()

        found = subject.over_inputs(subject.inputs(self.num_inputs), 2, distance)
        return Measured({"distance": found.mean().item()})

"""The held-out images of a dataset in two parts: for validation while training, and for evaluation."""

from __future__ import annotations

from typing import Literal

import numpy as np
from torch import Tensor

from i2ikit.data.dataset import Dataset, Picturing, Split
from i2ikit.data.images import bands_shown
from i2ikit.draws import counted_seed
from i2ikit.errors import DataError

__all__ = ["HeldOutPart", "Part"]

Part = Literal["validation", "evaluation"]

IN = 3
"""Of so many consecutive held-out images, one is for validation."""

LEAST = 2
"""Images per domain that each part needs: metrics compare at least two real images."""


class HeldOutPart:
    """A dataset whose test split is one part of that of another dataset; training images stay the same.

    The part of an image depends only on its index: one of every three consecutive images is for validation.
    The parts are therefore the same for every seed, and pairs are not separated.

    Args:
        whole: the dataset that is divided.
        part: "validation", about a third of the held-out images, or "evaluation", all others.

    Raises:
        DataError: one of the parts would have fewer than two images of a domain.
    """

    def __init__(self, whole: Dataset, part: Part) -> None:
        self.whole = whole
        self.images = whole.images
        self.aligned = whole.aligned
        self.paired = whole.paired
        parts = {d: _parts(whole.count("test", d)) for d in whole.images.channels}
        _check(parts)
        self.indices = {domain: found[part] for domain, found in parts.items()}

    def count(self, split: Split, domain: str) -> int:
        """Number of images of this part, or of training images."""
        return len(self.indices[domain]) if split == "test" else self.whole.count(split, domain)

    def image(self, split: Split, domain: str, index: int, rng: np.random.Generator | None = None) -> Tensor:
        """(C, size, size) in [-1, 1]."""
        return self.whole.image(split, domain, self._index(split, domain, index), rng)

    def name(self, split: Split, domain: str, index: int) -> str:
        """The name of this image in the whole dataset."""
        return self.whole.name(split, domain, self._index(split, domain, index))

    def picture(self, x: Tensor, domain: str) -> Tensor:
        """Pictures (N, 1 or 3, H, W) of images (N, C, H, W), as the whole dataset shows them."""
        return self.whole.picture(x, domain) if isinstance(self.whole, Picturing) else bands_shown(x)

    def _index(self, split: Split, domain: str, index: int) -> int:
        return self.indices[domain][index] if split == "test" else index


def _parts(count: int) -> dict[Part, list[int]]:
    """The indices of each part of `count` held-out images."""
    chosen = {start + counted_seed("validation", start) % IN for start in range(0, count, IN)}
    return {
        "validation": [index for index in range(count) if index in chosen],
        "evaluation": [index for index in range(count) if index not in chosen],
    }


def _check(parts: dict[str, dict[Part, list[int]]]) -> None:
    small = [
        f"{len(found['validation'])} for validation and {len(found['evaluation'])} for evaluation "
        f"(domain {domain})"
        for domain, found in parts.items()
        if min(map(len, found.values())) < LEAST
    ]
    if small:
        raise DataError(
            f"[validation] divides the held-out images into {', '.join(small)}, but each part needs "
            f"{LEAST} or more; hold out 6 or more images per domain, or remove [validation]"
        )

"""Training without damaged images: another image takes the place of each."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
from torch import Tensor

from i2ikit.data.dataset import Dataset, Picturing, Remarking, Split
from i2ikit.data.images import bands_shown
from i2ikit.errors import DataError

__all__ = ["Replacing"]


class Replacing:
    """A dataset whose damaged training images are replaced by the next good one, in the order of the files.

    Counts, the order of all other images and their augmentation stay the same. The augmentation of a
    replacement is that of the damaged image, so it is seen in two ways. Of pairs both images are replaced.

    Args:
        whole: the dataset with damaged images.
        damaged: their indices, by domain.

    Raises:
        DataError: a domain has no good training image.
    """

    def __init__(self, whole: Dataset, damaged: Mapping[str, Collection[int]]) -> None:
        self.whole = whole
        self.images = whole.images
        self.aligned = whole.aligned
        self.paired = whole.paired
        if whole.paired:
            everywhere = {index for indices in damaged.values() for index in indices}
            damaged = dict.fromkeys(whole.images.channels, everywhere)
        self.replacements = {
            domain: _replacements(whole.count("train", domain), set(indices), domain)
            for domain, indices in damaged.items()
        }

    def count(self, split: Split, domain: str) -> int:
        """Number of images, with those that are replaced."""
        return self.whole.count(split, domain)

    def image(self, split: Split, domain: str, index: int, rng: np.random.Generator | None = None) -> Tensor:
        """(C, size, size) in [-1, 1]."""
        return self.whole.image(split, domain, self._index(split, domain, index), rng)

    def name(self, split: Split, domain: str, index: int) -> str:
        """The name of the image that is used."""
        return self.whole.name(split, domain, self._index(split, domain, index))

    def picture(self, x: Tensor, domain: str) -> Tensor:
        """Pictures (N, 1 or 3, H, W) of images (N, C, H, W), as the whole dataset shows them."""
        return self.whole.picture(x, domain) if isinstance(self.whole, Picturing) else bands_shown(x)

    def remarks(self) -> Iterable[str]:
        """What the whole dataset remarks."""
        return self.whole.remarks() if isinstance(self.whole, Remarking) else ()

    def _index(self, split: Split, domain: str, index: int) -> int:
        return self.replacements.get(domain, {}).get(index, index) if split == "train" else index


def _replacements(count: int, damaged: set[int], domain: str) -> dict[int, int]:
    """The next good index for each damaged one; after the last comes the first."""
    if len(damaged) >= count:
        raise DataError(f"all {count} training images of domain {domain} are damaged")
    found = {}
    for index in damaged:
        good = (index + 1) % count
        while good in damaged:
            good = (good + 1) % count
        found[index] = good
    return found

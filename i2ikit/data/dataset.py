"""The interface of datasets: images of two domains in two splits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from i2ikit.registry import Slot
from i2ikit.translator import ImageSpec

__all__ = ["DATASET_SLOT", "SPLITS", "Dataset", "Foretelling", "Split", "Streamed"]

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")


@runtime_checkable
class Dataset(Protocol):
    """Images of two domains, "a" and "b", in two splits.

    `aligned`: index i of "a" and of "b" show the same thing, so that a translation has a target.
    `paired`: training uses these pairs; augmentation must then depend only on the random generator, so
    that both images are augmented identically. It is an option or a class attribute. Aligned data need
    not be paired: then only metrics use the pairs.
    """

    images: ImageSpec
    aligned: bool
    paired: bool

    def count(self, split: Split, domain: str) -> int:
        """Number of images; at least 1."""
        ...

    def image(self, split: Split, domain: str, index: int, rng: np.random.Generator | None = None) -> Tensor:
        """(C, size, size) in [-1, 1]; augmented with `rng`, not augmented without it."""
        ...

    def name(self, split: Split, domain: str, index: int) -> str:
        """A readable name of this image, such as its file name."""
        ...


@runtime_checkable
class Foretelling(Protocol):
    """A dataset that reads the size of its images from its files, instead of an option `size`."""

    @staticmethod
    def image_spec(options: Mapping[str, Any]) -> ImageSpec:
        """The value that `images` will have, to check a recipe before the dataset is built.

        Raises:
            DataError: the files do not determine it.
        """
        ...


DATASET_SLOT = Slot("datasets", (), like=Dataset)
"""The slot of a recipe's [data]."""


@runtime_checkable
class Streamed(Protocol):
    """A dataset whose training images can only be read sequentially."""

    def stream(self, seed: int, place: int, places: int, first: int) -> Iterator[dict[str, Tensor]]:
        """Endless training images for one place of `places` in a batch, starting with image `first`.

        `{"a": (C, size, size), "b": ...}`, values in [-1, 1]; depends only on the arguments.
        """
        ...

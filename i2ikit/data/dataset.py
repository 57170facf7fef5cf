"""The interface of datasets: images of two or more domains in two splits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from i2ikit.registry import Slot
from i2ikit.translator import ImageSpec

__all__ = [
    "DATASET_SLOT",
    "SPLITS",
    "Dataset",
    "Filed",
    "Foretelling",
    "Picturing",
    "Remarking",
    "Split",
    "Streamed",
]

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")


@runtime_checkable
class Dataset(Protocol):
    """Images of two or more domains, the keys of `images.channels`, in two splits.

    `aligned`: index i shows the same thing in all domains, so that a translation has a target.
    `paired`: training uses these pairs; augmentation must then depend only on the random generator, so
    that the images of all domains are augmented identically. It is an option or a class attribute. Aligned
    data need not be paired: then only metrics use the pairs.
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
    """A dataset that knows its domains, their channels and the size of the images before it is built."""

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
class Filed(Dataset, Protocol):
    """A dataset whose images are files: a run records their names and sizes, and checks all of them first."""

    def files(self, split: Split, domain: str) -> Sequence[Path]:
        """The file of each image, by index; one file may hold images of several domains.

        Raises:
            DataError: a folder is missing or contains no image.
        """
        ...

    def inspect(self, split: Split, domain: str, index: int) -> None:
        """Check what an image's header shows, such as its kind and size, without decoding it.

        Raises:
            DataError: the image cannot be used; names the file.
        """
        ...


@runtime_checkable
class Streamed(Protocol):
    """A dataset whose training images can only be read sequentially."""

    def stream(self, seed: int, place: int, places: int, first: int) -> Iterator[dict[str, Tensor]]:
        """Endless training images for one place of `places` in a batch, starting with image `first`.

        `{"a": (C, size, size), "b": ...}`, values in [-1, 1]; depends only on the arguments.
        """
        ...


@runtime_checkable
class Picturing(Protocol):
    """A dataset that says how its images are shown, such as which of many bands are red, green and blue."""

    @staticmethod
    def picture(x: Tensor, domain: str) -> Tensor:
        """Pictures (N, 1 or 3, H, W) of images (N, C, H, W) of a domain; values in [-1, 1]."""
        ...


@runtime_checkable
class Remarking(Protocol):
    """A dataset that has something to say about its files before training starts."""

    def remarks(self) -> Iterable[str]:
        """Sentences such as what was left out of a folder; none if there is nothing to say."""
        ...

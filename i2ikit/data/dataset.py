"""What a dataset is: images of two domains in two splits."""

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
    `paired`: training gets such pairs; augmentation must then be a function of the random generator
    alone, so that both are augmented alike. It is an option, or known of the class. Data can be
    aligned without being paired: pairs that training does not use, and metrics do.
    """

    images: ImageSpec
    aligned: bool
    paired: bool

    def count(self, split: Split, domain: str) -> int:
        """How many images; at least 1."""
        ...

    def image(self, split: Split, domain: str, index: int, rng: np.random.Generator | None = None) -> Tensor:
        """(C, size, size) in [-1, 1]; augmented by `rng`, or plain without one."""
        ...

    def name(self, split: Split, domain: str, index: int) -> str:
        """What a person calls this image: a file's name, say."""
        ...


@runtime_checkable
class Foretelling(Protocol):
    """A dataset whose files, not an option `size`, say how large its images are."""

    @staticmethod
    def image_spec(options: Mapping[str, Any]) -> ImageSpec:
        """What `images` will be, so that a recipe can be checked before the dataset is built.

        Raises:
            DataError: the files do not say it.
        """
        ...


DATASET_SLOT = Slot("datasets", (), like=Dataset)
"""The place of a recipe's [data]."""


@runtime_checkable
class Streamed(Protocol):
    """A dataset whose training images can only be had one after the other."""

    def stream(self, seed: int, place: int, places: int, first: int) -> Iterator[dict[str, Tensor]]:
        """Training images for one of `places` in a batch, from its number `first` on, without end.

        `{"a": (C, size, size), "b": ...}`, values in [-1, 1]; a function of the arguments alone.
        """
        ...

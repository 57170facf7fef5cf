"""Counter-based randomness: every draw depends on its key only, not on earlier draws.

Data order is a function of (seed, domain, epoch), augmentation of (seed, domain, epoch, index), noise
of (seed, step, phase, name, place in the batch). A resumed run therefore equals an uninterrupted one, and
several processes draw the same numbers as one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

__all__ = ["Draw", "counted_draws", "counted_generator", "counted_seed"]


@dataclass(frozen=True)
class Draw:
    """A random tensor that a phase or a component needs at every step.

    Args:
        shape: shape for one place in the batch.
        kind: "normal" is N(0, 1); "uniform" is [0, 1); "categorical" is an integer below `categories`.
        categories: number of categories.
        per_step: all places, in all processes, get the same numbers.

    Raises:
        ValueError: a categorical draw without categories, or categories of another kind.
    """

    shape: tuple[int, ...] = ()
    kind: Literal["normal", "uniform", "categorical"] = "normal"
    categories: int = 0
    per_step: bool = False

    def __post_init__(self) -> None:
        if (self.categories > 0) != (self.kind == "categorical"):
            raise ValueError(
                f"a {self.kind} draw has categories = {self.categories}: "
                "a categorical draw needs 1 or more, other kinds have none"
            )


def counted_seed(*key: object) -> int:
    """A 128-bit hash of the key; the same on every machine and in every process."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
    return int.from_bytes(digest, "little")


def counted_generator(*key: object) -> np.random.Generator:
    """A random generator (Philox) that depends only on the key."""
    return np.random.Generator(np.random.Philox(key=counted_seed(*key)))


def counted_draws(
    seed: int,
    step: int,
    phase: str,
    draws: Mapping[str, Draw],
    places: Sequence[int],
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """The draws of one phase at one step.

    Args:
        draws: what to draw, by name.
        places: place in the step's batch of each image of this process.
        dtype: type of normal and uniform draws; categorical ones are int64.

    Returns:
        (len(places), *shape) by name, on the CPU.
    """
    drawn = {}
    for name, draw in draws.items():
        key = (seed, "noise", step, phase, name)
        keys = [key] if draw.per_step else [(*key, place) for place in places]
        numbers = torch.from_numpy(np.stack([_drawn(draw, counted_generator(*each)) for each in keys]))
        numbers = numbers if draw.kind == "categorical" else numbers.to(dtype)
        if draw.kind == "uniform":  # rounding may reach 1
            numbers = numbers.clamp(max=1 - torch.finfo(dtype).eps / 2)
        drawn[name] = numbers.expand(len(places), *draw.shape)
    return drawn


def _drawn(draw: Draw, generator: np.random.Generator) -> np.ndarray:
    match draw.kind:
        case "normal":
            return np.asarray(generator.standard_normal(draw.shape))
        case "uniform":
            return np.asarray(generator.random(draw.shape))
        case "categorical":
            return np.asarray(generator.integers(draw.categories, size=draw.shape))

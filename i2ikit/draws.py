"""Counter-based randomness: every draw depends on its key only, not on earlier draws.

Data order is a function of (seed, domain, epoch), augmentation of (seed, domain, epoch, index), noise
of (seed, step, phase, name, sample position). A resumed run therefore equals an uninterrupted one, and
several processes draw the same numbers as one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["counted_generator", "counted_seed", "normal_draws"]


def counted_seed(*key: object) -> int:
    """A 128-bit hash of the key; the same on every machine and in every process."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
    return int.from_bytes(digest, "little")


def counted_generator(*key: object) -> np.random.Generator:
    """A random generator (Philox) that depends only on the key."""
    return np.random.Generator(np.random.Philox(key=counted_seed(*key)))


def normal_draws(
    seed: int,
    step: int,
    phase: str,
    shapes: Mapping[str, tuple[int, ...]],
    positions: Sequence[int],
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """Standard normal draws of one phase at one step.

    Args:
        shapes: per-sample shape by name.
        positions: position in the step's batch of each sample of this process.

    Returns:
        (len(positions), *shape) by name, on the CPU.
    """
    draws = {}
    for name, shape in shapes.items():
        samples = [
            counted_generator(seed, "noise", step, phase, name, position).standard_normal(shape)
            for position in positions
        ]
        draws[name] = torch.from_numpy(np.stack(samples)).to(dtype)
    return draws

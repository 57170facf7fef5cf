"""Tables of tensors in an official layout and in ours, and the conversions that follow from a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from i2ikit.official.fitting import require_fit

__all__ = ["BATCH_NORM", "NORMS", "Entry", "Norm", "layer", "norm_after", "to_official", "to_ours"]

BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

Norm = Literal["none", "instance", "batch", "layer"]

NORMS: Mapping[Norm, str] = {"instance": "in", "batch": "bn", "layer": "ln", "none": "none"}
"""Norms by the names of our structures; their names in recipes."""


@dataclass(frozen=True)
class Entry:
    """One tensor in both layouts, with the same numbers in the same order.

    Args:
        official, ours: its keys.
        shape: in the official layout.
        our_shape: in ours.
    """

    official: str
    ours: str
    shape: tuple[int, ...]
    our_shape: tuple[int, ...]


def layer(
    official: str, ours: str, shape: tuple[int, ...], *, transposed: bool = False, linear: bool = False
) -> Iterator[Entry]:
    """Weight and bias of a layer.

    Args:
        shape: of the official weight.
        transposed: it is a transposed convolution, whose weight begins with its inputs.
        linear: our layer is linear, whatever the official one is.
    """
    channels = (shape[1 if transposed else 0],)
    yield Entry(f"{official}.weight", f"{ours}.weight", shape, shape[:2] if linear else shape)
    yield Entry(f"{official}.bias", f"{ours}.bias", channels, channels)


def norm_after(official: str, ours: str, norm: Norm, channels: int) -> Iterator[Entry]:
    """The tensors of a norm; instance norms have none."""
    if norm == "layer":
        for tensor, our_tensor in (("gamma", "gain"), ("beta", "bias")):
            yield Entry(f"{official}.{tensor}", f"{ours}.{our_tensor}", (channels,), (channels,))
    if norm == "batch":
        for tensor in BATCH_NORM:
            shape = () if tensor == "num_batches_tracked" else (channels,)
            yield Entry(f"{official}.{tensor}", f"{ours}.norm.{tensor}", shape, shape)


def to_ours(found: Mapping[str, Tensor], table: Sequence[Entry]) -> dict[str, Tensor]:
    """Convert an official state dict. Counters of batch norm, which early files lack, start at 0.

    Raises:
        WeightsError: tensors are missing, unexpected or have another shape; all are listed.
    """
    expected = {entry.official: entry.shape for entry in table}
    counters = {key for key in expected if key.endswith(".num_batches_tracked")}
    require_fit(found, expected, expected, optional=counters)
    found = {key: torch.zeros((), dtype=torch.long) for key in counters} | dict(found)
    return {entry.ours: found[entry.official].reshape(entry.our_shape) for entry in table}


def to_official(tensors: Mapping[str, Tensor], table: Sequence[Entry]) -> dict[str, Tensor]:
    """Convert a state dict of ours.

    Raises:
        WeightsError: tensors are missing, unexpected or have another shape; all are listed.
    """
    expected = {entry.ours: entry.our_shape for entry in table}
    require_fit(tensors, expected, expected)
    return {entry.official: tensors[entry.ours].reshape(entry.shape) for entry in table}

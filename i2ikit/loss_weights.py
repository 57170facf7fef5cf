"""Weights of losses: numbers, or schedules over the steps; for a loss, or for one part of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["Weight", "Weights", "largest_weights", "weights_at"]

Weight = float | Mapping[str, Any]
"""A number, or `{"start": 1.0, "end": 0.0, "steps": 1000}`: linear from start (at step 0) to end (at step
`steps`, by default the number of all steps), then constant."""


class Weights(Mapping[str, float]):
    """The weights of one phase at one step, by `name` or `name/part`.

    A part without a weight of its own has the weight of its name: with `{"cycle_recon": 10.0}`,
    `weights["cycle_recon/a"]` is 10.0.

    Args:
        given: the weights as the recipe names them.
    """

    def __init__(self, given: Mapping[str, float]) -> None:
        self._given = given

    def __getitem__(self, key: str) -> float:
        return self._given[key if key in self._given else key.partition("/")[0]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)

    def __repr__(self) -> str:
        return f"Weights({dict(self._given)})"


def weights_at(weights: Mapping[str, Weight], step: int, steps: int) -> Weights:
    """The weights of a phase at step `step` (from 0) of `steps`."""
    return Weights({key: _at(weight, step, steps) for key, weight in weights.items()})


def _at(weight: Weight, step: int, steps: int) -> float:
    if not isinstance(weight, Mapping):
        return weight
    start, end = float(weight["start"]), float(weight["end"])
    changing = steps if weight.get("steps") is None else weight["steps"]
    return end if step >= changing else start + (end - start) * step / changing


def largest_weights(weights: Mapping[str, Weight]) -> Weights:
    """The largest weight of each loss over all steps; for a name, over its parts too."""
    largest = {
        key: max(weight["start"], weight["end"]) if isinstance(weight, Mapping) else weight
        for key, weight in weights.items()
    }
    for key in weights:
        name = key.partition("/")[0]
        largest[name] = max(largest[name], largest[key])
    return Weights(largest)

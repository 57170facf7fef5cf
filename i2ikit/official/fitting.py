"""Whether a state dict is what a layout expects: legacy keys are left out, and every misfit is listed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from typing import TypeVar

from torch import Tensor

from i2ikit.errors import WeightsError, printable
from i2ikit.registry import Spec

__all__ = [
    "cleaned",
    "highest",
    "listed",
    "official_norm",
    "require_fit",
    "require_same",
    "shape_of",
    "unknown",
]

N = TypeVar("N")

MOST_LISTED = 30
"""Keys that do not fit that an error lists."""


def cleaned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An official state dict without the prefix `module.`, and without statistics of norms without a weight.

    `nn.DataParallel` adds the prefix. Instance norms of PyTorch 0.3 and earlier, and of the CycleGAN
    repository from June to October 2018, have statistics, which the official tests do not use. Those of
    MUNIT's AdaIN are dummies.
    """
    plain = {key.removeprefix("module."): x for key, x in tensors.items()}
    statistic = re.compile(r"(.*)\.(running_mean|running_var|num_batches_tracked)")
    matches = {key: statistic.fullmatch(key) for key in plain}
    return {key: x for key, x in plain.items() if not (m := matches[key]) or f"{m[1]}.weight" in plain}


def unknown(networks: str, reason: str) -> WeightsError:
    """The error for a state dict of none of these networks."""
    return WeightsError(f"not a state dict of {networks}: {reason}")


def shape_of(found: Mapping[str, Tensor], key: str, dimensions: int, networks: str) -> tuple[int, ...]:
    """The shape of a tensor that every state dict of these networks has.

    Raises:
        WeightsError: there is no such tensor, or it has another number of dimensions.
    """
    if key not in found:
        raise unknown(networks, f"it has no '{key}'")
    if found[key].dim() != dimensions:
        raise unknown(networks, f"'{key}' has {found[key].dim()} dimensions, not {dimensions}")
    return tuple(found[key].shape)


def highest(found: Mapping[str, Tensor], before: str, after: str) -> int:
    """The highest index, of two digits at most, in keys that begin with `before`, the index, `after`; or -1.

    A tensor that is missing in between is then reported as missing.
    """
    pattern = re.compile(rf"{re.escape(before)}(\d{{1,2}}){re.escape(after)}")
    return max((int(m[1]) for key in found if (m := pattern.match(key))), default=-1)


def require_fit(
    found: Mapping[str, Tensor],
    required: Mapping[str, tuple[int, ...]],
    known: Mapping[str, tuple[int, ...]],
    optional: Set[str] = frozenset(),
) -> None:
    """Raise WeightsError with every key that is missing or unexpected, or has another shape."""
    wrong = [f"missing: {key}" for key in required if key not in found and key not in optional]
    wrong += [f"unexpected: {printable(key)}" for key in found if key not in known]
    wrong += [
        f"wrong shape: {key} is {tuple(found[key].shape)}, not {shape}"
        for key, shape in known.items()
        if key in found and tuple(found[key].shape) != shape
    ]
    if wrong:
        count = "1 tensor does" if len(wrong) == 1 else f"{len(wrong)} tensors do"
        raise WeightsError(f"{count} not fit the network:{_lines(wrong)}")


def listed(keys: list[str]) -> str:
    """The keys in one line; of many, the first."""
    more = f" and {len(keys) - MOST_LISTED} more" if len(keys) > MOST_LISTED else ""
    return ", ".join(keys[:MOST_LISTED]) + more


def _lines(problems: list[str]) -> str:
    more = [f"and {len(problems) - MOST_LISTED} more"] if len(problems) > MOST_LISTED else []
    return "".join(f"\n  {line}" for line in problems[:MOST_LISTED] + more)


def official_norm(spec: Spec, known: Mapping[str, N], network: str) -> N:
    """The official name of the norm of a component.

    Raises:
        WeightsError: the official code has no such norm.
    """
    norm = spec.options.get("norm")
    name = norm.name if isinstance(norm, Spec) else ""
    if name not in known:
        raise WeightsError(f"{network} has the norm '{name}'; the official code has {', '.join(known)}")
    return known[name]


def require_same(spec: Spec, official: Spec) -> None:
    """Raise WeightsError with every option in which a component differs from the official network."""
    wrong = [
        f"{key} = {_shown(spec.options.get(key))}, where the official code has {_shown(value)}"
        for key, value in official.options.items()
        if _shown(spec.options.get(key)) != _shown(value)
    ]
    if spec.name != official.name:
        wrong = [f"it is '{spec.name}', where the official code has '{official.name}'"]
    if wrong:
        raise WeightsError(f"{spec.name}: {'; '.join(wrong)}")


def _shown(value: object) -> object:
    """A nested component by its name."""
    return value.name if isinstance(value, Spec) else value

"""Image sizes that components accept: checked before training, satisfied by padding at inference."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor
from torch.nn import functional as F

from i2ikit.errors import ComponentError, Problem, in_one_line
from i2ikit.packages.entry import KINDS
from i2ikit.registry import Spec, registries, schema_of

__all__ = ["SizeRequirement", "SizeRequiring", "own_requirement", "size_problems", "whole_requirement"]


@dataclass(frozen=True)
class SizeRequirement:
    """Image sizes that a component accepts; `a & b` satisfies both requirements.

    Args:
        minimum: the shortest side, in pixels.
        multiple_of: both sides must be multiples of it, in pixels.

    Raises:
        ValueError: one of the values is below 1.
    """

    minimum: int = 1
    multiple_of: int = 1

    def __post_init__(self) -> None:
        if self.minimum < 1 or self.multiple_of < 1:
            raise ValueError(
                f"minimum = {self.minimum}, multiple_of = {self.multiple_of}; both need 1 or more"
            )

    def __and__(self, other: SizeRequirement) -> SizeRequirement:
        return SizeRequirement(
            max(self.minimum, other.minimum), math.lcm(self.multiple_of, other.multiple_of)
        )

    def __str__(self) -> str:
        if self.multiple_of == 1:
            return f"{self.minimum} px or more"
        if self.minimum <= self.multiple_of:
            return f"multiples of {self.multiple_of} px"
        return f"{self.minimum} px or more, in multiples of {self.multiple_of}"

    def enlarged(self, side: int) -> int:
        """The shortest valid side that is not below `side`."""
        return -(-max(side, self.minimum) // self.multiple_of) * self.multiple_of

    def nearest(self, side: int) -> list[int]:
        """The nearest valid sides below (if there is one) and above."""
        below = side // self.multiple_of * self.multiple_of
        return sorted({size for size in (below, self.enlarged(side)) if size == self.enlarged(size) > 0})

    def padded(self, x: Tensor) -> Tensor:
        """Pad x (N, C, H, W) to a valid size by repeating its right and lower edges."""
        height, width = x.shape[2:]
        more = self.enlarged(width) - width, self.enlarged(height) - height
        return F.pad(x, (0, more[0], 0, more[1]), mode="replicate") if any(more) else x

    def at_any_size(self, network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Apply `network`, which keeps the size of images, to x (N, C, H, W): pad, apply, and crop."""
        return network(self.padded(x))[:, :, : x.shape[2], : x.shape[3]]


@runtime_checkable
class SizeRequiring(Protocol):
    """A component that does not accept images of every size."""

    @staticmethod
    def size_requirement(options: Mapping[str, Any]) -> SizeRequirement:
        """Its requirement with these options; the requirements of nested components are added to it."""
        ...


def own_requirement(spec: Spec) -> SizeRequirement:
    """The requirement of a component without its nested components.

    Raises:
        TypeError: `size_requirement` does not return a `SizeRequirement`; other exceptions if it fails.
    """
    try:
        component = registries[spec.kind].load(spec.name)
    except ComponentError:  # reported elsewhere, as are rejected options, which are absent here
        return SizeRequirement()
    known = schema_of(component).model.model_fields.keys() <= spec.options.keys()
    if not known or not isinstance(component, SizeRequiring):
        return SizeRequirement()
    found: object = component.size_requirement(spec.options)
    if not isinstance(found, SizeRequirement):
        raise TypeError(f"size_requirement() should return a SizeRequirement, got {found!r}")
    return found


def whole_requirement(spec: Spec) -> SizeRequirement:
    """The requirement of a component and all nested ones."""
    return functools.reduce(operator.and_, map(own_requirement, spec.all()))


def size_problems(spec: Spec, path: str, size: int, what: str, advise: bool = True) -> list[Problem]:
    """One problem for each component, `spec` or nested, that does not accept square images of `size` px.

    Args:
        path: location of the spec in the recipe.
        what: name of the size in messages.
        advise: also suggest valid sizes.
    """
    problems, needs = [], []
    for where, part in _parts(spec, path):
        owner = f"{KINDS[part.kind]} '{part.name}'"
        try:
            needs.append((where, owner, own_requirement(part)))
        except Exception as error:
            message = f"{owner} failed to report its size requirement: {in_one_line(error)}"
            problems.append(Problem(where, message))
    hint = ""
    if advise:
        together = functools.reduce(operator.and_, (need for *_, need in needs), SizeRequirement())
        sides = together.nearest(size)
        nearest = f"sizes that suit all are {sides[0]} and" if len(sides) > 1 else "size that suits all is"
        hint = f"; the nearest {nearest} {sides[-1]}"
    return problems + [
        Problem(where, f"{what} does not suit {owner}, which needs {need}{hint}")
        for where, owner, need in needs
        if need.enlarged(size) != size
    ]


def _parts(spec: Spec, path: str) -> Iterator[tuple[str, Spec]]:
    """A spec and all nested ones, each with its path."""
    yield path, spec
    for key, value in spec.options.items():
        several = isinstance(value, Sequence) and not isinstance(value, str)
        for n, inner in enumerate(value if several else [value]):
            if isinstance(inner, Spec):
                yield from _parts(inner, f"{path}.{key}[{n}]" if several else f"{path}.{key}")

"""What components need of an image's sides: checked before training, met by padding in inference."""

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
    """Sides of images that a component can work with; `&` is what two of them need together.

    Args:
        minimum: the shortest side, in pixels.
        multiple_of: both sides are multiples of it, in pixels.

    Raises:
        ValueError: one of them is below 1.
    """

    minimum: int = 1
    multiple_of: int = 1

    def __post_init__(self) -> None:
        if self.minimum < 1 or self.multiple_of < 1:
            raise ValueError(f"minimum = {self.minimum}, multiple_of = {self.multiple_of}: 1 or more each")

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
        """The shortest side that is possible and not below `side`."""
        return -(-max(side, self.minimum) // self.multiple_of) * self.multiple_of

    def nearest(self, side: int) -> list[int]:
        """The next possible sides, below (if there is one) and above."""
        below = side // self.multiple_of * self.multiple_of
        return sorted({size for size in (below, self.enlarged(side)) if size == self.enlarged(size) > 0})

    def padded(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) with possible sides: its right and lower edge are repeated."""
        height, width = x.shape[2:]
        more = self.enlarged(width) - width, self.enlarged(height) - height
        return F.pad(x, (0, more[0], 0, more[1]), mode="replicate") if any(more) else x

    def at_any_size(self, network: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """What `network`, which keeps the size of images, makes of x (N, C, H, W): padded, and cut back."""
        return network(self.padded(x))[:, :, : x.shape[2], : x.shape[3]]


@runtime_checkable
class SizeRequiring(Protocol):
    """A component that cannot work with images of every size."""

    @staticmethod
    def size_requirement(options: Mapping[str, Any]) -> SizeRequirement:
        """What it needs with these options; what its parts need is added."""
        ...


def own_requirement(spec: Spec) -> SizeRequirement:
    """What a component needs by itself.

    Raises:
        TypeError: it says no `SizeRequirement`; others, if it fails.
    """
    try:
        component = registries[spec.kind].load(spec.name)
    except ComponentError:  # is reported elsewhere, as are options that were refused and are not there
        return SizeRequirement()
    known = schema_of(component).model.model_fields.keys() <= spec.options.keys()
    if not known or not isinstance(component, SizeRequiring):
        return SizeRequirement()
    found: object = component.size_requirement(spec.options)
    if not isinstance(found, SizeRequirement):
        raise TypeError(f"size_requirement() returns {found!r}, no SizeRequirement")
    return found


def whole_requirement(spec: Spec) -> SizeRequirement:
    """What a component and all that it holds need."""
    return functools.reduce(operator.and_, map(own_requirement, spec.all()))


def size_problems(spec: Spec, path: str, size: int, what: str, advise: bool = True) -> list[Problem]:
    """One for each component, `spec` or a part of it, that square images of `size` px do not suit.

    Args:
        path: where the spec stands in the recipe.
        what: what the size is called.
        advise: also say which sizes are possible.
    """
    problems, needs = [], []
    for where, part in _parts(spec, path):
        owner = f"{KINDS[part.kind]} '{part.name}'"
        try:
            needs.append((where, owner, own_requirement(part)))
        except Exception as error:
            message = f"{owner} cannot say which sizes it needs: {in_one_line(error)}"
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
    """A spec and all that it holds, each with its path."""
    yield path, spec
    for key, value in spec.options.items():
        several = isinstance(value, Sequence) and not isinstance(value, str)
        for n, inner in enumerate(value if several else [value]):
            if isinstance(inner, Spec):
                yield from _parts(inner, f"{path}.{key}[{n}]" if several else f"{path}.{key}")

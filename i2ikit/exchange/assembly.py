"""Files of an official repository, and the translator that they make up."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from i2ikit.errors import WeightsError
from i2ikit.registry import Spec, built_from

__all__ = ["Assembly", "OfficialFile", "OfficialState", "in_order", "same_component", "spec_of", "under"]

ROLE = re.compile(r"(?:^|_)(G_A|G_B|D_A|D_B|G|D|E|D2)$")
"""The end of the name of a file of the official repositories, without its ending."""

BSD = "the official code is under a BSD licence; the licence of weights is a matter of those who trained them"

OfficialState = Iterator[tuple[str, Mapping[str, Any]]]
"""State dicts by the names of their files."""

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True)
class Assembly:
    """A translator made of official weights.

    Args:
        name: what it is, in words.
        recipe: the recipe that ships with i2ikit and has the published options.
        options: a table of recipe keys that differ from it, by section.
        channels: of the domains a and b.
        tensors: by `role.name`.
        taken: what each file is.
        fresh: networks that start with random weights, for training on.
        licence: a note about the licence.
        notes: what the files do not say.
    """

    name: str
    recipe: str
    options: Mapping[str, Any]
    channels: Mapping[str, int]
    tensors: Mapping[str, Tensor]
    taken: Mapping[Path, str]
    fresh: Sequence[str]
    licence: str
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class OfficialFile:
    """A file, and what it holds: a state dict, or one for each domain."""

    path: Path
    content: Mapping[str, Any]

    @property
    def role(self) -> str:
        """Such as "G_A", from the name of the file; empty if it says nothing."""
        found = ROLE.search(self.path.stem)
        return found[1] if found else ""

    def read(self, convert: Callable[[Mapping[str, Any]], T]) -> T:
        """What `convert` makes of the content.

        Raises:
            WeightsError: it does not fit; the message names the file.
        """
        try:
            return convert(self.content)
        except WeightsError as error:
            raise WeightsError(f"{self.path}: {error}") from error


def spec_of(network: nn.Module) -> Spec:
    """The component that a network is, with its options.

    Raises:
        WeightsError: it is none.
    """
    spec = built_from(network)
    if spec is None:
        raise WeightsError(f"{type(network).__name__} was not built from a recipe")
    return spec


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, named `prefix.name`."""
    return {f"{prefix}.{name}": x for name, x in tensors.items()}


def in_order(files: Sequence[OfficialFile], *roles: str) -> list[OfficialFile]:
    """The files in the order of these roles; in the order given if their names say nothing.

    Raises:
        WeightsError: several files have names, but not those of these roles.
    """
    by_role = {file.role: file for file in files}
    if len(files) == len(roles) and set(by_role) == set(roles):
        return [by_role[role] for role in roles]
    if len(files) > 1 and set(by_role) != {""}:
        names = ", ".join(file.path.name for file in files)
        raise WeightsError(
            f"the names of these files do not say which is which: {names}; the official ones end in "
            f"net_{' and net_'.join(roles)}"
        )
    return list(files)


def same_component(kinds: Mapping[Path, S]) -> S:
    """The structure that all these files have, whose channels should be left out.

    Raises:
        WeightsError: they differ.
    """
    first, *others = kinds.values()
    if any(other != first for other in others):
        names = " and ".join(path.name for path in kinds)
        raise WeightsError(f"{names} have different structures: {'; '.join(map(str, kinds.values()))}")
    return first

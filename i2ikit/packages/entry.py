"""One component that a package offers, or one fault of its metadata."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from i2ikit.errors import ComponentError, did_you_mean

__all__ = ["CORE", "KINDS", "PARENT", "Entry", "Fault", "kind_named", "normalised"]

CORE = "i2ikit"
"""The package whose components no other one can replace by using their names."""

KINDS = {
    "encoders": "encoder",
    "decoders": "decoder",
    "norms": "norm",
    "discriminators": "discriminator",
    "losses": "loss",
    "translators": "translator",
    "datasets": "dataset",
    "metrics": "metric",
}
"""Kind (also the end of the entry-point group, `i2ikit.<kind>`) to the word for one of them."""

PARENT = f"{CORE}."


@dataclass(frozen=True)
class Entry:
    """One offered component: where it comes from, and how to import it."""

    kind: str
    name: str
    package: str
    version: str
    target: str
    load: Callable[[], object] = field(compare=False, repr=False)

    @property
    def origin(self) -> str:
        """`"package 1.2.3"`, or where it was registered."""
        return f"{self.package} {self.version}".strip()


@dataclass(frozen=True)
class Fault:
    """Something wrong with the metadata of an installed package.

    Args:
        place: the metadata's folder (`NAME-VERSION.dist-info`).
        cause: what is wrong, and what it means.
        lost: whatever the package offers is not known.
    """

    package: str
    version: str
    place: Path | zipfile.Path
    cause: str
    lost: bool = False

    @property
    def origin(self) -> str:
        """`"package 1.2.3"`."""
        return f"{self.package} {self.version}".strip()


def kind_named(text: str) -> str:
    """The kind that a person calls "norms" or "norm".

    Raises:
        ComponentError: there is none; says which there are.
    """
    kinds = {**{word: kind for kind, word in KINDS.items()}, **{kind: kind for kind in KINDS}}
    if text not in kinds:
        raise ComponentError(f"no kind '{text}'{did_you_mean(text, kinds)} (known: {', '.join(KINDS)})")
    return kinds[text]


def normalised(package: str) -> str:
    """A distribution's name as the package index compares it: `My.Own_Norms` is `my-own-norms`."""
    return re.sub(r"[-_.]+", "-", package).lower()

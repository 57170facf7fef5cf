"""A component that a package offers (`Entry`), and a fault in a package's metadata (`Fault`)."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from i2ikit.errors import ComponentError, did_you_mean

__all__ = ["CORE", "KINDS", "PARENT", "Entry", "Fault", "kind_named", "normalised"]

CORE = "i2ikit"
"""Our package; components of other packages cannot replace its components by using their names."""

KINDS = {
    "encoders": "encoder",
    "decoders": "decoder",
    "norms": "norm",
    "discriminators": "discriminator",
    "losses": "loss",
    "translators": "translator",
    "datasets": "dataset",
    "metrics": "metric",
    "optimizers": "optimizer",
}
"""Each kind (the entry-point group is `i2ikit.<kind>`), with the word for one component of it."""

PARENT = f"{CORE}."


@dataclass(frozen=True)
class Entry:
    """A component that a package offers: its origin and how to import it."""

    kind: str
    name: str
    package: str
    version: str
    target: str
    load: Callable[[], object] = field(compare=False, repr=False)

    @property
    def origin(self) -> str:
        """`"package 1.2.3"`, or "registered" for a component registered in this process."""
        return f"{self.package} {self.version}".strip()


@dataclass(frozen=True)
class Fault:
    """A fault in the metadata of an installed package.

    Args:
        place: the metadata folder (`NAME-VERSION.dist-info`).
        cause: what is wrong and its consequence.
        lost: whether the package's components are unknown because of it.
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
    """The kind for a name such as "norms" or "norm".

    Raises:
        ComponentError: unknown kind; the message lists the known ones.
    """
    kinds = {**{word: kind for kind, word in KINDS.items()}, **{kind: kind for kind in KINDS}}
    if text not in kinds:
        raise ComponentError(f"unknown kind '{text}'{did_you_mean(text, kinds)} (known: {', '.join(KINDS)})")
    return kinds[text]


def normalised(package: str) -> str:
    """A distribution's normalised name, as package indexes use it: `My.Own_Norms` is `my-own-norms`."""
    return re.sub(r"[-_.]+", "-", package).lower()

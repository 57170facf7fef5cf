"""Keeps Python's own `importlib.metadata` alive beside damaged packages, once it is asked for any.

torch and pydantic ask it for their plug-ins when they are imported. It reads the `entry_points.txt` of every
package on the path and fails on one that is not UTF-8, or that has a line without `=`: then neither can be
imported at all.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import DistributionFinder, PathDistribution
from typing import Any

from i2ikit.packages.entry import normalised
from i2ikit.packages.survey import survey

__all__ = ["shield_metadata"]


class _Bare(PathDistribution):
    """A package as it is, but for its entry points."""

    def read_text(self, filename: Any) -> str | None:
        return None if filename == "entry_points.txt" else super().read_text(filename)


class _Hiding(DistributionFinder):
    """Finds packages, and never a module, before Python's own finder: the first of a name counts."""

    def find_distributions(self, context: Any = DistributionFinder.Context()) -> Iterator[PathDistribution]:
        for folder in survey().fatal:
            name = folder.name.rpartition(".")[0].partition("-")[0]
            if context.name is None or normalised(context.name) == normalised(name):
                yield _Bare(folder)

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        return None


def shield_metadata() -> None:
    """Let `importlib.metadata` in this process see damaged packages without their entry points.

    The path is searched at its first question, not now.
    """
    if not any(isinstance(finder, _Hiding) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Hiding())

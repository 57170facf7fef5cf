"""Keeps Python's `importlib.metadata` working when damaged packages are installed.

torch and pydantic use it to find their plug-ins when they are imported. It reads the `entry_points.txt` of
every package on the path and fails if one is not UTF-8 or has a line without `=`; then neither torch nor
pydantic can be imported.
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
    """A package without its entry points."""

    def read_text(self, filename: Any) -> str | None:
        return None if filename == "entry_points.txt" else super().read_text(filename)


class _Hiding(DistributionFinder):
    """Finds damaged packages (never modules) before Python's own finder does: the first match is used."""

    def find_distributions(self, context: Any = DistributionFinder.Context()) -> Iterator[PathDistribution]:
        for folder in survey().fatal:
            name = folder.name.rpartition(".")[0].partition("-")[0]
            if context.name is None or normalised(context.name) == normalised(name):
                yield _Bare(folder)

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        return None


def shield_metadata() -> None:
    """Hide the entry points of damaged packages from `importlib.metadata` in this process.

    The path is searched when `importlib.metadata` is first used, not now.
    """
    if not any(isinstance(finder, _Hiding) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Hiding())

"""What the recipe of a run changes in the one that it extends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from i2ikit.changes import differing
from i2ikit.errors import I2IKitError
from i2ikit.packages.recipes import find_recipe
from i2ikit.recipe import finished_recipe
from i2ikit.recipe_text import read_recipe, read_toml
from i2ikit.resolved import RESOLVED

__all__ = ["Difference", "RecipeDifferences", "recipe_differences"]


@dataclass(frozen=True)
class Difference:
    """One value as text; empty where there is none."""

    key: str
    here: str
    there: str


@dataclass(frozen=True)
class RecipeDifferences:
    """How the recipe of a run differs from the one below it.

    Args:
        base: what it is compared with, such as "munit".
        rows: one for each value that differs.
        problem: why it cannot be compared; empty if it can.
    """

    base: str
    rows: Sequence[Difference] = ()
    problem: str = ""


def recipe_differences(folder: Path, table: Mapping[str, Any]) -> RecipeDifferences:
    """How a run's recipe differs from the one that its recipe.toml extends, as that is installed now.

    A recipe that extends none is compared with its own recipe.toml: what --set changed.

    Args:
        table: of its resolved.toml.
    """
    file = folder / "recipe.toml"
    base = "recipe.toml"
    try:
        given = read_toml(file)
        base = str(given.get("extends", base))
        path = file if "extends" not in given else find_recipe(base)
        there = finished_recipe(read_recipe(path).table, path).flat()
        here = finished_recipe(dict(table), folder / RESOLVED).flat()  # with keys that are newer than the run
    except (I2IKitError, OSError) as error:
        return RecipeDifferences(base, problem=str(error))
    rows = [Difference(key, _text(here.get(key)), _text(there.get(key))) for key in differing(there, here)]
    return RecipeDifferences(base, rows)


def _text(value: object) -> str:
    """A value as TOML would show it, roughly; nothing for a missing one."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)

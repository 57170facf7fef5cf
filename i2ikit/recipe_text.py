"""What a recipe says: its file, those that it extends, and `--set`, each laid over the one before.

Key by key the upper one counts. A table that names another component replaces the lower one whole, with
the options that were meant for the other component.
"""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from i2ikit.errors import Problem, RecipeError
from i2ikit.packages.recipes import find_recipe

__all__ = ["RecipeText", "laid_over", "overriding", "read_recipe", "read_toml"]

Table = dict[str, Any]
_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True)
class RecipeText:
    """A recipe's table, not yet checked.

    Args:
        source: the file that it was read from.
        text: what that file holds.
        inherited: roles whose [optimizer.<role>] was written for another translator than the table names.
    """

    source: Path
    table: Table
    text: str = ""
    inherited: frozenset[str] = _NONE

    def under(self, table: Table) -> RecipeText:
        """This one with another table laid over it."""
        laid = laid_over(self.table, table)
        same = _translator(laid) == _translator(self.table)
        lower = self.inherited if same else _roles(self.table)
        return dataclasses.replace(self, table=laid, inherited=lower - _roles(table))


def _translator(table: Table) -> object:
    given = table.get("translator")
    return given.get("name") if isinstance(given, dict) else given


def _roles(table: Table) -> frozenset[str]:
    """Those that have a table of their own in [optimizer]."""
    given = table.get("optimizer")
    return (
        frozenset(key for key in given if isinstance(given[key], dict)) if isinstance(given, dict) else _NONE
    )


def read_recipe(path: Path, extending: tuple[Path, ...] = ()) -> RecipeText:
    """A recipe file, laid over the one that it extends.

    Args:
        extending: the files that extend this one.

    Raises:
        RecipeError: a file is missing or not TOML, or extends itself.
    """
    table, text = _read(path)
    base = table.pop("extends", None)
    if base is None:
        return RecipeText(path, table, text)
    extending = (path.resolve(), *extending)
    beside = path.parent / str(base)
    found = beside if beside.is_file() or not isinstance(base, str) else find_recipe(base)
    if not found.is_file() or found.resolve() in extending:
        message = f"should be the name or file of another recipe, got {base!r}"
        raise RecipeError(str(path), [Problem("extends", message)])
    below = read_recipe(found, extending)
    return dataclasses.replace(below.under(table), source=path, text=text)


def read_toml(path: Path) -> Table:
    """The table of one file.

    Raises:
        RecipeError: it cannot be read, or is not TOML.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[Table, str]:
    """The table of one file, and its text."""
    try:
        text = path.read_text("utf-8-sig")
        return tomllib.loads(text), text
    except FileNotFoundError:
        message = f"no such file (looked in {Path.cwd()})"
    except IsADirectoryError:
        message = "is a folder; give the .toml file"
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        message = "is not UTF-8 text"
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        message = f"is not TOML: {error}"
    raise RecipeError(str(path), [Problem("", message)])


def laid_over(base: Table, table: Table) -> Table:
    """Both, key by key; a table that names another component replaces the base's whole."""
    laid = dict(base)
    for key, value in table.items():
        below = laid.get(key)
        # `norm = "in"` is short for a table.
        if isinstance(below, str) and isinstance(value, dict):
            below = {"name": below}
        if isinstance(below, dict) and isinstance(value, str) and value == below.get("name"):
            value = {"name": value}
        if isinstance(below, dict) and isinstance(value, dict):
            same = value.get("name", below.get("name")) == below.get("name")
            value = laid_over(below, value) if same else value
        laid[key] = value
    return laid


def overriding(texts: Iterable[str]) -> tuple[Table, list[Problem]]:
    """One table of all `--set KEY=VALUE`, whatever their order; of one key given twice the last counts.

    VALUE is TOML, else a string.

    Returns:
        The table, and a problem for each text that is impossible.
    """
    table: Table = {}
    problems = []
    for text in texts:
        keys, value, wrong = _override(text)
        nested: Any = functools.reduce(lambda inner, key: {key: inner}, reversed(keys), value)
        message = wrong or _put(table, nested)
        if message:
            problems.append(Problem(f"--set {text}", message))
    return table, problems


def _override(text: str) -> tuple[Sequence[str], object, str]:
    """Keys and value, or what is wrong."""
    key, equals, value = text.partition("=")
    keys = [part.strip() for part in key.split(".")]
    if not equals or not all(keys):
        return keys, None, "should be KEY=VALUE, such as training.steps=500"
    try:
        parsed = tomllib.loads(f"value = {value}")
    except (tomllib.TOMLDecodeError, RecursionError, ValueError):
        parsed = {"value": value}
    return keys, parsed["value"], "" if set(parsed) == {"value"} else "holds more than one value"


def _put(table: Table, given: Table, above: tuple[str, ...] = ()) -> str:
    """Put what is given into the table, key by key; what is wrong if a value and a table meet."""
    for key, value in given.items():
        below, here = table.get(key), (*above, key)
        if key in table and isinstance(below, dict) != isinstance(value, dict):
            # `norm = "in"` is short for a table, whichever of the two comes first.
            below, value = ({"name": one} if isinstance(one, str) else one for one in (below, value))
            if not (isinstance(below, dict) and isinstance(value, dict)):
                return f"'{'.'.join(here)}' is set as a value and as a table"
        if isinstance(below, dict) and isinstance(value, dict):
            table[key] = below
            if wrong := _put(below, value, here):
                return wrong
        else:
            table[key] = value
    return ""

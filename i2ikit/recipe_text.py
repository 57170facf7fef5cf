"""Reading recipes: merges a recipe file with the files that it extends and with `--set`.

Tables are merged key by key; later values win. A table that names another component replaces the earlier
table completely, because its options were meant for the earlier component.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from i2ikit.checking import Table, laid_over
from i2ikit.errors import Problem, RecipeError
from i2ikit.optimizer_options import optimizer_over
from i2ikit.packages.recipes import find_recipe

__all__ = ["RecipeText", "overriding", "read_recipe", "read_toml"]

_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True)
class RecipeText:
    """A recipe's table, not yet checked.

    Args:
        source: the file that it was read from.
        text: the content of that file.
        inherited: roles whose [optimizer.<role>] was written for a translator that has been replaced.
    """

    source: Path
    table: Table
    text: str = ""
    inherited: frozenset[str] = _NONE

    def under(self, table: Table) -> RecipeText:
        """This recipe with another table merged over it."""
        laid = laid_over(self.table, table)
        below, above = self.table.get("optimizer"), table.get("optimizer")
        if isinstance(below, dict) and isinstance(above, dict):
            laid["optimizer"] = optimizer_over(below, above)  # keeps schedules and the tables of roles
        same = _translator(laid) == _translator(self.table)
        lower = self.inherited if same else _roles(self.table)
        return dataclasses.replace(self, table=laid, inherited=lower - _roles(table))


def _translator(table: Table) -> object:
    given = table.get("translator")
    return given.get("name") if isinstance(given, dict) else given


def _roles(table: Table) -> frozenset[str]:
    """The roles that have their own table in [optimizer]."""
    given = table.get("optimizer")
    return (
        frozenset(key for key in given if isinstance(given[key], dict)) if isinstance(given, dict) else _NONE
    )


def read_recipe(path: Path, extending: tuple[Path, ...] = ()) -> RecipeText:
    """Read a recipe file, merged over the one that it extends.

    Args:
        extending: the files that extend this one.

    Raises:
        RecipeError: a file is missing, is not TOML, or extends itself.
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


def read_toml(path: Path, content: bytes | None = None) -> Table:
    """The table of one file.

    Args:
        content: of the file, if it has been read already.

    Raises:
        RecipeError: the file cannot be read, or is not TOML.
    """
    return _read(path, content)[0]


def _read(path: Path, content: bytes | None = None) -> tuple[Table, str]:
    """The table of one file, and its text."""
    try:
        text = path.read_text("utf-8-sig") if content is None else content.decode("utf-8-sig")
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


def overriding(texts: Iterable[str]) -> tuple[Table, list[Problem]]:
    """Merge all `--set KEY=VALUE` into one table; the order matters only for a repeated key: the last wins.

    VALUE is TOML, else a string.

    Returns:
        The table, and a problem for each invalid text.
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
    """The keys, the value, and an error message (empty if valid)."""
    key, equals, value = text.partition("=")
    # Parts may be quoted, as in TOML: weights.generator."cycle_recon/a".
    keys = [part.strip() for row in csv.reader([key], delimiter=".") for part in row]
    if not equals or not keys or not all(keys):
        return keys, None, "should be KEY=VALUE, such as training.steps=500"
    try:
        parsed = tomllib.loads(f"value = {value}")
    except (tomllib.TOMLDecodeError, RecursionError, ValueError):
        parsed = {"value": value}
    return keys, parsed["value"], "" if set(parsed) == {"value"} else "holds more than one value"


def _put(table: Table, given: Table, above: tuple[str, ...] = ()) -> str:
    """Merge `given` into the table; an error message if a value and a table collide (else empty)."""
    for key, value in given.items():
        below, here = table.get(key), (*above, key)
        if key in table and isinstance(below, dict) != isinstance(value, dict):
            # `norm = "in"` is short for `norm = {name = "in"}`, in either order.
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

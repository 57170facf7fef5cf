"""Reading recipes: merges a recipe file with the files that it extends and with `--set`.

Tables are merged key by key; later values win. A table that names another component replaces the earlier
table completely, because its options were meant for the earlier component.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import os
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from i2ikit.checking import Table, laid_over
from i2ikit.errors import Problem, RecipeError, shortened, shown
from i2ikit.optimizer_options import optimizer_over
from i2ikit.packages.recipes import find_recipe
from i2ikit.paths import is_utf8
from i2ikit.toml_limits import MOST_BYTES, beyond_limits, has_too_long_a_key

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
        RecipeError: a file is missing, is not TOML, holds what no recipe needs, or extends itself.
    """
    table, text = _read(path)
    base = table.pop("extends", None)
    if base is None:
        return RecipeText(path, table, text)
    extending = (path.resolve(), *extending)
    found = _extended(path, base)
    if found.resolve() in extending:
        raise RecipeError(str(path), [Problem("extends", f"extends itself, by way of {found}")])
    below = read_recipe(found, extending)
    return dataclasses.replace(below.under(table), source=path, text=text)


def _extended(path: Path, base: object) -> Path:
    """The file of the recipe that the one at `path` extends.

    Raises:
        RecipeError: there is none.
    """
    message = f"should be the name or file of another recipe, got {shown(base)}"
    if isinstance(base, str):
        beside = path.parent / base
        if os.path.isfile(beside):
            return beside
        try:
            found = find_recipe(base)
        except RecipeError as error:
            message = error.problems[0].message
        else:
            if os.path.isfile(found):
                return found
    raise RecipeError(str(path), [Problem("extends", message)])


def read_toml(path: Path, content: bytes | None = None) -> Table:
    """The table of one file.

    Args:
        content: of the file, if it has been read already.

    Raises:
        RecipeError: the file cannot be read, is not TOML, or holds what no recipe needs.
    """
    return _read(path, content)[0]


def _read(path: Path, content: bytes | None = None) -> tuple[Table, str]:
    """The table of one file, and its text."""
    content = _content(path) if content is None else content
    if len(content) > MOST_BYTES:
        message = f"is not a recipe: it has more than {MOST_BYTES // 1000} kB"
    else:
        try:
            text = content.decode("utf-8-sig").replace("\r\n", "\n")
            if has_too_long_a_key(text):
                raise RecursionError
            table = tomllib.loads(text)
        except UnicodeDecodeError:
            message = "is not UTF-8 text"
        except RecursionError:
            message = "is not a recipe: it has too many levels of tables and arrays"
        except tomllib.TOMLDecodeError as error:
            message = f"is not TOML: {error}{_hint(text, error)}"
        except ValueError:
            message = "is not a recipe: a number has too many digits"
        else:
            if not (problems := beyond_limits(table)):
                return table, text
            raise RecipeError(str(path), problems)
    raise RecipeError(str(path), [Problem("", message)])


def _hint(text: str, error: tomllib.TOMLDecodeError) -> str:
    """What to write instead, if the error is about the backslashes of a path of Windows."""
    place = re.search(r"at line (\d+)", str(error))
    line = text.split("\n")[int(place[1]) - 1] if place else ""
    if re.search(r'"[^"]*\\', line):
        return "; in double quotes, \\ has a meaning of its own: write the path in single quotes"
    return ""


def _content(path: Path) -> bytes:
    """The bytes of a file, without those that are too many."""
    try:
        if os.path.isdir(path):
            message = "is a folder; give the .toml file"
        else:
            with path.open("rb") as file:
                return file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        message = f"no such file (looked in {os.path.abspath('.')})"
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        message = f"cannot be read: {getattr(error, 'strerror', None) or error}"
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
        keys, value, invalid = _override(text)
        nested: Any = functools.reduce(lambda inner, key: {key: inner}, reversed(keys), value)
        wrong = [invalid] if invalid else [problem.message for problem in beyond_limits(nested)]
        wrong = wrong or ([collision] if (collision := _put(table, nested)) else [])
        readable = shortened(text.encode(errors="backslashreplace").decode())
        problems += [Problem(f"--set {readable}", message) for message in wrong]
    return table, problems


def _override(text: str) -> tuple[Sequence[str], object, str]:
    """The keys, the value, and an error message (empty if valid)."""
    if not is_utf8(text):
        return [], None, "is not UTF-8 text, as a recipe is; rename the file or folder if it is one"
    if has_too_long_a_key(text):
        return [], None, "has too many levels of tables"
    key, equals, value = text.partition("=")
    try:
        # Parts may be quoted, as in TOML: weights.generator."cycle_recon/a".
        keys = [part.strip() for row in csv.reader([key], delimiter=".") for part in row]
    except csv.Error:  # a key of more than 128 kB
        keys = []
    if not equals or not keys or not all(keys):
        return keys, None, "should be KEY=VALUE, such as training.steps=500"
    try:
        parsed = tomllib.loads(f"value = {value}")
    except (RecursionError, ValueError):
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

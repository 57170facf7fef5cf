"""What no recipe needs, and what would make reading one slow or its errors unreadable."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping

from i2ikit.errors import Problem, shown

__all__ = ["MOST_BYTES", "beyond_limits", "has_too_long_a_key"]

MOST_BYTES = 250_000
"""Of a file; the recipes that ship have 3,000."""

MOST_DOTS = 500
"""In a key; the time in which tomllib reads one grows with the square of their number."""

MOST_LEVELS = 20
MOST_LETTERS = 200
LEAST, GREATEST = -(2**63), 2**63 - 1

_DATES = (datetime.date, datetime.time)  # a datetime is a date


def has_too_long_a_key(text: str) -> bool:
    """Whether a TOML text may hold a key with so many dots that reading it would take minutes."""
    dots, inside, go_on = 0, "", 0  # inside: what ends the string or the comment
    for at, letter in enumerate(text):
        if at < go_on:
            continue
        if inside == "" and letter in "\"'":
            inside = letter * 3 if text.startswith(letter * 3, at) else letter
            go_on = at + len(inside)
        elif inside == "" and letter == "#":
            inside = "\n"
        elif inside and letter == "\\" and inside[0] == '"':
            go_on = at + 2
        elif inside and text.startswith(inside, at):
            go_on = at + len(inside)
            while len(inside) == 3 and text.startswith(inside[0], go_on):  # a string may end with quotes
                go_on += 1
            dots, inside = 0 if inside == "\n" else dots, ""
        elif letter in ("\n" if inside else "=,[]{}\n") and len(inside) < 3:
            dots, inside = 0, ""
        elif letter == "." and not inside:
            dots += 1
            if dots > MOST_DOTS:
                return True
    return False


def beyond_limits(table: Mapping[str, object]) -> list[Problem]:
    """A problem for each value of a recipe's table that no recipe needs.

    These are whole numbers of more than 64 bits (more than TOML promises), dates (no option is one), keys of
    more than 200 letters, and tables and arrays in more than 20 levels.
    """
    problems: list[Problem] = []
    # A recursive function could not go deep, and the paths of many values would take much memory.
    rest: list[tuple[int, str, str, object]] = [(0, "", "", table)]
    while rest:
        level, above, key, value = rest.pop()
        if isinstance(value, Mapping):
            path = f"{above}{key}"
            inner = [(f".{name}" if path else name, one) for name, one in _named(path, value, problems)]
        elif isinstance(value, list):
            path = f"{above}{key}"
            inner = [(f"[{n}]", one) for n, one in enumerate(value)]
        else:
            problems += [Problem(f"{above}{key}", message) for message in _of_value(value)]
            continue
        if inner and level == MOST_LEVELS:
            problems.append(Problem(path, f"has more than {MOST_LEVELS} levels of tables and arrays"))
        else:
            rest += [(level + 1, path, *one) for one in reversed(inner)]
    return problems


def _named(path: str, table: Mapping[str, object], problems: list[Problem]) -> Iterator[tuple[str, object]]:
    """The keys and values of a table; problems with keys are added."""
    for key, value in table.items():
        if len(key) > MOST_LETTERS:
            message = f"{shown(key)} has {len(key)} letters, more than {MOST_LETTERS}"
            problems.append(Problem(path, f"the key {message}"))
        else:
            yield key, value


def _of_value(value: object) -> Iterator[str]:
    if isinstance(value, int) and not LEAST <= value <= GREATEST:
        yield "is a whole number of more than 64 bits"
    elif isinstance(value, _DATES):
        yield f'is a date, which no option is; text is quoted: "{value}"'

"""Recipes and overrides that somebody mistyped, damaged or forged."""

from __future__ import annotations

import copy
import random
import tomllib
from collections.abc import Iterator
from typing import Any

import tomli_w
from hypothesis import strategies as st

from i2ikit.packages.recipes import recipe_files
from i2ikit.recipe import load_recipe

__all__ = ["bases", "damaged_overrides", "damaged_texts", "misspelt", "paths"]

Table = dict[str, Any]

ODD_VALUES = (
    "1" + "0" * 400,
    "-1" + "0" * 400,
    "0x" + "f" * 5000,
    "1" * 5000,
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "0",
    "-1",
    "1e999",
    "-1e308",
    "1e-320",
    "inf",
    "nan",
    "2.0",
    "2.5",
    "true",
    '""',
    "''",
    "'.'",
    "'~'",
    "'~nobody-here/x'",
    "'/dev/zero'",
    "'/proc/self/mem'",
    r"'C:\Users\me'",
    r'"C:\Users\me"',
    r'"C:\new\table"',
    '"a\\u0000b"',
    '"\\u202e\\u0007\\u001b[31m"',
    "'" + "n" * 300 + "'",
    "'" + "n" * 100_000 + "'",
    "'" + "x/" * 3000 + "'",
    "'munit'",
    "'in'",
    "'i2ikit/munit'",
    "'nobody/munit'",
    "'[red]'",
    "2024-01-01",
    "2024-01-01T00:00:00Z",
    "07:32:00",
    "[]",
    "[[]]",
    "{}",
    "{name = 1}",
    "{name = ''}",
    "{name = 'munit', name2 = 'x'}",
    "[" * 1200 + "]" * 1200,
    "[" * 60 + "]" * 60,
    "[" + "1," * 50_000 + "]",
    "{" + ", ".join(f"k{n} = {n}" for n in range(3000)) + "}",
    "{" + ".".join("a" * 30) + " = 1}",
    "{start = 1, end = 0, steps = 3}",
    "{start = 1e300, end = -1, steps = 0}",
)
ODD_LINES = (
    "[" + ".".join("a" * 1200) + "]",
    "[translator." + ".".join(["norm"] * 1200) + "]",
    "[translator.content_encoder.norm]\nname = 'in'\n[translator.content_encoder.norm.norm]\nname = 'in'",
    "k" * 300 + " = 1",
    "[" + "k" * 100_000 + "]",
    "extends = '" + "n" * 300 + "'",
    "extends = '" + "n" * 300 + "/m'",
    'extends = "a\\u0000b"',
    "extends = ['munit']",
    "extends = '.'",
    "extends = ''",
    "extends = '/dev/zero'",
    "extends = 'munit'",
    "extends = '../../../../etc/passwd'",
    "\n".join(f"key{n} = {n}" for n in range(12_000)),
    "'' = 1",
    "versions = 3",
    "weights_from = [1]",
    "changes = 'x'",
    "[[changes]]\nwhen = 1",
    "[[data]]",
    "[[translator.norm]]",
    "[[optimizer]]",
    "[validation]\nmetrics = ['kid', 'kid', 3]\nevery = 0",
    "[validation]\nmetrics = 'l1-diversity'\nbest = 'x/y/z'",
    "\x00",
    "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    "\ufeff",
)


def bases() -> list[Table]:
    """Recipes as they ship, and with every default."""
    files = [file for name, file in recipe_files().items() if "/" not in name]
    whole = [tomllib.loads(load_recipe(file).to_toml()) for file in files]
    return [*whole, *(tomllib.loads(file.read_text()) for file in files)]


def paths(table: Table, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The keys of a table and of those in it."""
    for key, value in table.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from paths(value, (*above, key))


def inner(table: Table, path: tuple[str, ...]) -> Table:
    """The table that holds the last key of a path."""
    for key in path[:-1]:
        table = table[key]
    return table


def typo(word: str, rng: random.Random) -> str:
    """The word with one letter dropped, doubled or swapped with the next."""
    place = rng.randrange(len(word) - 1)
    ends = {"drop": "", "double": word[place] * 2, "swap": word[place + 1] + word[place]}
    kind = rng.choice(list(ends))
    return word[:place] + ends[kind] + word[place + 1 + (kind == "swap") :]


@st.composite
def misspelt(draw: st.DrawFn, given: list[Table]) -> tuple[str, str, str]:
    """A recipe with one misspelt key of four letters or more, the key as written, and as it should be."""
    table = copy.deepcopy(draw(st.sampled_from(given)))
    table.pop("versions", None)
    path = draw(st.sampled_from([path for path in paths(table) if len(path[-1]) >= 4]))
    at, key = inner(table, path), path[-1]
    wrong = typo(key, draw(st.randoms(use_true_random=False)))
    if wrong in at:
        wrong = f"{key}{key[-1]}"
    items = [(wrong if name == key else name, value) for name, value in at.items()]
    at.clear()
    at.update(items)
    return tomli_w.dumps(table), wrong, key


@st.composite
def damaged_texts(draw: st.DrawFn, given: list[Table]) -> bytes:
    """A recipe file: a recipe with one to three faults in its keys, values, lines or bytes."""
    table = copy.deepcopy(draw(st.sampled_from(given)))
    rng = draw(st.randoms(use_true_random=False))
    lines = tomli_w.dumps(table).splitlines()
    for _ in range(draw(st.integers(1, 3))):
        lines = _damaged(draw, lines, rng)
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    match draw(st.sampled_from(("whole", "whole", "whole", "cut", "byte", "crlf", "utf-16"))):
        case "cut":
            content = content[: rng.randrange(len(content) + 1)]
        case "byte" if content:
            place = rng.randrange(len(content))
            content = content[:place] + rng.randbytes(1) + content[place + 1 :]
        case "crlf":
            content = content.replace(b"\n", b"\r\n")
        case "utf-16":
            content = content.decode("utf-8", "replace").encode("utf-16")
    return content


def _damaged(draw: st.DrawFn, lines: list[str], rng: random.Random) -> list[str]:
    """The lines of a recipe with one fault."""
    place = rng.randrange(len(lines) + 1)
    line = lines[place] if place < len(lines) else "steps = 3"
    key, equals, _ = line.partition(" = ")
    match draw(st.sampled_from(("value", "value", "line", "key", "drop", "double", "move", "text"))):
        case "value":
            new = [f"{key} = {draw(st.sampled_from(ODD_VALUES))}"] if equals else [line]
        case "line":
            new = [line, draw(st.sampled_from(ODD_LINES))]
        case "key" if len(key) > 2:
            new = [f"{typo(key, rng)}{line[len(key) :]}"]
        case "drop":
            new = []
        case "double":
            new = [line, line]
        case "move":
            new = []
            lines = [*lines[: rng.randrange(len(lines) + 1)], line, *lines]
        case _:
            new = [line + draw(st.text(max_size=20))]
    return [*lines[:place], *new, *lines[place + 1 :]]


@st.composite
def damaged_overrides(draw: st.DrawFn, given: list[Table]) -> list[str]:
    """One to three values of `--set`, as a command line gives them: bytes that are not UTF-8 are surrogates."""
    made = []
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(paths(draw(st.sampled_from(given))))))
        key = ".".join(f'"{part}"' if "/" in part else part for part in path)
        value = draw(st.sampled_from(ODD_VALUES) | st.text(max_size=20))
        odd = (
            f"{key}={value}",
            f"{key}.x={value}",
            f"{key}={value}\nb = 1",
            key,
            f"={value}",
            f"{key}..x=1",
            f'"{key}=1',
            ".".join("a" * 1200) + "=1",
            "a" * 200_000 + "=1",
            f"{key}=\udcff{value}",
            f"\udcff{key}=1",
            f"{key}\x00=1",
        )
        made.append(draw(st.sampled_from((*odd[:2], *odd))))
    return made

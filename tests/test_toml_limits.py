"""What no recipe needs is refused before it costs time or memory."""

from __future__ import annotations

import time
import tomllib
from pathlib import Path

import pytest

from i2ikit.errors import RecipeError
from i2ikit.recipe import load_recipe
from i2ikit.recipe_text import overriding
from i2ikit.toml_limits import beyond_limits, has_too_long_a_key

REFUSED = {
    "seed = 9223372036854775808": "seed: is a whole number of more than 64 bits",
    "seed = -9223372036854775809": "seed: is a whole number of more than 64 bits",
    "seed = 0x" + "f" * 5000: "seed: is a whole number of more than 64 bits",
    "a = [1, {b = 07:32:00}]": 'a[1].b: is a date, which no option is; text is quoted: "07:32:00"',
    f"[a]\n{'k' * 201} = 1": "a: the key 'kkk",
    f"[{'.'.join('a' * 21)}]\nb = 1": "levels of tables and arrays",
    "a = " + "[" * 21 + "1" + "]" * 21: "levels of tables and arrays",
}


@pytest.mark.parametrize(("text", "message"), REFUSED.items(), ids=range(len(REFUSED)))
def test_each_value_that_no_recipe_needs_is_named_with_its_place(text: str, message: str) -> None:
    (problem,) = beyond_limits(tomllib.loads(text))
    assert message in str(problem)
    assert len(str(problem)) < 300


def test_what_a_recipe_may_hold_is_accepted() -> None:
    text = f"seed = 9223372036854775807\na = -9223372036854775808\n{'k' * 200} = '{'x' * 1000}'\n"
    assert beyond_limits(tomllib.loads(text + f"[{'.'.join('t' * 18)}]\nb = [1.5, true]")) == []


@pytest.mark.parametrize(
    "key",
    [
        "a." * 100_000 + "a",
        f"x = {{{'a.' * 100_000}a",
        "[" + "a." * 100_000 + "a]",
        '["="' + ".a" * 100_000 + "]",
        r"""x = ['#', "\"#", """ + "{" + "a." * 100_000 + "a",
        '"a".' * 50_000 + "a",
        'x = ["""a" """, {' + "a." * 100_000 + "a",
        'x = ["""a""""", {' + "a." * 100_000 + "a",
        """x=[\"\"\"\n'\"\"\", {""" + "a." * 100_000 + "a",
    ],
)
def test_a_key_that_tomllib_would_read_for_minutes_is_not_read(key: str, tmp_path: Path) -> None:
    began = time.process_time()
    (tmp_path / "long.toml").write_text(f"{key} = 1")
    with pytest.raises(RecipeError, match="too many levels"):
        load_recipe(tmp_path / "long.toml")
    assert "too many levels" in overriding([f"{key}=1"])[1][0].message
    assert time.process_time() - began < 1


def test_dots_in_a_value_or_in_a_few_keys_are_read() -> None:
    assert not has_too_long_a_key(f"a.b.c = '{'.' * 5000}'\nd = [{'0.5, ' * 2000}]  # {'.' * 5000}")
    assert not has_too_long_a_key('a = """\n' + "x. " * 600 + '\n"""')
    assert not has_too_long_a_key("# " + "." * 600 + "\n" + "a.b = 1\n" * 1000)


def test_a_large_file_is_refused_without_reading_it_all(tmp_path: Path) -> None:
    with (tmp_path / "large.toml").open("wb") as file:
        file.truncate(10**12)  # more than any memory; the file system stores none of it
    with pytest.raises(RecipeError, match="is not a recipe: it has more than 250 kB"):
        load_recipe(tmp_path / "large.toml")


def test_an_override_is_limited_like_a_file_and_shown_in_short() -> None:
    given = [
        "seed=0x" + "f" * 100_000,
        "seed.x=1",
        "a" * 100_000 + "=1",
        "x=\udcff",
        "\udcff=1",
        ".".join("a" * 1200) + "=1",
    ]
    _, problems = overriding(given)
    text = "\n".join(map(str, problems))
    assert len(text) < 3000
    assert "--set seed=0xff" in text
    assert r"--set x=\udcff: is not UTF-8 text" in text
    assert text.encode()


def test_many_problems_are_counted_and_the_first_are_listed(tmp_path: Path) -> None:
    (tmp_path / "many.toml").write_text(
        "extends = 'munit'\n" + "".join(f"key{n} = 1\n" for n in range(10_000))
    )
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "many.toml")
    assert str(caught.value).count("\n") == 31
    assert len(caught.value.problems) == 101

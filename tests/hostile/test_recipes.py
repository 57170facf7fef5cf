"""Whatever a recipe or an override holds: it is read, or refused with a short message, within a second."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given

from i2ikit.errors import RecipeError
from i2ikit.recipe import load_recipe
from tests.hostile.recipes import bases, damaged_overrides, damaged_texts, misspelt
from tests.hostile.tally import Kind, kinds, tried

GIVEN = bases()

spelt: list[bool] = []


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recipes") / "damaged.toml"


@given(content=damaged_texts(GIVEN))
def test_a_damaged_recipe(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with tried("recipes"):
        load_recipe(file)


@given(overrides=damaged_overrides(GIVEN))
def test_damaged_overrides(overrides: list[str]) -> None:
    with tried("overrides"):
        load_recipe("munit", overrides)


@given(one=misspelt(GIVEN))
def _spell(file: Path, one: tuple[str, str, str]) -> None:
    text, wrong, right = one
    file.write_text(text)
    with tried("misspelt keys"), pytest.raises(RecipeError) as caught:
        load_recipe(file)
    kinds["misspelt keys"].refused += 1
    said = str(caught.value)
    spelt.append(f"did you mean '{right}'" in said or f"is '{wrong}' a typo for `{right}`" in said)


def test_a_misspelt_key_is_named_with_the_right_one_in_97_of_100_cases(file: Path) -> None:
    spelt.clear()
    _spell(file)
    kinds.setdefault(
        "misspelt keys", Kind()
    ).note = f"{100 * sum(spelt) / len(spelt):.1f} % with the right key"
    assert sum(spelt) >= 0.97 * len(spelt)

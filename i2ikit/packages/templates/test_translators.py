"""Tests that my-plugin and its recipe work with i2ikit."""

from i2ikit.testing import check_recipe, check_translator


def test_the_method_keeps_the_contract_of_methods() -> None:
    check_translator("my-plugin", {"width": 4, "discriminator": {"width": 4}})


def test_its_recipe_trains() -> None:
    check_recipe("my-package/my-recipe")

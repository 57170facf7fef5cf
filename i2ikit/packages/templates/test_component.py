"""Tests that my-plugin and its recipe work with i2ikit."""

from i2ikit.testing import check_component, check_contract, check_recipe

from my_plugin import MyPlugin


def test_the_class_keeps_the_contract_of_its_kind() -> None:
    """A type checker also compares the constructor and methods with the contract."""
    check_contract(MyPlugin)


def test_the_installed_package_offers_it_by_name() -> None:
    check_component("my_kind", "my-plugin")


def test_its_recipe_trains() -> None:
    check_recipe("my-package/my-recipe")

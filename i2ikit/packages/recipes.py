"""Recipes that installed packages bring, found without importing them."""

from __future__ import annotations

from pathlib import Path

from i2ikit.packages.entry import CORE
from i2ikit.packages.summaries import module_spec
from i2ikit.packages.survey import survey

__all__ = ["package_recipes", "recipe_files"]


def recipe_files() -> dict[str, Path]:
    """Recipes by the name that `i2ikit run` takes: ours as `munit`, those of others as `package/name`.

    A package's recipes are the TOML files in a folder `recipes` inside its import package.
    """
    beside = Path(__file__).parents[1]
    checkout = [beside.parent] if (beside.parent / "pyproject.toml").is_file() else []
    ours = [file for folder in (beside, *checkout) for file in _recipes_in(folder)]
    files = {file.stem: file for file in ours}
    for entry in survey().entries:
        if entry.package != CORE:
            files |= package_recipes(entry.package, entry.target.partition(":")[0])
    return files


def package_recipes(package: str, module: str) -> dict[str, Path]:
    """Recipes in the import packages around a module, found without importing them.

    A namespace, which several packages share, is none of them.
    """
    parts = module.split(".")
    specs = [module_spec(".".join(parts[:count])) for count in range(1, len(parts) + 1)]
    regular = [spec for spec in specs if spec is not None and spec.origin is not None]
    folders = [folder for spec in regular for folder in spec.submodule_search_locations or ()]
    return {f"{package}/{file.stem}": file for folder in folders for file in _recipes_in(Path(folder))}


def _recipes_in(folder: Path) -> list[Path]:
    return sorted((folder / "recipes").glob("*.toml"))

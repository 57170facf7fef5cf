"""Finds recipes by name, of i2ikit and of installed packages, without importing the packages."""

from __future__ import annotations

import os
from pathlib import Path

from i2ikit.errors import Problem, RecipeError, did_you_mean
from i2ikit.packages.entry import CORE, normalised
from i2ikit.packages.summaries import module_spec
from i2ikit.packages.survey import ALLOWLIST, survey

__all__ = ["find_recipe", "package_recipes", "recipe_files"]


def find_recipe(source: str | Path) -> Path:
    """The file of a recipe, given as a path, as the name of a shipped recipe, or as `package/name`.

    Raises:
        RecipeError: there is no such recipe; the message lists those that are installed.
    """
    path = Path(source)
    if path.suffix == ".toml" or os.path.isfile(path):  # False also for a name that is too long
        return path
    files = recipe_files()
    package, _, name = str(source).partition("/")
    named = f"{normalised(package)}/{name}".removeprefix(f"{CORE}/") if name else package
    allowed = survey().allowed
    if name and (allowed is None or normalised(package) in allowed):
        # A package with recipes but no components has no entry point.
        files |= package_recipes(normalised(package), normalised(package).replace("-", "_"))
    if named in files:
        return files[named]
    if os.path.exists(path):
        return path
    if allowed is not None and name and normalised(package) not in allowed:
        message = f"the package {normalised(package)} is not in {ALLOWLIST}"
    else:
        hint = did_you_mean(named, files)
        message = f"no such recipe{hint} (give a .toml file or an installed recipe: {', '.join(files)})"
    raise RecipeError(str(source), [Problem("", message)])


def recipe_files() -> dict[str, Path]:
    """Recipes by the name that `i2ikit run` accepts: `munit` for ours, `package/name` for others.

    A package's recipes are the TOML files in the folder `recipes` of its import package.
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
    """Recipes in the import packages that contain a module, found without importing them.

    Namespace packages are skipped, because several distributions share them.
    """
    parts = module.split(".")
    specs = [module_spec(".".join(parts[:count])) for count in range(1, len(parts) + 1)]
    regular = [spec for spec in specs if spec is not None and spec.origin is not None]
    folders = [folder for spec in regular for folder in spec.submodule_search_locations or ()]
    return {f"{package}/{file.stem}": file for folder in folders for file in _recipes_in(Path(folder))}


def _recipes_in(folder: Path) -> list[Path]:
    return sorted((folder / "recipes").glob("*.toml"))

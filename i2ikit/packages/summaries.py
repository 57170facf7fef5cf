"""First lines of components' docstrings and of recipes, read without importing anything."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

__all__ = ["module_spec", "recipe_summary", "summary"]

Documented = ast.ClassDef | ast.FunctionDef


def summary(target: str) -> str:
    """First line of the docstring of `module:object`; "" if that module only imports the object."""
    module, _, name = target.partition(":")
    found = _find(module, name.split("."))
    text = (ast.get_docstring(found) if found else None) or ""
    first = text.strip().partition("\n")[0].strip()
    return first.encode("utf-8", "replace").decode("utf-8")  # lone surrogates cannot be encoded


def recipe_summary(file: Path) -> str:
    """First sentence of a recipe's first line if that line is a comment."""
    try:
        first = file.read_text("utf-8-sig").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return first.lstrip("# ").partition(". ")[0].rstrip(".") if first.startswith("#") else ""


def _find(module: str, names: Sequence[str]) -> Documented | None:
    """The class or function with a dotted name that a module defines."""
    tree = _tree(module)
    found: ast.Module | Documented | None = tree
    for name in names:
        body = found.body if found else []
        found = next((s for s in reversed(body) if isinstance(s, Documented) and s.name == name), None)
    return found if isinstance(found, Documented) else None


@functools.cache
def _tree(module: str) -> ast.Module | None:
    """The parsed source of a module; None if there is none or it is not valid Python."""
    spec = module_spec(module)
    loader: Any = spec.loader if spec else None
    if loader is None:
        return None
    try:
        source = loader.get_source(module)
        return ast.parse(source) if source is not None else None
    except (AttributeError, ImportError, OSError, SyntaxError, ValueError, RecursionError):
        return None


@functools.cache
def module_spec(module: str) -> ModuleSpec | None:
    """The location of a module; unlike `importlib.util.find_spec`, it does not import the parents."""
    path: Any = None
    spec: ModuleSpec | None = None
    parts = module.split(".")
    for depth, part in enumerate(parts):
        if depth and path is None:
            return None
        spec = _spec_in(".".join(parts[: depth + 1]), path)
        if spec is None:
            return None
        if spec.origin is None:
            # A folder without __init__.py: its spec has no search path unless its parent is imported.
            path = [str(Path(folder) / part) for folder in path or sys.path if (Path(folder) / part).is_dir()]
        else:
            path = spec.submodule_search_locations
    return spec


def _spec_in(name: str, path: Any) -> ModuleSpec | None:
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, path)
        except KeyError:  # a folder without __init__.py needs its parent, which is not imported
            return ModuleSpec(name, None)
        except (ImportError, AttributeError, ValueError, OSError):
            continue
        if spec is not None:
            return spec
    return None

"""What a component says of itself in the first line of its docstring, read without importing anything."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

__all__ = ["module_spec", "recipe_summary", "summary"]

Documented = ast.ClassDef | ast.FunctionDef
MOST_IMPORTS = 8  # from a package's front to where a class is written


def summary(target: str) -> str:
    """First line of the docstring of `module:object`; "" where the source does not show it.

    Follows `from .x import y` and `y = z`, as packages that gather their classes use them.
    """
    module, _, name = target.partition(":")
    try:
        found = _find(module, name.split("."), MOST_IMPORTS)
    except RecursionError:  # thousands of branches
        return ""
    text = (ast.get_docstring(found) if found else None) or ""
    first = text.strip().partition("\n")[0].strip()
    return first.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate can be written nowhere


def recipe_summary(file: Path) -> str:
    """First sentence of a recipe's first line, where that is a comment."""
    try:
        first = file.read_text("utf-8-sig").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return first.lstrip("# ").partition(". ")[0].rstrip(".") if first.startswith("#") else ""


def _find(module: str, names: Sequence[str], imports_left: int) -> Documented | None:
    """The class (or function) that a dotted name stands for in a module."""
    tree = _tree(module)
    if tree is None or imports_left == 0:
        return None
    body: list[ast.stmt] = tree.body
    for depth, name in enumerate(names):
        bound = next((s for s in reversed(list(_statements(body))) if _binds(s, name)), None)
        if isinstance(bound, ast.ImportFrom):
            source, original = _import(module, bound, name)
            return _find(source, [original, *names[depth + 1 :]], imports_left - 1)
        if isinstance(bound, ast.Assign) and isinstance(bound.value, ast.Name):
            return _find(module, [*names[:depth], bound.value.id, *names[depth + 1 :]], imports_left - 1)
        if not isinstance(bound, Documented):
            return None
        if depth == len(names) - 1:
            return bound
        body = bound.body
    return None


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """All of a module's top level, `if` and `try` included."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If):
            yield from _statements([*statement.body, *statement.orelse])
        elif isinstance(statement, ast.Try):
            handlers = [inner for handler in statement.handlers for inner in handler.body]
            yield from _statements([*handlers, *statement.body, *statement.orelse])


def _binds(statement: ast.stmt, name: str) -> bool:
    match statement:
        case ast.ClassDef() | ast.FunctionDef():
            return statement.name == name
        case ast.ImportFrom():
            return any((alias.asname or alias.name) == name for alias in statement.names)
        case ast.Assign():
            return any(isinstance(target, ast.Name) and target.id == name for target in statement.targets)
        case _:
            return False


def _import(module: str, statement: ast.ImportFrom, name: str) -> tuple[str, str]:
    """Where `from ... import name`, written in `module`, gets it: module and name."""
    original = next(alias.name for alias in statement.names if (alias.asname or alias.name) == name)
    if not statement.level:
        return statement.module or "", original
    spec = module_spec(module)
    is_package = spec is not None and spec.submodule_search_locations is not None
    parents = module.split(".")
    kept = parents[: len(parents) - statement.level + is_package]
    return ".".join([*kept, *filter(None, [statement.module])]), original


@functools.cache
def _tree(module: str) -> ast.Module | None:
    """The parsed source of a module; None where there is none, or it is no Python."""
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
    """Where a module is; unlike `importlib.util.find_spec`, without importing its parents."""
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
            # A folder without __init__.py, of which only an imported parent could say where its modules are.
            path = [str(Path(folder) / part) for folder in path or sys.path if (Path(folder) / part).is_dir()]
        else:
            path = spec.submodule_search_locations
    return spec


def _spec_in(name: str, path: Any) -> ModuleSpec | None:
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, path)
        except KeyError:  # a folder without __init__.py asks its parent, which is not imported
            return ModuleSpec(name, None)
        except (ImportError, AttributeError, ValueError, OSError):
            continue
        if spec is not None:
            return spec
    return None

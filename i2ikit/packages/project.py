"""The project folder of an existing package: its import package, and its entry points in pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from i2ikit.errors import ComponentError, in_one_line
from i2ikit.packages.entry import CORE, normalised

__all__ = ["EntryPoints", "Project", "read_project", "with_entry_points"]

EntryPoints = Mapping[str, Mapping[str, str]]
"""`MODULE:CLASS` by group and name."""

PYPROJECT = "pyproject.toml"


@dataclass(frozen=True)
class Project:
    """A folder with a pyproject.toml.

    Args:
        text: the text of its pyproject.toml, with its own line ends.
        tables: the same, parsed.
    """

    folder: Path
    text: str
    tables: Mapping[str, Any]

    @property
    def file(self) -> Path:
        """Its pyproject.toml."""
        return self.folder / PYPROJECT

    @property
    def name(self) -> str:
        """The normalised name of the distribution; recipes are called NAME/RECIPE."""
        return normalised(self.tables["project"]["name"])

    def entry_points(self, group: str) -> Mapping[str, str]:
        """The entry points of a group, as pyproject.toml has them."""
        return _at(self.tables, "project", "entry-points", group)

    def import_package(self) -> Path:
        """The folder of its import package, such as src/my_package.

        In this order: the folder that hatch's `packages` lists; a folder with the project's name, in `src` or
        where setuptools is told to look; the package of its other components; the only package in `src`.

        Raises:
            ComponentError: it cannot be found, or there are several.
        """
        for folders in (self._listed(), self._named(), self._of_entry_points(), self._in_src()):
            found = sorted({folder for folder in folders if (folder / "__init__.py").is_file()})
            found = [folder for folder in found if normalised(folder.name) == self.name] or found
            if len(found) > 1:
                names = ", ".join(folder.relative_to(self.folder).as_posix() for folder in found)
                raise ComponentError(
                    f"{self.folder} has {len(found)} import packages: {names}; rename the project or one of "
                    "them, so that their names are the same"
                )
            if found:
                return found[0]
        name = self.name.replace("-", "_")
        raise ComponentError(
            f"{self.folder}: the import package of '{self.name}' was not found; expected a folder "
            f"{name} or src/{name} with an __init__.py, or one that {PYPROJECT} lists in "
            "[tool.hatch.build.targets.wheel] packages"
        )

    def tests(self) -> Path:
        """The folder of its tests: pytest's first `testpaths`, or `tests`."""
        paths = _at(self.tables, "tool", "pytest", "ini_options").get("testpaths", [])
        stated = [paths] if isinstance(paths, str) else paths
        folders = [self.folder / path for path in stated if path != "."]
        return next((folder for folder in folders if folder.is_dir()), self.folder / "tests")

    def advice(self, package: Path) -> list[str]:
        """What it lacks for others to use the package, its recipes and its types."""
        found = []
        project = self.tables["project"]
        names = [re.split(r"[^\w.-]", text.strip())[0] for text in project.get("dependencies", [])]
        if CORE not in map(normalised, names) and "dependencies" not in project.get("dynamic", []):
            found.append(f'add "{CORE}" to the dependencies in {self.file}')
        backend = _at(self.tables, "build-system").get("build-backend", "setuptools")
        manifest = self.folder / "MANIFEST.in"
        stated = [str(_at(self.tables, "tool", "setuptools").get("package-data", ""))]
        stated += [manifest.read_text("utf-8", "replace")] if manifest.is_file() else []
        if backend.startswith("setuptools") and not any("recipes" in text for text in stated):
            line = f'{package.name} = ["recipes/*.toml"]'
            found.append(f"for wheels with its recipes, add {line} to [tool.setuptools.package-data]")
        if not (package / "py.typed").exists():
            found.append(f"for type checkers of other packages, add an empty file {package / 'py.typed'}")
        return found

    def _listed(self) -> Iterator[Path]:
        build = _at(self.tables, "tool", "hatch", "build")
        for table in (_at(build, "targets", "wheel"), build):
            yield from (self.folder / path for path in table.get("packages", []))

    def _named(self) -> Iterator[Path]:
        for root in self._roots():
            folders = sorted(root.iterdir()) if root.is_dir() else []
            yield from (folder for folder in folders if normalised(folder.name) == self.name)

    def _of_entry_points(self) -> Iterator[Path]:
        groups = _at(self.tables, "project", "entry-points")
        for group in groups:
            for target in self.entry_points(group).values() if group.startswith(f"{CORE}.") else ():
                yield from (root / re.split("[.:]", target)[0] for root in self._roots())

    def _in_src(self) -> Iterator[Path]:
        for root in self._roots():
            # Beside pyproject.toml, a folder with an __init__.py may also be `tests`.
            if root != self.folder and root.is_dir():
                yield from root.iterdir()

    def _roots(self) -> list[Path]:
        """The folders that may contain the import package."""
        setuptools = _at(self.tables, "tool", "setuptools")
        moved = _at(setuptools, "package-dir").get("")
        where = _at(setuptools, "packages", "find").get("where", [])
        return [self.folder / root for root in (*([moved] if moved else []), *where, "src", ".")]


def read_project(folder: Path, by_hand: str) -> Project:
    """Read the pyproject.toml of a package.

    Args:
        by_hand: what to do where entry points cannot be added to this package, for the message.

    Raises:
        ComponentError: the folder holds no package, or its pyproject.toml cannot hold the entry points.
    """
    file = folder / PYPROJECT
    legacy = [name for name in ("setup.cfg", "setup.py") if (folder / name).is_file()]
    if not file.is_file():
        if legacy:
            raise ComponentError(f"{folder} has a {legacy[0]} but no {PYPROJECT}, {UNSUPPORTED}. {by_hand}")
        raise ComponentError(f"no {PYPROJECT} in {folder}; give the folder of a package, which contains one")
    try:
        text = file.read_bytes().decode("utf-8")
        tables = tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise ComponentError(f"{file} cannot be read: {in_one_line(error)}") from error
    project = _at(tables, "project")
    if not isinstance(project.get("name"), str):
        raise ComponentError(f"{file} has no [project] table with a name, {UNSUPPORTED}. {by_hand}")
    if "entry-points" in project.get("dynamic", []):
        raise ComponentError(f"{file} declares its entry points as dynamic, {UNSUPPORTED}. {by_hand}")
    return Project(folder, text, tables)


UNSUPPORTED = "so entry points cannot be added"


def with_entry_points(text: str, added: EntryPoints) -> str | None:
    """The text of a pyproject.toml with more entry points; all its other lines stay as they are.

    Returns:
        None if its entry points are written in a way that this function cannot extend, such as inline tables.
    """
    changed = text
    for group, names in added.items():
        lines = [f'{name} = "{target}"' for name, target in names.items()]
        changed = _with_lines(changed, group, lines)
    # The text is edited line by line. Parsing it shows whether the result means what it should.
    try:
        return changed if tomllib.loads(changed) == _with_tables(tomllib.loads(text), added) else None
    except tomllib.TOMLDecodeError:
        return None


def _with_lines(text: str, group: str, added: list[str]) -> str:
    """Extend the table of a group, or add it below the other entry points, else below [project]."""
    lines = text.split("\n")
    ends = _table_ends(lines)
    own = f'project.entry-points."{group}"'
    if own in ends:
        end = ends[own]
    else:
        added = ["", f"[{own}]", *added]
        points = [end for name, end in ends.items() if name.startswith("project.entry-points")]
        project = [end for name, end in ends.items() if name.split(".")[0] == "project"]
        end = max(points or project or ends.values())
    if "\r\n" in text:
        added = [f"{line}\r" for line in added]
    after = lines[end:] or [""]  # the file may end without a line end
    return "\n".join([*lines[:end], *added, *after])


def _table_ends(lines: list[str]) -> dict[str, int]:
    """The number of lines up to the last key of each table; comments below it belong to what follows."""
    ends: dict[str, int] = {}
    name = ""
    for number, line in enumerate(lines, 1):
        header = re.fullmatch(r"\s*\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(#.*)?", line)
        if header:
            name = re.sub(r"\s*\.\s*(?=[\w\"'-])", ".", header[1].replace("'", '"'))
        if line.strip() and not line.lstrip().startswith("#"):
            ends[name] = number
    return ends


def _with_tables(tables: dict[str, Any], added: EntryPoints) -> dict[str, Any]:
    groups = tables.setdefault("project", {}).setdefault("entry-points", {})
    for group, names in added.items():
        groups.setdefault(group, {}).update(names)
    return tables


def _at(table: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """An inner table; empty if something else, or nothing, stands there."""
    for key in keys:
        inner = table.get(key)
        table = inner if isinstance(inner, Mapping) else {}
    return table

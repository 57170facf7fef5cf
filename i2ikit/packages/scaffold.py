"""Writes a user's own components from `templates/`: a new package, or more of them in an existing one.

`i2ikit new-plugin` calls it.
"""

from __future__ import annotations

import importlib.util
import keyword
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from i2ikit.errors import ComponentError
from i2ikit.packages.entry import CORE, KINDS, normalised
from i2ikit.packages.project import EntryPoints, Project, read_project, with_entry_points
from i2ikit.registry import registries

__all__ = ["Written", "add_to_package", "write_package"]

TEMPLATES = Path(__file__).parent / "templates"

CHECKS = {
    "encoders": "check_style_encoder",
    "decoders": "check_decoder",
    "norms": "check_norm",
    "discriminators": "check_discriminator",
    "losses": "check_reconstruction_loss",
    "datasets": "check_dataset",
    "metrics": "check_metric",
    "optimizers": "check_optimizer",
}
"""The check in `i2ikit.testing` for the template of each kind."""


@dataclass(frozen=True)
class Written:
    """What was written.

    Args:
        files: the new files.
        tests: those of them that are tests.
        recipes: the names of the new recipes, `PACKAGE/NAME`.
        changed: the file to which entry points were added.
        advice: what else the package needs before others can install it.
    """

    files: Sequence[Path]
    tests: Sequence[Path]
    recipes: Sequence[str]
    changed: Path | None = None
    advice: Sequence[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Component:
    """A component to write.

    Args:
        stem: its recipe is STEM.toml, and its test is called after it.
        package: the distribution, for the name of the recipe.
        module: the module that defines its class.
    """

    name: str
    kind: str
    stem: str
    package: str
    module: str

    @property
    def class_name(self) -> str:
        return "".join(part.capitalize() for part in _with_kind(self.name, self.kind).split("-"))

    @property
    def target(self) -> str:
        """`MODULE:CLASS`, the value of its entry point."""
        return f"{self.module}:{self.class_name}"

    def filled(self, template: str) -> str:
        """The text of a template for this component."""
        return _filled(
            template,
            {
                "my-package": self.package,
                "my-recipe": self.stem,
                "my-plugin": self.name,
                "my_plugin": self.module,
                "MyPlugin": self.class_name,
                "my_kind": self.kind,
                "check_contract": CHECKS.get(self.kind, ""),
            },
        )

    def texts(self, module: Path, recipes: Path, tests: Path) -> dict[Path, str]:
        """The texts of its module, its recipe and its test, by file."""
        test = "test_translators.py" if self.kind == "translators" else "test_component.py"
        return {
            module: self.filled(f"{self.kind}.py"),
            recipes / f"{self.stem}.toml": self.filled(f"{self.kind}.toml"),
            tests / f"test_{_module(self.stem)}.py": _sorted_imports(self.filled(test)),
        }


def write_package(name: str, kinds: Sequence[str], folder: Path) -> Written:
    """Write a new package with a component `name` of each kind: pyproject, modules, recipes and tests.

    One component is defined in `__init__.py`, and its recipe and test are called after it. Of several, each
    has its own module, recipe and test, called after its name and its kind.

    Raises:
        ComponentError: the name cannot be used, or the folder already exists. Nothing is written.
    """
    kinds = list(dict.fromkeys(kinds))
    _check_name(name)
    if folder.exists():
        is_package = (folder / "pyproject.toml").is_file()
        instead = f", or add to the package in it with --into {folder}" if is_package else ""
        raise ComponentError(f"{folder} already exists; choose another name or --out{instead}")
    _check_new_package(name)
    _check_free(name, kinds, own=name)
    package, alone = _module(name), len(kinds) == 1
    inside, tests = folder / package, folder / "tests"
    components = (
        [_Component(name, kinds[0], name, name, package)] if alone else _named(name, kinds, name, package)
    )
    texts = {
        folder / "pyproject.toml": _new_pyproject(name, package, components),
        inside / "__init__.py": f'"""{_described(kinds)}."""\n',
        inside / "py.typed": "",
    }
    for component in components:
        file = inside / ("__init__.py" if alone else f"{_module(component.stem)}.py")
        texts |= component.texts(file, inside / "recipes", tests)
    _write(texts)
    return _written(texts, tests, components)


def add_to_package(name: str, kinds: Sequence[str], folder: Path) -> Written:
    """Add a component `name` of each kind to the package in `folder`: modules, recipes, tests, entry points.

    Raises:
        ComponentError: the name cannot be used or is taken, a file exists, or the package is of a sort to
            which entry points cannot be added. Nothing is written.
    """
    kinds = list(dict.fromkeys(kinds))
    _check_name(name)
    by_hand = _by_hand(name, kinds)
    project = read_project(folder, by_hand)
    _check_free(name, kinds, own=project.name)
    _check_free_in(project, name, kinds)
    package, tests = project.import_package(), project.tests()
    components = _named(name, kinds, project.name, package.name)
    texts: dict[Path, str] = {}
    for component in components:
        file = package / f"{_module(component.stem)}.py"
        texts |= component.texts(file, package / "recipes", tests)
    # A package foo/ would hide a new module foo.py.
    hiding = [file.with_suffix("") for file in texts if file.parent == package]
    existing = [str(path) for path in (*texts, *hiding) if path.exists()]
    if existing:
        verb = "exists" if len(existing) == 1 else "exist"
        raise ComponentError(f"{', '.join(existing)} already {verb}; choose another name")
    pyproject = with_entry_points(project.text, _entry_points(components))
    if pyproject is None:
        raise ComponentError(
            f"cannot extend the entry points in {project.file}, perhaps because they are inline tables; "
            f"write each group as a table [project.entry-points.GROUP]. {by_hand}"
        )
    _write(texts, {project.file: pyproject})
    return _written(texts, tests, components, project.file, project.advice(package))


def _named(name: str, kinds: Sequence[str], package: str, import_package: str) -> list[_Component]:
    """Components called `name`, each with a module of its own: NAME_KIND."""
    stems = [_with_kind(name, kind) for kind in kinds]
    return [
        _Component(name, kind, stem, package, f"{import_package}.{_module(stem)}")
        for kind, stem in zip(kinds, stems, strict=True)
    ]


def _written(
    texts: Mapping[Path, str],
    tests: Path,
    components: Sequence[_Component],
    changed: Path | None = None,
    advice: Sequence[str] = (),
) -> Written:
    own_tests = [file for file in texts if file.parent == tests]
    recipes = [f"{component.package}/{component.stem}" for component in components]
    return Written(list(texts), own_tests, recipes, changed, advice)


def _check_name(name: str) -> None:
    """A name must be valid in recipes, for a distribution and, with underscores, for a module.

    Raises:
        ComponentError: it is not; the message says why.
    """
    if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name) or name != normalised(name):
        proper = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789")
        hint = f", such as '{proper}'" if proper else ""
        raise ComponentError(f"invalid name '{name}': use lower-case letters, digits and hyphens{hint}")


def _check_new_package(name: str) -> None:
    module = _module(name)
    if module == "tests":
        raise ComponentError(f"invalid name '{name}': the folder 'tests' of a package contains its tests")
    if keyword.iskeyword(module) or module in sys.stdlib_module_names:
        raise ComponentError(f"invalid name '{name}': Python itself uses '{module}'")
    if importlib.util.find_spec(module) is not None:
        raise ComponentError(f"a package '{module}' can already be imported; choose another name")


def _check_free(name: str, kinds: Sequence[str], own: str) -> None:
    """No other package offers the name in these kinds; then recipes need not say which package they mean."""
    for kind in kinds:
        for entry in registries[kind].entries():
            if entry.name == name and entry.package == CORE:
                raise ComponentError(f"{KINDS[kind]} '{name}' is {CORE}'s own; choose another name")
            if entry.name == name and entry.package != own:
                raise ComponentError(
                    f"{KINDS[kind]} '{name}' is already offered by {entry.origin}; choose another name"
                )


def _check_free_in(project: Project, name: str, kinds: Sequence[str]) -> None:
    for kind in kinds:
        target = project.entry_points(_group(kind)).get(name)
        if target is not None:
            raise ComponentError(
                f"{project.file} already has {_one(kind)} '{name}' ({target}); choose another name"
            )


def _by_hand(name: str, kinds: Sequence[str]) -> str:
    """What to do with a package to which entry points cannot be added."""
    options = " ".join(f"--kind {KINDS[kind]}" for kind in kinds)
    components = _named(name, kinds, "", "PACKAGE")
    modules = " and ".join(f"PACKAGE/{_module(component.stem)}.py" for component in components)
    points = "".join(f"\n  group {_group(c.kind)}: {c.name} = {c.target}" for c in components)
    return (
        f"Instead, run `{CORE} new-plugin {name} {options} --out NEW_FOLDER`, copy the code from there to "
        f"{modules}, and add where the package declares its entry points:{points}"
    )


def _new_pyproject(name: str, package: str, components: Sequence[_Component]) -> str:
    kinds = [component.kind for component in components]
    words = {"my-package": name, "my_package": package, "my_description": _described(kinds)}
    text = with_entry_points(_filled("package.toml", words), _entry_points(components))
    assert text is not None  # our own template can be extended
    return text


def _described(kinds: Sequence[str]) -> str:
    """`A norm, an encoder and a loss for i2ikit`."""
    words = [_one(kind) for kind in kinds]
    listed = " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
    return f"{listed[0].upper()}{listed[1:]} for {CORE}"


def _one(kind: str) -> str:
    """`an encoder`."""
    word = KINDS[kind]
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _entry_points(components: Sequence[_Component]) -> EntryPoints:
    return {_group(component.kind): {component.name: component.target} for component in components}


def _group(kind: str) -> str:
    return f"{CORE}.{kind}"


def _with_kind(name: str, kind: str) -> str:
    """`wide` and encoders: wide-encoder; `wide-encoder` stays as it is.

    With the kind in it, a class is not called like one of torch's, and each component has its own file.
    """
    word = KINDS[kind]
    return name if name.endswith(f"-{word}") else f"{name}-{word}"


def _module(name: str) -> str:
    return name.replace("-", "_")


def _filled(template: str, words: Mapping[str, str]) -> str:
    text = (TEMPLATES / template).read_text("utf-8")
    return re.sub("|".join(words), lambda found: words[found[0]], text)


def _sorted_imports(text: str) -> str:
    """Sort the names of the import line after they are filled in."""

    def in_order(found: re.Match[str]) -> str:
        return found[1] + ", ".join(sorted(found[2].split(", ")))

    return re.sub(r"^(from i2ikit\.testing import )(.*)$", in_order, text, flags=re.MULTILINE)


def _write(new: Mapping[Path, str], changed: Mapping[Path, str] | None = None) -> None:
    """Write new files and replace changed ones; if that fails, remove what was written.

    Raises:
        ComponentError: a file cannot be written.
    """
    made: list[Path] = []
    try:
        for file, text in new.items():
            _create(file, text, made)
        for file, text in (changed or {}).items():
            _replace(file.resolve(), text, made)
    except OSError as error:
        for path in reversed(made):
            path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        where = error.filename or file
        raise ComponentError(f"cannot write {where}: {error.strerror}; nothing was written") from error


def _create(file: Path, text: str, made: list[Path]) -> None:
    """Write a new file; `made` gets it and its new folders, each as soon as it exists."""
    for folder in reversed([parent for parent in file.parents if not parent.exists()]):
        folder.mkdir()
        made.append(folder)
    with file.open("x", encoding="utf-8", newline="") as stream:  # "x" never overwrites
        made.append(file)
        stream.write(text)


def _replace(file: Path, text: str, made: list[Path]) -> None:
    """Replace a file as a whole, so that an interruption leaves the old one or the new one."""
    beside = file.with_name(f".{file.name}.new")
    _create(beside, text, made)
    shutil.copymode(file, beside)
    os.replace(beside, file)

"""Creates a package for a user's own component from `templates/` (`i2ikit new-plugin`)."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from pathlib import Path

from i2ikit.errors import ComponentError
from i2ikit.packages.entry import CORE, KINDS, normalised
from i2ikit.registry import registries

__all__ = ["write_plugin"]

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


def write_plugin(name: str, kind: str, folder: Path) -> list[Path]:
    """Write a package with the component `name`: pyproject, module, recipe and test.

    Returns:
        The files.

    Raises:
        ComponentError: the name cannot be used, or the folder already exists.
    """
    _check_name(name, kind)
    module = name.replace("-", "_")
    words = {
        "my-plugin": name,
        "my_plugin": module,
        "MyPlugin": _class_name(name, KINDS[kind]),
        "my_kind": kind,
        "my_word": KINDS[kind],
        "check_contract": CHECKS.get(kind, ""),
    }
    test = "test_translators.py" if kind == "translators" else "test_component.py"
    texts = {
        "pyproject.toml": _filled("pyproject.toml", words),
        f"{module}/__init__.py": _filled(f"{kind}.py", words),
        f"{module}/py.typed": "",
        f"{module}/recipes/{name}.toml": _filled(f"{kind}.toml", words),
        f"tests/test_{module}.py": _sorted_imports(_filled(test, words)),
    }
    try:
        folder.mkdir(parents=True)
        for file, text in texts.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text, "utf-8")
    except FileExistsError as error:
        raise ComponentError(f"{folder} already exists; choose another name or --out") from error
    except OSError as error:
        raise ComponentError(f"cannot write {folder}: {error.strerror}") from error
    return [folder / file for file in texts]


def _check_name(name: str, kind: str) -> None:
    """A name must be valid for a distribution, an import package and a component.

    Raises:
        ComponentError: it is not; the message says why.
    """
    module = name.replace("-", "_")
    if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name) or name != normalised(name):
        proper = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789")
        hint = f", such as '{proper}'" if proper else ""
        raise ComponentError(f"invalid name '{name}': use lower-case letters, digits and hyphens{hint}")
    if keyword.iskeyword(module) or module in sys.stdlib_module_names:
        raise ComponentError(f"invalid name '{name}': Python itself uses '{module}'")
    if any(entry.name == name and entry.package == CORE for entry in registries[kind].entries()):
        raise ComponentError(f"{KINDS[kind]} '{name}' is {CORE}'s own; choose another name")
    if importlib.util.find_spec(module) is not None:
        raise ComponentError(f"a package '{module}' can already be imported; choose another name")


def _class_name(name: str, word: str) -> str:
    """`wide-style` and encoder: WideStyleEncoder. Including the kind avoids clashes with torch's names."""
    parts = [part.capitalize() for part in name.split("-")]
    ends_with_kind = len(parts) > 1 and parts[-1] == word.capitalize()
    return "".join(parts if ends_with_kind else [*parts, word.capitalize()])


def _filled(template: str, words: dict[str, str]) -> str:
    text = (TEMPLATES / template).read_text("utf-8")
    return re.sub("|".join(words), lambda found: words[found[0]], text)


def _sorted_imports(text: str) -> str:
    """Sort the names of the import line after they are filled in."""

    def in_order(found: re.Match[str]) -> str:
        return found[1] + ", ".join(sorted(found[2].split(", ")))

    return re.sub(r"^(from i2ikit\.testing import )(.*)$", in_order, text, flags=re.MULTILINE)

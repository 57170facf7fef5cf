"""docs/reference, made of signatures and docstrings.

    python -m i2ikit.packages.reference docs/reference

writes the pages; a test compares them with those in the repository.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from i2ikit.packages.describe import Description, Option, describe, describe_section, without_arguments
from i2ikit.packages.entry import CORE, KINDS
from i2ikit.recipe import OptimizerOptions, TopLevel, TrainingOptions
from i2ikit.registry import registries

__all__ = ["main", "pages"]


def pages() -> dict[str, str]:
    """Every page of the reference, by its file name."""
    kinds = {f"{kind}.md": _kind_page(kind) for kind in KINDS}
    return {"recipe.md": _recipe_page(), **kinds}


def _recipe_page() -> str:
    sections = [
        ("The top of the file", describe_section(TopLevel), inspect.getdoc(TopLevel)),
        ("[data]", [], "`name` is one of the [datasets](datasets.md), the other keys are its options."),
        (
            "[translator]",
            [],
            "`name` is one of the [translators](translators.md), the other keys are its options.",
        ),
        ("[optimizer]", describe_section(OptimizerOptions), inspect.getdoc(OptimizerOptions)),
        ("[training]", describe_section(TrainingOptions), inspect.getdoc(TrainingOptions)),
    ]
    parts = [
        NOTICE,
        "# Keys of a recipe\n",
        "[docs/recipes.md](../recipes.md) explains how recipes are used.\n",
    ]
    for title, options, text in sections:
        parts += [f"## {title}\n", *([without_arguments(text), ""] if text else []), *_table(options)]
    return "\n".join(parts)


NOTICE = "<!-- Written by `make reference` from signatures and docstrings: change those, not this. -->\n"


def _kind_page(kind: str) -> str:
    names = [entry.name for entry in registries[kind].entries() if entry.package == CORE]
    parts = [NOTICE, f"# {kind.capitalize()}\n"]
    for name in names:
        parts += _component(describe(kind, name))
    return "\n".join(parts)


def _component(found: Description) -> Iterator[str]:
    yield f"## {found.entry.name}\n"
    yield f"`{found.signature}`\n"
    yield f"```text\n{found.text}\n```\n"
    if found.wired:
        yield "Passed by its owner: " + ", ".join(f"`{w.name}` ({w.type})" for w in found.wired) + ".\n"
    yield from _table(found.options)
    if found.places:
        of = [f"{method} ({', '.join(f'`{p}`' for p in places)})" for method, places in found.places.items()]
        yield f"Fits: {', '.join(of)}.\n"
    language = "sh" if found.entry.kind == "metrics" else "toml"
    yield f"```{language}\n{found.snippet}\n```\n"
    yield f"Source: `{found.entry.target}`\n"


def _table(options: Sequence[Option]) -> Iterator[str]:
    if not options:
        return
    yield "| option | type | default | meaning |\n|---|---|---|---|"
    for option in options:
        long = option.default.startswith("{ ") and len(option.default) > 60
        shown = "see below" if long else f"`{option.default}`" if option.default else "none"
        default = "required" if option.required else shown
        cells = (f"`{option.name}`", option.type, default, option.meaning)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""


def main(folder: Path) -> None:
    """Write all pages, and remove those of kinds that are gone."""
    folder.mkdir(parents=True, exist_ok=True)
    written = pages()
    for file in folder.glob("*.md"):
        if file.name not in written:
            file.unlink()
    for name, text in written.items():
        (folder / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

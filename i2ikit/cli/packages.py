"""The commands about components: `list`, `show`, `doctor` and `new-plugin`.

`list` and `--help` import neither torch nor a component.
"""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import i2ikit
from i2ikit.cli.options import console, given_path
from i2ikit.errors import ComponentError
from i2ikit.packages.entry import KINDS, kind_named

if TYPE_CHECKING:
    from i2ikit.packages.describe import Option
    from i2ikit.packages.inventory import Complaint, Offer
    from i2ikit.packages.scaffold import Written

__all__ = ["doctor", "list_", "new_plugin", "show"]

KindOption = Annotated[str, typer.Argument(help="Kind: encoders, decoders, norms, ... (or norm).")]

_WORDS = ", ".join(KINDS.values())


def list_(
    kind: Annotated[
        str | None, typer.Argument(help="Kind: encoders, decoders, norms, ..., recipes (default: all).")
    ] = None,
    load: Annotated[bool, typer.Option("--load", help="Import each component and mark failures.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the available components and recipes and the packages that provide them.

    Names and summaries are read from files; nothing is imported without --load.
    Marks: ! another package provides the same name; x the component cannot be loaded.
    """
    from i2ikit.packages.inventory import complaints, offers, recipes

    wants_recipes = kind in (None, "recipes", "recipe")
    kinds = [] if kind and wants_recipes else [kind_named(kind)] if kind else list(KINDS)
    with Console(stderr=True).status("Reading packages") as status:
        found = offers(kinds, load=load, progress=lambda text: status.update(f"Loading {escape(text)}"))
        found += recipes() if wants_recipes else []
        wrong = complaints(found)
    if as_json:
        table = {"offers": [*map(dataclasses.asdict, found)], "problems": [*map(dataclasses.asdict, wrong)]}
        typer.echo(json.dumps(table, indent=1, ensure_ascii=False))
        return
    _print_offers(found)
    _print_complaints(wrong)


def _print_offers(found: Sequence[Offer]) -> None:
    table = Table("kind", "name", "", "from", box=None, pad_edge=False, header_style="dim")
    table.columns[2].overflow = "fold"
    for offer in found:
        origin = f"{offer.package} {offer.version}".strip()
        mark = "[red]x[/] " if offer.failure else "[yellow]![/] " if offer.conflict else ""
        name = f"{mark}[bold]{escape(offer.name)}[/]"
        table.add_row(offer.kind, name, escape(offer.summary), escape(origin))
    _wide().print(table)


def _print_complaints(wrong: Sequence[Complaint]) -> None:
    if wrong:
        console.print(f"\n[yellow]{len(wrong)} problem{'s' * (len(wrong) != 1)}[/]", highlight=False)
    for complaint in wrong:
        origin = f"{complaint.package} {complaint.version}".strip()
        console.print(
            f"  [bold]{escape(origin)}[/]: {escape(complaint.cause)}", highlight=False, soft_wrap=True
        )


def _wide() -> Console:
    """The console; a wide one if the output is a pipe, so that lines are not wrapped."""
    return console if console.is_terminal else Console(width=400)


def show(kind: KindOption, name: Annotated[str, typer.Argument(help="Name, as in `i2ikit list`.")]) -> None:
    """Show what a component does, its options, its source file and TOML to paste."""
    from i2ikit.packages.describe import describe

    found = describe(kind_named(kind), name)

    def say(text: str = "") -> None:
        console.print(text, highlight=False, soft_wrap=True)

    entry = found.entry
    say(f"[bold]{escape(entry.name)}[/]  {entry.kind}  {escape(entry.origin)}")
    say(escape(found.signature))
    say(f"\n{escape(found.text)}\n")
    if found.wired:
        say("[bold]Passed by the parent component[/]")
        _print_options(found.wired)
    say("[bold]Options[/]")
    _print_options(found.options)
    if found.places:
        say("[bold]Fits[/]")
        for method, places in found.places.items():
            say(f"  {escape(method)}: {', '.join(places)}")
        say()
    heading = "Command" if entry.kind == "metrics" else "In a recipe, with all defaults"
    say(f"[bold]{heading}[/]")
    say(f"{escape(found.snippet)}\n")
    say(f"[bold]Source[/]  {escape(found.source)}")


def _print_options(options: Sequence[Option]) -> None:
    if not options:
        console.print("  none\n")
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for option in options:
        long = option.default.startswith("{ ") and len(option.default) > 60
        default = "see below" if long else option.default
        table.add_row(*map(escape, (f"  {option.name}", option.type, default, option.meaning)))
    _wide().print(table)
    console.print()


def doctor() -> None:
    """Import every component and report each package with problems (exit code 1 if any)."""
    import torch

    from i2ikit.packages.inventory import complaints, offers

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, {device}"
    console.print(f"i2ikit {i2ikit.__version__}, {versions}", highlight=False)
    with Console(stderr=True).status("Reading packages") as status:
        found = offers(load=True, progress=lambda text: status.update(f"Loading {escape(text)}"))
        wrong = complaints(found)
    sound = [offer for offer in found if not offer.failure]
    packages = ", ".join(sorted({f"{o.package} {o.version}".strip() for o in found}))
    console.print(
        f"{len(sound)} of {len(found)} components load (packages: {escape(packages)})",
        highlight=False,
        soft_wrap=True,
    )
    if not wrong:
        console.print("[green]No problems found.[/]")
        return
    _print_complaints(wrong)
    raise typer.Exit(1)


def new_plugin(
    name: Annotated[str, typer.Argument(help="Name of the component, such as my-norm.")],
    kinds: Annotated[
        list[str] | None,
        typer.Option("--kind", metavar="KIND", help=f"{_WORDS} (default: norm); repeat it for more."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", parser=given_path, help="Folder of the new package (default: ./NAME)."
        ),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", parser=given_path, help="Add to the package in this folder instead."),
    ] = None,
) -> None:
    """Create a component of your own with a recipe and a test, in a new package or an existing one.

    With several --kind, it gets one component of each kind, all called NAME.
    Example: i2ikit new-plugin sharp --kind norm --kind loss

    With --into, each component is added to the package in FOLDER: a module, a
    recipe, a test and an entry point in pyproject.toml.
    No other file is changed.
    Example: i2ikit new-plugin blur --kind discriminator --into sharp
    """
    from i2ikit.packages.scaffold import add_to_package, write_package

    if out is not None and into is not None:
        raise ComponentError("--out names a new package, --into an existing one; give one of them")
    named = [kind_named(kind) for kind in kinds or ["norm"]]
    folder = into or out or Path(name)
    written = add_to_package(name, named, folder) if into else write_package(name, named, folder)
    _print_written(written, folder)


def _print_written(written: Written, folder: Path) -> None:
    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    for file in written.files:
        say(f"  {escape(str(file))}")
    tests = folder
    if written.changed:
        say(f"  {escape(str(written.changed))}  (entry points added)")
        say("Install the package again: Python reads entry points only at installation, even with -e.")
        tests = written.tests[0] if len(written.tests) == 1 else written.tests[0].parent
    where = escape(str(folder))
    say(f"Test:  [bold]pip install -e {where} && python -m pytest {escape(str(tests))}[/]")
    for number, recipe in enumerate(written.recipes):
        say(f"{'Train:' if number == 0 else '      '} [bold]i2ikit run {escape(recipe)}[/]")
    for advice in written.advice:
        say(f"[yellow]Before you publish:[/] {escape(advice)}")

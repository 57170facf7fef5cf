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
from i2ikit.cli.options import console

if TYPE_CHECKING:
    from i2ikit.packages.describe import Option
    from i2ikit.packages.inventory import Complaint, Offer

__all__ = ["doctor", "list_", "new_plugin", "show"]

KindOption = Annotated[str, typer.Argument(help="Kind: encoders, decoders, norms, ... (or norm).")]


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
    from i2ikit.packages.entry import KINDS, kind_named
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
    from i2ikit.packages.entry import kind_named

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
    name: Annotated[str, typer.Argument(help="Name of the package and of its component, such as my-norm.")],
    kind: Annotated[str, typer.Option(help="Kind of component: norm, loss, translator, ...")] = "norm",
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="New folder (default: ./NAME).")] = None,
) -> None:
    """Create a small package with a component of your own, a recipe and a test."""
    from i2ikit.packages.entry import kind_named
    from i2ikit.packages.scaffold import write_plugin

    folder = out or Path(name)
    written = write_plugin(name, kind_named(kind), folder)
    for file in written:
        console.print(f"  {escape(str(file))}", highlight=False, soft_wrap=True)
    where = escape(str(folder))
    console.print(
        f"Test:  [bold]pip install -e {where} && python -m pytest {where}[/]\n"
        f"Train: [bold]i2ikit run {escape(name)}/{escape(name)}[/]",
        highlight=False,
        soft_wrap=True,
    )

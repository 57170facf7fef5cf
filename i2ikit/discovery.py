"""Which components the installed packages offer: entry points of the groups `i2ikit.<kind>`.

Reading happens here and nowhere else, through the `entrypoints` package. That package gives up on
everything when one `entry_points.txt` anywhere is damaged, so then each file is read on its own.
"""

from __future__ import annotations

import configparser
import sys
import warnings
from collections.abc import Iterator

import entrypoints

from i2ikit.registry import Entry

__all__ = ["find"]


def find(kind: str) -> list[Entry]:
    """Every installed component of a kind, each target once; imports none of them."""
    group = f"i2ikit.{kind}"
    path = [str(folder) for folder in sys.path]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # unreadable entries of strangers
            points = entrypoints.get_group_all(group, path=path)
    except (configparser.Error, UnicodeDecodeError):
        points = list(_readable_points(group, path))
    entries: dict[tuple[str, str], Entry] = {}
    for point in points:
        target = f"{point.module_name}:{point.object_name}"
        package = point.distro.name.replace("_", "-").lower() if point.distro else "?"
        version = (point.distro.version or "") if point.distro else ""
        entry = Entry(kind, point.name, package, version, target, point.load)
        entries.setdefault((point.name, target), entry)
    return list(entries.values())


def _readable_points(group: str, path: list[str]) -> Iterator[entrypoints.EntryPoint]:
    """The group's entry points, file by file; a file that cannot be read is passed over."""
    for folder in path:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield from entrypoints.get_group_all(group, path=[folder])
        except (configparser.Error, UnicodeDecodeError):
            yield from _points_of_readable_files(group, folder)


def _points_of_readable_files(group: str, folder: str) -> Iterator[entrypoints.EntryPoint]:
    from pathlib import Path

    for file in sorted(Path(folder).glob("*.dist-info/entry_points.txt")):
        parser = entrypoints.CaseSensitiveConfigParser(delimiters=("=",), interpolation=None, strict=False)
        try:
            parser.read_string(file.read_text("utf-8-sig"))
        except (configparser.Error, UnicodeDecodeError, OSError):
            continue
        if not parser.has_section(group):
            continue
        name, _, version = file.parent.name.removesuffix(".dist-info").partition("-")
        for key, target in parser.items(group):
            try:
                yield entrypoints.EntryPoint.from_string(target, key, entrypoints.Distribution(name, version))
            except entrypoints.BadEntryPoint:
                continue

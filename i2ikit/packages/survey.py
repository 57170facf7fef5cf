"""Finds the components of installed packages: entry points of the groups `i2ikit.<kind>`.

Everything is read from metadata and files; nothing is imported. A damaged package does not stop the
search: what cannot be read is skipped and recorded as a `Fault` with the package and the cause.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from i2ikit.packages.entry import CORE, Entry, Fault, normalised
from i2ikit.packages.metadata import Metadata, metadata_in, newness

__all__ = ["ALLOWLIST", "Survey", "survey"]

ALLOWLIST = "I2IKIT_PLUGINS"
"""Environment variable: if set, only these packages (separated by commas) are used."""


@dataclass(frozen=True)
class Survey:
    """The components of all packages on the path, and the faults in their metadata.

    Args:
        entries: components that recipes can name.
        left_out: components of packages that are not in the allowlist.
        allowed: the allowlist; None if there is none.
        fatal: metadata folders on which Python's `importlib.metadata` fails.
    """

    entries: tuple[Entry, ...] = ()
    left_out: tuple[Entry, ...] = ()
    faults: tuple[Fault, ...] = ()
    allowed: frozenset[str] | None = None
    fatal: tuple[Path | zipfile.Path, ...] = ()

    @property
    def packages(self) -> dict[str, str]:
        """Packages that offer components, with their versions."""
        return {entry.package: entry.version for entry in self.entries}


@functools.cache
def survey() -> Survey:
    """The components of all packages on `sys.path`, read once in each process."""
    entries: dict[tuple[str, str, str], Entry] = {}
    faults: list[Fault] = []
    everything = list(_everything_on_path())
    for metadata in _counting(everything, faults):
        for entry in metadata.entries(faults):
            entries.setdefault((entry.kind, entry.name, entry.package), entry)
    fatal = [metadata for metadata in everything if metadata.line_without_equals is not None]
    faults += [m.fault(m.fatal_cause) for m in fatal if not any(f.place == m.folder for f in faults)]
    allowed = _allowlist()
    kept = [e for e in entries.values() if allowed is None or e.package in allowed]
    left_out = [e for e in entries.values() if e not in kept]
    folders = tuple(metadata.folder for metadata in fatal)
    return Survey(tuple(kept), tuple(left_out), tuple(faults), allowed, folders)


def _allowlist() -> frozenset[str] | None:
    text = os.environ.get(ALLOWLIST)
    if text is None:
        return None
    return frozenset({CORE, *(normalised(name) for name in re.split(r"[,\s]+", text) if name)})


def _everything_on_path() -> Iterator[Metadata]:
    """All metadata in the order of the path; within a folder, the highest version first."""
    folders = []
    for entry in map(str, sys.path):
        with contextlib.suppress(ValueError, OSError):  # such as a NUL byte; imports skip it too
            folders.append(os.path.realpath(entry or "."))
    for folder in dict.fromkeys(folders):
        with contextlib.suppress(ValueError, OSError, zipfile.BadZipFile):
            yield from sorted(metadata_in(folder), key=lambda metadata: newness(metadata.stem), reverse=True)


def _counting(everything: Sequence[Metadata], faults: list[Fault]) -> Iterator[Metadata]:
    """Each package once: the first one on the path hides later ones, as for imports."""
    seen: dict[str, Metadata] = {}
    for metadata in everything:
        if metadata.left_over:
            faults.append(metadata.fault("is left over from an interrupted pip; delete the folder"))
            continue
        first = seen.setdefault(metadata.package, metadata)
        if first is metadata:
            yield metadata
        elif (first.concerns_us or metadata.concerns_us) and first.version != metadata.version:
            cause = f"is on the path twice; {first.version} is used (from {first.folder})"
            faults.append(metadata.fault(cause))

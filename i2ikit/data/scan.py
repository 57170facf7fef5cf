"""Decoding image files to find the damaged ones; what was found is kept, so that it is done once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from i2ikit.data.reading import inspect, read_image
from i2ikit.errors import CacheError, DataError, RunError
from i2ikit.pretrained.cache import cache_dir, progress_over
from i2ikit.writing import replace_file

__all__ = ["damage", "in_threads"]

T = TypeVar("T")
R = TypeVar("R")

MOST_THREADS = 8
AT_ONCE = 1024  # items that are handed to the threads together; Ctrl-C waits for a few of them only
LARGE = 8_000_000  # pixels; larger images are decoded one at a time, to save memory
LEAST_S = 2.0  # of a scan that is worth keeping

_one_large = threading.Lock()


def damage(files: Mapping[Path, int]) -> dict[Path, str]:
    """Decode image files completely, unless an earlier scan did.

    Args:
        files: the number of channels to read each file with.

    Returns:
        The damaged files, each with what is wrong, which begins with its name.
    """
    found: dict[Path, str] = {}
    started, kept = time.monotonic(), _Kept()
    new = []
    for file, channels in files.items():
        if (flaw := kept.flaw(file, channels)) is None:
            new.append((file, channels))
        elif flaw:
            found[file] = f"{file}{flaw}"
    try:
        for (file, channels), flaw in in_threads(_flaw, new, "Decoding every image once"):
            kept.add(file, channels, flaw)
            if flaw:
                found[file] = f"{file}{flaw}"
    finally:  # after Ctrl-C, a new scan goes on where this one stopped
        if time.monotonic() - started > LEAST_S:
            kept.write()
    return found


def _flaw(item: tuple[Path, int]) -> str:
    """What is wrong with a file, without its name, or an empty text."""
    file, channels = item
    try:
        width, height = inspect(file, channels)
        with _one_large if width * height > LARGE else contextlib.nullcontext():
            read_image(file, channels)
    except DataError as error:
        return str(error).removeprefix(str(file))
    return ""


def in_threads(work: Callable[[T], R], items: Sequence[T], title: str) -> Iterator[tuple[T, R]]:
    """Each item and what `work` returns for it, in order; shows a progress bar on stderr."""
    yield from progress_over(_worked(work, items), len(items), title)


def _worked(work: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[T, R]]:
    threads = ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1))  # Pillow decodes without the GIL
    with warnings.catch_warnings(), threads as pool:
        # The reader ignores warnings itself, but several threads restore each other's filters.
        warnings.simplefilter("ignore")
        for first in range(0, len(items), AT_ONCE):
            part = items[first : first + AT_ONCE]
            yield from zip(part, pool.map(work, part), strict=True)


class _Kept:
    """What earlier scans found: a JSON file for each folder, in the cache folder.

    A file counts as known while its size and its time of change are the same.
    """

    def __init__(self) -> None:
        self._folders: dict[tuple[Path, int], dict[str, list[object]]] = {}
        self._changed: set[tuple[Path, int]] = set()

    def flaw(self, file: Path, channels: int) -> str | None:
        """As `_flaw`; None if it is not known."""
        match self._folder(file, channels).get(file.name):
            case [size, changed, str(flaw)] if [size, changed] == _stamp(file):
                return flaw
        return None

    def add(self, file: Path, channels: int, flaw: str) -> None:
        """Note what was found."""
        self._folder(file, channels)[file.name] = [*_stamp(file), flaw]
        self._changed.add((file.parent, channels))

    def write(self) -> None:
        """Write what was added; without success if the cache folder cannot be written."""
        with contextlib.suppress(OSError, CacheError, RunError):
            for folder, channels in self._changed:
                path = _path(folder, channels)
                path.parent.mkdir(parents=True, exist_ok=True)
                replace_file(path, json.dumps(self._folders[folder, channels]).encode())

    def _folder(self, file: Path, channels: int) -> dict[str, list[object]]:
        key = (file.parent, channels)
        if key not in self._folders:
            self._folders[key] = _read(*key)
        return self._folders[key]


def _read(folder: Path, channels: int) -> dict[str, list[object]]:
    try:
        found = json.loads(_path(folder, channels).read_text("utf-8"))
    except (OSError, CacheError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _path(folder: Path, channels: int) -> Path:
    """The file of the cache for a folder; another version may read other files."""
    versions = [version("i2ikit"), version("pillow")]
    key = json.dumps([os.path.abspath(folder), channels, *versions])
    return cache_dir() / "scans" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _stamp(file: Path) -> list[object]:
    try:
        found = file.stat()
    except OSError:  # it was removed
        return []
    return [found.st_size, found.st_mtime_ns]

"""The cache for downloaded and rendered files; folders are written atomically."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from i2ikit.errors import CacheError, RunError
from i2ikit.writing import check_writable

__all__ = ["cache_dir", "kept", "progress_over", "writable_cache"]

T = TypeVar("T")

ADVICE = "set $I2IKIT_CACHE to a folder that you can write in"


def cache_dir() -> Path:
    """The cache folder: $I2IKIT_CACHE, or i2ikit/ in the user's cache folder.

    Raises:
        CacheError: neither is set, and the user has no home directory.
    """
    if own := os.environ.get("I2IKIT_CACHE"):
        return Path(own)
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:
        raise CacheError(f"there is no home directory, and so no cache folder; {ADVICE}") from error
    return Path(base) / "i2ikit"


def writable_cache() -> Path:
    """The cache folder, after checking that one can write in it.

    Raises:
        CacheError: it is not known, or one cannot.
    """
    folder = cache_dir()
    try:
        check_writable(folder)
    except RunError as error:
        raise CacheError(f"{error}; {ADVICE}") from error
    return folder


def kept(folder: Path, fill: Callable[[Path], None]) -> Path:
    """`folder`, filled by `fill` if it does not exist; it is never left partly filled.

    Raises:
        CacheError: it cannot be written.
    """
    # Not by mkdtemp, whose folders are for one user only: several may share a cache.
    staged = folder.with_name(f".{folder.name}-{secrets.token_hex(8)}")
    try:
        if folder.exists():
            return folder
        staged.mkdir(parents=True)
        fill(staged)
        os.rename(staged, folder)
    except OSError as error:
        if not _is_filled(folder):  # if it is, another process wrote the same content first
            reason = error.strerror or error
            raise CacheError(f"cannot write {folder}: {reason}; {ADVICE}") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return folder


def _is_filled(folder: Path) -> bool:
    return os.path.isdir(folder)  # False also where it may not be looked at


def progress_over(items: Iterable[T], total: int, title: str) -> Iterable[T]:
    """The items, with a progress bar on stderr if stderr is a terminal."""
    console = Console(stderr=True)
    return track(items, title, total, console=console, transient=True, disable=not console.is_terminal)

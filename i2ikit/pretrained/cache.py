"""The cache for downloaded and rendered files; folders are written atomically."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import track

__all__ = ["cache_dir", "kept", "progress_over"]

T = TypeVar("T")


def cache_dir() -> Path:
    """The cache folder: $I2IKIT_CACHE, or i2ikit/ in the user's cache folder."""
    own = os.environ.get("I2IKIT_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own) if own else Path(base) / "i2ikit"


def kept(folder: Path, fill: Callable[[Path], None]) -> Path:
    """`folder`, filled by `fill` if it does not exist; it is never left partly filled."""
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        fill(staged)
        os.rename(staged, folder)
    except OSError:
        if not folder.exists():  # if it exists, another process wrote the same content first
            raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return folder


def progress_over(items: Iterable[T], total: int, title: str) -> Iterable[T]:
    """The items, with a progress bar on stderr if stderr is a terminal."""
    console = Console(stderr=True)
    return track(items, title, total, console=console, transient=True, disable=not console.is_terminal)

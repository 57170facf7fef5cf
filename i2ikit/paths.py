"""Options that hold paths; commands to paste; writing to disk."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

__all__ = ["FilePath", "pasted", "sync"]


def _absolute(path: str) -> str:
    if not path:
        raise ValueError("should be a path; '.' is the current directory")
    if any(letter < " " for letter in path):
        raise ValueError("holds a line end, a tab or the like; write a Windows path in single quotes")
    return os.path.abspath(os.path.expanduser(path))


FilePath = Annotated[str, AfterValidator(_absolute)]
"""An option that holds the path of a file or a folder.

A recipe's relative path means the current directory when the recipe is checked, and `~` the home directory.
The checked option is absolute, so that a run finds the same files from every directory.
"""


def pasted(*words: str | Path) -> str:
    """A command that can be pasted into a shell: words with spaces and the like are quoted."""
    return shlex.join(map(str, words))


def sync(path: Path) -> None:
    """Flush a file or a folder to disk."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:
        if path.is_dir():  # Windows opens no folders
            return
        raise
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

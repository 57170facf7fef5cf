"""Options that hold paths; commands to paste."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

__all__ = ["FilePath", "is_utf8", "pasted"]


def _absolute(path: str) -> str:
    if not path:
        raise ValueError("should be a path; '.' is the current directory")
    if any(letter < " " for letter in path):
        raise ValueError("holds a line end, a tab or the like; write a Windows path in single quotes")
    found = os.path.abspath(os.path.expanduser(path))
    if not is_utf8(found):
        raise ValueError("is in a folder whose name is not UTF-8, as a recipe is; rename the folder")
    return found


FilePath = Annotated[str, AfterValidator(_absolute)]
"""An option that holds the path of a file or a folder.

A recipe's relative path means the current directory when the recipe is checked, and `~` the home directory.
The checked option is absolute, so that a run finds the same files from every directory.
"""


def is_utf8(path: str) -> bool:
    """Whether a path has no surrogates, by which Python represents bytes that are not UTF-8."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def pasted(*words: str | Path) -> str:
    """A command that can be pasted into a shell: words with spaces and the like are quoted."""
    return shlex.join(map(str, words))

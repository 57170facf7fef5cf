"""resolved.toml: the recipe of a run with every default, under a checksum, and what happened to it.

    # sha256 of all lines below: 3b5d...
    seed = 0
    ...

The tables [versions], [weights_from] and [[changes]] are records: no option is read from them.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import re
from pathlib import Path

from i2ikit.checking import Table
from i2ikit.errors import RunError
from i2ikit.paths import pasted
from i2ikit.recipe_text import read_toml
from i2ikit.writing import replace_file

__all__ = [
    "RESOLVED",
    "WITHOUT_CHECKSUM",
    "create_resolved",
    "matches_checksum",
    "read_resolved",
    "replace_resolved",
    "sealed",
]

RESOLVED = "resolved.toml"
WITHOUT_CHECKSUM = "was written by an earlier version, without a checksum: damage would not be found"
LINE = "# sha256 of all lines below: {}\n"
PATTERN = re.compile(LINE.format("([0-9a-f]{64})").encode())


def sealed(text: str) -> bytes:
    """The content of the file: the checksum of a text, and the text."""
    body = text.encode()
    return LINE.format(_digest(body)).encode() + body


def read_resolved(run: Path) -> tuple[Table, bool]:
    """The table of a run's resolved.toml, and whether it has a checksum; earlier versions wrote none.

    Raises:
        RunError: it was changed or damaged.
        RecipeError: it is not TOML.
    """
    file = run / RESOLVED
    try:
        content = file.read_bytes()
    except OSError as error:
        raise RunError(f"{file} cannot be read: {error.strerror}") from error
    unchanged = matches_checksum(content)
    if unchanged is False:
        raise RunError(
            f"{file} was changed after it was written, or is damaged: it does not match its checksum. "
            f"Restore it. What may change, `{pasted('i2ikit', 'resume', run)} --set KEY=VALUE` changes, "
            "such as data.root of images that have moved; `i2ikit eval --data` measures other images; "
            f"`{pasted('i2ikit', 'run', file)}` starts a new run with the recipe as it is now"
        )
    return read_toml(file, content), unchanged is not None


def matches_checksum(content: bytes) -> bool | None:
    """Whether the content of a resolved.toml is as it was written; None if it has no checksum."""
    # A copy by way of Windows or git may have other line ends; an editor may add a byte-order mark.
    content = content.removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n")
    line = PATTERN.match(content)
    if line is None:
        return False if content.startswith(b"#") else None
    return line[1].decode() == _digest(content[line.end() :])


def create_resolved(run: Path, text: str) -> None:
    """Write the file of a new run, as a whole or not at all.

    Raises:
        FileExistsError: it is there.
    """
    staged = run / f".{RESOLVED}.{os.getpid()}.tmp"
    try:
        staged.write_bytes(sealed(text))
        _place(staged, run / RESOLVED)
    finally:
        staged.unlink(missing_ok=True)


def _place(staged: Path, file: Path) -> None:
    """Give a file its name, unless there is one of that name."""
    try:
        os.link(staged, file)
    except FileExistsError:
        raise
    except OSError:  # a file system without links, such as exFAT
        file.open("xb").close()  # of two commands, one succeeds
        os.replace(staged, file)


def replace_resolved(run: Path, text: str) -> None:
    """Write the file again, atomically.

    Raises:
        RunError: it cannot be written.
    """
    replace_file(run / RESOLVED, sealed(text))


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()

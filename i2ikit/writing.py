"""Writing to disk: a file as a whole or not at all, and errors that name it."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from i2ikit.errors import RunError
from i2ikit.paths import is_utf8

__all__ = ["check_name", "check_writable", "replace_file", "sync", "writing"]


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the file or folder that the block writes, if the disk is full or it may not be written.

    Raises:
        RunError: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        in_the_way = isinstance(error, FileExistsError | NotADirectoryError)
        reason = "there is a file where a folder should be" if in_the_way else error.strerror or error
        raise RunError(f"cannot write {path}: {reason}") from error


def replace_file(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file beside its place and move it there: a kill leaves the old file or the new one.

    The mode of the old file is kept, and a link stays one.

    Args:
        parts: the content, in pieces, so that a large one need not be copied.

    Raises:
        RunError: it cannot be written; the old file stays, and nothing else.
    """
    place = Path(os.path.realpath(path))
    # Several commands may write the same file; a name has at most 255 bytes.
    staged = place.with_name(f".{place.name[:40]}.{secrets.token_hex(4)}.tmp")
    with writing(path):
        try:
            with staged.open("wb") as file:
                file.writelines(parts)
            if place.exists():
                shutil.copymode(place, staged)
            sync(staged)
            os.replace(staged, place)
        except BaseException:
            with contextlib.suppress(OSError):  # the first error says more
                staged.unlink(missing_ok=True)
            raise


def check_writable(folder: Path) -> None:
    """Check that one can write in a folder, or create it; leaves nothing.

    Raises:
        RunError: one cannot.
    """
    with writing(folder):
        existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
        if not existing.is_dir():
            raise NotADirectoryError
        with tempfile.TemporaryFile(dir=existing) as probe:
            probe.write(b"1")


def check_name(path: Path) -> None:
    """Check that safetensors and TensorBoard can open files at or below a path.

    Raises:
        RunError: it is not UTF-8.
    """
    if not is_utf8(os.path.abspath(path)):
        raise RunError(f"{os.path.abspath(path)}: this name is not UTF-8; give the folder another one")


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

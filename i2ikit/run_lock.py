"""The lock of a run folder: one command at a time trains it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from i2ikit.errors import RunError
from i2ikit.processes import Processes
from i2ikit.writing import writing

__all__ = ["is_trained_now", "reserved"]

LOCK = ".lock"
PATIENCE_S = 1.0
"""`is_trained_now` holds the lock for a moment; a command that trains waits for that."""


@contextlib.contextmanager
def reserved(folder: Path, group: Processes) -> Iterator[None]:
    """Let no other command train in a run folder; the system frees it when a process is killed.

    Raises:
        RunError: another command trains in it.
    """
    lock = FileLock(folder / LOCK)
    group.on_main(lambda: _acquire(lock, folder))
    try:
        yield
    finally:
        lock.release()  # does nothing in processes that have not acquired it


def _acquire(lock: FileLock, folder: Path) -> None:
    with writing(folder):
        try:
            lock.acquire(timeout=PATIENCE_S)
        except Timeout as error:
            raise RunError(f"another command is training {folder}; wait for it, or stop it") from error


def is_trained_now(folder: Path) -> bool | None:
    """Whether a command trains in a run folder; None if that cannot be seen, as in another user's folder."""
    if not (folder / LOCK).is_file():  # acquiring would make it
        return False
    lock = FileLock(folder / LOCK)
    try:
        with lock.acquire(blocking=False):
            return False
    except Timeout:
        return True
    except OSError:
        return None

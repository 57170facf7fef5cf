"""Whether there is enough memory for a computation on the CPU: how much is free, and how much one takes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from i2ikit.errors import DataError

__all__ = ["OutOfMemory", "available_memory", "memory_taken", "out_of_memory_named"]

CGROUPS = Path("/sys/fs/cgroup")
SECONDS = 0.001  # between two measurements
WORDS = (
    "can't allocate memory",
    "out of memory",
    "bad alloc",
    "bad_alloc",
    "failed to allocate",
    "could not create a",
)
"""How torch, oneDNN and onnxruntime say that there is no memory."""


class OutOfMemory(Exception):  # noqa: N818
    """An allocation failed."""


@contextlib.contextmanager
def out_of_memory_named() -> Iterator[None]:
    """Turn every kind of error that says that an allocation failed into `OutOfMemory`."""
    try:
        yield
    except DataError:  # may name a file with such words
        raise
    except Exception as error:  # torch and onnxruntime have no class for it on CPUs
        if isinstance(error, MemoryError) or any(word in str(error).lower() for word in WORDS):
            raise OutOfMemory(str(error)) from error
        raise


def available_memory(cgroups: Path = CGROUPS) -> int:
    """Bytes that this process can still use: of the machine, or of the container that it is in.

    The system ends a process that uses more, without an error that could be caught.
    """
    found = [psutil.virtual_memory().available]
    for limit, used, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        with contextlib.suppress(OSError, ValueError, KeyError):  # no such group, or no limit
            stat = (cgroups / used).with_name("memory.stat").read_text().split()
            reclaimable = int(dict(zip(stat[::2], stat[1::2], strict=True))[cache])
            free = int((cgroups / limit).read_text()) - int((cgroups / used).read_text()) + reclaimable
            found.append(max(0, free))
    return min(found)


def memory_taken(compute: Callable[[], object]) -> int:
    """Bytes by which the memory of this process grows at most while it computes."""
    process = psutil.Process()
    before = highest = process.memory_info().rss
    done = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(SECONDS):
            highest = max(highest, process.memory_info().rss)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        compute()
    finally:
        done.set()
        watching.join()
    return highest - before

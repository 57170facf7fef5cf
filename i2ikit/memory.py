"""Whether there is enough memory for a computation on the CPU: how much is free, and how much one takes."""

from __future__ import annotations

import contextlib
import ctypes
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
    _give_back()
    process = psutil.Process()
    before = highest = process.memory_info().rss
    exact = _reset_peak()
    done = threading.Event()

    def watch() -> None:  # misses short peaks on a busy machine
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
    return max(highest, _peak() if exact else 0) - before


def _give_back() -> None:
    """Let glibc return what was freed to the system; the computation would use it again, unmeasured."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _reset_peak() -> bool:
    """Let Linux count the peak of this process anew; False where it cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _peak() -> int:
    """The peak that Linux has counted, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)

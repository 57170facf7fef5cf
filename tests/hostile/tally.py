"""What was tried, how often, and how long the slowest one took."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from i2ikit.errors import I2IKitError

__all__ = ["Kind", "kinds", "readings", "tried"]

MOST_LETTERS = 40_000


@dataclass
class Kind:
    """The trials of one kind.

    Args:
        count: of all.
        refused: of those that ended with a message.
        slowest: CPU seconds.
        note: what else was found.
    """

    count: int = 0
    refused: int = 0
    slowest: float = 0.0
    note: str = field(default="")


kinds: dict[str, Kind] = {}

readings: dict[str, dict[str, str]] = {}
"""What a user reads, by condition and command."""


@contextlib.contextmanager
def tried(name: str, most_s: float = 1.0) -> Iterator[None]:
    """The block may end, or raise an error of ours with a message that can be read.

    CPU seconds do not count what other processes do; a block that waits has ten times as long.

    Args:
        most_s: CPU seconds that it may take.

    Raises:
        AssertionError: it takes longer, or the message is too long; other exceptions pass through.
    """
    kind = kinds.setdefault(name, Kind())
    kind.count += 1
    gc.disable()  # one full collection among the objects of all tests takes up to a second
    message, began, cpu_began = "-", time.perf_counter(), time.process_time()
    try:
        yield
    except I2IKitError as error:
        kind.refused += 1
        message = str(error)
    finally:
        cpu_seconds, seconds = time.process_time() - cpu_began, time.perf_counter() - began
        gc.enable()
    kind.slowest = max(kind.slowest, cpu_seconds)
    assert 0 < len(message) < MOST_LETTERS, message[:500]
    assert cpu_seconds < most_s, f"took {cpu_seconds:.2f} CPU seconds"
    assert seconds < 10 * most_s, f"took {seconds:.2f} s"

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
    """The block may end, or raise an error of ours with a message that can be read; within CPU seconds.

    These do not count what else the machine does; what waits for ever meets the test's own timeout.

    Raises:
        AssertionError: it takes longer, or the message is too long; other exceptions pass through.
    """
    kind = kinds.setdefault(name, Kind())
    kind.count += 1
    gc.disable()  # one full collection among the objects of all tests takes up to a second
    message, began = "-", time.process_time()
    try:
        yield
    except I2IKitError as error:
        kind.refused += 1
        message = str(error)
    finally:
        gc.enable()
        seconds = time.process_time() - began
    kind.slowest = max(kind.slowest, seconds)
    assert 0 < len(message) < MOST_LETTERS, message[:500]
    assert seconds < most_s, f"took {seconds:.2f} s"

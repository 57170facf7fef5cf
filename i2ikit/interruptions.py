"""What ends training between two steps: a signal, or an error in a process's own work.

Both wait until all processes meet, so that all stop after the same step and that step is saved.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from i2ikit.paths import pasted

__all__ = ["FAILED", "Interruptions", "how_to_go_on"]

FAILED = 1000
"""The code of an error; higher than every signal number, so that it counts if both happen."""


REPEATED_S = 1.0
"""How soon after a signal another one of the same number does not count."""

STOPPING = (
    "Stopping after this step; Ctrl-C again stops at once and loses the steps since the last checkpoint."
)


class Interruptions:
    """The signals and the first error that this process has met.

    Args:
        tell: called in the signal's handler with a line for the user, once a first signal has come.
        signals: their numbers, in the order in which they came.
        error: the first one; None if there was none.
    """

    def __init__(self, tell: Callable[[str], None] = lambda text: None) -> None:
        self.tell = tell
        self.signals: list[int] = []
        self.error: BaseException | None = None

    @property
    def code(self) -> int:
        """0 to go on, else `FAILED` or the number of a signal."""
        if self.error is not None:
            return FAILED
        return self.signals[0] if self.signals else 0

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Note an error of the block and go on behind it; the block must not be collective."""
        try:
            yield
        except BaseException as failure:  # also a second Ctrl-C
            self.error = self.error or failure

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Note SIGINT, SIGTERM and SIGHUP; a second SIGINT or SIGTERM acts at once.

        One that follows within a second does not count: a key was pressed twice, or a launcher and the
        terminal have sent the same.
        """
        if threading.current_thread() is not threading.main_thread():  # signals reach only the main thread
            yield
            return
        previous: dict[int, Any] = {}
        came: dict[int, float] = {}

        def note(number: int, frame: FrameType | None) -> None:
            first = came.setdefault(number, time.monotonic())
            if number not in self.signals:
                self.signals.append(number)
                if number == signal.SIGINT and len(self.signals) == 1:
                    self.tell(STOPPING)
            # A terminal that closes sends SIGHUP twice.
            elif number != getattr(signal, "SIGHUP", None) and time.monotonic() - first > REPEATED_S:
                signal.signal(number, previous[number])
                signal.raise_signal(number)

        numbers = [int(signal.SIGINT), int(signal.SIGTERM)]
        # Windows has no SIGHUP; nohup ignores it, and that stays.
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(int(signal.SIGHUP))
        for number in numbers:
            previous[number] = signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def how_to_go_on(folder: Path, done: int, saved: int) -> str:
    """A sentence for the user after an error: what is saved, what is lost, and the next command.

    Args:
        folder: the run folder.
        done: number of steps done.
        saved: the step of the newest checkpoint; 0 without one.
    """
    command = f"`{pasted('i2ikit', 'resume', folder)}`"
    lost = f"Steps {saved + 1} to {done} are lost" if done > saved + 1 else f"Step {done} is lost"
    if done == saved:
        said = f"Step {done} is saved" if done else "No step was finished"
    elif saved:
        said = f"{lost}; the newest checkpoint is that of step {saved}"
    else:
        said = f"{lost}; there is no checkpoint yet"
    return f"{said}. To continue: {command}"

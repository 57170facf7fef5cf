"""Output that may end before the command does: a terminal is closed, or `head` has read enough."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console

__all__ = ["lasting_output", "progress_bar", "write_at_once"]


@contextlib.contextmanager
def lasting_output(console: Console | None = None) -> Iterator[None]:
    """Let the block go on in silence if stdout, stderr or the console's file can no longer be written."""
    before = sys.stdout, sys.stderr
    own: Any = None if console is None else console._file  # None: the console follows sys.stdout
    sys.stdout, sys.stderr = (None if stream is None else _Lasting(stream) for stream in before)
    if console is not None and own is not None:
        console.file = _Lasting(own)  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        if console is not None:
            console._file = own


def write_at_once(line: str) -> None:
    """Write a line on stderr in the handler of a signal, where rich could wait for its own locks for ever."""
    with contextlib.suppress(OSError):  # it is closed
        os.write(2, f"\n{line}\n".encode())


class _Lasting:
    """A text stream without its errors: after the first one, what is written is dropped."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._dropping():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._dropping():
            self._stream.flush()

    @contextlib.contextmanager
    def _dropping(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: the stream is closed
            if isinstance(error, UnicodeError):
                raise
            self._drain()

    def _drain(self) -> None:
        """Send what is buffered, and all that follows, nowhere; it would fail again at the exit."""
        with contextlib.suppress(OSError, ValueError):  # a stream without a file
            nowhere = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(nowhere, self._stream.fileno())
            finally:
                os.close(nowhere)


@contextlib.contextmanager
def progress_bar(total: int, title: str) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr if stderr is a terminal; gives a function that adds to what is done.

    It is removed at the end. What is printed on stdout or stderr in between appears above it.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = console.is_terminal and total > 1
    with Progress(*columns, console=console, transient=True, disable=not shown) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)

"""`i2ikit` commands in processes of their own, which something may happen to at any of their file operations.

The processes are forked from one that has imported torch, so that a command takes a second.
"""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

__all__ = ["FULL", "READ_ONLY", "TOO_LARGE", "Ended", "Event", "Started", "command"]

FULL, READ_ONLY, TOO_LARGE = "full", "read-only", "too large"
WRITING = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
BYTES = 3000
"""Files that outgrow this fail once the limit is on: checkpoints, weights and samples."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "i2ikit.cli.main",
        "i2ikit.start",
        "i2ikit.translation",
        "i2ikit_munit",
        "i2ikit_cyclegan",
        "torch._dynamo",
        "torch.utils.tensorboard",
    ]
)


@dataclass(frozen=True)
class Event:
    """What happens just before the n-th operation that changes a file of the run.

    Args:
        what: a signal, which the process sends itself; or FULL or READ_ONLY: from here on, all that change a
            file fail; or TOO_LARGE: from here on, writing stops in the middle of each larger file.
    """

    operation: int
    what: signal.Signals | str


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, all that it printed, and how many operations changed files."""

    code: int
    said: str
    operations: int

    def is_an_error_of_ours(self) -> bool:
        """Whether it ended with a message, and without a traceback."""
        return self.code == 2 and "error: " in self.said and "Traceback" not in self.said


@dataclass(frozen=True)
class Started:
    """A command that runs."""

    process: ForkServerProcess
    operations: Synchronized[int]
    said: Path

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            if self.process.pid is not None and self.process.exitcode is None:
                os.kill(self.process.pid, number)

    def workers(self) -> list[int]:
        """The processes that it has started."""
        try:
            text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        except OSError:
            return []
        return [int(pid) for pid in text.split()]

    def ended(self) -> Ended:
        """Wait for its end."""
        self.process.join(120)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        said = self.said.read_text(errors="replace")
        self.said.unlink()
        code = self.process.exitcode
        assert code is not None
        return Ended(code, said, self.operations.value)


@contextlib.contextmanager
def command(arguments: Sequence[str], folder: Path, event: Event | None = None) -> Iterator[Started]:
    """Start `i2ikit` with these arguments; operations on files below `folder` count."""
    operations = _context.Value("q", 0)
    handle, said = tempfile.mkstemp(prefix="said-")
    os.close(handle)
    process = _context.Process(
        target=_command, args=(list(arguments), str(folder.resolve()), event, operations, said)
    )
    process.start()
    yield Started(process, operations, Path(said))
    if process.exitcode is None:
        process.kill()


def _command(
    arguments: list[str], folder: str, event: Event | None, operations: Synchronized[int], said: str
) -> None:
    out = os.open(said, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(out, stream)
    import torch

    from i2ikit.cli.main import main

    torch.set_num_threads(1)
    own = os.getpid()

    def hook(name: str, values: tuple[Any, ...]) -> None:
        if _changes_a_file(name, values, folder) and os.getpid() == own:
            operations.value += 1
            if event is not None and operations.value >= event.operation:
                _happen(event, operations.value)

    sys.addaudithook(hook)
    sys.argv = ["i2ikit", *arguments]
    main()


def _changes_a_file(name: str, values: tuple[Any, ...], folder: str) -> bool:
    if name == "open":
        path, _, flags = values
        if not flags & (os.O_WRONLY | os.O_RDWR):
            return False
    elif name in WRITING:
        path = values[0]
    else:
        return False
    return isinstance(path, str | os.PathLike) and os.path.abspath(os.fspath(path)).startswith(folder)


def _happen(event: Event, operation: int) -> None:
    if event.what == FULL:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if event.what == READ_ONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    if operation > event.operation:
        return
    if event.what == TOO_LARGE:
        resource.setrlimit(resource.RLIMIT_FSIZE, (BYTES, resource.RLIM_INFINITY))
    elif isinstance(event.what, signal.Signals):
        os.kill(os.getpid(), event.what)

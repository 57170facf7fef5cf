"""The log for TensorBoard, below tensorboard/ in the run folder: the numbers of metrics.jsonl."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from i2ikit.state import TrainingState
from i2ikit.writing import writing

__all__ = ["TensorBoardLog"]

FOLDER = "tensorboard"


class TensorBoardLog:
    """Written by a thread of TensorBoard; only in the main process.

    Args:
        state: its accelerator writes the log.
        folder: the run folder.
        first: the first step; what the log has of later steps is dropped, because they are logged again.
    """

    def __init__(self, state: TrainingState, folder: Path, first: int) -> None:
        self.accelerator = state.accelerator
        self.path = folder / FOLDER
        options = {FOLDER: {"purge_step": first + 1}}
        with writing(self.path):
            self.accelerator.init_trackers(FOLDER, init_kwargs=options)

    def write(self, values: Mapping[str, Any], step: int) -> None:
        """Log values of a step.

        Raises:
            RunError: the log cannot be written.
        """
        with writing(self.path):
            self.accelerator.log(dict(values), step=step)

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        """Close the log after the block, without hiding an error of the block."""
        try:
            with _threads_report_to_the_writer():
                yield
        except BaseException:
            with contextlib.suppress(Exception):
                self._close()
            raise
        with writing(self.path):
            self._close()

    def _close(self) -> None:
        for tracker in self.accelerator.trackers:
            tracker.finish()


@contextlib.contextmanager
def _threads_report_to_the_writer() -> Iterator[None]:
    """Print no traceback of TensorBoard's thread: its error is raised by the next `write`."""
    before = threading.excepthook

    def hook(found: threading.ExceptHookArgs) -> None:
        if getattr(found.thread, "exception", None) is not found.exc_value:
            before(found)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before

"""The `i2ikit` command, in which one process fails on its way.

    python -m tests.failing HOW RANK run RECIPE ...

HOW is what happens in process RANK at its third step: an `error` of ours, a `bug`, or a `kill`; or, before
it, an error while `reading` images.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

from i2ikit import loop
from i2ikit.cli import main as cli
from i2ikit.errors import DataError
from i2ikit.state import TrainingState

REAL_STEP = loop.train_step
REAL_BATCHES = loop.training_batches


def main(how: str, rank: str) -> None:
    """Run the command."""

    def step(state: TrainingState, number: int, *rest: object) -> object:
        if number == 2 and os.environ["RANK"] == rank:
            if how == "error":
                raise DataError("trainA/7.png: not a readable image")
            if how == "bug":
                raise ZeroDivisionError("a bug")
            os.kill(os.getpid(), signal.SIGKILL)
        return REAL_STEP(state, number, *rest)

    def batches(*arguments: Any) -> Iterator[object]:
        for number, batch in enumerate(REAL_BATCHES(*arguments)):
            if number == 2 and os.environ["RANK"] == rank:
                raise DataError("trainA/7.png: not a readable image")
            yield batch

    if how == "reading":
        loop.training_batches = batches
    else:
        loop.train_step = step
    cli.main()


if __name__ == "__main__":
    how, rank = sys.argv[1:3]
    del sys.argv[1:3]
    main(how, rank)

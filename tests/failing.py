"""The `i2ikit` command, in which one process fails on its way.

    python -m tests.failing HOW RANK run RECIPE ...

HOW is what happens in process RANK at its third step: an `error` of ours, a `bug`, a `kill`, or a
`freeze` (it stops without dying, as on a machine that is cut off). With SLOW in the environment
processes are as patient as they are for users; else less, so that tests are quick.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from i2ikit import processes, training
from i2ikit.cli import main as cli
from i2ikit.errors import DataError
from i2ikit.state import TrainingState

REAL_STEP = training.train_step


def main(how: str, rank: str) -> None:
    """Run the command."""

    def step(state: TrainingState, number: int, *rest: object) -> object:
        if number == 2 and os.environ["RANK"] == rank:
            if how == "error":
                raise DataError("trainA/7.png: not a readable image")
            if how == "bug":
                raise ZeroDivisionError("a bug")
            sys.stderr.write(f"failed at {time.time()}\n")
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL if how == "kill" else signal.SIGSTOP)
        return REAL_STEP(state, number, *rest)

    training.train_step = step
    if "SLOW" not in os.environ:
        processes.SILENCE_S, processes.BEAT_S = 4.0, 0.5
    cli.main()


if __name__ == "__main__":
    how, rank = sys.argv[1:3]
    del sys.argv[1:3]
    main(how, rank)

"""Steps of a recipe while other programs are busy on the same cores: wall time, as training is started.

    python -m tests.benchmarks.busy_neighbours [RECIPE]

None, one and two endless loops beside it, in turns.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import torch
from rich.console import Console

from tests.benchmarks.against_reference import recipe_step

LOOPS = (0, 1, 2)
TURNS = 3
STEPS = 3


@contextlib.contextmanager
def busy(loops: int) -> Iterator[None]:
    """Endless loops in processes of their own."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        time.sleep(0.5)  # until they run
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def wall(step: Callable[[], None]) -> float:
    """Seconds of a step."""
    before = time.perf_counter()
    step()
    return time.perf_counter() - before


def main() -> None:
    """A line for each number of loops."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", nargs="?", default="munit")
    options = parser.parse_args()
    step = recipe_step(options.recipe, "bf16")
    for _ in range(2):
        step()
    found: dict[int, list[float]] = {loops: [] for loops in LOOPS}
    for _ in range(TURNS):
        for loops in LOOPS:
            with busy(loops):
                found[loops] += [wall(step) for _ in range(STEPS)]
    for loops, seconds in found.items():
        Console().print(
            f"{torch.get_num_threads()} threads, {loops} busy loops: {1 / statistics.median(seconds):.2f} "
            f"steps/s (slowest step {max(seconds):.2f} s)"
        )


if __name__ == "__main__":
    main()

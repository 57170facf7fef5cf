"""Where the time of a step goes, in one process and in two: the default recipe, in fair turns.

    python -m tests.benchmarks.where_time_goes

One process with two threads, two with one thread each, and one with one thread and half of the batch,
which is what each of the two would do if nobody else were there. The median step of several turns.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist
from rich.console import Console

TURNS = 3
STEPS = 16
FIRST = 4  # earlier ones warm up
ONE = [sys.executable, "-m"]
TWO = [*ONE, "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
SETTINGS = {
    "one process, two threads": (ONE, "2", ()),
    "two processes, one thread each": (TWO, "1", ()),
    "one process, one thread, half of the batch": (ONE, "1", ("training.batch_size=2",)),
}
PARTS = ("step", "reading images", "waiting for gradients", "exchanging gradients", "batch norm's exchanges")


def timed(function: Callable[..., Any], seconds: dict[str, float], part: str) -> Callable[..., Any]:
    """The function, which adds the time it takes to `seconds[part]`."""

    def call(*args: Any, **options: Any) -> Any:
        before = time.perf_counter()
        try:
            return function(*args, **options)
        finally:
            seconds[part] += time.perf_counter() - before

    return call


def measure(out: Path, overrides: Sequence[str]) -> None:
    """Train a few steps and keep, for each, what its parts took in the first process."""
    from i2ikit import loop, training
    from i2ikit.components import norms
    from i2ikit.processes import processes
    from i2ikit.recipe import load_recipe

    seconds: dict[str, float] = defaultdict(float)
    steps: list[dict[str, float]] = []
    average, step = training._average_gradients, loop.train_step

    def exchange(*args: Any) -> Any:
        if dist.is_initialized():
            timed(dist.barrier, seconds, "waiting for gradients")()
        return timed(average, seconds, "exchanging gradients")(*args)

    def whole(*args: Any) -> Any:
        losses = step(*args)
        now = time.perf_counter()
        steps.append({**seconds, "step": now - whole.began})
        seconds.clear()
        whole.began = now
        return losses

    whole.began = time.perf_counter()
    training._average_gradients, loop.train_step = exchange, whole
    norms._SumOverProcesses.apply = timed(norms._SumOverProcesses.apply, seconds, "batch norm's exchanges")
    own = (f"training.steps={STEPS}", "training.sample_every=0", "training.log_every=1000")
    recipe = load_recipe("munit", [*own, *overrides])
    data = recipe.data()
    batches = loop.training_batches

    def reading(*args: Any) -> Any:
        stream = batches(*args)
        following = timed(lambda: next(stream, None), seconds, "reading images")
        while (batch := following()) is not None:
            yield batch

    loop.training_batches = reading
    with processes() as group, tempfile.TemporaryDirectory() as folder:
        loop.train(recipe, data, Path(folder), console=Console(quiet=True))
        if group.is_main:
            out.write_text(json.dumps(steps[FIRST:]))


def main() -> None:
    """Every setting in turn, several times; a table of medians in milliseconds."""
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "steps.json"
        for _ in range(TURNS):
            for name, (launch, threads, overrides) in SETTINGS.items():
                command = [*launch, "tests.benchmarks.where_time_goes", str(out), *overrides]
                subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": threads}, check=True)
                found[name] += json.loads(out.read_text())
    say = Console().print
    for name, steps in found.items():
        say(f"{name} ({len(steps)} steps)")
        for part in PARTS:
            say(f"  {part:24} {1000 * statistics.median(s.get(part, 0.0) for s in steps):7.1f} ms")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(Path(sys.argv[1]), sys.argv[2:])
    else:
        main()

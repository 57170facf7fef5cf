"""A training step beside the reference composition: CPU seconds on one thread, in turns in one process.

    python -m tests.benchmarks.against_reference [--turns N] [--size 64 256]

Ours is MUNIT with the paper's networks and the discriminators last, in fp32 and bf16; see `reference`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from rich.console import Console
from rich.table import Table

from i2ikit.recipe import load_recipe
from i2ikit.training import build, counted_draw, cut_batch, new_accelerator, train_step, update_ema
from i2ikit.translator import ImageSpec
from tests.benchmarks.reference import Reference

__all__ = ["OURS", "WORK", "in_turns", "our_step", "recipe_step", "reference_step"]

OURS = ("fp32", "bf16")
WORK = {64: (4, 32), 256: (1, 64)}
"""Batch size and width by image size."""
Step = Callable[[], None]


def reference_step(size: int, batch: int, width: int) -> Step:
    """A step of the reference on random images."""
    step = Reference(width)
    a, b = (torch.rand(batch, 3, size, size) * 2 - 1 for _ in range(2))
    return lambda: void(step(a, b))


def void(result: object) -> None:
    """Forget a result."""


def our_step(size: int, batch: int, width: int, precision: str) -> Step:
    """A step of the same networks in i2ikit, the generators first."""
    widths = [
        f"translator.{part}.width={width}" for part in ("content_encoder", "style_encoder", "discriminator")
    ]
    own = (f"data.size={size}", f"training.batch_size={batch}", "translator.order=generator-first")
    return recipe_step("munit-paper", precision, *widths, *own)


def recipe_step(name: str, precision: str, *overrides: str) -> Step:
    """A step of a recipe on random images, with the update of the averages."""
    recipe = load_recipe(name, [f"training.precision={precision}", *overrides])
    size, batch = recipe.data.options["size"], recipe.training.batch_size
    images = ImageSpec({d: recipe.data.options.get(f"channels_{d}", 3) for d in "ab"}, size)
    accelerator = new_accelerator(recipe.training.precision)
    state = build(recipe.translator(images), recipe.optimizers, accelerator, recipe.training.steps)
    batches = {d: torch.rand(batch, c, size, size) * 2 - 1 for d, c in images.channels.items()}

    def step() -> None:
        micro = cut_batch(batches, [range(batch)], batch, 1)
        train_step(state, 0, micro, counted_draw(0, 0, accelerator.device))
        update_ema(state.ema, state.translator, recipe.training.ema, 1000)

    return step


def in_turns(steps: Mapping[str, Step], turns: int) -> dict[str, float]:
    """Median CPU seconds of each step; one call of each before the first turn warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(turns):
        for name, step in steps.items():
            before = time.process_time()
            step()
            seconds[name].append(time.process_time() - before)
    return {name: statistics.median(found) for name, found in seconds.items()}


def main() -> None:
    """A table with a row for each work and precision."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=7, help="steps of each that are measured")
    parser.add_argument("--size", type=int, choices=sorted(WORK), nargs="*", default=sorted(WORK))
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table("work", "reference (s)", *(f"ours {p} (s)" for p in OURS), *(f"gain {p}" for p in OURS))
    for size in options.size:
        batch, width = WORK[size]
        name = f"{size} px, batch {batch}, width {width}"
        steps = {"reference": reference_step(size, batch, width)}
        found = in_turns(steps | {p: our_step(size, batch, width, p) for p in OURS}, options.turns)
        gains = [found["reference"] / found[p] for p in OURS]
        table.add_row(name, *(f"{s:.3f}" for s in found.values()), *(f"{gain:.2f}x" for gain in gains))
    Console().print(table)


if __name__ == "__main__":
    main()

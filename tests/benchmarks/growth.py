"""What a step costs as images, batch and networks grow: CPU seconds on one thread, in turns.

    python -m tests.benchmarks.growth [RECIPE]

Each setting changes one thing of the recipe.
"""

from __future__ import annotations

import argparse

import torch
from rich.console import Console
from rich.table import Table

from tests.benchmarks.against_reference import in_turns, recipe_step

TURNS = 3
WIDTHS = ("content_encoder.width", "style_encoder.width")
SETTINGS = {
    "as it is": (),
    **{f"{side} px": (f"data.size={side}",) for side in (96, 128, 256)},
    **{f"batch of {size}": (f"training.batch_size={size}",) for size in (2, 8, 16)},
    **{f"width {width}": tuple(f"translator.{key}={width}" for key in WIDTHS) for width in (12, 48, 96)},
}


def main() -> None:
    """A row for each setting."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", nargs="?", default="munit")
    options = parser.parse_args()
    torch.set_num_threads(1)
    steps = {name: recipe_step(options.recipe, "bf16", *own) for name, own in SETTINGS.items()}
    found = in_turns(steps, TURNS)
    table = Table("setting", "seconds for a step", "times")
    for name, seconds in found.items():
        table.add_row(name, f"{seconds:.2f}", f"{seconds / found['as it is']:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()

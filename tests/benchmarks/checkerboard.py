"""Whether translations have a checkerboard: the energy at periods of two and four pixels.

    python -m tests.benchmarks.checkerboard RUN...
    python -m tests.benchmarks.checkerboard docs/pictures/munit.png:1:7
    python -m tests.benchmarks.checkerboard --untrained cyclegan --set translator.generator.antialias_up=true

Networks that double the sides twice can leave patterns with these periods. The energy at a period (mean of the
channels and of both axes) is divided by the mean at the two nearest frequencies on each side. One row is for real
images of the target domain; without a pattern, translations have about the same values. `--untrained` measures a
recipe with its initial weights, `SHEET.png:1:7` columns 1 to 6 of a sheet of samples at 64 px.
"""

from __future__ import annotations

import argparse

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

import i2ikit
from i2ikit.data.dataset import Dataset
from i2ikit.data.images import to_tensor
from i2ikit.sampling import GAP, HEADER, distinct_test_indices, random_styles
from i2ikit.translator import Translator

IMAGES = 100
SEED = 0
PERIODS = (2, 4)


def excess(images: Tensor, period: int) -> float:
    """Energy at a period, as a multiple of that at the neighbouring frequencies; images (N, C, S, S)."""
    spectrum = torch.fft.fft2(images.double()).abs().square().mean((0, 1))
    lines = (spectrum.sum(0) + spectrum.sum(1)) / 2  # energy by frequency along one axis
    at = len(lines) // period
    beside = torch.stack([lines[(at + n) % len(lines)] for n in (-2, -1, 1, 2)])
    return (lines[at] / beside.mean()).item()


@torch.no_grad()
def translations(translator: Translator, data: Dataset) -> tuple[Tensor, Tensor]:
    """Translations of held-out inputs in a random style each, and real images of the target domain."""
    source, to = translator.directions[0]
    inputs = distinct_test_indices(data, source, IMAGES, SEED)
    targets = distinct_test_indices(data, to, IMAGES, SEED + 1)
    x = torch.stack([data.image("test", source, index) for index in inputs])
    styles = random_styles(translator, len(x), to, SEED)
    made = translator.translate(x, styles, source=source, to=to).float()
    return made, torch.stack([data.image("test", to, index) for index in targets])


def columns(sheet: str) -> Tensor:
    """The images in some columns of a sheet, PATH:FIRST:END."""
    path, first, end = sheet.rsplit(":", 2)
    with Image.open(path) as picture:
        pixels = to_tensor(picture.convert("RGB"))[:, HEADER:]
    cells = pixels[:, GAP:, GAP:].unfold(1, 64, 64 + GAP).unfold(2, 64, 64 + GAP)
    # (C, rows, columns, 64, 64)
    return cells[:, :, int(first) : int(end)].permute(1, 2, 0, 3, 4).flatten(0, 1)


def main() -> None:
    """A row for each run, sheet and recipe, and one for the real images."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*")
    parser.add_argument("--untrained", metavar="RECIPE")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    options = parser.parse_args()
    measured = {name: columns(name) for name in options.runs if ".png:" in name}
    for name in options.runs:
        if name not in measured:
            run = i2ikit.load(name, device="cpu")
            measured[name], measured["real images"] = translations(run.translator, run.evaluation_data())
    if options.untrained:
        recipe = i2ikit.load_recipe(options.untrained, options.overrides)
        torch.manual_seed(recipe.seed)
        data = recipe.data()
        made, measured["real images"] = translations(recipe.translator(data.images).eval(), data)
        measured[f"{options.untrained}, untrained"] = made
    table = Table("", *(f"{period} px" for period in PERIODS))
    for name, images in measured.items():
        table.add_row(name, *(f"{excess(images, period):.2f}" for period in PERIODS))
    Console().print(table)


if __name__ == "__main__":
    main()

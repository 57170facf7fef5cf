"""Reading training images beside torchvision's ImageFolder, and what a step waits for them.

    python -m tests.benchmarks.reading [--images 10000] [--step RECIPE]

JPEGs of 448x400 px, whose shorter side is resized to 286, are cropped to 256 and mirrored at random: CPU seconds
of one process, in turns. Then steps of a recipe at 256 px, for which two workers read.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torchvision import datasets as torchvision_datasets
from torchvision import transforms

from i2ikit.data.batches import training_batches
from i2ikit.data.dataset import Dataset
from i2ikit.registry import Spec
from tests.benchmarks.against_reference import recipe_step

DIFFERENT = 50
BLOCK = 200
TURNS = 7
STEPS = 10


def write_images(root: Path, count: int) -> None:
    """JPEGs with smooth random content in trainA and trainB, half of them each, and a few to hold out."""
    rng = np.random.default_rng(0)
    contents = []
    for _ in range(DIFFERENT):
        coarse = Image.fromarray(rng.integers(0, 256, (25, 28, 3), dtype=np.uint8))
        noise = rng.normal(0, 6, (400, 448, 3))
        smooth = np.asarray(coarse.resize((448, 400), Image.Resampling.BICUBIC))
        file = io.BytesIO()
        Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8)).save(file, "jpeg", quality=90)
        contents.append(file.getvalue())
    for folder, number in (("trainA", count // 2), ("trainB", count // 2), ("testA", 2), ("testB", 2)):
        (root / folder).mkdir()
        for n in range(number):
            (root / folder / f"{n:06}.jpg").write_bytes(contents[n % DIFFERENT])


def milliseconds(read: Callable[[int], object], start: int) -> float:
    """CPU milliseconds for each of the next images."""
    before = time.process_time()
    for n in range(start, start + BLOCK):
        read(n)
    return (time.process_time() - before) / BLOCK * 1000


def beside_image_folder(data: Dataset, root: Path, say: Callable[[str], None]) -> None:
    """Median milliseconds of each."""
    theirs = torchvision_datasets.ImageFolder(
        str(root),
        transforms.Compose(
            [
                transforms.Resize(286),
                transforms.RandomCrop(256),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize([0.5] * 3, [0.5] * 3),
            ]
        ),
    )
    of_a = [n for n, (_, label) in enumerate(theirs.samples) if theirs.classes[label] == "trainA"]
    rng = np.random.default_rng(0)
    count = data.count("train", "a")
    found: dict[str, list[float]] = {"ours": [], "ImageFolder": []}
    for turn in range(TURNS):
        found["ours"].append(milliseconds(lambda n: data.image("train", "a", n % count, rng), turn * BLOCK))
        found["ImageFolder"].append(milliseconds(lambda n: theirs[of_a[n % count]], turn * BLOCK))
    for name, times in found.items():
        say(f"{name:12} {statistics.median(times):.2f} ms for an image")


def waiting(data: Dataset, recipe: str, say: Callable[[str], None]) -> None:
    """How long each step waits for its images, after the first ones."""
    step = recipe_step(recipe, "bf16", "data.size=256", "training.batch_size=2")
    batches = training_batches(data, 0, 0, STEPS, 2, [0, 1], 2)
    waits, lengths = [], []
    for _ in range(STEPS):
        started = time.perf_counter()
        next(batches)
        waits.append(time.perf_counter() - started)
        step()
        lengths.append(time.perf_counter() - started - waits[-1])
    say(
        f"a step of {recipe} takes {statistics.median(lengths):.2f} s, and waits for its images "
        f"{1000 * statistics.median(waits[2:]):.2f} ms ({1000 * max(waits[2:]):.2f} ms at most)"
    )


def main() -> None:
    """Two lines for reading, one for waiting."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--step", metavar="RECIPE", default="bicyclegan")
    options = parser.parse_args()
    torch.set_num_threads(1)
    say = Console().print
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(root, options.images)
        before = time.process_time()
        data: Dataset = Spec("datasets", "folders", {"root": folder, "size": 256, "load_size": 286})()
        say(f"ours: {time.process_time() - before:.2f} s to list {2 * data.count('train', 'a')} images")
        beside_image_folder(data, root, say)
        waiting(data, options.step, say)


if __name__ == "__main__":
    main()

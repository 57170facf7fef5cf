"""Run folders with made-up logs and pictures, for reports of what would take long to train."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from i2ikit.recipe import load_recipe
from i2ikit.resolved import RESOLVED
from tests.tiny import NARROW

Curve = Callable[[int], float | None]


def made_up_run(folder: Path, steps: int, *overrides: str) -> Path:
    """A run of munit that has logged nothing."""
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text('extends = "munit"\n')
    given = ["data.name=openmoji", *NARROW["munit"], f"training.steps={steps}", *overrides]
    (folder / RESOLVED).write_text(load_recipe("munit", given).to_toml())
    return folder


def write_log(folder: Path, steps: Sequence[int], curves: Mapping[str, Curve], *more: dict[str, Any]) -> None:
    """metrics.jsonl with one line of losses for each step, and other lines after them."""
    lines: list[dict[str, Any]] = [
        {
            "step": step,
            "elapsed_s": 0.5 * step,
            "steps_per_s": 2.0,
            **{key: curve(step) for key, curve in curves.items()},
        }
        for step in steps
    ]
    lines = sorted([*lines, *more], key=lambda line: int(line["step"]))
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def write_samples(folder: Path, steps: Sequence[int], size: tuple[int, int], suffix: str = "") -> None:
    """Noise, which compresses worst, over a few colours."""
    (folder / "samples").mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for step in steps:
        pixels = rng.integers(0, 60, (size[1], size[0], 3)) + rng.integers(0, 190, 3)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"samples/step-{step:06d}{suffix}.png")


USUAL: dict[str, Curve] = {
    f"{phase}/{name}/{domain}": curve
    for domain in ("a", "b")
    for phase, name, curve in (
        ("generator", "adversarial", lambda step: 2.0 + 0.1 * math.sin(step)),
        ("generator", "image_recon", lambda step: 3 / (step + 20) ** 0.5),
        ("generator", "style_recon", lambda step: 0.7 - 1e-7 * step),
        ("discriminator", "adversarial", lambda step: 3.0 + 0.1 * math.cos(step)),
    )
}


def won_from(step: int) -> dict[str, Curve]:
    """The usual curves, but the discriminator of b has won at a step."""
    return {
        **USUAL,
        "discriminator/adversarial/b": lambda now: 3.0 if now < step else 0.01 + 1e-6 * now,
        "generator/adversarial/b": lambda now: 2.0 if now < step else 6.9,
        "learning_rate/discriminators": lambda now: 4e-4,
    }

"""How much of a run's reconstruction error comes from the running statistics of its batch norms.

    python -m tests.benchmarks.running_statistics RUN...

Mean absolute error (0..1 scale) of reconstructed held-out drawings: as saved; with the statistics of
each batch of four (training mode); with running statistics taken anew from real training images alone,
where those of training mix real images and translations.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from i2ikit.components.norms import BatchNorm
from i2ikit.data.dataset import Split
from i2ikit.run import load
from i2ikit.translator import Translator

IMAGES = 160


def error(translator: Translator, images: Tensor) -> float:
    """Of domain b, in batches of four."""
    errors = [(translator.reconstruct(x, "b") - x).abs().mean() / 2 for x in images.split(4)]
    return torch.stack(errors).mean().item()


@torch.no_grad()
def three_errors(run: Path) -> tuple[float, float, float]:
    """As saved, in training mode, with statistics of real images."""
    opened = load(run)
    translator, data = opened.translator, opened.dataset()
    rng = np.random.default_rng(0)

    def some(split: Split) -> Tensor:
        chosen = rng.permutation(data.count(split, "b"))[:IMAGES]
        return torch.stack([data.image(split, "b", int(index)) for index in chosen])

    held_out, training = some("test"), some("train")
    saved = error(translator, held_out)
    in_training = error(translator.train(), held_out)
    for norm in (m for m in translator.modules() if isinstance(m, BatchNorm)):
        norm.norm.reset_running_stats()
        norm.momentum = 0.05
    for _ in range(2):
        for x in training.split(4):
            translator.encode_style(x, "b")
    return saved, in_training, error(translator.eval(), held_out)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        as_saved, batches, real = three_errors(Path(name))
        Console().print(f"{name}: as saved {as_saved:.4f}, batches {batches:.4f}, real images {real:.4f}")

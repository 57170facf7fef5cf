"""A few steps of a translator with a head for each label, in one process or in several.

    python -m tests.branches OUT

writes what each process has computed to OUT; RANK, WORLD_SIZE and the like say which process it is.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from i2ikit.data.batches import shares
from i2ikit.processes import Processes, processes
from i2ikit.training import counted_draw, cut_batch, train_step
from i2ikit.translator import Given, Kept, Phase, Result
from tests.toy import new_toy

LABELS: Sequence[Sequence[int]] = ([0, 2, 0, 2], [0, 1, 1, 1], [2, 0, 2, 1], [1, 0, 1, 0], [0, 2, 1, 0])
"""By step and place. Of two processes, one has the places 0 and 2: at step 0 they have no label in common.
Label 3 never occurs."""
BAD_STEP = 3
"""At this step, the image of place 1 has a NaN."""
SIZES = {"equal": (4, 4, 4, 4), "unequal": (2, 5, 3, 4)}
"""Widths of the heads. Gradients of equal size could be added to those of another head in silence."""


class Heads(nn.Module):
    """One layer for all images, and a head for each label."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.trunk = nn.Linear(64, 6)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(6, width), nn.Linear(width, 1)) for width in widths
        )
        self.register_buffer("seen", torch.zeros(()))


def images(step: int) -> dict[str, Tensor]:
    """Four images for each domain; the first pixel is the label."""
    generator = torch.Generator().manual_seed(step)
    x = {d: torch.rand(4, 1, 8, 8, generator=generator, dtype=torch.float64) * 2 - 1 for d in "ab"}
    x["a"][:, 0, 0, 0] = torch.tensor(LABELS[step], dtype=torch.float64)
    if step == BAD_STEP:
        x["a"][1, 0, 5, 5] = torch.nan
    return x


def computed(group: Processes, widths: Sequence[int], accumulation: int) -> dict[str, Any]:
    """Gradients, parameters and kept tensors after each step, as this process has them."""
    torch.manual_seed(0)
    network = Heads(widths)

    def losses(given: Given) -> Result:
        x = given.images["a"].flatten(1)
        features, labels = torch.tanh(network.trunk(x)), x[:, 0].long()
        total = features.square().sum() * 0.01
        for label, head in enumerate(network.heads):
            mask = labels == label
            if mask.any():
                total = total + (head(features[mask]) - 1).square().sum()
        return Result({"x": total / len(x)}, kept={"labels": given.kept["labels"] * 10 + labels})

    keeps = {"labels": Kept((), torch.int64)}
    parts = shares(4, 1, accumulation, group.count)
    mine = [share[group.rank] for share in parts]
    places = [place for share in mine for place in share]
    state = new_toy(
        {"n": network}, [Phase("p", losses, ("n",), keeps=keeps)], {"p": {"x": 1.0}}, optimizer="adamw",
        weight_decay=0.1, schedule={"max_grad_norm": 0.5}, batch_size=4, places=places, dtype=torch.float64,
    )  # fmt: skip
    found: dict[str, Any] = {"gradients": [], "parameters": [], "kept": [], "skips": [], "losses": []}
    for step in range(len(LABELS)):
        x = {d: each[places] for d, each in images(step).items()}
        micro_batches = cut_batch(x, mine, 4, group.count)
        logged = train_step(state, step, micro_batches, counted_draw(0, step, dtype=torch.float64))
        named = list(network.named_parameters())
        found["gradients"].append({name: None if p.grad is None else p.grad.clone() for name, p in named})
        found["parameters"].append({name: p.detach().clone() for name, p in named})
        found["kept"].append(state.gathered_kept(group)["p.labels"].tolist())
        found["skips"].append(state.skips)
        found["losses"].append(group.mean(logged["p/x"]).item())
    return found


def results(group: Processes) -> dict[str, dict[str, Any]]:
    """By heads and number of micro-batches."""
    return {
        f"{name} {accumulation}": computed(group, widths, accumulation)
        for name, widths in SIZES.items()
        for accumulation in (1, 2)
    }


def main(out: Path) -> None:
    """Write the results of all processes, in the order of their ranks."""
    torch.set_num_threads(1)
    with processes() as group:
        found = group.gather([results(group)])
        if group.is_main:
            torch.save(found, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

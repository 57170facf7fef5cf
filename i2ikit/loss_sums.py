"""The sums of losses since the last line of the log; a checkpoint keeps them, so that no line changes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from i2ikit.processes import Processes

__all__ = ["LossSums"]


class LossSums:
    """Sums of this process, and over how many steps each of them is.

    A line of the log ends a sum: the next step begins a new one.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: Counter[str] = Counter()
        self.is_logged = True

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add the losses of one step; waits for no GPU."""
        if self.is_logged:
            self.sums, self.counts, self.is_logged = {}, Counter(), False
        for name, loss in losses.items():
            self.sums[name] = self.sums.get(name, 0) + loss
            self.counts[name] += 1

    def means(self, group: Processes) -> dict[str, float]:
        """Means over the steps in which a loss was computed: those where its weight is not 0. Collective."""
        if not self.sums:
            return {}
        means = group.mean(torch.stack([total / self.counts[name] for name, total in self.sums.items()]))
        return dict(zip(self.sums, means.tolist(), strict=True))

    def save(self, group: Processes) -> list[dict[str, Any]]:
        """What has not been logged, as JSON, one item for each process. Collective."""
        # Exact, because a float has 64 bits. JSON has no NaN or inf; the log shows both as null, too.
        sums = {name: x if math.isfinite(x := total.item()) else None for name, total in self.sums.items()}
        parts = group.gather([{"sums": sums, "counts": dict(self.counts)}])
        return [] if self.is_logged else parts

    def load(self, parts: Sequence[Mapping[str, Any]], group: Processes, device: torch.device) -> None:
        """Load what `save` returned.

        With another number of processes, each gets the mean of all; the next line is equal up to rounding.
        """
        self.is_logged = not parts
        if not parts:
            return
        own = parts[group.rank : group.rank + 1] if len(parts) == group.count else parts
        for name in own[0]["sums"]:
            totals = [math.nan if (x := part["sums"][name]) is None else x for part in own]
            self.sums[name] = _tensor(sum(totals) / len(totals), device)
        self.counts = Counter(own[0]["counts"])


def _tensor(value: float, device: torch.device) -> Tensor:
    """A number in the precision that it was summed in: float32, unless that would change it."""
    single = torch.tensor(value, dtype=torch.float32, device=device)
    exact = single.item() == value or not single.isfinite().item()
    return single if exact else torch.tensor(value, dtype=torch.float64, device=device)

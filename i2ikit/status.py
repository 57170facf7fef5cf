"""How a run is going, from the files of its folder, while another command may train it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from i2ikit.checkpoints import WEIGHTS_FILE
from i2ikit.errors import RunError
from i2ikit.health import Health, clock, health
from i2ikit.resolved import RESOLVED, read_resolved
from i2ikit.run_lock import is_trained_now
from i2ikit.runlog import METRICS, logged, remarks
from i2ikit.validation import STOPPING_EARLY
from i2ikit.weights_file import step_of

__all__ = ["Status", "status"]


@dataclass(frozen=True)
class Status:
    """How a run is going.

    Args:
        folder: the run folder.
        is_trained_now: whether a command trains it; None if that cannot be seen.
        health: what its log shows.
        checkpoint, weights: the step of its newest checkpoint, and of its weights; None without them.
        logged_at: when its log was last written; None without one.
        remarks: by step, what training has said of single steps, but for faults of `health`; the newest last.
    """

    folder: Path
    is_trained_now: bool | None
    health: Health
    checkpoint: int | None
    weights: int | None
    logged_at: datetime.datetime | None
    remarks: Sequence[tuple[int, str]]

    @property
    def is_done(self) -> bool:
        """Whether all steps are done, or validation has ended training early, and the weights are saved."""
        is_over = self.health.step >= self.health.steps or self._ended_early
        return is_over and self.weights is not None and self.weights >= self.health.step

    @property
    def _ended_early(self) -> bool:
        last = [remark for step, remark in self.remarks if step == self.health.step]
        return any(remark.startswith(STOPPING_EARLY) for remark in last)

    def __str__(self) -> str:
        return self.state + (f"; {self.health}" if str(self.health) else "")

    @property
    def state(self) -> str:
        """Such as "training: step 460 of 920 (50 %), last logged 5 s ago"."""
        if self.is_done:
            return f"done: {self.health.step} steps"
        words = {True: "training", False: "not training", None: "unknown whether it is training"}
        known = f"{words[self.is_trained_now]}: {self.progress}"
        if self.logged_at is None:
            return f"{known}, nothing logged yet"
        ago = (datetime.datetime.now() - self.logged_at).total_seconds()
        return f"{known}, last logged {clock(max(ago, 0.0))} ago"

    @property
    def progress(self) -> str:
        """Such as "step 460 of 920 (50%)"."""
        step, steps = self.health.step, self.health.steps
        return f"step {step} of {steps} ({step / steps:.0%})"


def status(folder: Path, lines: Sequence[Mapping[str, Any]] | None = None) -> Status:
    """How a run is going.

    Args:
        folder: a run folder.
        lines: of its metrics.jsonl; read here if None.

    Raises:
        RunError: its resolved.toml is damaged.
    """
    steps = _number_of_steps(folder)
    lines = logged(folder) if lines is None else lines
    file = folder / METRICS
    found = health(lines, steps)
    faults = [str(fault) for fault in found.faults]
    saved = [path.name.removeprefix("step-") for path in folder.glob("checkpoints/step-*")]
    return Status(
        folder,
        is_trained_now(folder),
        found,
        max((int(step) for step in saved if step.isdecimal()), default=None),
        step_of(folder / WEIGHTS_FILE),
        datetime.datetime.fromtimestamp(file.stat().st_mtime) if lines else None,
        [(step, remark) for step, remark in remarks(lines) if remark not in faults],
    )


def _number_of_steps(folder: Path) -> int:
    table, _ = read_resolved(folder)
    training = table.get("training")
    steps = training.get("steps") if isinstance(training, Mapping) else None
    if type(steps) is not int or steps < 1:
        raise RunError(f"{folder / RESOLVED} has no number of steps (training.steps)")
    return steps

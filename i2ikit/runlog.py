"""Output of training: a progress bar (or plain lines), and metrics.jsonl."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from i2ikit.health import clock
from i2ikit.writing import replace_file, writing

__all__ = ["METRICS", "RunLog", "logged", "remarks"]

METRICS = "metrics.jsonl"

PLAIN_EVERY_S = 30.0
TIMES = ("elapsed_s", "steps_per_s")
LARGEST = 3.5e38
"""Just above the largest number of fp32, in which losses are computed; larger ones count as not finite."""
MOST_STEPS = 2**53
"""JavaScript and float64 know no larger integers exactly."""


class RunLog:
    """Progress and metrics of training; silent in all but the main process.

    Args:
        folder: the folder of metrics.jsonl, which is appended to; None disables all output.
        step, steps: the first step, and the total number of steps.
    """

    def __init__(self, folder: Path | None, step: int, steps: int, console: Console) -> None:
        self.path = folder / METRICS if folder else None
        self.console = console
        self._before = _Before()
        if self.path is not None and self.path.exists():
            with writing(self.path):
                self._before = _forget_after(self.path, step)
            if damaged := self._before.damaged:
                self.say(f"{METRICS} was damaged: {damaged} of its lines could not be read and are removed")
            if (last := self._before.last) > step:
                self.say(f"continuing after step {step}; steps up to {last} were done, but not saved")
        self.steps = steps
        self.started = self._last_log = self._last_plain = time.perf_counter()
        self._first_step = self._last_step = step
        self._progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            speed_estimate_period=120,
            expand=True,
        )
        self._task = self._progress.add_task("", total=steps, completed=step, speed="")
        self._losses = Text("")
        self._live = Live(Group(self._progress, self._losses), console=console, refresh_per_second=4)
        self._on_terminal = folder is not None and console.is_terminal

    def __enter__(self) -> RunLog:
        if self._on_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._on_terminal:
            self._live.stop()

    def advance(self, step: int) -> None:
        """Update the progress bar: `step` steps are done."""
        self._progress.update(self._task, completed=step)

    def losses(self, step: int, losses: Mapping[str, float], rates: Mapping[str, float]) -> dict[str, float]:
        """Write and show one line of metrics: means since the last line, and learning rates now.

        Args:
            rates: by the role of the network.

        Returns:
            The line.
        """
        now = time.perf_counter()
        speed = (step - self._last_step) / max(now - self._last_log, 1e-9)
        self._last_log, self._last_step = now, step
        line = {
            "step": step,
            "elapsed_s": round(self._before.elapsed_s + now - self.started, 3),
            "steps_per_s": round(speed, 4),
        }
        line |= {name: float(value) for name, value in losses.items()}
        line |= {f"learning_rate/{role}": float(rate) for role, rate in rates.items()}
        self.write(line)
        text = _loss_means(losses)
        self._losses.plain = text
        self._progress.update(self._task, speed=f"{speed:.2f} steps/s")
        plain = self.path is not None and not self._on_terminal
        if plain and (now - self._last_plain > PLAIN_EVERY_S or step == self.steps):
            self._last_plain = now
            left = (self.steps - step) * (now - self.started) / max(step - self._first_step, 1)
            self.console.print(
                f"step {step}/{self.steps}  {text}  {speed:.2f} steps/s  {clock(left)} left",
                soft_wrap=True,
            )
        return line

    def write(self, line: Mapping[str, object]) -> bool:
        """Append one line to metrics.jsonl; non-finite numbers become null, as JSON has no NaN.

        Returns:
            Whether it was written: only in the main process, and not if the file already has the line, from
            before a kill or an error.

        Raises:
            RunError: the file cannot be written.
        """
        if self.path is None:
            return False
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}
        if _without_times(clean) in self._before.lines:
            return False
        with writing(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(clean) + "\n")
        return True

    def remark(self, step: int, text: str) -> None:
        """Print what happened at a step, and keep it in metrics.jsonl."""
        self.write({"step": step, "remark": text})
        self.say(f"step {step}: {text}")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self.path is not None:
            self.console.print(text, soft_wrap=True, highlight=False, markup=False)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Hide the bar, so that another one can be shown in its place."""
        if self._on_terminal:
            self._live.transient = True
            self._live.stop()
        try:
            yield
        finally:
            if self._on_terminal:
                self._live.transient = False
                self._live.start()


@dataclass(frozen=True)
class _Before:
    """What metrics.jsonl had when a run was resumed.

    Args:
        elapsed_s: seconds of training up to the step.
        lines: the lines of the step itself, without times.
        last: the last step of all lines.
        damaged: number of lines that could not be read. The last line does not count: a kill may leave a part
            of it.
    """

    elapsed_s: float = 0.0
    lines: Sequence[Mapping[str, Any]] = ()
    last: int = 0
    damaged: int = 0


def _without_times(line: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key not in TIMES}


def _forget_after(path: Path, step: int) -> _Before:
    """Remove the lines of steps that a resumed run will repeat, and those that cannot be read."""
    texts = path.read_text("utf-8", errors="replace").splitlines()
    lines = [_parsed(text) for text in texts]
    kept = [(text, line) for text, line in zip(texts, lines, strict=True) if line and line["step"] <= step]
    replace_file(path, "".join(f"{text}\n" for text, _ in kept).encode())
    elapsed = [line["elapsed_s"] for _, line in kept if isinstance(line.get("elapsed_s"), float)]
    at_step = [_without_times(line) for _, line in kept if line["step"] == step]
    last = max((line["step"] for line in lines if line), default=0)
    return _Before(max(elapsed, default=0.0), at_step, last, lines[:-1].count(None))


def logged(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, if it has one; what is damaged is left out.

    Returns:
        Values are the step (int), numbers (float; None if not finite) and the remark (str).
    """
    path = folder / METRICS
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", errors="replace") as file:
        return [_cleaned(line) for text in file if (line := _parsed(text)) is not None]


def _cleaned(line: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a line that are of the kinds that training writes."""
    cleaned: dict[str, Any] = {"step": line["step"]}
    for name, value in line.items():
        key = sys.intern(name)  # one string for all lines
        if key == "step":
            continue
        if key == "remark":
            if isinstance(value, str):
                cleaned[key] = value
        elif value is None:
            cleaned[key] = None
        elif isinstance(value, int | float) and not isinstance(value, bool):
            cleaned[key] = float(value) if abs(value) <= LARGEST else None  # NaN is not <=
    return cleaned


def remarks(lines: Sequence[Mapping[str, Any]]) -> list[tuple[int, str]]:
    """What training has said of single steps, with the step, from the lines of metrics.jsonl."""
    return [(line["step"], remark) for line in lines if isinstance(remark := line.get("remark"), str)]


def _parsed(text: str) -> dict[str, Any] | None:
    """A line of metrics.jsonl; None if it is damaged."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    step = line.get("step") if isinstance(line, dict) else None
    return line if type(step) is int and 0 <= step <= MOST_STEPS else None  # True is an int, too


def _loss_means(losses: Mapping[str, float]) -> str:
    """`generator: image_recon 0.09, ...; discriminator: ...`, the domains of each loss averaged."""
    grouped: dict[str, dict[str, list[float]]] = {}
    for key, value in losses.items():
        phase, name = key.split("/")[:2]
        grouped.setdefault(phase, {}).setdefault(name, []).append(value)
    phases = []
    for phase, names in grouped.items():
        means = (f"{name.removesuffix('_recon')} {sum(v) / len(v):.2f}" for name, v in names.items())
        phases.append(f"{phase}: {', '.join(means)}")
    return "; ".join(phases)

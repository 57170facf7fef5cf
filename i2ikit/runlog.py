"""What training says while it runs: a progress bar (or plain lines), and metrics.jsonl."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["RunLog"]

PLAIN_EVERY_S = 30.0


class RunLog:
    """Progress and metrics of one process; a silent one for all but the main process.

    Args:
        folder: where metrics.jsonl is appended to; None writes and shows nothing.
        step, steps: where training starts and ends.
    """

    def __init__(self, folder: Path | None, step: int, steps: int, console: Console) -> None:
        self.path = folder / "metrics.jsonl" if folder else None
        self.console = console
        self.steps = steps
        self.started = self._last_log = self._last_plain = time.perf_counter()
        self._first_step = self._last_step = step
        self._progress = Progress(
            TextColumn("[bold]step[/]"),
            MofNCompleteColumn(),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[losses]}"),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            disable=folder is None or not console.is_terminal,
            speed_estimate_period=120,
        )
        self._task = self._progress.add_task("", total=steps, completed=step, losses="", speed="")

    def __enter__(self) -> RunLog:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def advance(self, step: int) -> None:
        """Move the bar: `step` steps are done."""
        self._progress.update(self._task, completed=step)

    def losses(self, step: int, losses: Mapping[str, float]) -> dict[str, float]:
        """Write one line of metrics (means since the last one) and show them; returns the line."""
        now = time.perf_counter()
        speed = (step - self._last_step) / max(now - self._last_log, 1e-9)
        self._last_log, self._last_step = now, step
        line = {"step": step, "elapsed_s": round(now - self.started, 3), "steps_per_s": round(speed, 4)}
        line |= {name: float(value) for name, value in losses.items()}
        self.write(line)
        text = _phase_means(losses)
        self._progress.update(self._task, losses=text, speed=f"{speed:.2f} steps/s")
        plain = self.path is not None and not self.console.is_terminal
        if plain and (now - self._last_plain > PLAIN_EVERY_S or step == self.steps):
            self._last_plain = now
            left = (self.steps - step) * (now - self.started) / max(step - self._first_step, 1)
            self.console.print(
                f"step {step}/{self.steps}  {text}  {speed:.2f} steps/s  {_clock(left)} left",
                soft_wrap=True,
            )
        return line

    def write(self, line: Mapping[str, object]) -> None:
        """Append one line to metrics.jsonl; non-finite numbers become null, as JSON has none."""
        if self.path is None:
            return
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(clean) + "\n")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self.path is not None:
            self.console.print(text, soft_wrap=True, highlight=False)


def _phase_means(losses: Mapping[str, float]) -> str:
    """`image_recon 0.09  style_recon 0.61 ...`: each loss name, its parts averaged."""
    grouped: dict[str, list[float]] = {}
    for key, value in losses.items():
        phase, _, rest = key.partition("/")
        name = rest.partition("/")[0]
        short = f"{phase[:1].upper()}.{name.removesuffix('_recon')}"
        grouped.setdefault(short, []).append(value)
    return " ".join(f"{name} {sum(values) / len(values):.2f}" for name, values in grouped.items())


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return (
        f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}" if minutes >= 60 else f"{minutes}:{seconds:02d}"
    )

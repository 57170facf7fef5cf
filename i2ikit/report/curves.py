"""The curves of a run, from its log: grouped into charts, and thinned for long runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Chart", "charts"]

Line = Mapping[str, Any]

POINTS = 500
"""Most points of a curve; each is then the mean of several lines of the log."""
NUMBERS = 100_000
"""Most numbers of all curves together; with very many curves, each has fewer points."""
FEWEST = 50


@dataclass(frozen=True)
class Chart:
    """Curves with the same steps.

    Args:
        title: in the words of the log.
        steps: of each point.
        curves: values by label; None where there is none, or where it is not finite.
        each: number of lines of the log of which each point is the mean.
        best: the step of the best validation, if it is to be marked.
    """

    title: str
    steps: Sequence[int]
    curves: Mapping[str, Sequence[float | None]]
    each: int = 1
    best: int | None = None


def charts(lines: Sequence[Line], best: int | None = None) -> list[Chart]:
    """The charts of a run.

    Args:
        lines: of metrics.jsonl.
        best: the step of the best validation, if there is one.
    """
    losses = [line for line in lines if "steps_per_s" in line]
    keys = list(dict.fromkeys(key for line in lines for key in line if "/" in key))
    points = max(FEWEST, min(POINTS, NUMBERS // max(len(keys), 1)))

    def chart(title: str, labels: Mapping[str, str], best: int | None = None) -> Chart:
        own = [line for line in lines if any(key in line for key in labels)]
        return _thinned(title, labels, own, points, best)

    made = [chart(title, labels) for title, labels in _of_losses(losses).items()]
    styles = {key: key.removeprefix("diversity/") for key in keys if key.startswith("diversity/")}
    if styles:
        made.append(chart("effect of styles (mean difference, 0..1 scale)", styles))
    for key in keys:
        if key.startswith("validation/") and not key.endswith("_se"):
            name = key.removeprefix("validation/")
            made.append(chart(f"validation: {name}", {key: name}, best))
    rates = {key: key.removeprefix("learning_rate/") for key in keys if key.startswith("learning_rate/")}
    if rates:
        made.append(_without_copies(chart("learning rate", rates)))
    if losses:
        made.append(chart("steps per second", {"steps_per_s": "steps per second"}))
    return made


def _of_losses(losses: Sequence[Line]) -> dict[str, dict[str, str]]:
    """By the name of a loss, the keys of all phases and parts that have it, each with its label.

    The keys are sorted, so that a part has the same colour in most charts.
    """
    found: dict[str, dict[str, str]] = {}
    for key in dict.fromkeys(key for line in losses for key in line):
        phase, _, rest = key.partition("/")
        if not rest or phase in ("learning_rate", "diversity", "validation"):
            continue
        name, _, part = rest.partition("/")
        found.setdefault(name, {})[key] = f"{phase} {part}".strip()
    return {name: dict(sorted(labels.items())) for name, labels in found.items()}


def _thinned(
    title: str, labels: Mapping[str, str], lines: Sequence[Line], points: int, best: int | None
) -> Chart:
    each = max(1, math.ceil(len(lines) / points))
    groups = [lines[n : n + each] for n in range(0, len(lines), each)]
    curves = {label: [_mean(group, key) for group in groups] for key, label in labels.items()}
    return Chart(title, [group[-1]["step"] for group in groups], curves, each, best)


def _mean(lines: Sequence[Line], key: str) -> float | None:
    """The mean over the lines that have it, to four digits; None if one of them is not finite."""
    values = [line[key] for line in lines if key in line]
    if not values or not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        return None
    return float(f"{math.fsum(values) / len(values):.4g}")


def _without_copies(chart: Chart) -> Chart:
    """The chart with one curve in place of several equal ones."""
    labels: dict[tuple[float | None, ...], list[str]] = {}
    for label, values in chart.curves.items():
        labels.setdefault(tuple(values), []).append(label)
    count = len(chart.curves)
    curves = {
        "all networks" if len(some) == count > 1 else ", ".join(some): values
        for values, some in labels.items()
    }
    return Chart(chart.title, chart.steps, curves, chart.each)

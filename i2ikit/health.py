"""Whether a run learns, whether it collapses, and how much longer it takes: what its log shows.

Only names and numbers of metrics.jsonl are read, so that a run of any translator can be judged while another
command trains it. By convention, a loss whose name ends in `_recon` reconstructs something, and the phase
`discriminator` returns its losses by the names that they have in the generator's phase.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["GREY_LEVEL", "LONG", "SAME", "Fault", "Health", "clock", "health"]

Line = Mapping[str, Any]

GREY_LEVEL = 1 / 255
"""One grey level of an 8-bit image (0..1 scale); smaller effects of the style are invisible."""
LONG = 1000
"""Steps after which a style has an effect that can be seen, in a run that learns."""

SAME = 1e-6
"""Differences (0..1 scale) below this are rounding; the faintest initial weights give about 5e-5."""
GROWTH = 1000.0
"""Factor on a loss (of at least 1) of the first line, which no good run reaches."""
DIVERGED = (
    "Start again with a lower learning rate (optimizer.lr), or with gradient clipping "
    "(optimizer.max_grad_norm=1.0)"
)

OF_CODES = ("/style_recon", "/content_recon", "/latent_recon")
"""Losses that reconstruct codes; they show less than those of images."""
RECENT = 100
"""Lines whose mean speed gives the time left."""
FEWEST = 8
"""With fewer lines of the log, no trend is given."""
PART = 5
"""A trend compares the means of two parts of the log, each a fifth of its lines."""
BLOCKS = 5
"""Of each part. Their means vary nearly independently, even if neighbouring lines do not."""
CERTAIN = 2.5
"""Standard errors by which two means must differ, to be called different."""
CHANGE = 0.02
"""And the part of the earlier one."""
RISEN = 1.5
"""Factor on the lowest mean, from which a reconstruction counts as lost, if each block is above the lowest
part's blocks, of two lines or more."""

WON = 20.0
"""Ratio of the generator's adversarial loss to the discriminator's. With least squares and with cross-entropy
it is 0.5 at a draw, for any number of score maps."""
SMOOTH = 5
"""Lines of which that ratio is taken."""
LASTING = 10
"""Lines for which it lasts before it is reported."""
LASTING_STEPS = 100
"""And steps; shortly after the start, many a discriminator of a good run is ahead for fewer."""


@dataclass(frozen=True)
class Fault:
    """Something that went wrong, and what to try.

    Args:
        what: a sentence without a capital letter and a full stop.
        advice: a sentence of the same kind.
        is_certain: whether no good run shows it, however short.
    """

    what: str
    advice: str
    is_certain: bool = False

    def __str__(self) -> str:
        return f"{self.what}. {self.advice}."


@dataclass(frozen=True)
class Health:
    """What the log of a run shows.

    Args:
        step: the last step of the log.
        steps: the number of steps of the whole run.
        learning: about the reconstruction; empty if nothing is reconstructed.
        styles: about the effect of styles; empty if the translator is deterministic, or nothing is known yet.
        balance: about discriminator and generator; empty if there is no discriminator.
        seconds_left: None if it is not known.
        faults: what went wrong.
    """

    step: int
    steps: int
    learning: str = ""
    styles: str = ""
    balance: str = ""
    seconds_left: float | None = None
    faults: Sequence[Fault] = field(default=())

    def __str__(self) -> str:
        left = self.seconds_left
        time = f"{clock(left)} left" if left is not None and self.step < self.steps else ""
        return "; ".join(part for part in (self.learning, self.styles, self.balance, time) if part)


def health(lines: Sequence[Line], steps: int) -> Health:
    """What the lines of a run's metrics.jsonl show.

    Args:
        lines: in the order of the file.
        steps: the number of steps of the whole run.
    """
    losses = [line for line in lines if "steps_per_s" in line]
    step = max((line["step"] for line in lines), default=0)
    learning, lost = _of_reconstruction(losses)
    styles, without = _of_styles(lines, step)
    balance, won = _of_balance(losses)
    faults = [*_of_numbers(losses), *lost, *without, *won]
    return Health(step, steps, learning, styles, balance, _seconds_left(losses, step, steps), faults)


def clock(seconds: float) -> str:
    """A duration to read: "40 s", "12 min", "3 h 05 min", "2 d 4 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def _seconds_left(losses: Sequence[Line], step: int, steps: int) -> float | None:
    """At the mean speed of the latest lines, in which samples and validations have their share."""
    known = [line for line in losses[-RECENT:] if isinstance(line.get("elapsed_s"), float)]
    if len(known) < 2:  # the first line also has the time of what is done once
        speed = losses[-1]["steps_per_s"] if losses else None
        return (steps - step) / speed if speed else None
    done, taken = (known[-1][key] - known[0][key] for key in ("step", "elapsed_s"))
    return (steps - step) * taken / done if done > 0 and taken > 0 else None


def _of_numbers(losses: Sequence[Line]) -> Iterator[Fault]:
    names = [name for name, value in losses[-1].items() if "/" in name and value is None] if losses else []
    if names:
        yield Fault(f"{_listed(names)} {'is' if len(names) == 1 else 'are'} not finite", DIVERGED)
    first, last = (losses[0], losses[-1]) if losses else ({}, {})
    for name, start in first.items():
        end = last.get(name)
        if (
            "/" in name
            and isinstance(start, float)
            and isinstance(end, float)
            and end > GROWTH * max(start, 1.0)
        ):
            yield Fault(f"{name} grew from {start:.3g} to {end:.3g}", DIVERGED, is_certain=True)


def _of_reconstruction(losses: Sequence[Line]) -> tuple[str, list[Fault]]:
    """The trend of the first loss that reconstructs images, else codes; the mean of its parts."""
    names = [name for name in _names(losses) if name.endswith("_recon")]
    if not names:
        return "", []
    name, values = _loss_and_values(losses, min(names, key=lambda name: name.endswith(OF_CODES)))
    if not values:
        return "", []
    if len(values) < FEWEST:
        return f"{name} {values[-1][1]:.3g}", []
    part = max(3, len(values) // PART)
    middle = len(values) // 2
    losses_only = [value for _, value in values]
    before, now = losses_only[middle - part : middle], losses_only[-part:]
    then, mean = statistics.fmean(before), statistics.fmean(now)
    trend = _trend(_blocks(before), _blocks(now))
    text = f"{name} {mean:.3g}, {trend} ({then:.3g} at step {values[middle - 1][0]})"
    sums = [0.0, *itertools.accumulate(losses_only)]
    end = min(range(part, len(sums)), key=lambda n: sums[n] - sums[n - part])
    lowest = losses_only[end - part : end]
    best, at = statistics.fmean(lowest), values[end - 1][0]
    is_above = part >= 2 * BLOCKS and min(_blocks(now)) > max(_blocks(lowest))
    if trend != "rising" or mean <= RISEN * best or not is_above:
        return text, []
    advice = "Try a lower learning rate (optimizer.lr), or a higher weight of this loss"
    return text, [Fault(f"{name} has risen from {best:.3g} at step {at} to {mean:.3g}", advice)]


def _blocks(values: Sequence[float]) -> list[float]:
    """The means of consecutive blocks of equal length, up to rounding."""
    count = min(BLOCKS, len(values))
    ends = [len(values) * n // count for n in range(count + 1)]
    return [statistics.fmean(values[start:end]) for start, end in itertools.pairwise(ends)]


def _trend(before: Sequence[float], now: Sequence[float]) -> str:
    """In which direction the means of two parts differ, given the means of their blocks."""
    then, mean = statistics.fmean(before), statistics.fmean(now)
    error = ((statistics.variance(before) + statistics.variance(now)) / len(now)) ** 0.5
    if abs(mean - then) <= max(CERTAIN * error, CHANGE * abs(then)):
        return "steady"
    return "falling" if mean < then else "rising"


def _of_styles(lines: Sequence[Line], step: int) -> tuple[str, list[Fault]]:
    measured: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        for key, value in line.items():
            if key.startswith("diversity/") and isinstance(value, float):
                measured.setdefault(key.removeprefix("diversity/"), []).append((line["step"], value))
    if not measured:
        return "", []
    shown = ", ".join(f"{values[-1][1]:.3f} ({direction})" for direction, values in measured.items())
    deaf = {direction: values for direction, values in measured.items() if values[-1][1] < GREY_LEVEL}
    return f"styles differ by {shown}", [_deaf(deaf, step)] if deaf else []


def _deaf(measured: Mapping[str, Sequence[tuple[int, float]]], step: int) -> Fault:
    """The fault of directions in which the style has no effect, each with its differences by step."""
    now = " and ".join(f"{direction} ({values[-1][1]:.4f})" for direction, values in measured.items())
    most, at = max((value, at) for values in measured.values() for at, value in values)
    before = f"; at step {at} they differed by {most:.4f}" if most >= GREY_LEVEL else ""
    return Fault(
        f"the style has no effect on its translations {now}: in random styles they differ by less than one "
        f"grey level ({GREY_LEVEL:.4f} on a scale of 0 to 1){before}",
        "Try a higher weight of the loss that reconstructs the style (style_recon, or latent_recon), or a "
        "lower learning rate (optimizer.lr)",
        is_certain=bool(before) or step >= LONG or any(values[-1][1] < SAME for values in measured.values()),
    )


def _of_balance(losses: Sequence[Line]) -> tuple[str, list[Fault]]:
    wins = {
        key: _lasting_win(both)
        for key, other in _rivals(losses).items()
        if (both := _both(losses, key, other)) and both[-1][1] >= 0  # a critic is not judged
    }
    if not wins or len(losses) < LASTING:
        return "", []
    name, (lines, steps, mean) = max(wins.items(), key=lambda won: won[1])
    if lines < LASTING or steps < LASTING_STEPS:
        return "discriminator not too strong", []
    last = losses[-1]
    rates = [key for key in last if key.startswith("learning_rate/") and "discriminator" in key]
    known = [f"optimizer.{key.partition('/')[2]}.lr" for key in rates]
    option = known[0] if known else "the lr of its optimizer"
    what = f"the discriminator has been too strong for {steps} steps; it hardly errs: {name} is {mean:.2g}"
    advice = f"Try a lower learning rate for it ({option}); `i2ikit resume` can change it in this run"
    return f"discriminator too strong for {steps} steps", [Fault(what, advice)]


def _rivals(losses: Sequence[Line]) -> dict[str, str]:
    """The losses of the discriminator, each with the generator's loss of the same name."""
    by_name: dict[str, list[str]] = {}
    for key in losses[-1] if losses else ():
        by_name.setdefault(key.partition("/")[2], []).append(key)
    return {
        key: other
        for keys in by_name.values()
        for key in keys
        for other in keys
        if key.startswith("discriminator/") and not other.startswith("discriminator/")
    }


def _both(losses: Sequence[Line], own: str, other: str) -> list[tuple[int, float, float]]:
    """Step and both values of the lines in which both are finite."""
    values = ((line["step"], line.get(own), line.get(other)) for line in losses)
    return [(step, a, b) for step, a, b in values if isinstance(a, float) and isinstance(b, float)]


def _lasting_win(both: Sequence[tuple[int, float, float]]) -> tuple[int, int, float]:
    """Over how many lines and steps, up to the last, the discriminator is too strong; and its loss now."""
    lines = 0
    for end in range(len(both), 0, -1):
        some = both[max(0, end - SMOOTH) : end]
        mine, theirs = (statistics.fmean(values[n] for values in some) for n in (1, 2))
        if mine < 0 or theirs <= WON * mine:
            break
        lines += 1
    steps = both[-1][0] - both[-lines][0] if lines else 0
    return lines, steps, statistics.fmean(own for _, own, _ in both[-SMOOTH:])


def _names(losses: Sequence[Line]) -> list[str]:
    """The names of losses, `phase/name`, without their parts, in the order of the log."""
    return list(
        dict.fromkeys("/".join(key.split("/")[:2]) for line in losses[-1:] for key in line if "/" in key)
    )


def _loss_and_values(losses: Sequence[Line], name: str) -> tuple[str, list[tuple[int, float]]]:
    """The name without its phase, and by step the mean of its parts where all are finite."""
    values = []
    for line in losses:
        parts = [value for key, value in line.items() if key == name or key.startswith(f"{name}/")]
        if parts and all(isinstance(part, float) for part in parts):
            values.append((line["step"], statistics.fmean(parts)))
    return name.partition("/")[2], values


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

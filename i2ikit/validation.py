"""Validation while training: the recipe's section, the measurements, and the best value so far.

    [validation]
    every = 200
    metrics = ["l1-diversity", {name = "style-health", num_inputs = 20}]
    best = "style-health/style_recon"
    patience = 5

Only the averaged (EMA) weights are measured, on held-out images that the final evaluation does not use.
No weight and no random number of training depends on it. The initial weights are measured once before the
first step, so that a metric that does not suit the data or the translator is a problem of the recipe.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from i2ikit.checking import check, size_problems, validated
from i2ikit.data.dataset import Dataset
from i2ikit.data.held_out import HeldOutPart
from i2ikit.draws import counted_seed
from i2ikit.errors import I2IKitError, Problem, did_you_mean
from i2ikit.metrics.measuring import build_metrics, measure
from i2ikit.metrics.subject import METRIC_SLOT, Measured, Metric, Subject, better_values
from i2ikit.processes import Processes
from i2ikit.registry import Setting, Spec, metrics
from i2ikit.translator import Translator, chosen_direction

__all__ = [
    "STOPPING_EARLY",
    "BestSoFar",
    "Validated",
    "Validation",
    "ValidationOptions",
    "Validator",
    "check_validation",
    "metric_size_problems",
]


STOPPING_EARLY = "stopping early"
"""How the remark begins with which validation ends training."""


class ValidationOptions(BaseModel):
    """Metrics that are measured while training, on held-out images that `i2ikit eval` then leaves out.

    Without this section nothing is measured, and `i2ikit eval` uses all held-out images.

    Args:
        every: steps between validations; the last step is validated too.
        metrics: names of [metrics](metrics.md), or tables with a `name` and options.
        best: METRIC/VALUE, such as "style-health/style_recon": best.safetensors keeps the averaged weights
            with its best value.
        patience: stop after so many validations in a row without a better value; needs `best`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    every: Annotated[int, Field(gt=0)]
    metrics: Annotated[list[Annotated[Any, METRIC_SLOT]], Field(min_length=1)]
    best: str | None = None
    patience: Annotated[int, Field(gt=0)] | None = None


@dataclass(frozen=True)
class Validation:
    """The section [validation] of a recipe, checked; see `ValidationOptions`."""

    every: int
    metrics: tuple[Spec, ...]
    best: str | None = None
    patience: int | None = None

    def table(self) -> dict[str, Any]:
        """The TOML table, with every default."""
        return {**vars(self), "metrics": [spec.table() for spec in self.metrics]}

    @property
    def judged(self) -> tuple[str, str]:
        """Metric and value of `best`; two empty strings without it."""
        name = _metric_of(self.best or "", self.metrics)
        return name, (self.best or "").removeprefix(f"{name}/")


def check_validation(given: object, setting: Setting | None) -> tuple[Validation | None, list[Problem]]:
    """Check the section [validation].

    Args:
        given: the table; None if the recipe has none.
        setting: facts about the run; None for a finished run, of which only the options are checked.

    Returns:
        The section, or None if there is none or it has problems.
    """
    if given is None:
        return None, []
    if not isinstance(given, Mapping):
        return None, [Problem("validation", "should be a table")]
    values, problems = validated(ValidationOptions, given, "validation", "[validation]")
    if problems:
        return None, problems
    checked = [
        check(entry, f"validation.metrics[{n}]", METRIC_SLOT, setting)
        for n, entry in enumerate(values["metrics"])
    ]
    problems = [problem for _, found in checked for problem in found]
    section = Validation(**{**values, "metrics": tuple(spec for spec, _ in checked)})
    if not problems:
        problems += _best_problems(section)
    if not problems and setting is not None and setting.size is not None:
        problems += metric_size_problems(section, setting.size)
    return (None if problems else section), problems


def metric_size_problems(section: Validation, size: int) -> list[Problem]:
    """One problem for each metric that does not accept images of `size` px."""
    return [
        problem
        for n, spec in enumerate(section.metrics)
        for problem in size_problems(
            spec, f"validation.metrics[{n}]", size, f"the image size of {size} px", advise=False
        )
    ]


def _best_problems(section: Validation) -> Iterator[Problem]:
    """What is wrong with `best` and `patience`; also metrics whose values would have the same names."""
    names = [spec.name for spec in section.metrics]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        yield Problem("validation.metrics", f"names '{name}' {names.count(name)} times; name it once")
    if section.best is None:
        if section.patience is not None:
            yield Problem("validation.patience", "needs validation.best, the value that should get better")
        return
    name, value = section.judged
    known = [f"{n}/{v}" for n in names for v in better_values(metrics.load(n))]
    if section.best in known:
        return
    if name:
        problem = f"metric '{name}' does not say whether a higher '{value}' is better"
        hint = did_you_mean(value, better_values(metrics.load(name)))
    else:
        problem = f"'{section.best}' names no metric of validation.metrics; write METRIC/VALUE"
        hint = did_you_mean(section.best, known)
    yield Problem("validation.best", f"{problem}{hint} (known: {', '.join(known) or 'none'})")


def _metric_of(best: str, specs: Sequence[Spec]) -> str:
    """The metric in METRIC/VALUE, both of which may contain slashes; empty if none of `specs` fits."""
    fitting = [spec.name for spec in specs if best.startswith(f"{spec.name}/")]
    return max(fitting, key=len, default="")


@dataclass(frozen=True)
class BestSoFar:
    """The state of validation, which checkpoints keep; it never changes without `validation.best`.

    Args:
        value: the best value; None before the first one.
        step: the step at which it was measured.
        since: number of validations after that one.
    """

    value: float | None = None
    step: int = 0
    since: int = 0

    def after(self, value: float, step: int, higher: bool) -> BestSoFar:
        """The state after another value; one that is not finite is never better."""
        better = self.value is None or (value > self.value if higher else value < self.value)
        if better and math.isfinite(value):
            return BestSoFar(value, step)
        return dataclasses.replace(self, since=self.since + 1)


@dataclass(frozen=True)
class Validated:
    """The result of one validation.

    Args:
        values: by `validation/METRIC/VALUE`.
        line: the most important ones for the user; empty if nothing was measured.
        remarks: what could not be measured, and why.
        state: the state after it.
    """

    values: Mapping[str, float]
    line: str
    remarks: Sequence[str]
    state: BestSoFar


class Validator:
    """Measures a run while it trains: each process its share of the inputs, as `i2ikit eval` does.

    Args:
        section: the checked section of the recipe.
        data: all images of the run.
        seed: inputs and styles depend only on it.

    Raises:
        DataError, WeightsError: too few held-out images, or a metric cannot be built; in all processes.
    """

    def __init__(self, section: Validation, data: Dataset, seed: int, group: Processes) -> None:
        self.section = section
        self.data = HeldOutPart(data, "validation")
        self.seed = seed
        self.group = group
        self.metrics: dict[str, Metric] = {}
        for name, built in build_metrics({spec.name: spec for spec in section.metrics}, group).items():
            if isinstance(built, I2IKitError):
                raise built
            self.metrics[name] = built

    def problems(self, translator: Translator) -> list[Problem]:
        """What cannot be measured, found by measuring the initial weights once. Collective.

        Args:
            translator: with the initial weights, in eval mode.
        """
        measured = self._measured(translator)
        failed = [(n, found) for n, found in enumerate(measured.values()) if isinstance(found, I2IKitError)]
        problems = [Problem(f"validation.metrics[{n}]", f"cannot be measured: {why}") for n, why in failed]
        name, value = self.section.judged
        found = measured.get(name)
        if isinstance(found, dict) and value not in found:
            known = ", ".join(found)
            message = f"metric '{name}' has no value '{value}' for this run (its values: {known})"
            problems.append(Problem("validation.best", message))
        return problems

    def __call__(self, translator: Translator, step: int, state: BestSoFar) -> Validated:
        """Measure the averaged weights. Collective; the result is the same in all processes.

        A metric that fails now has no values, and that of `best` counts as nan.

        Args:
            translator: in eval mode.
            step: number of steps done.
            state: the state before.
        """
        measured = self._measured(translator)
        known = {name: found for name, found in measured.items() if isinstance(found, dict)}
        judged, value = self.section.judged
        if judged:
            state = state.after(known.get(judged, {}).get(value, math.nan), step, self._higher())
        shown = []
        for name, found in known.items():
            key = value if name == judged else next(iter(found), "")  # the first is the most important one
            best = name == judged and state.step == step
            if key in found:
                shown.append(f"{name}/{key} {found[key]:.4f}{' (best)' * best}")
        line = f"validation: {', '.join(shown)}" if shown else ""
        failed = [(name, found) for name, found in measured.items() if name not in known]
        remarks = [f"validation: '{name}' cannot be measured: {error}" for name, error in failed]
        values = {f"validation/{name}/{key}": x for name, found in known.items() for key, x in found.items()}
        return Validated(values, line, remarks, state)

    @torch.no_grad()
    def _measured(self, translator: Translator) -> dict[str, dict[str, float] | I2IKitError]:
        """The values of each metric or its error, those of the main process in all of them. Collective."""
        _share_buffers(translator, self.group)
        direction = chosen_direction(translator, None, None)
        subject = Subject(translator, self.data, direction, self.seed, self.group)
        measured: dict[str, dict[str, float] | I2IKitError] = {}
        for name, metric in self.metrics.items():
            with _own_random_numbers(subject.device, self.seed):
                found = measure(metric, dataclasses.replace(subject, title=name))
            measured[name] = found if isinstance(found, I2IKitError) else _numbers(found)
        return self.group.on_main(lambda: measured)

    def _higher(self) -> bool:
        name, value = self.section.judged
        return better_values(metrics.load(name))[value]

    def has_ended(self, state: BestSoFar) -> bool:
        """Whether training should stop, because `patience` validations in a row were not better."""
        return self.section.patience is not None and state.since >= self.section.patience

    def summary(self, state: BestSoFar) -> str:
        """A line that says which value was best, and when."""
        best = f"was best at step {state.step} ({state.value:.4f})" if state.value is not None else "was nan"
        since = "the only validation since" if state.since == 1 else f"the {state.since} validations since"
        return f"{STOPPING_EARLY}: {self.section.best} {best}, and not better in {since}"


def _numbers(found: Measured) -> dict[str, float]:
    return {name: float(value) for name, value in found.values.items()}


def _share_buffers(translator: Translator, group: Processes) -> None:
    """Give all processes the running statistics of the main one, which it saves; local norms differ.

    Training does not notice: it copies the buffers of the averaged weights anew at each step.
    """
    if group.count == 1:
        return
    own = dict(translator.named_buffers())
    main = group.on_main(lambda: {name: buffer.cpu() for name, buffer in own.items()})
    for name, buffer in own.items():
        buffer.copy_(main[name])


@contextlib.contextmanager
def _own_random_numbers(device: torch.device, seed: int) -> Iterator[None]:
    """Seed all global generators, for metrics that draw from them, and restore their state on exit."""
    own = counted_seed(seed, "validation")
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(own % 2**63)
        np.random.seed(own % 2**32)
        random.seed(own)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)

"""What a recipe says about optimizers: one for each network, its learning rate schedule, and clipping."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from i2ikit.checking import Table, check, validated
from i2ikit.components.optimizers import OPTIMIZER_SLOT
from i2ikit.errors import Problem, did_you_mean
from i2ikit.registry import Setting, Spec

__all__ = ["OptimizerOptions", "ScheduleOptions", "check_optimizers", "optimizer_over"]

DEFAULT = "adam"


class ScheduleOptions(BaseModel):
    """Keys that every optimizer has: the schedule of its learning rate, and gradient clipping.

    `[optimizer]` applies to every network, `[optimizer.<role>]` overrides it for one. `name` chooses the
    optimizer ("adam" by default); a table that names another optimizer does not inherit the options of the
    first, such as `lr`, but these keys.

    Args:
        decay: "none": constant; "step": multiplied by decay_factor after every decay_steps updates;
            "linear": constant for decay_steps updates, then linear to 0 after the last; "cosine": half a
            cosine from the end of the warm-up to 0 after the last update.
        decay_steps: updates; see `decay`. By default half of training.steps.
        decay_factor: see `decay`.
        warmup_steps: the learning rate rises linearly over this number of updates.
        max_grad_norm: gradients of a network are scaled so that their L2 norm is at most this.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    decay: Literal["none", "step", "linear", "cosine"] = "none"
    decay_steps: Annotated[int, Field(gt=0)] | None = None
    decay_factor: Annotated[float, Field(gt=0, le=1)] = 0.5
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    max_grad_norm: Annotated[float, Field(gt=0)] | None = None

    def factor(self, step: int, steps: int) -> float:
        """The factor on the learning rate of update `step` (from 0) of `steps`; it depends only on them."""
        warm = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        decay_steps = max(steps // 2, 1) if self.decay_steps is None else self.decay_steps
        match self.decay:
            case "step":
                # The official MUNIT steps its scheduler before the update: update 99,999 uses half the rate.
                return warm * self.decay_factor ** ((step + 1) // decay_steps)
            case "linear" if step >= decay_steps:
                return warm * (steps - step) / max(steps - decay_steps, 1)
            case "cosine":
                done = max(0, step - self.warmup_steps) / max(steps - self.warmup_steps, 1)
                return warm * (1 + math.cos(math.pi * done)) / 2
        return warm


@dataclass(frozen=True)
class OptimizerOptions:
    """The optimizer of one network, with every option filled in."""

    optimizer: Spec = field(default_factory=lambda: _spec({}, None)[0])
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)

    def table(self) -> dict[str, Any]:
        """Its table in a recipe."""
        return {**self.optimizer.table(), **self.schedule.model_dump(mode="json")}


def check_optimizers(
    table: object,
    translator: str,
    roles: Sequence[str],
    defaults: Mapping[str, Mapping[str, Any]],
    inherited: Collection[str],
    setting: Setting | None,
) -> tuple[dict[str, OptimizerOptions], list[Problem], list[str]]:
    """The optimizer of each role: [optimizer], changed by the translator's default, then by its own table.

    Args:
        table: [optimizer] as the recipe has it.
        translator: its name in the recipe.
        roles: the roles of its networks; empty if they are not known.
        defaults: tables by role that the translator declares.
        inherited: roles whose table was written for a translator that has been replaced.

    Returns:
        The options, every problem, and a note for each table ignored because the translator changed.
    """
    if not isinstance(table, Mapping):
        return {}, [Problem("optimizer", "should be a table")], []
    known = (*ScheduleOptions.model_fields, "name", "lr")
    nested = {key: value for key, value in table.items() if isinstance(value, Mapping) and key not in known}
    problems = [
        Problem(f"optimizer.{key}", "should be a table")
        for key in roles
        if key in table and key not in nested
    ]
    notes = []
    for key in [key for key in nested if roles and key not in roles]:
        message = f"translator '{translator}' has no network '{key}'"
        if key in inherited:
            notes.append(f"[optimizer.{key}] is ignored: {message}")
            continue
        hint = did_you_mean(key, (*roles, *known))
        problems.append(Problem(f"optimizer.{key}", f"{message}{hint} (networks: {', '.join(roles)})"))
    shared = {key: value for key, value in table.items() if key not in nested and key not in roles}
    optimizers = {}
    for role in roles:
        own, default = nested.get(role, {}), defaults.get(role, {})
        merged = optimizer_over(_with_default(shared, default), own)
        optimizers[role], found = _checked(merged, own, default, role, roles, setting)
        problems += [problem for problem in found if problem not in problems]
    if not roles:
        problems += _checked(shared, {}, {}, "", roles, setting)[1]
    return optimizers, problems, notes


def _with_default(shared: Mapping[str, Any], default: Mapping[str, Any]) -> Table:
    """[optimizer], changed by the translator's default, unless that is for another optimizer."""
    if "name" in shared and shared["name"] != default.get("name", DEFAULT):
        return optimizer_over(default, shared)
    return optimizer_over(shared, default)


def optimizer_over(below: Mapping[str, Any], table: Mapping[str, Any]) -> Table:
    """Merge `table` over `below`; naming another optimizer drops the options of the first, such as its lr."""
    if "name" in table and table["name"] != below.get("name", DEFAULT):
        kept = ScheduleOptions.model_fields
        below = {key: value for key, value in below.items() if key in kept or isinstance(value, dict)}
    merged = {**below, **table}
    for key, value in table.items():
        lower = below.get(key)
        if isinstance(value, dict) and isinstance(lower, dict):
            merged[key] = optimizer_over(lower, value)
    return merged


def _checked(
    table: Mapping[str, Any],
    own: Mapping[str, Any],
    default: Mapping[str, Any],
    role: str,
    roles: Sequence[str],
    setting: Setting | None,
) -> tuple[OptimizerOptions, list[Problem]]:
    """Check the merged table of a role; a problem is said of the table that has the key.

    That may be the role's own one, the translator's default, or else [optimizer].
    """
    keys = ScheduleOptions.model_fields
    plain = {key: value for key, value in table.items() if key in keys}
    values, problems = validated(ScheduleOptions, plain, "optimizer", "[optimizer]")
    spec, found = _spec(
        {key: value for key, value in table.items() if key not in keys}, setting, (*keys, *roles)
    )
    placed = []
    for problem in problems + found:
        key = problem.path.removeprefix("optimizer").removeprefix(".").partition(".")[0]
        if key in own:
            path = problem.path.replace("optimizer", f"optimizer.{role}", 1)
            placed.append(Problem(path, problem.message))
        elif key in default and table[key] == default[key]:
            message = f"its default for '{role}' is wrong: {problem.path}: {problem.message}"
            placed.append(Problem("translator.name", message))
        else:
            placed.append(problem)
    return OptimizerOptions(spec, ScheduleOptions(**values)), placed


def _spec(
    table: Mapping[str, Any], setting: Setting | None, also_known: Sequence[str] = ()
) -> tuple[Spec, list[Problem]]:
    return check({"name": DEFAULT, **table}, "optimizer", OPTIMIZER_SLOT, setting, also_known)

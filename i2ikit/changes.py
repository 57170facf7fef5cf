"""What of its recipe a run may change when it is resumed, and the record of what it changed."""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from i2ikit.checking import Table
from i2ikit.errors import Problem, RecipeError
from i2ikit.optimizer_options import ScheduleOptions
from i2ikit.paths import pasted
from i2ikit.recipe import RECORDS, Recipe, checked_recipe, finished_recipe, flat_options
from i2ikit.recipe_text import RecipeText, overriding
from i2ikit.resolved import RESOLVED, replace_resolved

__all__ = ["Change", "changed_recipe", "differing", "record"]

FREE = (
    *("steps", "accumulation", "log_every", "sample_every", "checkpoint_every", "keep"),
    *("workers", "trackers"),
)
"""Options of [training] that change no result, except the number of steps."""

RATES = ("lr", *ScheduleOptions.model_fields)
"""Options of an optimizer that depend on nothing but the step and the number of all steps."""

REASONS = {
    "seed": "the order of the images and all random numbers depend on it",
    "data": "these would be other images",
    "translator": "these would be other networks or losses",
    "optimizer": "what the optimizer has kept was made with the value before",
    "training.batch_size": "each step would use another number of images",
    "training.precision": "the computation would be rounded in another way",
    "training.ema": "the averages were made with the value before",
    "training": "the result would be another one",
    "validation": "the best value so far was measured in another way",
}


@dataclass(frozen=True)
class Change:
    """One changed value; None where there is or was none."""

    key: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.key}: {self.before} -> {self.after}"


def changed_recipe(
    run: Path, table: Table, overrides: str | Sequence[str], processes: int
) -> tuple[Recipe, list[Change]]:
    """The recipe with which a run is resumed, and what differs from before.

    Args:
        table: the content of its resolved.toml.
        overrides: one or several `key.path=VALUE`; `optimizer.lr=VALUE` is for every network.
        processes: number of processes that will share each batch.

    Raises:
        RecipeError: a key is unknown or may not change; lists every problem.
    """
    source = run / RESOLVED
    given, problems = overriding([overrides] if isinstance(overrides, str) else overrides)
    if problems:
        raise RecipeError(str(source), problems)
    text = RecipeText(source, table).under(_for_every_network(table, given))
    if not given:
        return checked_recipe(text, processes), []
    before = finished_recipe(table, source).flat()
    try:
        recipe = checked_recipe(text, processes)
    except RecipeError:
        # A refusal says more than a problem with the new value; an unknown key is reported as such.
        _refuse(run, given, before, {key: x for key, x in flat_options(text.table) if key in before})
        raise
    after = recipe.flat()
    _refuse(run, given, before, after)
    return recipe, [Change(key, before.get(key), after.get(key)) for key in differing(before, after)]


def _refuse(run: Path, given: Table, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Raise a RecipeError that lists the given keys, else the values, that may not change."""
    fixed = [key for key in differing(before, after) if not _is_free(key)]
    keys = [key for key, _ in flat_options(given) if any(_covers(key, other) for other in fixed)] or fixed
    if keys:
        problems = [Problem(key, f"may not change when a run is resumed: {_reason(key)}") for key in keys]
        new = pasted("i2ikit", "run", run / RESOLVED, "--weights-from", run)
        advice = f"it would not be the same run; start a new one from its weights: {new} --set ..."
        raise RecipeError(str(run / RESOLVED), [*problems, Problem("", advice)])


def _covers(given: str, key: str) -> bool:
    """Whether a given key sets this one; `optimizer.name` sets that of every network."""
    section, _, option = given.partition(".")
    every = section == "optimizer" and key.startswith("optimizer.") and key.endswith(f".{option}")
    return every or f"{key}.".startswith(f"{given}.")


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The keys whose values differ, or that only one of both has."""
    return [key for key in {**before, **after} if before.get(key) != after.get(key)]


def _for_every_network(table: Table, given: Table) -> Table:
    """`optimizer.lr` written out for every network, as resolved.toml has it; a network's own value wins."""
    known, own = table.get("optimizer"), given.get("optimizer")
    if not isinstance(known, dict) or not isinstance(own, dict):
        return given
    by_role = {role: options for role, options in known.items() if isinstance(options, dict)}
    options = {*RATES, "name", *(option for table in by_role.values() for option in table)}
    shared = {key: value for key, value in own.items() if key in options and key not in by_role}
    spread = {}
    for role in by_role:
        mine = own.get(role, {})
        spread[role] = {**shared, **mine} if isinstance(mine, dict) else mine
    return {**given, "optimizer": {**{k: v for k, v in own.items() if k not in shared}, **spread}}


def _is_free(key: str) -> bool:
    section, _, option = key.partition(".")
    rate = option.partition(".")[2]
    return (
        key == "data.root"
        or (section == "training" and option in FREE)
        or (section == "optimizer" and rate in RATES)
    )


def _reason(key: str) -> str:
    return REASONS.get(key) or REASONS.get(key.partition(".")[0], "it is not one of those that may")


def record(run: Path, table: Table, recipe: Recipe, changes: Sequence[Change], step: int) -> None:
    """Write changes to the run's resolved.toml: the new values, and what changed after which step.

    Args:
        table: the content before, whose records are kept.
        step: number of steps done before the change.
    """
    when = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    # TOML has no null, and a missing key means the same.
    new = [
        {"step": step, "when": when, **{k: v for k, v in vars(change).items() if v is not None}}
        for change in changes
    ]
    kept = {key: table[key] for key in RECORDS if key in table}
    records = {**kept, "changes": [*kept.get("changes", []), *new]}
    options = tomllib.loads(recipe.to_toml())
    replace_resolved(run, tomli_w.dumps({**options, **records}, multiline_strings=False))

"""Measure a run: load its translator and its held-out data, ask the metrics, keep the numbers."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from i2ikit.checkpoints import load_translator
from i2ikit.errors import DataError, RecipeError
from i2ikit.metrics import Metric, Subject
from i2ikit.recipe import load_recipe, override
from i2ikit.registry import metrics
from i2ikit.runs import RESOLVED

__all__ = ["evaluate"]


@torch.no_grad()
def evaluate(
    run: Path, names: Sequence[str] | None, *, to: str, seed: int, overrides: Sequence[str] = ()
) -> dict[str, Mapping[str, float] | str]:
    """Measure a run and write eval/<metric>-a2b.json (or -b2a).

    Args:
        names: metrics, as `i2ikit list metrics` shows them; None is every one that suits the data.
        to: the domain to translate into.
        seed: of the choice of inputs and styles.
        overrides: `metric.option=VALUE` each.

    Returns:
        The numbers of each metric by name; a sentence for one that the data does not suit.

    Raises:
        RecipeError: an unknown metric or option.
        RunError: the run cannot be loaded.
        DataError: a metric that was asked for by name does not suit the data.
    """
    built = _build_metrics(metrics.names() if names is None else names, overrides)
    recipe = load_recipe(run / RESOLVED)
    subject = Subject(load_translator(run), recipe.data(), to, seed)
    (run / "eval").mkdir(exist_ok=True)
    results: dict[str, Mapping[str, float] | str] = {}
    for name, metric in built.items():
        try:
            results[name] = dict(metric.measure(subject))
        except DataError as error:
            if names is not None:
                raise
            results[name] = f"not measured: {error}"
            continue
        report = {
            "metric": name,
            "direction": "a2b" if to == "b" else "b2a",
            "seed": seed,
            "image_size": subject.data.images.size,
            "data": recipe.data.table(),
            "values": results[name],
            "measured": datetime.datetime.now().isoformat(timespec="seconds"),
        }
        path = run / "eval" / f"{name.replace('/', '-')}-{report['direction']}.json"
        path.write_text(json.dumps(report, indent=1) + "\n")
    return results


def _build_metrics(names: Sequence[str], overrides: Sequence[str]) -> dict[str, Metric]:
    table = {name: {"name": name} for name in names}
    problems = [problem for text in overrides if (problem := override(table, text))]
    specs = {}
    for name, options in table.items():
        specs[name], found = metrics.check(options, name, ())
        problems += found
    if problems:
        raise RecipeError("i2ikit eval", problems)
    return {name: spec() for name, spec in specs.items()}

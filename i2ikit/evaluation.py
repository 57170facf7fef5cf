"""Measure a run: load its translator and its held-out data, ask the metrics, keep the numbers.

With several processes (torchrun), each measures its part of the inputs.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from i2ikit.checking import check
from i2ikit.errors import DataError, I2IKitError, Problem, RecipeError, WeightsError, did_you_mean
from i2ikit.metrics.subject import METRIC_SLOT, Measured, Metric, Subject
from i2ikit.processes import processes
from i2ikit.recipe_text import overriding
from i2ikit.registry import Setting, Spec
from i2ikit.run import Run, load
from i2ikit.sizes import size_problems
from i2ikit.translator import direction

__all__ = ["USUAL", "Finding", "evaluate"]

USUAL = ("lpips-diversity", "l1-diversity", "line-contrast", "style-health")
"""What is measured when nothing is asked for by name."""


@dataclass(frozen=True)
class Finding:
    """What one metric says of a run.

    Args:
        direction: "a2b" or "b2a".
        found: its numbers, or a sentence why there are none.
        path: of the report; None if there is none.
    """

    metric: str
    direction: str
    found: Measured | str
    path: Path | None = None


@torch.no_grad()
def evaluate(
    run: Run | str | Path,
    names: str | Sequence[str] | None = None,
    *,
    to: str | None = None,
    seed: int = 0,
    overrides: str | Sequence[str] = (),
    strict: bool = True,
    reuse: bool = False,
) -> Iterator[Finding]:
    """Measure a run; each metric writes its report and its pictures to RUN/eval/.

    The report is named after the metric, the direction, the seed and every option that is given, so
    that one does not replace another.

    Args:
        run: a run, or its folder.
        names: a metric or several, as `i2ikit list metrics` shows them; None is the usual ones, not strictly.
        to: the domain to translate into; the method's first one if None.
        seed: of the choice of inputs, styles and pairs.
        overrides: `metric.option=VALUE` each.
        strict: a metric that cannot measure this run is an error; otherwise its finding says why.
        reuse: take what was already measured of these weights, with these options.

    Yields:
        What each metric found, when it is done; in the main process only.

    Raises:
        RecipeError: an unknown metric or option.
        RunError: the run cannot be loaded, or does not translate into `to`.
        DataError, WeightsError: a metric cannot measure this run (if strict).
    """
    run = load(run)
    names = [names] if isinstance(names, str) else names
    overrides = [overrides] if isinstance(overrides, str) else overrides
    strict = strict and names is not None
    with processes() as group:
        to = run.target(to)
        translator = run.translator.to(run.chosen_device or group.device)
        # What is not asked for by name may not suit the images: then measuring says so.
        size = run.images.size if strict else None
        given, specs = _check_metrics(USUAL if names is None else names, overrides, size)
        stems = {name: _stem(name, to, seed, given[name]) for name in specs}
        paths = {name: run.folder / "eval" / f"{stem}.json" for name, stem in stems.items()}
        trained = {"step": run.step, "sha256": run.sha256}
        data = run.data
        known = (
            {name: _known(paths[name], spec, data, trained) for name, spec in specs.items()} if reuse else {}
        )
        with group.first_on_each_machine():  # it may have to fetch weights
            built = {name: known.get(name) or _built(spec) for name, spec in specs.items()}
        # What one process cannot build, none measures: else they would wait for each other.
        failed = dict(group.gather([(n, e) for n, e in built.items() if isinstance(e, I2IKitError)]))
        built |= failed
        if strict:
            _raise_first(built)
        with group.first_on_each_machine():  # it may have to render images
            dataset = run.dataset()
        subject = Subject(translator, dataset, to, seed, group)
        for name, metric in built.items():
            found = _measure(metric, dataclasses.replace(subject, title=name))
            if strict:
                _raise_first({name: found})
            if not group.is_main:
                continue
            if isinstance(found, I2IKitError):
                yield Finding(name, direction(to), f"not measured: {found}")
            else:
                if found is not metric:
                    _keep(paths[name], name, specs[name], data, subject, found, trained)
                yield Finding(name, direction(to), found, paths[name])


def _raise_first(results: Mapping[str, object]) -> None:
    for result in results.values():
        if isinstance(result, I2IKitError):
            raise result


def _built(spec: Spec) -> Metric | I2IKitError:
    """The metric, or why not: raised, it would leave the other processes waiting for the first."""
    try:
        metric: Metric = spec()
    except (DataError, WeightsError) as error:
        return error
    return metric


def _measure(metric: Metric | Measured | I2IKitError, subject: Subject) -> Measured | I2IKitError:
    """What the metric found (perhaps earlier), or why it cannot measure this."""
    if isinstance(metric, Measured | I2IKitError):
        return metric
    try:
        return metric.measure(subject)
    except (DataError, WeightsError) as error:
        return error


def _stem(name: str, to: str, seed: int, given: Mapping[str, Any]) -> str:
    """`lpips-diversity-a2b-seed0-protocol=bicyclegan`; of a path only its end."""
    options = [f"{key}={str(value).rpartition('/')[2]}" for key, value in sorted(given.items())]
    text = "-".join([name, direction(to), f"seed{seed}", *options])
    return re.sub(r"[^\w.=+-]+", "_", text)[:200]


def _known(path: Path, spec: Spec, data: Spec, trained: Mapping[str, Any]) -> Measured | None:
    """What an earlier report says, if it is of the same weights, options, data and versions."""
    now = {"trained": trained, "options": spec.table(), "data": data.table(), "versions": _versions()}
    try:
        report = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):  # not measured yet, or its writing was interrupted
        return None
    if any(report.get(key) != json.loads(json.dumps(value)) for key, value in now.items()):
        return None
    values = {k: math.nan if v is None else v for k, v in report["values"].items()}
    return Measured(values, {}, report["notes"])


def _versions() -> dict[str, str]:
    return {package: version(package) for package in ("i2ikit", "torch", "torchvision", "lpips")}


def _keep(
    path: Path,
    name: str,
    spec: Spec,
    data: Spec,
    subject: Subject,
    found: Measured,
    trained: Mapping[str, Any],
) -> None:
    report = {
        "metric": name,
        "direction": direction(subject.to),
        "trained": trained,
        "values": {k: v if math.isfinite(v) else None for k, v in found.values.items()},  # JSON has no NaN
        "notes": list(found.notes),
        "seed": subject.seed,
        "image_size": subject.data.images.size,
        "options": spec.table(),
        **found.facts,
        "data": data.table(),
        "processes": subject.group.count,
        "versions": _versions(),
        "measured": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    for sheet, picture in found.sheets.items():
        picture.save(path.with_name(f"{path.stem}-{sheet}.png"))


def _check_metrics(
    names: Sequence[str], overrides: Sequence[str], size: int | None
) -> tuple[dict[str, dict[str, Any]], dict[str, Spec]]:
    """The options that are given for each metric, and the metrics with every option."""
    table, problems = overriding(overrides)
    for name, options in table.items():
        if not isinstance(options, dict) or "name" in options:
            example = "such as lpips-diversity.protocol=bicyclegan"
            problems.append(Problem(f"--set {name}", f"should be METRIC.OPTION=VALUE, {example}"))
        elif name not in names:
            hint = did_you_mean(name, names)
            problems.append(Problem(f"--set {name}", f"is not measured{hint} (measured: {', '.join(names)})"))
    given = {name: table.get(name, {}) for name in names}
    if problems:
        raise RecipeError("i2ikit eval", problems)
    specs = {}
    for name in names:
        specs[name], found = check({"name": name, **given[name]}, name, METRIC_SLOT, Setting(size, 1))
        problems += found
        if size is not None:
            problems += size_problems(specs[name], name, size, f"the images' side of {size} px", advise=False)
    if problems:
        raise RecipeError("i2ikit eval", problems)
    return given, specs

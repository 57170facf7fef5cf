"""Evaluate a run: load its translator and its held-out data, run the metrics, write reports.

With several processes (torchrun), each measures its share of the inputs.
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

from i2ikit.checking import check, size_problems
from i2ikit.errors import I2IKitError, Problem, RecipeError, did_you_mean
from i2ikit.measured_data import MeasuredData, measured_data
from i2ikit.metrics.measuring import build_metrics, measure
from i2ikit.metrics.subject import METRIC_SLOT, Measured, Metric, Subject
from i2ikit.processes import processes
from i2ikit.recipe_text import overriding
from i2ikit.registry import Setting, Spec
from i2ikit.run import Run, open_run
from i2ikit.sampling import png
from i2ikit.translator import Direction
from i2ikit.writing import check_writable, replace_file, writing

__all__ = ["USUAL", "Finding", "evaluate"]

USUAL = ("lpips-diversity", "l1-diversity", "line-contrast", "style-health")
"""The metrics that are measured if none are named."""


@dataclass(frozen=True)
class Finding:
    """The result of one metric for a run.

    Args:
        direction: the direction of translation, such as "a2b".
        found: the measured values, or a sentence that says why there are none.
        path: path of the report; None if there is none.
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
    source: str | None = None,
    seed: int = 0,
    overrides: str | Sequence[str] = (),
    strict: bool = True,
    reuse: bool = False,
    data: str | Path | None = None,
    spare_validation: bool = False,
) -> Iterator[Finding]:
    """Measure a run; the report and the pictures of each metric are written to RUN/eval/.

    The file name contains the metric, the direction, the seed and every given option, so that reports
    with other options are kept; also "best" if the run was opened with its best weights, the name of other
    images, and "part=evaluation" for `spare_validation`. Held-out images that the run keeps for validation
    are not used. If the images differ from those that the run recorded in data.json, a note says so.

    Args:
        run: a run, or its folder.
        names: one or several metrics, as listed by `i2ikit list metrics`; None: the default ones, not strict.
        to: the domain to translate into.
        source: the domain of the inputs. If one or both are None, the translator's first direction that fits
            is used.
        seed: seed for choosing inputs, styles and pairs.
        overrides: one or several `metric.option=VALUE`.
        strict: raise if a metric cannot measure this run; otherwise its finding states the reason.
        reuse: reuse reports of the same weights, options and images (by names and sizes).
        data: measure the held-out images in this folder: a value for the dataset's option `root`.
        spare_validation: leave out the held-out images that a section [validation] would use, also if this
            recipe has none, to compare the run with one whose recipe has it.

    Yields:
        The finding of each metric as soon as it is done; in the main process only.

    Raises:
        RecipeError: an unknown metric or option.
        RunError: the run cannot be loaded, or does not translate in this direction; its dataset has no option
            `root`, or the images in `data` do not fit.
        DataError, WeightsError: a metric cannot measure this run (if strict).
    """
    run = open_run(run)
    names = [names] if isinstance(names, str) else names
    overrides = [overrides] if isinstance(overrides, str) else overrides
    strict = strict and names is not None
    with processes() as group:
        direction = run.direction(source, to)
        translator = run.translator.to(run.chosen_device or group.device)
        # Default metrics may not suit the images; measuring then reports it.
        size = run.images.size if strict else None
        given, specs = _check_metrics(USUAL if names is None else names, overrides, size)
        images = measured_data(run, direction, group, data, spare_validation=spare_validation)
        ending = images.suffix + "-best" * run.best
        paths = {
            name: run.folder / "eval" / f"{_stem(name, direction, seed, given[name])}{ending}.json"
            for name in specs
        }
        trained = {"step": run.step, "sha256": run.sha256}
        known: dict[str, Measured] = {}
        for name, spec in specs.items() if reuse else ():
            if report := _known(paths[name], spec, images, trained):
                known[name] = report
        if len(known) < len(specs):
            group.on_main(lambda: check_writable(run.folder / "eval"))  # measuring takes long
        built = build_metrics({name: spec for name, spec in specs.items() if name not in known}, group)
        if strict:
            _raise_first(built)
        subject = Subject(translator, images.data, direction, seed, group)
        for name in specs:
            found = known.get(name) or built[name]
            if isinstance(found, Metric):
                found = measure(found, dataclasses.replace(subject, title=name))
            if strict:
                _raise_first({name: found})
            if not group.is_main:
                continue
            if isinstance(found, I2IKitError):
                yield Finding(name, str(direction), f"not measured: {found}")
            else:
                if name not in known:
                    found = dataclasses.replace(found, notes=[*found.notes, *images.notes])
                    _keep(paths[name], name, specs[name], images, subject, found, trained)
                yield Finding(name, str(direction), found, paths[name])


def _raise_first(results: Mapping[str, object]) -> None:
    for result in results.values():
        if isinstance(result, I2IKitError):
            raise result


def _stem(name: str, direction: Direction, seed: int, given: Mapping[str, Any]) -> str:
    """`lpips-diversity-a2b-seed0-protocol=bicyclegan`; a path is shortened to its last part."""
    options = [f"{key}={str(value).rpartition('/')[2]}" for key, value in sorted(given.items())]
    text = "-".join([name, str(direction), f"seed{seed}", *options])
    return re.sub(r"[^\w.=+-]+", "_", text)[:200]


def _known(path: Path, spec: Spec, images: MeasuredData, trained: Mapping[str, Any]) -> Measured | None:
    """The values of an earlier report of the same weights, options, images and versions; None without one."""
    now = {"trained": trained, "options": spec.table(), "versions": _versions(), **_described(images)}
    try:
        report = json.loads(path.read_text("utf-8"))
        same = all(report[key] == json.loads(json.dumps(value)) for key, value in now.items())
        values = {str(k): math.nan if v is None else float(v) for k, v in report["values"].items()}
        notes = [str(note) for note in report["notes"]]
    except (OSError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        return None  # not measured yet, or damaged
    return Measured(values, {}, notes) if same else None


def _described(images: MeasuredData) -> dict[str, Any]:
    """What a report says of its images."""
    files = {domain: dataclasses.asdict(found) for domain, found in images.files.items()}
    return {"data": images.spec.table(), "files": files}


def _versions() -> dict[str, str]:
    return {package: version(package) for package in ("i2ikit", "torch", "torchvision", "lpips")}


def _keep(
    path: Path,
    name: str,
    spec: Spec,
    images: MeasuredData,
    subject: Subject,
    found: Measured,
    trained: Mapping[str, Any],
) -> None:
    report = {
        "metric": name,
        "direction": str(subject.direction),
        "trained": trained,
        "values": {k: v if math.isfinite(v) else None for k, v in found.values.items()},  # JSON has no NaN
        "notes": list(found.notes),
        "seed": subject.seed,
        "image_size": subject.data.images.size,
        "options": spec.table(),
        **found.facts,
        **_described(images),
        "processes": subject.group.count,
        "versions": _versions(),
        "measured": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    with writing(path.parent):
        path.parent.mkdir(exist_ok=True)
    replace_file(path, (json.dumps(report, indent=1) + "\n").encode())
    for sheet, picture in found.sheets.items():
        replace_file(path.with_name(f"{path.stem}-{sheet}.png"), png(picture))


def _check_metrics(
    names: Sequence[str], overrides: Sequence[str], size: int | None
) -> tuple[dict[str, dict[str, Any]], dict[str, Spec]]:
    """The given options of each metric, and the metrics with every option."""
    table, problems = overriding(overrides)
    for name, options in table.items():
        if not isinstance(options, dict) or "name" in options:
            example = "such as lpips-diversity.protocol=bicyclegan"
            problems.append(Problem(f"--set {name}", f"should be METRIC.OPTION=VALUE, {example}"))
        elif name not in names:
            hint = did_you_mean(name, names)
            problems.append(
                Problem(f"--set {name}", f"is not among the metrics measured{hint} ({', '.join(names)})")
            )
    given = {name: table.get(name, {}) for name in names}
    if problems:
        raise RecipeError("i2ikit eval", problems)
    specs = {}
    for name in names:
        specs[name], found = check({"name": name, **given[name]}, name, METRIC_SLOT, Setting(size, 1))
        problems += found
        if size is not None:
            problems += size_problems(specs[name], name, size, f"the image size of {size} px", advise=False)
    if problems:
        raise RecipeError("i2ikit eval", problems)
    return given, specs

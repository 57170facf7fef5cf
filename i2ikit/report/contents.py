"""What is on the page of a report, read from a run folder; what cannot be read is left out, or said."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from i2ikit.checkpoints import BEST_FILE
from i2ikit.data.record import SPLIT_WORDS, Record, kept_record
from i2ikit.errors import RunError
from i2ikit.metrics.tables import ValueTable, value_table
from i2ikit.report.curves import Chart, charts
from i2ikit.report.grids import Grid, grids
from i2ikit.report.recipe_differences import RecipeDifferences, recipe_differences
from i2ikit.resolved import RESOLVED, read_resolved
from i2ikit.sessions import SeenImages, Session, sessions
from i2ikit.status import Status, status
from i2ikit.translator import Direction
from i2ikit.weights_file import step_of

__all__ = ["Contents", "Evaluation", "Images", "contents"]

MOST_EVALUATIONS = 200
MOST_SESSIONS = 100
MOST_LETTERS = 200_000
MALFORMED = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What reading JSON with unexpected parts can raise."""


@dataclass(frozen=True)
class Evaluation:
    """A report of `i2ikit eval`.

    Args:
        title: metric and direction.
        about: the weights, the seed and other facts, in one line.
        table: of the values.
        notes: what qualifies them, such as bounds and protocols.
        file: its name in eval/.
    """

    title: str
    about: str
    table: ValueTable
    notes: Sequence[str]
    file: str


@dataclass(frozen=True)
class Images:
    """The images of one domain.

    Args:
        counts: their number, by split.
        checksums: the beginning of each of them, by what it is of.
    """

    domain: str
    counts: Mapping[str, int]
    checksums: Mapping[str, str]


@dataclass(frozen=True)
class Contents:
    """Everything on the page.

    Args:
        name: of the run folder.
        translator, data: their names in the recipe.
        status: how the run is going.
        grids: sample grids of each direction.
        charts: curves of the log.
        evaluations: the newest reports of `i2ikit eval`, the newest first.
        left_out: number of older files in eval/.
        differences: of the recipe.
        texts: recipe.toml and resolved.toml, by name, cut if they are very long.
        changes: what was changed on the way, one line for each.
        images: by domain.
        about_images: size, pairs and channels; damaged and changed images.
        sessions: the newest lines of sessions.jsonl, the newest first.
        versions: of the packages, when the run began.
        written: when.
    """

    name: str
    translator: str
    data: str
    status: Status
    grids: Sequence[Grid]
    charts: Sequence[Chart]
    evaluations: Sequence[Evaluation]
    left_out: int
    differences: RecipeDifferences
    texts: Mapping[str, str]
    changes: Sequence[str]
    images: Sequence[Images]
    about_images: Sequence[str]
    sessions: Sequence[Session]
    versions: Mapping[str, str]
    written: datetime.datetime


def contents(folder: Path, lines: Sequence[Mapping[str, Any]]) -> Contents:
    """Read a run folder.

    Args:
        lines: of its metrics.jsonl.

    Raises:
        RunError: its resolved.toml is damaged.
    """
    table, _ = read_resolved(folder)
    began = sessions(folder)
    record = _record(folder)
    measured = sorted(filter(Path.is_file, folder.glob("eval/*.json")), key=_changed, reverse=True)
    seen = began[-1].images if began else None
    return Contents(
        name=folder.resolve().name,
        translator=_name(table.get("translator")),
        data=_name(table.get("data")),
        status=status(folder, lines),
        grids=grids(folder, _first_direction(seen)),
        charts=charts(lines, step_of(folder / BEST_FILE)),
        evaluations=list(_evaluations(measured[:MOST_EVALUATIONS])),
        left_out=len(measured[MOST_EVALUATIONS:]),
        differences=recipe_differences(folder, table),
        texts={name: _text(folder / name) for name in ("recipe.toml", RESOLVED)},
        changes=[_change(change) for change in _tables(table.get("changes"))],
        images=_images(seen, record),
        about_images=list(_about_images(seen, record)),
        sessions=began[: -MOST_SESSIONS - 1 : -1],
        versions=next(_tables([table.get("versions")]), {}),
        written=datetime.datetime.now().astimezone(),
    )


def _first_direction(seen: SeenImages | None) -> str:
    """The direction of the samples whose names have none; earlier versions did not note the domains."""
    domains = [*seen.channels] if seen else []
    return str(Direction(*domains[:2])) if len(domains) > 1 else "first direction"


def _tables(found: object) -> Iterator[Mapping[str, Any]]:
    """Those of a list; earlier versions wrote no checksum, so that it may be anything."""
    return (one for one in found if isinstance(one, Mapping)) if isinstance(found, list) else iter(())


def _name(section: object) -> str:
    return str(section.get("name", "?")) if isinstance(section, Mapping) else str(section)


def _text(file: Path) -> str:
    text = file.read_text("utf-8", errors="replace") if file.is_file() else ""
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}\n…"


def _change(change: Mapping[str, Any]) -> str:
    key, before, after = (change.get(name, "none") for name in ("key", "before", "after"))
    return f"after step {change.get('step')}: {key}: {before} → {after}"


def _record(folder: Path) -> Record | None:
    try:
        return kept_record(folder)
    except RunError:  # damaged; the other parts of the page are worth having
        return None


def _images(seen: SeenImages | None, record: Record | None) -> list[Images]:
    seen_counts = seen.counts if seen else {}
    counted = {domain: dict(zip(SPLIT_WORDS, counts, strict=True)) for domain, counts in seen_counts.items()}
    listed = {split: getattr(record, split) for split in SPLIT_WORDS} if record else {}
    for split, domains in listed.items():
        for domain, files in domains.items():
            counted.setdefault(domain, {})[split] = files.files
    checksums: dict[str, dict[str, str]] = {domain: {} for domain in counted}
    for split, domains in listed.items():
        for domain, files in domains.items():
            checksums[domain][f"names and sizes of {SPLIT_WORDS[split]} files"] = files.sha256[:12]
    for domain, checksum in seen.pixels.items() if seen else ():
        checksums.setdefault(domain, {})["pixels of held-out images"] = checksum[:12]
    return [Images(domain, counts, checksums[domain]) for domain, counts in counted.items()]


def _about_images(seen: SeenImages | None, record: Record | None) -> Iterator[str]:
    if seen:
        channels = ", ".join(f"{domain}: {count}" for domain, count in seen.channels.items())
        pairs = "pairs" if seen.paired else "unpaired"
        yield f"{seen.size} px, {pairs}; channels {channels}"
    for domain, names in record.damaged.items() if record else ():
        if names:
            some = ", ".join([*names][:5])
            yield f"{len(names)} damaged training images of {domain} are replaced: {some}"
    if record and record.changes:
        times = "once" if len(record.changes) == 1 else f"{len(record.changes)} times"
        yield f"when the run was resumed, its images had changed {times}"


def _changed(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:  # a broken link, or removed since
        return 0.0


def _evaluations(files: Sequence[Path]) -> Iterator[Evaluation]:
    for file in files:
        try:
            found = json.loads(file.read_text("utf-8"))
            values = {str(k): math.nan if x is None else float(x) for k, x in found["values"].items()}
            title = f"{found['metric']}, {found['direction']}"
            trained = found["trained"]
            about = (
                f"step {trained['step']}, weights {trained['sha256'][:12]}, seed {found['seed']}, "
                f"{found['image_size']} px, measured {found['measured']}"
            )
            notes = [str(note) for note in found["notes"]]
        except (OSError, *MALFORMED):
            continue  # damaged, or of an earlier version
        yield Evaluation(title, about, value_table(values), notes, file.name)

"""The images on which a run is measured: its own held-out images, or those of another folder."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from i2ikit.data.dataset import Dataset
from i2ikit.data.held_out import HeldOutPart
from i2ikit.data.record import DATA_FILE, Listed, changed_files, kept_record, listed
from i2ikit.data.survey import survey
from i2ikit.errors import RunError
from i2ikit.processes import Processes
from i2ikit.registry import Spec
from i2ikit.run import Run
from i2ikit.translator import Direction

__all__ = ["MeasuredData", "measured_data"]


@dataclass(frozen=True)
class MeasuredData:
    """The images on which a run is measured.

    Args:
        spec: the dataset.
        data: its held-out images, without those that the run used for validation, or would have used.
        files: the files of each domain; empty if the dataset has none, such as one that streams.
        suffix: for the names of reports; empty for the images on which a run is measured by default.
        notes: what is to be known of these images besides.
    """

    spec: Spec
    data: Dataset
    files: Mapping[str, Listed]
    suffix: str
    notes: tuple[str, ...]


def measured_data(
    run: Run,
    direction: Direction,
    group: Processes,
    root: str | Path | None = None,
    *,
    spare_validation: bool = False,
) -> MeasuredData:
    """The images for a direction of translation: the run's own, or those of the dataset with another `root`.

    Args:
        spare_validation: as for `Run.evaluation_data`; without effect on images that are not the run's own.

    Raises:
        RunError: the dataset has no option `root`, or these images do not fit the run.
        DataError: a folder is missing or contains no image; images elsewhere are damaged (lists all of them).
    """
    spec = run.data if root is None else run.data_at(root)
    own = spec == run.data
    with group.first_on_each_machine():  # may render images
        whole: Dataset = run.dataset() if own else spec()
    _check_fit(run, whole, spec, direction)
    files: dict[str, Listed] = group.on_main(lambda: listed(whole, "test", direction))
    if not own:  # training has checked its own images
        group.on_main(lambda: survey(whole, False, lambda text: None, ["test"], direction))
    changes = _changes(run, files)
    same = own or not changes  # a copy of the run's images counts as its own
    divided = same and (run.validated or spare_validation)
    data = HeldOutPart(whole, "evaluation") if divided else whole
    suffix = "" if own else _suffix(spec.options["root"])
    if divided and not run.validated:
        suffix += "-part=evaluation"
    notes = changes if own else [_elsewhere(spec, bool(files) and same)]
    return MeasuredData(spec, data, files, suffix, (*notes, *_kept_back(run, data, direction)))


def _check_fit(run: Run, data: Dataset, spec: Spec, direction: Direction) -> None:
    """Check that the images have the domains, channels and size of the run.

    Raises:
        RunError: they have not.
    """
    wanted, found = run.images, data.images
    if found.size != wanted.size or any(
        found.channels.get(domain) != wanted.channels[domain] for domain in direction
    ):
        raise RunError(
            f"the images of {spec.options.get('root', spec.name)} do not fit {run.folder}: they have "
            f"{_described(found.channels)} and {found.size} px, but the run translates "
            f"{_described({domain: wanted.channels[domain] for domain in direction})} at {wanted.size} px"
        )


def _described(channels: Mapping[str, int]) -> str:
    return ", ".join(
        f"domain {domain} ({count} channel{'s' * (count > 1)})" for domain, count in channels.items()
    )


def _changes(run: Run, files: Mapping[str, Listed]) -> list[str]:
    """How these files differ from those that the run recorded, as notes."""
    if not files:
        return []
    try:
        record = kept_record(run.folder)
    except RunError as error:
        return [str(error)]
    if record is None:
        return [f"This run has no {DATA_FILE}, so it is not known whether these are still its images."]
    then = {domain: found for domain, found in record.test.items() if domain in files}
    return changed_files("test", then, files)


def _elsewhere(spec: Spec, same: bool) -> str:
    equal = ", which has the run's held-out images (by names and sizes)" if same else ""
    return f"Measured on {spec.options['root']}{equal}."


def _suffix(root: str) -> str:
    """The last part of a path, and a few digits that tell it from others that end equally."""
    name = re.sub(r"[^\w.=+-]+", "_", Path(root).name)[:40]
    return f"-data={name}-{hashlib.sha256(root.encode()).hexdigest()[:8]}"


def _kept_back(run: Run, data: Dataset, direction: Direction) -> Iterator[str]:
    """A note on the held-out images that are left out, if any are."""
    if not isinstance(data, HeldOutPart):
        return
    totals = {domain: data.whole.count("test", domain) for domain in direction}
    counts = " and ".join(
        f"{total - data.count('test', domain)} of {total} held-out images of domain {domain}"
        for domain, total in totals.items()
    )
    if run.validated:
        yield f"This run keeps {counts} for validation; they are not measured here."
    else:
        yield f"Not measured here: {counts}, because another run used them for validation."

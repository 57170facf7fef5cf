"""The images of a run, checked before training begins, and the record of what they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from i2ikit.checkpoints import newest_checkpoint
from i2ikit.data.dataset import Dataset
from i2ikit.data.record import DATA_FILE, Record, differences, kept_record, record_of, write_record
from i2ikit.data.replacing import Replacing
from i2ikit.data.survey import survey
from i2ikit.errors import RunError
from i2ikit.paths import pasted
from i2ikit.processes import Processes
from i2ikit.recipe import Recipe

__all__ = ["checked", "keep_record"]


def checked(
    recipe: Recipe, data: Dataset, group: Processes, console: Console, run: Path | None = None
) -> tuple[Dataset, Record | None]:
    """Check every image in the main process; the data without damaged training images, and its record.

    Args:
        run: a run folder with the record of the images that are expected.

    Raises:
        DataError: images are damaged.
        RunError: they are not the ones of this run.
    """

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, highlight=False, markup=False)

    def check() -> tuple[Mapping[str, Mapping[int, str]], Record | None]:
        then, now = kept_record(run) if run else None, record_of(data)
        if run and then and now:  # first without a scan, which may take long
            _check_same(run, then, dataclasses.replace(now, damaged=then.damaged))
        damaged = survey(data, recipe.training.damaged_images == "skip", say)
        if now is not None:
            now = dataclasses.replace(now, damaged=_by_name(data, damaged))
        if run and then and now:
            _check_same(run, then, now)
        if run and now and not then:
            say(f"note: this run had no {DATA_FILE}; the images that are there now are recorded in it")
        return damaged, now

    damaged, record = group.on_main(check)
    return Replacing(data, damaged) if damaged else data, record


def _by_name(data: Dataset, damaged: Mapping[str, Mapping[int, str]]) -> dict[str, dict[str, str]]:
    """What is wrong with damaged training images, by domain and name."""
    return {
        domain: {data.name("train", domain, index): text for index, text in found.items()}
        for domain, found in damaged.items()
    }


def _check_same(run: Path, then: Record, now: Record) -> None:
    """Check that the images are those with which the run began.

    Raises:
        RunError: they are not.
    """
    if found := differences(then, now):
        listed = "\n".join(f"  {text}" for text in found)
        raise RunError(
            f"{run}: its images have changed.\n{listed}\nRestore them, or continue with the ones that are "
            f"there now: {pasted('i2ikit', 'resume', run)} --data-changed"
        )


def keep_record(folder: Path, now: Record) -> None:
    """Write the record; one of other images becomes a change of the run."""
    try:
        then = kept_record(folder)
    except RunError:  # the images may differ: data_changed was given
        then = None
    changes = [*then.changes] if then else []
    if then and differences(then, now):
        newest = newest_checkpoint(folder)
        step = 0 if newest is None else int(newest.name.removeprefix("step-"))
        before = dataclasses.asdict(then)
        del before["changes"]
        changes.append({"step": step, "before": before})
    write_record(folder, dataclasses.replace(now, changes=changes))

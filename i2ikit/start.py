"""Start or resume a run: open its data, create its folder, and train."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from i2ikit.changes import changed_recipe, record
from i2ikit.checked_data import checked, keep_record
from i2ikit.checking import Table
from i2ikit.checkpoints import BEST_FILE
from i2ikit.data.dataset import SPLITS, Dataset, Filed, Remarking
from i2ikit.data.record import Record
from i2ikit.errors import RecipeError, RunError
from i2ikit.initial_weights import find_weights, matching_weights
from i2ikit.loop import Stopped
from i2ikit.loop import train as run_training
from i2ikit.metrics.style import DiversityProbe
from i2ikit.paths import pasted
from i2ikit.processes import Processes, processes
from i2ikit.recipe import Recipe, image_problems, load_recipe
from i2ikit.report import write_report
from i2ikit.resolved import RESOLVED, WITHOUT_CHECKSUM, read_resolved
from i2ikit.run import Run, create_run, find_run, open_run
from i2ikit.run_lock import reserved
from i2ikit.terminal import lasting_output
from i2ikit.training import new_translator
from i2ikit.translator import Tensors
from i2ikit.validation import Validator, metric_size_problems
from i2ikit.writing import check_name

__all__ = ["resume", "resume_in", "train", "train_in"]


def train(
    recipe: Recipe | str | Path,
    out: str | Path | None = None,
    *,
    weights_from: Run | str | Path | None = None,
    console: Console | None = None,
) -> Run:
    """Train a recipe in a new run folder; Ctrl-C saves and stops.

    Args:
        recipe: a recipe from `load_recipe`, or its argument: a name or a file.
        out: the run folder; runs/<recipe>-<time> if not given.
        weights_from: a run, or its weights.safetensors or best.safetensors: each network whose tensors have
            the same names and shapes there starts with its weights, the others start fresh. Of a run, the
            newest checkpoint is used if there is one, because it has all networks.
        console: for progress output; `Console(quiet=True)` is silent.

    Returns:
        The run, trained to its end or until it was stopped; `resume` continues it.

    Raises:
        RunError: the folder already exists, or no network fits the weights of `weights_from`.
        DataError: images cannot be read (lists all), or there are too few for [validation].
        WeightsError: a metric of [validation] needs weights that are not available.
        TrainingError: gradients stay non-finite.
    """
    console = console or Console()
    with lasting_output(console), processes() as group:
        recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, processes=group.count)
        start = _path(weights_from)
        folder, _ = train_in(group, recipe, None if out is None else Path(out), console, start)
    return Run(folder)


def resume(
    run: Run | str | Path | None = None,
    overrides: str | Sequence[str] = (),
    *,
    data_changed: bool = False,
    console: Console | None = None,
) -> Run:
    """Continue from the newest checkpoint, or start again if none has been saved.

    The result is the same as without the interruption, unless `overrides` change it.

    Args:
        run: as for `load`; the newest run below ./runs if not given.
        overrides: one or several `key.path=VALUE` of the recipe, from now on: lengths and intervals of
            [training], learning rates (`optimizer.lr`, `optimizer.ROLE.lr`), data.root of moved images.
        data_changed: continue with other images than those at the start of the run.

    Raises:
        RunError: there is no such run, its checkpoints are damaged, or its images have changed.
        RecipeError: a key may not change.
        DataError: images cannot be read; lists all.
    """
    found = open_run(run)
    console = console or Console()
    with lasting_output(console), processes() as group:
        resume_in(group, found.folder, console, overrides, data_changed)
    return Run(found.folder, found.chosen_device)


def _path(run: Run | str | Path | None) -> Path | None:
    """The folder of a run, or the file of its best weights if it was opened with them."""
    if isinstance(run, Run):
        return run.folder / BEST_FILE if run.best else run.folder
    return None if run is None else Path(run)


def train_in(
    group: Processes, recipe: Recipe, out: Path | None, console: Console, weights_from: Path | None = None
) -> tuple[Path, Stopped]:
    """`train` in all processes of a group; returns the folder, and how training ended."""
    recipe = _in_one_precision(recipe, group)
    data, images = checked(recipe, _open(recipe, group), group, console)
    validator = _validator(recipe, data, group)
    if validator is not None:
        _check_validation(recipe, data, validator, group)
    initial, records = None, {}
    if weights_from is not None:
        source = group.on_main(lambda: find_weights(weights_from))
        initial = matching_weights(source, dict(new_translator(recipe, data.images).networks))
        recipe = dataclasses.replace(recipe, notes=(*recipe.notes, str(initial)))
        records["weights_from"] = initial.record()
    folder = group.on_main(lambda: create_run(out, recipe, **records))
    tensors = None if initial is None else initial.tensors
    return folder, _train(
        group, recipe, data, folder, validator, console, images, resume=False, initial=tensors
    )


def _in_one_precision(recipe: Recipe, group: Processes) -> Recipe:
    """The recipe in the precision of the first process: "auto" may mean another on another machine."""
    precision = group.on_main(lambda: recipe.training.precision)
    training = recipe.training.model_copy(update={"precision": precision})
    return dataclasses.replace(recipe, training=training)


def resume_in(
    group: Processes,
    run: Path | None,
    console: Console,
    overrides: str | Sequence[str] = (),
    data_changed: bool = False,
) -> tuple[Path, Stopped]:
    """`resume` in all processes of a group; returns the folder, and how training ended."""
    folder = group.on_main(lambda: find_run(run))
    check_name(folder)
    table, has_checksum = group.on_main(lambda: read_resolved(folder))
    group.on_main(lambda: _check_started(folder, table))
    recipe, changes = changed_recipe(folder, table, overrides, group.count)
    notes = [] if has_checksum else [f"{folder / RESOLVED} {WITHOUT_CHECKSUM}"]
    notes += [f"from now on, {change}" for change in changes]
    recipe = dataclasses.replace(recipe, notes=(*recipe.notes, *notes))
    of_run = None if data_changed else folder
    data, images = checked(recipe, _open(recipe, group), group, console, of_run)
    validator = _validator(recipe, data, group)

    def begun(step: int) -> None:
        if changes and group.is_main:
            record(folder, table, recipe, changes, step)

    return folder, _train(group, recipe, data, folder, validator, console, images, resume=True, begun=begun)


def _check_started(folder: Path, table: Table) -> None:
    """Check that a run that begins with the weights of another one has saved them.

    Raises:
        RunError: it has not, so that it would begin with random weights.
    """
    if "weights_from" in table and not any(folder.glob("checkpoints/step-*")):
        again = pasted("i2ikit", "run", folder / RESOLVED, "--weights-from", table["weights_from"]["run"])
        raise RunError(
            f"{folder} was stopped before the weights that it starts from were saved; start it again: {again}"
        )


def _open(recipe: Recipe, group: Processes) -> Dataset:
    """Open the dataset, on each machine first in one process, because it may render images.

    Raises:
        RecipeError: the translator or a metric does not accept the images; their size may be known only now.
    """
    with group.first_on_each_machine():
        dataset: Dataset = recipe.data()
    if isinstance(dataset, Filed):  # all processes list the same files, before the first of them checks these
        for split, domain in itertools.product(SPLITS, dataset.images.channels):
            dataset.files(split, domain)
    images = dataset.images
    problems = image_problems(recipe.data, recipe.translator, images.size, images.channels)
    if recipe.validation is not None:
        problems += metric_size_problems(recipe.validation, images.size)
    if problems:
        raise RecipeError(str(recipe.source), problems)
    return dataset


def _validator(recipe: Recipe, data: Dataset, group: Processes) -> Validator | None:
    section = recipe.validation
    return None if section is None else Validator(section, data, recipe.seed, group)


def _check_validation(recipe: Recipe, data: Dataset, validator: Validator, group: Processes) -> None:
    """Check that each metric can measure the initial weights, before there is a run folder.

    Raises:
        RecipeError: one cannot.
    """
    translator = new_translator(recipe, data.images).to(group.device).eval()
    if problems := validator.problems(translator):
        raise RecipeError(str(recipe.source), problems)


def _train(
    group: Processes,
    recipe: Recipe,
    data: Dataset,
    folder: Path,
    validator: Validator | None,
    console: Console,
    images: Record | None,
    *,
    resume: bool,
    begun: Callable[[int], None] = lambda step: None,
    initial: Tensors | None = None,
) -> Stopped:
    if group.is_main:
        _announce(recipe, data, folder, group, console)
    probe = DiversityProbe(data, recipe.seed)
    with reserved(folder, group):
        if images is not None:
            group.on_main(lambda: keep_record(folder, images))
        stopped = run_training(
            recipe,
            data,
            folder,
            resume=resume,
            probe=probe,
            validator=validator,
            console=console,
            begun=begun,
            initial=initial,
            report=lambda: write_report(folder),
        )
        if group.is_main:
            write_report(folder)
    if stopped.wrong:
        lines = "".join(f"\n  {escape(line)}" for line in stopped.wrong)
        console.print(f"[yellow]warning:[/] this run went wrong:{lines}", highlight=False, soft_wrap=True)
    return stopped


def _announce(recipe: Recipe, data: Dataset, folder: Path, group: Processes, console: Console) -> None:
    """Print a summary of the run, and where to find its samples."""
    remarks = data.remarks() if isinstance(data, Remarking) else ()
    for note in (*recipe.notes, *remarks):
        console.print(f"[yellow]note:[/] {escape(note)}", highlight=False, soft_wrap=True)
    counts = ", ".join(
        f"{data.count('train', d)} + {data.count('test', d)} held out ({d})" for d in data.images.channels
    )
    options = recipe.training
    cut = f", in {options.accumulation} micro-batches" if options.accumulation > 1 else ""
    console.print(
        f"[bold]{recipe.translator.name}[/] on [bold]{recipe.data.name}[/] at {data.images.size} px: "
        f"{counts}\n"
        f"{options.steps} steps of {options.batch_size} images per domain{cut}, {options.precision}, "
        f"seed {recipe.seed}, {group}\n"
        f"Run folder: [bold]{escape(str(folder))}[/] "
        "(samples appear in samples/; Ctrl-C saves and stops)",
        highlight=False,
        soft_wrap=True,
    )

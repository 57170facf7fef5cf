"""Start a run, or go on with one: its folder, its images, what watches it, and training."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from i2ikit.data.dataset import Dataset
from i2ikit.errors import RecipeError
from i2ikit.loop import Stopped
from i2ikit.loop import train as run_training
from i2ikit.metrics.style import DiversityProbe
from i2ikit.processes import Processes, processes
from i2ikit.recipe import Recipe, image_problems, load_recipe
from i2ikit.run import RESOLVED, Run, create_run, find_run, load

__all__ = ["resume", "resume_in", "train", "train_in"]


def train(
    recipe: Recipe | str | Path, out: str | Path | None = None, *, console: Console | None = None
) -> Run:
    """Train what a recipe describes, in a new run folder; Ctrl-C saves and stops.

    Args:
        recipe: as from `load_recipe`, or what that takes: a name or a file.
        out: the run folder; runs/<recipe>-<time> if not given.
        console: where it says how it goes; `Console(quiet=True)` is silent.

    Returns:
        The run, trained to its end or to where it was stopped; `resume` goes on.

    Raises:
        RunError: the folder is there already.
        DataError: an image cannot be read.
        TrainingError: gradients stay non-finite.
    """
    with processes() as group:
        recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, processes=group.count)
        folder, _ = train_in(group, recipe, None if out is None else Path(out), console or Console())
    return Run(folder)


def resume(run: Run | str | Path | None = None, *, console: Console | None = None) -> Run:
    """Go on from the newest checkpoint, so that the end is the same as without a stop.

    Args:
        run: as `load` takes it; the newest below ./runs if not given.

    Raises:
        RunError: there is no such run, or no checkpoint in it.
    """
    found = load(run)
    with processes() as group:
        resume_in(group, found.folder, console or Console())
    return Run(found.folder, found.chosen_device)


def train_in(group: Processes, recipe: Recipe, out: Path | None, console: Console) -> tuple[Path, Stopped]:
    """`train`, by all processes of a group; the folder, and how training ended."""
    data = _open(recipe, group)
    folder = group.on_main(lambda: create_run(out, recipe))
    return folder, _train(group, recipe, data, folder, console, resume=False)


def resume_in(group: Processes, run: Path | None, console: Console) -> tuple[Path, Stopped]:
    """`resume`, by all processes of a group; the folder, and how training ended."""
    folder = group.on_main(lambda: find_run(run))
    recipe = load_recipe(folder / RESOLVED, processes=group.count)
    return folder, _train(group, recipe, _open(recipe, group), folder, console, resume=True)


def _open(recipe: Recipe, group: Processes) -> Dataset:
    """The dataset, which may have to render images first: one process of each machine does.

    Raises:
        RecipeError: its images, which it need not describe before, have a size that does not suit a network.
    """
    with group.first_on_each_machine():
        dataset: Dataset = recipe.data()
    if problems := image_problems(recipe.data, recipe.translator, dataset.images.size):
        raise RecipeError(str(recipe.source), problems)
    return dataset


def _train(
    group: Processes, recipe: Recipe, data: Dataset, folder: Path, console: Console, *, resume: bool
) -> Stopped:
    if group.is_main:
        _announce(recipe, data, folder, group, console)
    probe = DiversityProbe(data, recipe.seed)
    return run_training(recipe, data, folder, resume=resume, probe=probe, console=console)


def _announce(recipe: Recipe, data: Dataset, folder: Path, group: Processes, console: Console) -> None:
    """What is about to happen, and where to look meanwhile."""
    for note in recipe.notes:
        console.print(f"[yellow]note:[/] {escape(note)}", highlight=False, soft_wrap=True)
    counts = ", ".join(f"{data.count('train', d)} + {data.count('test', d)} held out ({d})" for d in "ab")
    options = recipe.training
    cut = f", in {options.accumulation} micro-batches" if options.accumulation > 1 else ""
    console.print(
        f"[bold]{recipe.translator.name}[/] on [bold]{recipe.data.name}[/] at {data.images.size} px: "
        f"{counts}\n"
        f"{options.steps} steps of {options.batch_size} images per domain{cut}, {options.precision}, "
        f"seed {recipe.seed}, {group}\n"
        f"Run folder: [bold]{escape(str(folder))}[/] "
        "(look at samples/ while you wait; Ctrl-C saves and stops)",
        highlight=False,
        soft_wrap=True,
    )

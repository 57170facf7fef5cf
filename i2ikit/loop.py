"""The training loop: runs the steps; logs, validates and saves at their intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from i2ikit.checkpoints import Newest, load_checkpoint, prune, usable_checkpoint
from i2ikit.data.batches import shares, training_batches
from i2ikit.data.dataset import Dataset
from i2ikit.errors import RunError
from i2ikit.interruptions import FAILED, Interruptions
from i2ikit.processes import Processes, processes
from i2ikit.recipe import Recipe
from i2ikit.runlog import RunLog, logged
from i2ikit.sessions import add_session
from i2ikit.state import TrainingState, load_some
from i2ikit.terminal import write_at_once
from i2ikit.trackers import Trackers
from i2ikit.training import (
    build,
    compile_networks,
    counted_draw,
    cut_batch,
    new_accelerator,
    new_translator,
    own_random_numbers,
    train_step,
    update_ema,
)
from i2ikit.training_run import Probe, TrainingRun, due
from i2ikit.translator import Tensors
from i2ikit.validation import Validator
from i2ikit.verdict import verdict
from i2ikit.writing import writing

__all__ = ["Probe", "Stopped", "train"]


@dataclass(frozen=True)
class Stopped:
    """How training ended.

    Args:
        step: number of steps done.
        signal: the signal that ended it, if any.
        wrong: what shows that the run went wrong, and what to try; empty if nothing does, after a signal,
            and in other processes than the main one.
    """

    step: int
    signal: int | None = None
    wrong: Sequence[str] = ()


def train(
    recipe: Recipe,
    data: Dataset,
    folder: Path,
    *,
    resume: bool = False,
    probe: Probe | None = None,
    validator: Validator | None = None,
    console: Console,
    begun: Callable[[int], None] = lambda step: None,
    initial: Tensors | None = None,
    report: Callable[[], object] = lambda: None,
) -> Stopped:
    """Train in a run folder, from the start, or from its newest checkpoint if it has one.

    Saves samples, checkpoints and weights at their intervals; SIGINT, SIGTERM and SIGHUP save and stop. An
    error between two steps also saves the last finished one; a note of the error says what is saved. All
    processes train; only the main process writes files and prints.

    Args:
        folder: the main process writes here; the others read checkpoints from it when resuming.
        probe: called whenever samples are written; its values are logged, its remarks printed.
        validator: measures the averaged weights at its own interval, and may end training early.
        begun: called once when the first step of this command is done, or if none is left, with the number of
            steps before it.
        initial: tensors of the networks to start from, by `role.name`; the others keep their initial values.
        report: called in the main process after each sample but the last, which the verdict follows.
    """
    with processes() as group:
        return _train(recipe, data, folder, resume, probe, validator, console, begun, initial, report, group)


def _train(
    recipe: Recipe,
    data: Dataset,
    folder: Path,
    resume: bool,
    probe: Probe | None,
    validator: Validator | None,
    console: Console,
    begun: Callable[[int], None],
    initial: Tensors | None,
    report: Callable[[], object],
    group: Processes,
) -> Stopped:
    """`train` in its group; a separate function, so that its locals are freed before the group ends."""
    options = recipe.training
    accelerator = new_accelerator(options.precision)
    translator = new_translator(recipe, data.images)
    if initial is not None:
        load_some(translator, initial)
    cut = shares(options.batch_size, translator.batch_parts, options.accumulation, group.count)
    places = [share[group.rank] for share in cut]  # in the batch, of this process's images, by micro-batch
    whole = [place for share in places for place in share]
    state = build(translator, recipe.optimizers, accelerator, options.steps, whole, options.batch_size)
    newest = group.on_main(lambda: usable_checkpoint(folder, state)) if resume else Newest()
    first = 0 if newest.path is None else load_checkpoint(newest.path, state, group)
    if first > options.steps:
        raise RunError(
            f"{folder} has done {first} steps; training.steps = {options.steps} is less; give more"
        )
    group.on_main(lambda: _tidy(folder, newest, options.keep, state))
    if group.is_main and first < options.steps:
        add_session(folder, first, options.precision, data, group)
    # Before the progress bar: some ask for a login, or print where they are.
    trackers = Trackers(options.trackers if group.is_main else (), folder, first, recipe.flat())
    with RunLog(folder if group.is_main else None, first, options.steps, console) as log:
        for note in newest.notes:
            log.say(note)
        if options.compile:
            log.say("training.compile: the networks are compiled; the first step takes minutes")
            compile_networks(translator, accelerator.device)
        run = TrainingRun(
            recipe,
            data,
            folder,
            group,
            state,
            probe,
            validator,
            log,
            trackers,
            report,
            done=first,
            saved=first,
            stops=Interruptions(write_at_once) if group.is_main and not console.quiet else Interruptions(),
        )
        with (
            run.stops.listening(),
            own_random_numbers(accelerator.device),
            run.saving_after_errors(),
            trackers.closing(log.say),
        ):
            if initial is not None:
                run.save()  # so that resuming needs no other run
            if newest.path is not None:
                run.restore_weights()
            number = _loop(run, places, begun)
    if number is not None:
        return Stopped(run.done, number)
    wrong: Sequence[str] = ()
    if group.is_main:
        wrong = verdict(recipe, state.ema, data, logged(folder), run.done, state.skips)
        for line in wrong:
            log.write({"step": run.done, "remark": line})
    return Stopped(run.done, wrong=wrong)


def _loop(run: TrainingRun, places: Sequence[Sequence[int]], begun: Callable[[int], None]) -> int | None:
    """Train to the end; returns the signal that ended training earlier, if any."""
    recipe, options, first = run.recipe, run.recipe.training, run.done
    _catch_up(run)
    if first == options.steps:
        with run.stops.noted():
            begun(first)
    # Only these are read here: a process never decodes the images of another's share.
    batches = training_batches(
        run.data, recipe.seed, first, options.steps, options.batch_size, run.state.places, options.workers
    )
    while True:
        if not run.is_over and not run.stops.code:
            with run.stops.noted():
                batch = _on_device(next(batches), run.state.accelerator.device)
        # Here all processes learn of a signal or an error in one of them, and stop after the same step.
        number = run.group.most(run.stops.code)
        if number or run.is_over:
            break
        run.is_between_steps = False
        _step(run, batch, places)
        run.done += 1
        run.is_between_steps = True
        run.log.advance(run.done)
        if run.done == first + 1:
            with run.stops.noted():
                begun(first)
        _after_step(run)
    if number:
        _stop(run, number)
    if run.ends_early and run.validator is not None:
        with run.stops.noted():
            run.log.remark(run.done, run.validator.summary(run.state.validation))
    return None if run.is_over else number


def _on_device(batch: Tensors, device: torch.device) -> Tensors:
    """The batch on a device; copied to a GPU while that still computes the step before."""
    if device.type != "cuda":
        return {d: x.to(device) for d, x in batch.items()}
    return {d: x.pin_memory().to(device, non_blocking=True) for d, x in batch.items()}


def _step(run: TrainingRun, batch: Tensors, places: Sequence[Sequence[int]]) -> None:
    """One update of all networks, and of their averages."""
    recipe, options, state, step = run.recipe, run.recipe.training, run.state, run.done
    skips = state.skips
    micro_batches = cut_batch(batch, places, options.batch_size, run.group.count)
    losses = train_step(state, step, micro_batches, counted_draw(recipe.seed, step, state.accelerator.device))
    if state.skips > skips:
        with run.stops.noted():
            run.log.remark(step, "gradients or running statistics were not finite; the update was skipped")
    update_ema(state.ema, state.translator, options.ema, step)
    state.losses.add(losses)


def _after_step(run: TrainingRun) -> None:
    """Validate, log, save and make samples, each if it is due."""
    options, step = run.recipe.training, run.done
    if run.must_validate() and not run.validate():  # before the checkpoint, which keeps its result
        return
    if run.is_over or step % options.log_every == 0:
        run.log_losses()
    if run.is_over or due(step, options.checkpoint_every):
        run.save()  # before the samples, which may take long
    if run.is_over or due(step, options.sample_every):
        run.look()


def _catch_up(run: TrainingRun) -> None:
    """Do what was due after the last step of the checkpoint, but has been lost by a kill or an error.

    The log leaves out lines that it already has.
    """
    options, step = run.recipe.training, run.done
    if run.state.validated < step and run.must_validate() and not run.validate():
        return
    if not run.state.losses.is_logged and (run.is_over or step % options.log_every == 0):
        run.log_losses()
    if (run.is_over or due(step, options.sample_every)) and not (step and run.has_samples()):
        run.look()


def _stop(run: TrainingRun, number: int) -> None:
    """Save the last finished step after a signal, or after an error in one process, which is then raised."""
    if run.done > run.saved:
        with run.stops.noted():  # if it is not finite, that is raised in all processes
            run.save()
    if number != FAILED and run.group.is_main and not run.has_samples():
        with run.stops.noted():
            run.write_samples()
    if run.stops.error is not None:
        raise run.stops.error
    if run.group.most(run.stops.code) == FAILED:
        run.group.wait_for_the_end()


def _tidy(folder: Path, newest: Newest, keep: int, state: TrainingState) -> None:
    """Remove what a kill left: parts of files, and older checkpoints that were about to be removed."""
    with writing(folder):
        for file in (*folder.glob(".*.tmp"), *folder.glob("samples/.*.tmp")):
            file.unlink()
        if newest.path is not None and not newest.damaged:  # damaged ones stay until the next checkpoint
            prune(newest.path, keep, state)

"""The training loop: runs the steps; logs, validates and saves at their intervals."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from i2ikit.checkpoints import (
    BEST_FILE,
    WEIGHTS_FILE,
    Newest,
    check_finite,
    load_checkpoint,
    save_checkpoint,
    save_weights,
    usable_checkpoint,
)
from i2ikit.data.batches import shares, training_batches
from i2ikit.data.dataset import Dataset
from i2ikit.errors import RunError
from i2ikit.processes import Processes, processes
from i2ikit.recipe import Recipe
from i2ikit.runlog import RunLog, logged
from i2ikit.sampling import save_samples
from i2ikit.state import TrainingState, load_some
from i2ikit.training import (
    build,
    counted_draw,
    cut_batch,
    new_accelerator,
    new_translator,
    own_random_numbers,
    train_step,
    update_ema,
)
from i2ikit.translator import Tensors, Translator
from i2ikit.validation import Validator
from i2ikit.verdict import verdict
from i2ikit.weights_file import read_weights

__all__ = ["Probe", "Stopped", "train"]

Probe = Callable[[Translator], tuple[Mapping[str, float], Sequence[str]]]
"""Called with the EMA weights whenever samples are written; returns values for the log, and remarks."""


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
) -> Stopped:
    """Train in a run folder, from the start, or from its newest checkpoint if it has one.

    Saves samples, checkpoints and weights at their intervals; SIGINT and SIGTERM save and stop. All
    processes train; only the main process writes files and prints.

    Args:
        folder: the main process writes here; the others read checkpoints from it when resuming.
        probe: called whenever samples are written; its values are logged, its remarks printed.
        validator: measures the averaged weights at its own interval, and may end training early.
        begun: called once when the first step of this command is done, or if none is left, with the number of
            steps before it.
        initial: tensors of the networks to start from, by `role.name`; the others keep their initial values.

    """
    with processes() as group:
        return _train(recipe, data, folder, resume, probe, validator, console, begun, initial, group)


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
    group: Processes,
) -> Stopped:
    """`train` in its group; a separate function, so that its locals are freed before the group ends."""
    options = recipe.training
    accelerator = new_accelerator(options.precision, folder)
    translator = new_translator(recipe, data.images)
    if initial is not None:
        load_some(translator, initial)
    cut = shares(options.batch_size, translator.batch_parts, options.accumulation, group.count)
    places = [share[group.rank] for share in cut]
    whole = [place for share in places for place in share]
    state = build(translator, recipe.optimizers, accelerator, options.steps, whole, options.batch_size)
    newest = group.on_main(lambda: usable_checkpoint(folder, state)) if resume else Newest()
    first = 0 if newest.path is None else load_checkpoint(newest.path, state)
    if first > options.steps:
        raise RunError(
            f"{folder} has done {first} steps; training.steps = {options.steps} is less; give more"
        )
    # TensorBoard drops what it has of later steps, which are logged again.
    accelerator.init_trackers("tensorboard", init_kwargs={"tensorboard": {"purge_step": first + 1}})
    run = _Run(recipe, data, folder, group, state, places, probe, validator, begun)
    if initial is not None:
        _save(run, 0)  # so that resuming needs no other run
    with RunLog(folder if group.is_main else None, first, options.steps, console) as log:
        for note in newest.notes:
            log.say(note)
        if newest.path is not None and group.is_main:
            _restore_weights(run, first, log)
        try:
            with _signals() as caught, own_random_numbers(accelerator.device):
                step, number = _loop(run, first, log, caught)
        finally:
            for tracker in accelerator.trackers:
                tracker.finish()
    if number is not None and step < options.steps:
        return Stopped(step, number)
    wrong: Sequence[str] = ()
    if group.is_main:
        wrong = verdict(recipe, state.ema, data, logged(folder), step, state.skips)
    return Stopped(step, wrong=wrong)


@dataclass(frozen=True)
class _Run:
    """The constants of one training run.

    Args:
        places: places in the batch of this process's images, by micro-batch.
    """

    recipe: Recipe
    data: Dataset
    folder: Path
    group: Processes
    state: TrainingState
    places: Sequence[Sequence[int]]
    probe: Probe | None
    validator: Validator | None
    begun: Callable[[int], None]


def _loop(run: _Run, first: int, log: RunLog, caught: list[int]) -> tuple[int, int | None]:
    """Train from step `first`; returns the number of steps done, and the signal that ended training."""
    recipe, options, state, group = run.recipe, run.recipe.training, run.state, run.group
    sums: dict[str, Tensor] = {}
    counts: Counter[str] = Counter()

    step = first
    if step == options.steps:
        run.begun(step)
    if _has_ended(run, log):  # a run that ended early is resumed
        return step, None
    if _lacks_samples(run, step):
        _look(run, step, log)
    # Only these are read here: a process never decodes the images of another's share.
    batches = training_batches(
        run.data, recipe.seed, first, options.steps, options.batch_size, state.places, options.workers
    )
    for batch in batches:
        images = {domain: x.to(state.accelerator.device) for domain, x in batch.items()}
        skips = state.skips
        micro_batches = cut_batch(images, run.places, options.batch_size, group.count)
        draw = counted_draw(recipe.seed, step, state.accelerator.device)
        for name, loss in train_step(state, step, micro_batches, draw).items():
            sums[name] = sums.get(name, 0) + loss
            counts[name] += 1
        if state.skips > skips:
            log.say(f"step {step}: gradients or running statistics were not finite; the update was skipped")
        update_ema(state.ema, state.translator, options.ema, step)
        if step == first:
            run.begun(step)
        step += 1
        log.advance(step)
        if run.validator is not None and (step == options.steps or _due(step, run.validator.section.every)):
            _validate(run, run.validator, step, log)  # before the checkpoint, which keeps its result
        number = group.most(caught[0] if caught else 0)  # all processes stop after the same step
        last = step == options.steps or number > 0 or _has_ended(run, log)
        if last or step % options.log_every == 0:
            line = log.losses(step, _means(group, sums, counts))
            state.accelerator.log({k: v for k, v in line.items() if "/" in k}, step=step)
            sums, counts = {}, Counter()
        if last or _due(step, options.checkpoint_every):
            _save(run, step)  # before the samples: torchrun sends SIGKILL 30 s after SIGTERM
        if last or _due(step, options.sample_every):
            _look(run, step, log)
        if last:
            return step, number or None
    return step, None


def _means(group: Processes, sums: Mapping[str, Tensor], counts: Mapping[str, int]) -> dict[str, float]:
    """Means over the steps in which a loss was computed: those where its weight is not 0."""
    if not sums:
        return {}
    means = group.mean(torch.stack([total / counts[name] for name, total in sums.items()]))
    return dict(zip(sums, means.tolist(), strict=True))


def _lacks_samples(run: _Run, step: int) -> bool:
    """Whether the samples of the first step of this command are due: at the start, or lost by a kill."""
    options = run.recipe.training
    if step and list((run.folder / "samples").glob(f"step-{step:06d}*")):
        return False
    return step == options.steps or _due(step, options.sample_every)


def _look(run: _Run, step: int, log: RunLog) -> None:
    """Write samples and run the probe; in the main process, while the others wait."""
    if not run.group.is_main:
        return
    save_samples(run.state.ema, run.data, run.recipe.seed, step, run.folder)
    if run.probe is not None:
        values, remarks = run.probe(run.state.ema)
        log.write({"step": step, **values})
        run.state.accelerator.log(dict(values), step=step)
        for remark in remarks:
            log.say(f"step {step}: {remark}")


def _validate(run: _Run, validator: Validator, step: int, log: RunLog) -> None:
    """Measure the averaged weights in all processes; keep them if they are the best so far."""
    with log.paused():
        found = validator(run.state.ema, step, run.state.validation)
    run.state.validation = found.state
    if found.state.step == step:
        check_finite(run.state, step, run.folder, run.group)
    if not run.group.is_main:
        return
    if found.state.step == step:  # it is the best so far
        save_weights(run.state.ema, run.data.images, step, run.folder, BEST_FILE)
    log.write({"step": step, **found.values})
    run.state.accelerator.log(dict(found.values), step=step)
    for remark in found.remarks:
        log.say(f"step {step}: {remark}")


def _has_ended(run: _Run, log: RunLog) -> bool:
    """Whether the validator ends training early, which is then said."""
    if run.validator is None or not run.validator.has_ended(run.state.validation):
        return False
    log.say(run.validator.summary(run.state.validation))
    return True


def _restore_weights(run: _Run, step: int, log: RunLog) -> None:
    """Write the file of weights of the checkpoint if it is missing or damaged."""
    try:
        read_weights(run.folder / WEIGHTS_FILE)
    except (RunError, OSError):
        save_weights(run.state.ema, run.data.images, step, run.folder)
        log.say(
            f"{WEIGHTS_FILE} was missing or damaged, and is written again from the checkpoint of step {step}"
        )


def _save(run: _Run, step: int) -> None:
    """Save weights and a checkpoint: all processes hold the same, but for local norms and kept tensors."""
    check_finite(run.state, step, run.folder, run.group)
    if run.group.is_main:
        save_weights(run.state.ema, run.data.images, step, run.folder)
    save_checkpoint(run.folder, step, run.state, run.recipe.training.keep, run.group)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Record SIGINT and SIGTERM, so that the loop can save and stop; a second signal acts at once."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # signals reach only the main thread
        yield caught
        return
    previous: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        signal.signal(number, previous[number])

    for number in (int(signal.SIGINT), int(signal.SIGTERM)):
        previous[number] = signal.signal(number, note)
    try:
        yield caught
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

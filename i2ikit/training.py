"""Training, top to bottom: build what the recipe names, run one step, run the loop.

A step runs the translator's phases in order. For each phase: draw its noise, call its function for
named losses, weigh and add them, backpropagate, step the optimizers of the networks that it trains.
"""

from __future__ import annotations

import contextlib
import copy
import math
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import ProjectConfiguration
from rich.console import Console
from torch import Tensor, nn

from i2ikit.checkpoints import load_checkpoint, newest_checkpoint, save_checkpoint, save_weights
from i2ikit.data import Dataset, training_batches
from i2ikit.draws import counted_seed, normal_draws
from i2ikit.errors import TrainingError
from i2ikit.recipe import OptimizerOptions, Recipe
from i2ikit.runlog import RunLog
from i2ikit.sampling import save_samples
from i2ikit.translator import (
    Batch,
    Draws,
    Handed,
    ImageSpec,
    Losses,
    Phase,
    Translator,
    frozen,
    weighted_total,
)

__all__ = [
    "Probe",
    "Stopped",
    "TrainingState",
    "build",
    "new_accelerator",
    "new_translator",
    "train",
    "train_step",
    "update_ema",
]

MOST_SKIPS = 20

Probe = Callable[[Translator], tuple[Mapping[str, float], Sequence[str]]]
"""Looks at the averaged weights whenever samples are made: numbers by name for the log, and remarks."""


class PhaseModule(nn.Module):
    """One phase as one module, which Accelerate wraps: registers exactly the networks it trains.

    DistributedDataParallel then synchronises these and nothing else; the phase's function reaches
    the other networks, unregistered and frozen, through the translator.
    """

    def __init__(self, phase: Phase) -> None:
        super().__init__()
        self.trained = nn.ModuleList(phase.trains)
        self.losses = phase.losses

    def forward(self, batch: Batch, draws: Draws, handed: Handed) -> tuple[Losses, Handed]:
        """Losses by name, and what is handed on."""
        return self.losses(batch, draws, handed)


@dataclass
class TrainingState:
    """What training changes, and what it needs at every step."""

    accelerator: Accelerator
    translator: Translator
    ema: Translator
    phases: tuple[Phase, ...]
    modules: Mapping[str, nn.Module]
    optimizers: Mapping[str, torch.optim.Optimizer]
    schedules: Mapping[str, OptimizerOptions]
    steps: int
    skips: int = 0

    def roles(self, phase: Phase) -> list[str]:
        """The roles of the networks that a phase trains."""
        return [role for role, net in self.translator.networks.items() if any(net is t for t in phase.trains)]


@dataclass(frozen=True)
class Stopped:
    """How training ended: after how many steps, and by which signal, if any."""

    step: int
    signal: int | None = None


def build(
    translator: Translator,
    optimizers: Mapping[str, OptimizerOptions],
    accelerator: Accelerator,
    steps: int,
) -> TrainingState:
    """Put a translator on its device, with an EMA copy, one Adam per network and wrapped phases."""
    translator = translator.to(accelerator.device).train()
    ema = copy.deepcopy(translator).eval().requires_grad_(False)
    adams = {
        role: torch.optim.Adam(
            network.parameters(),
            lr=optimizers[role].lr,
            betas=optimizers[role].betas,
            eps=optimizers[role].eps,
            weight_decay=optimizers[role].weight_decay,
            fused=accelerator.device.type in ("cpu", "cuda"),
        )
        for role, network in translator.networks.items()
    }
    phases = translator.phases()
    modules = {phase.name: accelerator.prepare_model(PhaseModule(phase)) for phase in phases}
    return TrainingState(accelerator, translator, ema, phases, modules, adams, optimizers, steps)


def train_step(
    state: TrainingState, step: int, batch: Batch, draw: Callable[[Phase], Draws]
) -> dict[str, Tensor]:
    """One iteration: every phase that is due, each followed by its optimizers.

    Args:
        step: counted from 0.
        batch: images on the state's device.
        draw: the noise of a phase.

    Returns:
        Unweighted, detached losses by `phase/name` or `phase/name/part`.

    Raises:
        TrainingError: gradients were not finite in 20 updates in a row.
    """
    skips_before = state.skips
    handed: dict[str, Tensor] = {}
    logged: dict[str, Tensor] = {}
    for phase in state.phases:
        if step % phase.every or not any(state.translator.weights[phase.name].values()):
            continue
        roles = state.roles(phase)
        idle = [net for role, net in state.translator.networks.items() if role not in roles]
        optimizers = [state.optimizers[role] for role in roles]
        buffers = [(b, b.clone()) for net in phase.trains for b in net.buffers()]
        for role in roles:
            set_learning_rate(state.optimizers[role], state.schedules[role], step, state.steps)
            state.optimizers[role].zero_grad()
        with frozen(*idle):
            losses, new = state.modules[phase.name](batch, draw(phase), handed)
            total = weighted_total(losses, state.translator.weights[phase.name])
            state.accelerator.backward(total)
        if _finite(phase):
            for optimizer in optimizers:
                optimizer.step()
        else:
            _skip(state, step, phase, losses, buffers)
        handed.update(new)
        logged.update({f"{phase.name}/{name}": loss.detach() for name, loss in losses.items()})
    if state.skips == skips_before:  # a sound discriminator must not hide a broken generator
        state.skips = 0
    return logged


def set_learning_rate(
    optimizer: torch.optim.Optimizer, options: OptimizerOptions, step: int, steps: int
) -> None:
    """The rate of update `step` (from 0), a function of the step alone, so that resuming keeps it."""
    factor = 1.0
    if options.decay == "step":
        # The official MUNIT steps its scheduler before the update: update 99,999 runs at half rate.
        factor = options.decay_factor ** ((step + 1) // options.decay_steps)
    elif options.decay == "linear" and step >= options.decay_steps:
        factor = (steps - step) / max(steps - options.decay_steps, 1)
    for group in optimizer.param_groups:
        group["lr"] = options.lr * factor


def _finite(phase: Phase) -> bool:
    """Whether every gradient of the trained networks is finite. CPU-GPU sync."""
    grads = [p.grad for net in phase.trains for p in net.parameters() if p.grad is not None]
    return math.isfinite(torch.nn.utils.get_total_norm(grads).item())


def _skip(
    state: TrainingState,
    step: int,
    phase: Phase,
    losses: Losses,
    buffers: list[tuple[Tensor, Tensor]],
) -> None:
    """Leave weights, moments and running statistics as they were; give up after too many."""
    for buffer, before in buffers:
        buffer.copy_(before)
    state.skips += 1
    if state.skips >= MOST_SKIPS:
        bad = [name for name, loss in losses.items() if not math.isfinite(loss.item())]
        raise TrainingError(
            f"step {step}, phase '{phase.name}': gradients were not finite in {MOST_SKIPS} updates in a "
            f"row; losses that are not finite: {', '.join(bad) or 'none'}. Try a lower lr, or fp32"
        )


@torch.no_grad()
def update_ema(ema: Translator, translator: Translator, decay: float, step: int) -> None:
    """Move the EMA weights towards the live ones; copy the buffers.

    The decay of update n (from 0) is at most (1 + n) / (10 + n), so that the average forgets the
    initial weights. Buffers (batch norm's running statistics) follow the live network as they are:
    averaging them again would lag, and leaving them would keep their initial values.
    """
    decay = min(decay, (1 + step) / (10 + step))
    for role in ema.generative:
        averaged, live = ema.networks[role], translator.networks[role]
        torch._foreach_lerp_(list(averaged.parameters()), list(live.parameters()), 1 - decay)
        for mine, theirs in zip(averaged.buffers(), live.buffers(), strict=True):
            mine.copy_(theirs)


def train(
    recipe: Recipe,
    data: Dataset,
    folder: Path,
    *,
    resume: bool = False,
    probe: Probe | None = None,
    console: Console,
) -> Stopped:
    """Run a recipe in a run folder, from the start or from its newest checkpoint.

    Saves samples, checkpoints and weights as it goes; SIGINT and SIGTERM save and stop.

    Args:
        probe: called whenever samples are made; its numbers are logged, its remarks printed.

    Returns:
        How many steps are done; the signal, if one ended it.
    """
    options = recipe.training
    accelerator = new_accelerator(options.precision, folder)
    accelerator.init_trackers("tensorboard")
    state = build(new_translator(recipe, data.images), recipe.optimizers, accelerator, options.steps)
    first = 0
    if resume:
        first = load_checkpoint(newest_checkpoint(folder), state.translator, state.ema, state.optimizers)
    main = accelerator.is_main_process
    with RunLog(folder if main else None, first, options.steps, console) as log, _signals() as caught:
        try:
            with torch.random.fork_rng():
                step = _loop(recipe, data, state, first, folder, probe, log, caught)
        finally:
            accelerator.end_training()
    return Stopped(step, caught[0] if caught and step < options.steps else None)


def new_accelerator(precision: Literal["fp32", "bf16"], folder: Path) -> Accelerator:
    """Accelerate for one run, whatever an earlier run of this process (a notebook) asked for."""
    AcceleratorState._reset_state()
    project = ProjectConfiguration(project_dir=str(folder), logging_dir=str(folder))
    mixed = "no" if precision == "fp32" else precision
    return Accelerator(mixed_precision=mixed, log_with="tensorboard", project_config=project)


def new_translator(recipe: Recipe, images: ImageSpec) -> Translator:
    """The recipe's method with initial weights that depend on the seed alone."""
    with torch.random.fork_rng():
        torch.manual_seed(counted_seed(recipe.seed, "weights") % 2**63)
        return recipe.translator(images)


def _loop(
    recipe: Recipe,
    data: Dataset,
    state: TrainingState,
    first: int,
    folder: Path,
    probe: Probe | None,
    log: RunLog,
    caught: list[int],
) -> int:
    options = recipe.training
    places = range(options.batch_size)
    sums: dict[str, Tensor] = {}
    counted = 0

    def draw(phase: Phase) -> Draws:
        # What a network draws by itself (dropout) is counted too, so that resuming repeats it.
        torch.manual_seed(counted_seed(recipe.seed, "torch", step, phase.name, places[0]) % 2**63)
        draws = normal_draws(recipe.seed, step, phase.name, phase.draws, places)
        return {name: noise.to(state.accelerator.device) for name, noise in draws.items()}

    def look() -> None:
        save_samples(state.ema, data, recipe.seed, step, folder)
        if probe is not None:
            values, remarks = probe(state.ema)
            log.write({"step": step, **values})
            state.accelerator.log(dict(values), step=step)
            for remark in remarks:
                log.say(f"step {step}: {remark}")

    step = first
    if first == 0:
        look()
    batches = training_batches(
        data, recipe.seed, first, options.steps, options.batch_size, places, options.workers
    )
    for batch in batches:
        images = {domain: x.to(state.accelerator.device) for domain, x in batch.items()}
        skips = state.skips
        for name, loss in train_step(state, step, images, draw).items():
            sums[name] = sums.get(name, 0) + loss
        if state.skips > skips:
            log.say(f"step {step}: gradients were not finite; the update was skipped")
        update_ema(state.ema, state.translator, options.ema, step)
        step += 1
        counted += 1
        log.advance(step)
        last = step == options.steps or bool(caught)
        if last or step % options.log_every == 0:
            line = log.losses(step, {name: (total / counted).item() for name, total in sums.items()})
            state.accelerator.log({k: v for k, v in line.items() if "/" in k}, step=step)
            sums, counted = {}, 0
        if last or _due(step, options.sample_every):
            look()
        if last or _due(step, options.checkpoint_every):
            save_weights(state.ema, data.images, step, folder)
            save_checkpoint(folder, step, state.translator, state.ema, state.optimizers, options.keep)
        if last:
            break
    return step


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Note SIGINT and SIGTERM, so that the loop can save; the second one of a kind acts at once."""
    caught: list[int] = []
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

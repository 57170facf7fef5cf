"""Training, top to bottom: build what the recipe names, and run one step; loop.py repeats it.

A step runs the translator's phases in order. For each phase and each micro-batch: draw its noise, call
its function for named losses, weigh and add them, backpropagate; then step the optimizers of the
networks that the phase trains. Several processes each take their share of every micro-batch.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import GradientAccumulationPlugin, ProjectConfiguration, convert_to_fp32
from torch import Tensor

from i2ikit.draws import counted_seed, normal_draws
from i2ikit.errors import TrainingError
from i2ikit.recipe import OptimizerOptions, Precision, Recipe
from i2ikit.state import TrainingState
from i2ikit.translator import (
    Batch,
    Draws,
    ImageSpec,
    Losses,
    Phase,
    Translator,
    frozen,
    weighted_total,
)

__all__ = [
    "Draw",
    "MicroBatch",
    "build",
    "counted_draw",
    "cut_batch",
    "new_accelerator",
    "new_translator",
    "own_random_numbers",
    "train_step",
    "update_ema",
]

MOST_SKIPS = 20


@dataclass(frozen=True)
class MicroBatch:
    """The images of a step that this process puts through the networks at once.

    Args:
        images: by domain, on the state's device.
        places: where each of them stands in the batch of the step, over all processes.
        weight: of its losses: processes * len(places) / (images of the step per domain). Gradients are
            averaged over processes, so that each image counts alike, however they are shared out.
    """

    images: Batch
    places: Sequence[int]
    weight: float = 1.0


def cut_batch(
    images: Batch, places: Sequence[Sequence[int]], batch_size: int, processes: int
) -> list[MicroBatch]:
    """This process's images of one step, cut into micro-batches.

    Args:
        images: by domain, those of the first micro-batch first.
        places: of each micro-batch, where its images stand in the batch of the step.
        batch_size: images per domain and step, over all processes.
        processes: how many there are.
    """
    sizes = [len(here) for here in places]
    cut = {domain: torch.split(x, sizes) for domain, x in images.items()}
    return [
        MicroBatch({d: parts[n] for d, parts in cut.items()}, here, len(here) * processes / batch_size)
        for n, here in enumerate(places)
    ]


Draw = Callable[[Phase, Sequence[int]], Draws]
"""The noise of a phase for the images at these places."""


def counted_draw(
    seed: int, step: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Draw:
    """The noise of one step, which depends on seed, step, phase and place alone.

    torch's own generator, from which dropout draws, is seeded in the same way.
    """

    def draw(phase: Phase, places: Sequence[int]) -> Draws:
        torch.manual_seed(counted_seed(seed, "torch", step, phase.name, places[0]) % 2**63)
        draws = normal_draws(seed, step, phase.name, phase.draws, places, dtype)
        return {name: noise.to(device) for name, noise in draws.items()}

    return draw


def new_accelerator(precision: Precision, folder: Path) -> Accelerator:
    """Accelerate for one run, whatever an earlier run of this process (a notebook) asked for."""
    AcceleratorState._reset_state()
    project = ProjectConfiguration(project_dir=str(folder), logging_dir=str(folder))
    return Accelerator(
        mixed_precision="no" if precision == "fp32" else precision,
        cpu=not torch.accelerator.is_available(),
        log_with="tensorboard",
        project_config=project,
        # Else an environment variable could divide the losses.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
    )


def new_translator(recipe: Recipe, images: ImageSpec) -> Translator:
    """The recipe's method with initial weights that depend on the seed alone."""
    with own_random_numbers(torch.device("cpu")):
        torch.manual_seed(counted_seed(recipe.seed, "weights") % 2**63)
        return recipe.translator(images)


def own_random_numbers(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Within: torch's generators may be seeded; afterwards they go on as before."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def build(
    translator: Translator,
    optimizers: Mapping[str, OptimizerOptions],
    accelerator: Accelerator,
    steps: int,
) -> TrainingState:
    """Put a translator on its device, with an EMA copy and one Adam per network."""
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
    return TrainingState(accelerator, translator, ema, translator.phases(), adams, optimizers, steps)


def train_step(
    state: TrainingState, step: int, micro_batches: Sequence[MicroBatch], draw: Draw
) -> dict[str, Tensor]:
    """One iteration: every phase that is due, each followed by its optimizers.

    Accumulation is inside a phase: all micro-batches go through it before its optimizers step, so
    that networks take the same number of steps, and the same ones, whatever the number of
    micro-batches (but for batch norm, whose statistics are of one micro-batch of all processes).

    Args:
        step: counted from 0.
        micro_batches: this process's shares of each; every process has as many.
        draw: the noise of a phase.

    Returns:
        Unweighted, detached losses by `phase/name` or `phase/name/part`: this process's part of the
        mean over all images, so that the mean over processes is that.

    Raises:
        TrainingError: gradients were not finite in 20 updates in a row.
    """
    skips_before = state.skips
    handed: list[dict[str, Tensor]] = [{} for _ in micro_batches]
    logged: dict[str, Tensor] = {}
    for phase in state.phases:
        if step % phase.every or not any(state.translator.weights[phase.name].values()):
            continue
        optimizers = [state.optimizers[role] for role in state.roles(phase)]
        buffers = [(b, b.clone()) for net in phase.trains for b in net.buffers()]
        for role in state.roles(phase):
            set_learning_rate(state.optimizers[role], state.schedules[role], step, state.steps)
            state.optimizers[role].zero_grad()
        losses = _backpropagate(state, phase, micro_batches, handed, draw)
        with _unscaled(state.accelerator, optimizers):
            if _finite(phase):
                for optimizer in optimizers:
                    optimizer.step()
            else:
                _skip(state, step, phase, losses, buffers)
        logged.update({f"{phase.name}/{name}": loss for name, loss in losses.items()})
    if state.skips == skips_before:  # a sound discriminator must not hide a broken generator
        state.skips = 0
    return logged


def _backpropagate(
    state: TrainingState,
    phase: Phase,
    micro_batches: Sequence[MicroBatch],
    handed: Sequence[dict[str, Tensor]],
    draw: Draw,
) -> dict[str, Tensor]:
    """Gradients of one phase, summed over micro-batches and averaged over processes; its losses.

    What the phase hands on is added to `handed`, for each micro-batch on its own.
    """
    weights = state.translator.weights[phase.name]
    idle = [net for net in state.translator.networks.values() if not any(net is t for t in phase.trains)]
    summed: dict[str, Tensor] = {}
    with frozen(*idle):
        for micro, given in zip(micro_batches, handed, strict=True):
            with state.accelerator.autocast():
                found = phase.losses(micro.images, draw(phase, micro.places), given)
            losses, new = convert_to_fp32(found)
            state.accelerator.backward(micro.weight * weighted_total(losses, weights))
            given.update(new)
            for name, loss in losses.items():
                summed[name] = summed.get(name, 0) + micro.weight * loss.detach()
    _average_gradients(state.accelerator, phase)
    return summed


def _average_gradients(accelerator: Accelerator, phase: Phase) -> None:
    """Exchange the gradients of what a phase trains, once and all in one piece.

    Not by DistributedDataParallel, which hooks into whole modules: phases share modules, and leave
    those without gradient whose losses have no weight.
    """
    if accelerator.num_processes == 1:
        return
    gradients = [p.grad for net in phase.trains for p in net.parameters() if p.grad is not None]
    sizes = [g.numel() for g in gradients]
    averaged = accelerator.reduce(torch.cat([g.flatten() for g in gradients]), "mean")
    for gradient, part in zip(gradients, torch.split(averaged, sizes), strict=True):
        gradient.copy_(part.view_as(gradient))


@contextlib.contextmanager
def _unscaled(accelerator: Accelerator, optimizers: Sequence[torch.optim.Optimizer]) -> Iterator[None]:
    """fp16: within, the gradients of these optimizers (and of no other) are as without loss scaling.

    Accelerate's own clipping would unscale every optimizer, those of half-done phases too. All
    optimizers share one scale, which is adjusted after each phase.
    """
    scaler = accelerator.scaler
    if scaler is not None:
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
    yield
    if scaler is not None:
        scaler.update()


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
    scaler = state.accelerator.scaler
    if scaler is not None and scaler.get_scale() > 1:
        return  # fp16 finds its scale in this way, and halves it now
    state.skips += 1
    if state.skips >= MOST_SKIPS:
        means = state.accelerator.reduce(dict(losses), "mean")
        bad = [name for name, loss in means.items() if not math.isfinite(loss.item())]
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

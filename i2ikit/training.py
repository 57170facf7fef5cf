"""Training: build the training state from a recipe, and run one step; loop.py repeats the step.

A step runs the translator's phases in order. For each phase and each micro-batch: draw its noise, call
its loss function, sum the weighted losses, backpropagate; then step the optimizers of the networks that
the phase trains. Each process computes its share of every micro-batch.
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
    """The images of a step that this process passes through the networks at once.

    Args:
        images: by domain, on the state's device.
        places: position of each image in the step's batch over all processes.
        weight: loss weight, processes * len(places) / batch_size; gradients are averaged over processes,
            so that every image contributes equally.
    """

    images: Batch
    places: Sequence[int]
    weight: float = 1.0


def cut_batch(
    images: Batch, places: Sequence[Sequence[int]], batch_size: int, processes: int
) -> list[MicroBatch]:
    """This process's images of one step, cut into micro-batches.

    Args:
        images: by domain, in the order of the micro-batches.
        places: for each micro-batch, the positions of its images in the step's batch.
        batch_size: images per domain and step, over all processes.
        processes: number of processes.
    """
    sizes = [len(here) for here in places]
    cut = {domain: torch.split(x, sizes) for domain, x in images.items()}
    return [
        MicroBatch({d: parts[n] for d, parts in cut.items()}, here, len(here) * processes / batch_size)
        for n, here in enumerate(places)
    ]


Draw = Callable[[Phase, Sequence[int]], Draws]
"""Returns the noise of a phase for the images at these positions."""


def counted_draw(
    seed: int, step: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Draw:
    """The noise of one step; it depends only on seed, step, phase and position.

    torch's global generator, which dropout uses, is seeded in the same way.
    """

    def draw(phase: Phase, places: Sequence[int]) -> Draws:
        torch.manual_seed(counted_seed(seed, "torch", step, phase.name, places[0]) % 2**63)
        draws = normal_draws(seed, step, phase.name, phase.draws, places, dtype)
        return {name: noise.to(device) for name, noise in draws.items()}

    return draw


def new_accelerator(precision: Precision, folder: Path) -> Accelerator:
    """An Accelerator for one run, independent of earlier runs in this process (as in a notebook)."""
    AcceleratorState._reset_state()
    project = ProjectConfiguration(project_dir=str(folder), logging_dir=str(folder))
    return Accelerator(
        mixed_precision="no" if precision == "fp32" else precision,
        cpu=not torch.accelerator.is_available(),
        log_with="tensorboard",
        project_config=project,
        # Explicit, because an environment variable could otherwise divide the losses.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
    )


def new_translator(recipe: Recipe, images: ImageSpec) -> Translator:
    """The recipe's translator; its initial weights depend on the seed only."""
    with own_random_numbers(torch.device("cpu")):
        torch.manual_seed(counted_seed(recipe.seed, "weights") % 2**63)
        return recipe.translator(images)


def own_random_numbers(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Restore the state of torch's generators on exit, so that they may be seeded within the context."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def build(
    translator: Translator,
    optimizers: Mapping[str, OptimizerOptions],
    accelerator: Accelerator,
    steps: int,
) -> TrainingState:
    """Move a translator to its device; add an EMA copy and one Adam optimizer per network."""
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
    """One iteration: every phase that is due, each followed by its optimizer steps.

    Gradients are accumulated within a phase: all micro-batches pass through it before its optimizers
    step. The updates therefore do not depend on the number of micro-batches, except with batch norm,
    whose statistics cover one micro-batch over all processes.

    Args:
        step: counted from 0.
        micro_batches: this process's share of each; all processes have the same number.
        draw: returns the noise of a phase.

    Returns:
        Unweighted, detached losses by `phase/name` or `phase/name/part`, scaled so that their mean
        over processes is the mean over all images.

    Raises:
        TrainingError: gradients were not finite in 20 consecutive updates.
    """
    skips_before = state.skips
    handed: list[dict[str, Tensor]] = [{} for _ in micro_batches]
    logged: dict[str, Tensor] = {}
    for phase in state.phases:
        if step % phase.every or not any(state.translator.weights[phase.name].values()):
            continue
        optimizers = [state.optimizers[role] for role in state.roles(phase)]
        # The forward pass updates running statistics in place; a skipped update has to restore them.
        buffers = [(b, b.clone()) for net in phase.trains for b in net.buffers()]
        for role in state.roles(phase):
            set_learning_rate(state.optimizers[role], state.schedules[role], step, state.steps)
            state.optimizers[role].zero_grad()
        losses = _backpropagate(state, phase, micro_batches, handed, draw)
        with _unscaled(state.accelerator, optimizers):
            if _finite(phase):  # CPU-GPU sync, once per phase
                for optimizer in optimizers:
                    optimizer.step()
            else:
                _skip(state, step, phase, losses, buffers)
        logged.update({f"{phase.name}/{name}": loss for name, loss in losses.items()})
    if state.skips == skips_before:  # per step: a finite discriminator must not hide a broken generator
        state.skips = 0
    return logged


def _backpropagate(
    state: TrainingState,
    phase: Phase,
    micro_batches: Sequence[MicroBatch],
    handed: Sequence[dict[str, Tensor]],
    draw: Draw,
) -> dict[str, Tensor]:
    """Compute the gradients of one phase: summed over micro-batches, averaged over processes.

    Adds the tensors that the phase returns for later phases to `handed`, per micro-batch.

    Returns:
        The losses of the phase.
    """
    weights = state.translator.weights[phase.name]
    idle = [net for net in state.translator.networks.values() if not any(net is t for t in phase.trains)]
    summed: dict[str, Tensor] = {}
    with frozen(*idle):
        for micro, given in zip(micro_batches, handed, strict=True):
            with state.accelerator.autocast():
                found = phase.losses(micro.images, draw(phase, micro.places), given)
            # Outside autocast: a weighted sum in bf16 would round the losses to three digits.
            losses, new = convert_to_fp32(found)
            state.accelerator.backward(micro.weight * weighted_total(losses, weights))
            given.update(new)
            for name, loss in losses.items():
                summed[name] = summed.get(name, 0) + micro.weight * loss.detach()
    _average_gradients(state.accelerator, phase)
    return summed


def _average_gradients(accelerator: Accelerator, phase: Phase) -> None:
    """Average the gradients of the networks that a phase trains, in a single all-reduce.

    DistributedDataParallel does not fit, as it wraps whole modules: here phases share modules, and
    modules whose losses have weight 0 get no gradients.
    """
    if accelerator.num_processes == 1:
        return
    # Assumes that all processes reach the same parameters, as phases without branches per sample do.
    gradients = [p.grad for net in phase.trains for p in net.parameters() if p.grad is not None]
    sizes = [g.numel() for g in gradients]
    averaged = accelerator.reduce(torch.cat([g.flatten() for g in gradients]), "mean")
    for gradient, part in zip(gradients, torch.split(averaged, sizes), strict=True):
        gradient.copy_(part.view_as(gradient))


@contextlib.contextmanager
def _unscaled(accelerator: Accelerator, optimizers: Sequence[torch.optim.Optimizer]) -> Iterator[None]:
    """With fp16, unscale the gradients of these optimizers only; update the loss scale on exit.

    Accelerate's own clipping would unscale every optimizer, including those of unfinished phases. All
    optimizers share one scale, which is updated after each phase.
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
    """Set the learning rate of update `step` (from 0); it depends only on the step, so resuming keeps it."""
    factor = 1.0
    if options.decay == "step":
        # The official MUNIT steps its scheduler before the update: update 99,999 uses half the rate.
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
    """Skip an update: restore the running statistics, and raise after too many skips in a row."""
    for buffer, before in buffers:
        buffer.copy_(before)
    scaler = state.accelerator.scaler
    if scaler is not None and scaler.get_scale() > 1:
        return  # expected with fp16: the loss scale is too high, and is halved now
    state.skips += 1
    if state.skips >= MOST_SKIPS:
        means = state.accelerator.reduce(dict(losses), "mean")
        bad = [name for name, loss in means.items() if not math.isfinite(loss.item())]
        raise TrainingError(
            f"step {step}, phase '{phase.name}': gradients were not finite in {MOST_SKIPS} updates in a "
            f"row; non-finite losses: {', '.join(bad) or 'none'}. Try a lower lr, or fp32"
        )


@torch.no_grad()
def update_ema(ema: Translator, translator: Translator, decay: float, step: int) -> None:
    """Update the EMA weights, and copy the buffers.

    The decay of update n (from 0) is at most (1 + n) / (10 + n), so that the average forgets the
    initial weights. Buffers (batch norm's running statistics) are copied, not averaged: they are
    moving averages already.
    """
    decay = min(decay, (1 + step) / (10 + step))
    for role in ema.generative:
        averaged, live = ema.networks[role], translator.networks[role]
        torch._foreach_lerp_(list(averaged.parameters()), list(live.parameters()), 1 - decay)
        for mine, theirs in zip(averaged.buffers(), live.buffers(), strict=True):
            mine.copy_(theirs)

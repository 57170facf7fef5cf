"""Training: build the training state from a recipe, and run one step; loop.py repeats the step.

A step runs the translator's phases in order. For each phase and each micro-batch: draw its noise, call
its loss function, sum the weighted losses, backpropagate; then step the optimizers of the networks that
the phase trains. Each process computes its share of every micro-batch.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import GradientAccumulationPlugin, convert_to_fp32
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from i2ikit.draws import counted_draws, counted_seed
from i2ikit.errors import ComponentError, TrainingError, did_you_mean, in_one_line
from i2ikit.loss_weights import Weights
from i2ikit.optimizer_options import OptimizerOptions, ScheduleOptions
from i2ikit.precision import Precision
from i2ikit.recipe import Recipe
from i2ikit.state import TrainingState
from i2ikit.translator import Given, ImageSpec, Phase, Tensors, Translator, frozen

__all__ = [
    "DrawFunction",
    "MicroBatch",
    "build",
    "compile_networks",
    "counted_draw",
    "cut_batch",
    "learning_rates",
    "new_accelerator",
    "new_translator",
    "own_random_numbers",
    "train_step",
    "unmatched",
    "update_ema",
    "weighted_total",
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

    images: Tensors
    places: Sequence[int]
    weight: float = 1.0


def cut_batch(
    images: Tensors, places: Sequence[Sequence[int]], batch_size: int, processes: int
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


DrawFunction = Callable[[Phase, Sequence[int]], Tensors]
"""Returns the draws of a phase for the images at these places."""


def counted_draw(
    seed: int, step: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> DrawFunction:
    """The draws of one step; they depend only on seed, step, phase, name and place.

    torch's global generator is seeded by the first place, for components that draw from it. Their numbers
    therefore depend on how the batch is divided.
    """

    def draw(phase: Phase, places: Sequence[int]) -> Tensors:
        torch.manual_seed(counted_seed(seed, "torch", step, phase.name, places[0]) % 2**63)
        drawn = counted_draws(seed, step, phase.name, phase.draws, places, dtype)
        return {name: x.to(device, non_blocking=True) for name, x in drawn.items()}

    return draw


def new_accelerator(precision: Precision) -> Accelerator:
    """An Accelerator for one run, independent of earlier runs in this process (as in a notebook)."""
    AcceleratorState._reset_state()
    return Accelerator(
        mixed_precision="no" if precision == "fp32" else precision,
        cpu=not torch.accelerator.is_available(),
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
    places: Sequence[int] = (),
    batch_size: int = 0,
) -> TrainingState:
    """Move a translator to its device; add an EMA copy, and an optimizer for each trained network.

    Args:
        places: place in the batch of each image of this process, in the order of its micro-batches; only
            phases that keep something need it.
        batch_size: number of places of all processes.

    Raises:
        ComponentError: a phase trains an unknown network, or one without trainable parameters; or an
            optimizer has no learning rate.
    """
    translator = translator.to(accelerator.device).train()
    ema = copy.deepcopy(translator).eval().requires_grad_(False)
    built = {
        role: _new_optimizer(optimizers[role], network)
        for role, network in translator.networks.items()
        if any(parameter.requires_grad for parameter in network.parameters())
    }
    schedules = {role: options.schedule for role, options in optimizers.items()}
    phases = translator.phases()
    for phase in phases:
        _check_roles(phase, translator, built)
    kept = {
        phase.name: {
            name: kept.at_start(len(places), batch_size, accelerator.device)
            for name, kept in phase.keeps.items()
        }
        for phase in phases
    }
    return TrainingState(
        accelerator, translator, ema, phases, built, schedules, steps, kept, places, batch_size
    )


def _new_optimizer(options: OptimizerOptions, network: nn.Module) -> Optimizer:
    optimizer: Optimizer = options.optimizer().optimizer(list(network.parameters()))
    if "lr" not in optimizer.defaults:
        raise ComponentError(
            f"optimizer '{options.optimizer.name}' made a {type(optimizer).__name__} without a default `lr`, "
            "which the schedule changes; pass it to the constructor of torch's Optimizer"
        )
    return optimizer


def _check_roles(phase: Phase, translator: Translator, trained: Collection[str]) -> None:
    what = f"{type(translator).__name__}, phase '{phase.name}'"
    for role in phase.trains:
        if role not in translator.networks:
            hint = did_you_mean(role, translator.networks)
            known = ", ".join(translator.networks)
            raise ComponentError(f"{what}: it trains '{role}', which is not a network{hint} (known: {known})")
        if role not in trained:
            raise ComponentError(f"{what}: it trains '{role}', which has no trainable parameter")


def compile_networks(translator: Translator, device: torch.device) -> None:
    """Compile the forward pass of each network; names of modules and weights stay the same.

    Raises:
        TrainingError: torch.compile does not work on this machine.
    """
    try:  # a small function first: the networks are compiled at their first use, far from here
        torch.compile(_doubled)(torch.ones(2, device=device))
    except Exception as error:  # of dynamo, of inductor, of the compiler
        reason = in_one_line(error).partition(" Set TORCHDYNAMO_VERBOSE")[0]
        raise TrainingError(
            f"torch.compile does not work here ({reason}); install what it needs (a C++ compiler; "
            "on GPUs also triton), or set training.compile = false"
        ) from error
    for network in translator.networks.values():
        for part in network.values() if isinstance(network, nn.ModuleDict) else [network]:
            part.compile()


def _doubled(x: Tensor) -> Tensor:
    return 2 * x


def train_step(
    state: TrainingState, step: int, micro_batches: Sequence[MicroBatch], draw: DrawFunction
) -> dict[str, Tensor]:
    """One iteration: every phase, each followed by its optimizer steps.

    Gradients are accumulated within a phase: all micro-batches pass through it before its optimizers
    step. The updates therefore do not depend on the number of micro-batches, except with batch norm,
    whose statistics cover one micro-batch over all processes.

    A phase whose weights are all 0 at this step runs, without gradients, only if a later phase is trained,
    because that may need the tensors that it hands on.

    Args:
        step: counted from 0.
        micro_batches: this process's share of each; all processes have the same number.
        draw: returns the draws of a phase.

    Returns:
        Unweighted, detached losses and notes by `phase/name` or `phase/name/part`, scaled so that their
        mean over processes is the mean over all images.

    Raises:
        TrainingError: 20 updates in a row were not finite.
    """
    skips_before = state.skips
    weights = [state.translator.weights_at(phase.name, step, state.steps) for phase in state.phases]
    trained = [any(of_phase.values()) for of_phase in weights]
    handed: list[dict[str, Tensor]] = [{} for _ in micro_batches]
    logged: dict[str, Tensor] = {}
    for n, phase in enumerate(state.phases):
        if not any(trained[n:]):
            break
        # The forward pass updates running statistics in place; a skipped update has to restore them.
        buffers = {name: buffer.clone() for name, buffer in state.translator.networks.named_buffers()}
        optimizers = {role: state.optimizers[role] for role in phase.trains if trained[n]}
        for role, optimizer in optimizers.items():
            set_learning_rate(optimizer, state.schedules[role], step, state.steps)
            optimizer.zero_grad()
        losses, kept = _run(state, phase, step, weights[n], micro_batches, handed, draw)
        gradients_finite, rest_finite = _update(state, optimizers, buffers, state.kept[phase.name], kept)
        if gradients_finite and rest_finite:
            state.kept[phase.name] = kept
        else:
            _skip(state, step, phase, losses, buffers, gradients_finite)
        logged.update({f"{phase.name}/{name}": loss for name, loss in losses.items()})
    if state.skips == skips_before:  # per step: a finite discriminator must not hide a broken generator
        state.skips = 0
    return logged


def _run(
    state: TrainingState,
    phase: Phase,
    step: int,
    weights: Weights,
    micro_batches: Sequence[MicroBatch],
    handed: Sequence[dict[str, Tensor]],
    draw: DrawFunction,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Run one phase on every micro-batch, and compute the gradients of its weighted losses.

    Adds the tensors that the phase hands on to `handed`, per micro-batch.

    Returns:
        The losses and notes of the phase, and what it keeps.
    """
    idle = [network for role, network in state.translator.networks.items() if role not in phase.trains]
    kept_before = _cut(state.kept[phase.name], [len(micro.places) for micro in micro_batches])
    kept: list[dict[str, Tensor]] = []
    summed: dict[str, Tensor] = {}
    trained = any(weights.values())
    with frozen(*idle), torch.set_grad_enabled(trained):
        for micro, earlier, mine in zip(micro_batches, handed, kept_before, strict=True):
            drawn = draw(phase, micro.places)
            with state.accelerator.autocast():
                result = phase.losses(Given(micro.images, drawn, earlier, mine, weights, step, state.steps))
            # Outside autocast: a weighted sum in bf16 would round the losses to three digits.
            losses, new, notes = (
                convert_to_fp32(dict(found)) for found in (result.losses, result.handed, result.notes)
            )
            if trained:
                total = weighted_total(losses, weights, phase.name)
                if losses:
                    state.accelerator.backward(micro.weight * total)
            earlier.update(new)
            kept.append(_checked(result.kept, mine, phase))
            for name, value in {**losses, **notes}.items():
                summed[name] = summed.get(name, 0) + micro.weight * value.detach()
    return summed, {name: torch.cat([part[name] for part in kept]) for name in phase.keeps}


def weighted_total(losses: Mapping[str, Tensor], weights: Weights, phase: str = "") -> Tensor:
    """SUM of weight * loss; 0 if all weights of the phase are switched off part by part.

    Args:
        phase: its name, for the message.

    Raises:
        TrainingError: a loss without a weight, or a weight (other than 0) without a loss.
    """
    without_weight, without_loss = unmatched(losses, weights)
    if without_weight or without_loss:
        unused = [f"losses {without_weight} have no weight"] * bool(without_weight)
        unused += [f"weights {without_loss} have no loss"] * bool(without_loss)
        raise TrainingError(
            f"phase '{phase}': {' and '.join(unused)}; use the same names for both "
            f"(losses: {', '.join(losses) or 'none'})"
        )
    if not losses:
        return torch.zeros(())
    return torch.stack([weights[key] * loss for key, loss in losses.items()]).sum()


def unmatched(losses: Mapping[str, Tensor], weights: Weights) -> tuple[list[str], list[str]]:
    """The names of losses without a weight, and of weights (other than 0) without a loss; sorted."""
    without_weight = [key for key in losses if key.partition("/")[0] not in weights or not weights[key]]
    without_loss = [key for key, weight in weights.items() if weight and not _computed(key, losses, weights)]
    return sorted(without_weight), sorted(without_loss)


def _computed(key: str, losses: Mapping[str, Tensor], weights: Weights) -> bool:
    """Whether the loss of this weight was computed, or all its parts have weight 0."""
    parts = [other for other in weights if other.startswith(f"{key}/")]
    switched_off = bool(parts) and not any(weights[part] for part in parts)
    return switched_off or any(name == key or name.startswith(f"{key}/") for name in losses)


def _cut(kept: Tensors, sizes: Sequence[int]) -> list[dict[str, Tensor]]:
    """What is kept for the images of each micro-batch."""
    parts = {name: torch.split(tensor, list(sizes)) for name, tensor in kept.items()}
    return [{name: part[n] for name, part in parts.items()} for n in range(len(sizes))]


def _checked(kept: Tensors, before: Tensors, phase: Phase) -> dict[str, Tensor]:
    """The tensors that a phase keeps, detached.

    Raises:
        TrainingError: a name, a shape or a type is not the declared one.
    """
    found, declared = ({k: (tuple(x.shape), x.dtype) for k, x in each.items()} for each in (kept, before))
    if found != declared:
        raise TrainingError(f"phase '{phase.name}' keeps {declared}, but it returned {found}")
    return {name: tensor.detach() for name, tensor in kept.items()}


def _update(
    state: TrainingState,
    optimizers: Mapping[str, Optimizer],
    buffers: Tensors,
    kept_before: Tensors,
    kept: Tensors,
) -> tuple[bool, bool]:
    """Step the optimizers if all gradients, changed buffers and kept tensors are finite.

    Args:
        buffers: the buffers of all networks before the phase.
        kept_before, kept: what the phase kept before, and keeps now.

    Returns:
        Whether all gradients, and whether all others are finite, in all processes.
    """
    accelerator, networks = state.accelerator, state.translator.networks
    parameters = [p for role in optimizers for p in networks[role].parameters() if p.requires_grad]
    now = dict(networks.named_buffers())
    pairs = [(before, now[name]) for name, before in buffers.items()]
    pairs += [(before, kept[name]) for name, before in kept_before.items()]
    # Only where it was finite before: a running minimum may start at inf.
    changed = [torch.where(before.isfinite(), after, 0) for before, after in pairs]
    highest = _highest(changed, accelerator.device)
    highest, reached = _average_gradients(accelerator, parameters, highest)
    with _unscaled(accelerator, list(optimizers.values())):
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        figures = torch.cat([norm.to(highest)[None], highest[None], reached]).tolist()  # CPU-GPU sync
        for parameter, found in zip(parameters, figures[2:], strict=False):
            if not found:  # a gradient of 0 is not the same: Adam moves such a parameter
                parameter.grad = None
        gradients_finite, rest_finite = map(math.isfinite, figures[:2])
        for role, optimizer in optimizers.items() if gradients_finite and rest_finite else ():
            _clip(optimizer, state.schedules[role].max_grad_norm)
            optimizer.step()
    return gradients_finite, rest_finite


def _clip(optimizer: Optimizer, max_norm: float | None) -> None:
    if max_norm is not None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, max_norm)


def _highest(tensors: Iterable[Tensor], device: torch.device) -> Tensor:
    """The largest absolute value of all floats; not finite if one of them is not."""
    floats = [x.detach() for x in tensors if x.is_floating_point() and x.numel()]
    peaks = [torch.linalg.vector_norm(x, math.inf).float() for x in floats]
    return torch.stack([torch.zeros((), device=device), *peaks]).amax()


def _average_gradients(
    accelerator: Accelerator, parameters: Sequence[Parameter], highest: Tensor
) -> tuple[Tensor, Tensor]:
    """Average the gradients over processes, in a single all-reduce.

    A process may reach parameters that another does not, as where a loss has a branch for each label. A
    parameter that no process reaches has a gradient of 0 afterwards, and must lose it.

    DistributedDataParallel does not fit, as it wraps whole modules: here phases share modules, and
    modules whose losses have weight 0 get no gradients.

    Returns:
        `highest`, not finite if that of any process is not; and for each parameter a number that is above 0
        if some process reached it; nothing if there is one process.
    """
    if accelerator.num_processes == 1:
        return highest, highest.new_empty(0)
    reached = highest.new_tensor([p.grad is not None for p in parameters])
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    piece = torch.cat([highest[None], reached, *(g.flatten() for g in gradients)])
    averaged = accelerator.reduce(piece, "mean")
    sizes = [1, len(reached), *(g.numel() for g in gradients)]
    highest, reached, *parts = torch.split(averaged, sizes)
    for parameter, gradient, part in zip(parameters, gradients, parts, strict=True):
        parameter.grad = gradient.copy_(part.view_as(gradient))
    return highest[0], reached


@contextlib.contextmanager
def _unscaled(accelerator: Accelerator, optimizers: Sequence[Optimizer]) -> Iterator[None]:
    """With fp16, unscale the gradients of these optimizers only; update the loss scale on exit.

    Accelerate's own clipping would unscale every optimizer, including those of unfinished phases. All
    optimizers share one scale, which is updated after each phase that has gradients.
    """
    groups = (group for optimizer in optimizers for group in optimizer.param_groups)
    reached = any(p.grad is not None for group in groups for p in group["params"])
    scaler = accelerator.scaler if reached else None
    if scaler is not None:
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
    yield
    if scaler is not None:
        scaler.update()


def set_learning_rate(optimizer: Optimizer, schedule: ScheduleOptions, step: int, steps: int) -> None:
    """Set the learning rate of update `step` (from 0); it depends only on the step, so resuming keeps it."""
    for group in optimizer.param_groups:
        group["lr"] = optimizer.defaults["lr"] * schedule.factor(step, steps)


def learning_rates(state: TrainingState, step: int) -> dict[str, float]:
    """The learning rate of update `step` (from 0), by the role of the network."""
    return {
        role: float(optimizer.defaults["lr"]) * state.schedules[role].factor(step, state.steps)
        for role, optimizer in state.optimizers.items()
    }


def _skip(
    state: TrainingState, step: int, phase: Phase, losses: Tensors, buffers: Tensors, gradients_finite: bool
) -> None:
    """Skip an update: restore the running statistics, and raise after too many skips in a row."""
    for name, buffer in state.translator.networks.named_buffers():
        buffer.copy_(buffers[name])
    scaler = state.accelerator.scaler
    if scaler is not None and scaler.get_scale() > 1 and not gradients_finite:
        return  # expected with fp16: the loss scale is too high, and is halved now
    state.skips += 1
    if state.skips >= MOST_SKIPS:
        means = state.accelerator.reduce(dict(losses), "mean")
        bad = [name for name, loss in means.items() if not math.isfinite(loss.item())]
        raise TrainingError(
            f"step {step}, phase '{phase.name}': gradients or running statistics were not finite in "
            f"{MOST_SKIPS} updates in a row; non-finite losses: {', '.join(bad) or 'none'}. "
            "Try a lower learning rate (optimizer.lr), gradient clipping (optimizer.max_grad_norm), or "
            "training.precision=fp32"
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
        parameters: list[Tensor] = [*averaged.parameters()]
        if parameters:  # torch refuses empty lists
            torch._foreach_lerp_(parameters, list(live.parameters()), 1 - decay)
        for mine, theirs in zip(averaged.buffers(), live.buffers(), strict=True):
            mine.copy_(theirs)

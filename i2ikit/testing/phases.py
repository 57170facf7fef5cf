"""Contract checks of a translator's phases: losses, gradients, and what they depend on."""

from __future__ import annotations

import contextlib
import io
import pickle
from collections.abc import Callable

import torch
from torch import Tensor

from i2ikit.draws import counted_draws
from i2ikit.loss_weights import Weights, largest_weights
from i2ikit.registry import Spec
from i2ikit.testing.networks import require
from i2ikit.training import unmatched, weighted_total
from i2ikit.translator import Given, Phase, Result, Tensors, Translator, frozen

__all__ = ["check_phases", "check_pure", "check_zero_weights", "phase_input"]

STEPS = 4
"""Steps whose draws are tried, so that a loss with a branch for each label takes all of them."""


def phase_input(
    translator: Translator, phase: Phase, images: Tensors, handed: Tensors | None = None, step: int = 0
) -> Given:
    """The input of a phase in one process, with its draws, and with what it keeps at the start.

    Args:
        images: by domain, (N, C, H, W).
        handed: tensors from earlier phases.
    """
    x = next(iter(images.values()))
    draws = counted_draws(0, step, phase.name, phase.draws, range(len(x)), x.dtype)
    kept = {name: kept.at_start(len(x), len(x)) for name, kept in phase.keeps.items()}
    weights = translator.weights_at(phase.name, step, STEPS)
    return Given(images, draws, handed or {}, kept, weights, step, STEPS)


def _phases_at(translator: Translator, step: int) -> list[tuple[Phase, bool]]:
    """The phases that `train_step` runs at a step, and whether each of them has a weight that is not 0."""
    phases = translator.phases()
    trained = [any(translator.weights_at(phase.name, step, STEPS).values()) for phase in phases]
    return [(phase, trained[n]) for n, phase in enumerate(phases) if any(trained[n:])]


def _result(phase: Phase, given: Given) -> Result:
    try:
        result = phase.losses(given)
    except Exception as error:
        raise AssertionError(f"phase '{phase.name}' fails: {type(error).__name__}: {error}") from error
    require(
        isinstance(result, Result), f"phase '{phase.name}': expected a Result, got {type(result).__name__}"
    )
    return result


def check_phases(translator: Translator, name: str, batch: Tensors) -> None:
    """Check the losses, and that each phase's gradients reach exactly the networks that it trains."""
    translator.train()
    moved = set[int]()
    for step in range(STEPS):
        handed: dict[str, Tensor] = {}
        for phase, trained in _phases_at(translator, step):
            where = f"{name}, phase '{phase.name}'"
            given = phase_input(translator, phase, batch, handed, step)
            if not trained:
                with torch.no_grad():
                    handed.update(_result(phase, given).handed)
                continue
            idle = [net for role, net in translator.networks.items() if role not in phase.trains]
            translator.zero_grad()
            with frozen(*idle):
                result = _result(phase, given)
                _check_losses(result.losses, given.weights, where)
                _check_kept(result.kept, given.kept, where)
                torch.autograd.backward(weighted_total(result.losses, given.weights))
            for key, tensor in {**result.handed, **result.kept}.items():
                require(not tensor.requires_grad, f"{where}: detach the tensor '{key}' that it returns")
            for role, network in translator.networks.items():
                _check_reach(network, role in phase.trains, f"{where}: the network '{role}'")
            moved |= {id(p) for p in translator.parameters() if p.grad is not None and p.grad.any()}
            handed.update(result.handed)
    named = [(key, p) for key, p in translator.named_parameters() if p.requires_grad]
    still = [key for key, p in named if id(p) not in moved and p.any() and not key.endswith("bias")]
    # Exempt: biases, which have no gradient before a norm, and parameters that start at zero.
    require(not still, f"{name}: no phase gives a gradient to the parameters {', '.join(still)}")


def check_pure(translator: Translator, name: str, batch: Tensors) -> None:
    """Check that a phase depends only on what it is given, and on parameters and buffers of the networks."""
    translator.train()
    handed: dict[str, Tensor] = {}
    for phase, _ in _phases_at(translator, 0):
        where = f"{name}, phase '{phase.name}'"
        given = phase_input(translator, phase, batch, handed)
        buffers = {key: buffer.clone() for key, buffer in translator.networks.named_buffers()}
        found: list[dict[str, Tensor]] = []
        states: list[bytes] = []
        for seed in (0, 0, 1):  # the first run may fill caches
            torch.manual_seed(seed)
            result = _result(phase, given)
            found.append({**result.losses, **result.handed, **result.kept})
            states.append(_python_state(translator))
            for key, buffer in translator.networks.named_buffers():
                buffer.copy_(buffers[key])
        require(
            _equal(found[0], found[1]) and states[1] == states[2],
            f"{where}: it depends on something, or changes something, that checkpoints do not save; use "
            "given.step, or Phase.keeps",
        )
        require(
            _equal(found[1], found[2]),
            f"{where}: it draws from torch's own generator, so that its numbers depend on how the batch is "
            "divided; declare its draws",
        )
        handed.update(result.handed)


def _equal(one: Tensors, two: Tensors) -> bool:
    return one.keys() == two.keys() and all(torch.equal(x, two[key]) for key, x in one.items())


class _WithoutModules(pickle.Pickler):
    """Pickles attributes; a module inside them only by its identity."""

    def persistent_id(self, obj: object) -> int | None:
        return id(obj) if isinstance(obj, torch.nn.Module) else None


def _python_state(translator: Translator) -> bytes:
    """Attributes of the translator and its modules, other than parameters, buffers and modules."""
    kept = io.BytesIO()
    for module in translator.modules():
        for key, value in vars(module).items():
            if not key.startswith("_"):
                with contextlib.suppress(Exception):  # functions inside functions cannot be pickled
                    _WithoutModules(kept).dump((key, value))
    return kept.getvalue()


def _check_kept(kept: Tensors, before: Tensors, where: str) -> None:
    found, declared = ({k: (tuple(x.shape), x.dtype) for k, x in each.items()} for each in (kept, before))
    require(found == declared, f"{where}: it keeps {declared}, but returns {found}")


def _check_losses(losses: Tensors, weights: Weights, where: str) -> None:
    without_weight, without_loss = unmatched(losses, weights)
    require(losses or not without_loss, f"{where}: returns no losses")
    for key, loss in losses.items():
        require(isinstance(loss, Tensor) and loss.shape == (), f"{where}: loss '{key}' is not a scalar")
        require(loss.isfinite(), f"{where}: loss '{key}' is {loss.item()}")
        require(loss.requires_grad, f"{where}: loss '{key}' has no gradient; is it detached?")
    require(not without_weight, f"{where}: losses without a weight: {', '.join(without_weight)}")
    require(not without_loss, f"{where}: weights without a loss: {', '.join(without_loss)}")


def _check_reach(network: torch.nn.Module, trained: bool, what: str) -> None:
    found = [p.grad for p in network.parameters() if p.grad is not None]
    if not trained:
        require(not found, f"{what} receives a gradient but is not trained there")
        return
    frozen_whole = not any(p.requires_grad for p in network.parameters())
    require(frozen_whole or any(g.any() for g in found), f"{what} is trained there but receives no gradient")
    require(all(g.isfinite().all() for g in found), f"{what} receives a gradient that is not finite")


def check_zero_weights(spec: Spec, build: Callable[[Spec], Translator], name: str, batch: Tensors) -> None:
    """Check that a loss of weight 0 is not computed and that the others remain."""
    weights = spec.options.get("weights")
    if weights is None:
        return  # the weights have another option name; the other checks used their defaults
    for phase, of_phase in weights.items():
        used = [loss for loss, weight in largest_weights(of_phase).items() if weight]
        for loss in used if len(used) > 1 else []:
            changed = {**weights, phase: {**of_phase, loss: 0.0}}
            without = Spec(spec.kind, spec.name, {**spec.options, "weights": changed})
            translator = build(without).train()
            handed: dict[str, Tensor] = {}
            for each, trained in _phases_at(translator, 0):
                given = phase_input(translator, each, batch, handed)
                result = _result(each, given)
                if trained:
                    where = f"{name}, phase '{each.name}' with {phase}.{loss} = 0"
                    _check_losses(result.losses, given.weights, where)
                handed.update(result.handed)

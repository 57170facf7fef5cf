"""The contract of methods, and of recipes: losses, gradients, translations, precision, processes."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from i2ikit.data import shares
from i2ikit.draws import normal_draws
from i2ikit.processes import processes
from i2ikit.recipe import OptimizerOptions, Precision, load_recipe
from i2ikit.registry import Setting, Spec, check, registries
from i2ikit.testing.networks import require
from i2ikit.training import MicroBatch, TrainingState, build, new_accelerator, train_step
from i2ikit.translator import (
    METHOD,
    Batch,
    Draws,
    Handed,
    ImageSpec,
    Losses,
    Phase,
    Reconstructing,
    StyleEncoding,
    Translator,
    frozen,
    weighted_total,
)

__all__ = ["check_recipe", "check_translator", "gradients"]

SAME = 1e-6
"""Largest relative difference, in float64, between one process and two."""

SIDES = ((64, 64), (61, 30), (17, 90))


def check_translator(
    name: str,
    options: Mapping[str, Any] | None = None,
    *,
    size: int = 64,
    batch_size: int = 4,
    two_processes: bool = True,
) -> None:
    """Check a method by the name that recipes use.

    Every network is trained by a phase and reached by its gradients; losses are finite, and agree
    with the weights by name; a loss of weight 0 is left out; translations keep shape and range, at odd
    sides and with other channels; saved and loaded it is the same; it trains in bf16; two processes do
    what one does.

    Args:
        options: as a recipe's [translator] gives them; small networks make a quick test.
        size: side of the training images, in pixels.
        batch_size: images per domain; in two processes half as many for each.
        two_processes: also start two. The package must be installed for that.

    Raises:
        AssertionError: says what is wrong.
    """
    spec = _spec(name, options or {}, size, batch_size)
    translator = _built(spec, size)
    _check_declarations(translator, name)
    _check_phases(translator, name, size, batch_size)
    _check_zero_weights(spec, name, size, batch_size)
    for channels in ((3, 3), (1, 3)):
        _check_translations(_built(spec, size, channels).eval(), name, channels)
    _check_saving(spec, name, size)
    train_two_steps(_built(spec, size), size, batch_size, "bf16")
    if two_processes:
        _check_two_processes(spec, name, size, batch_size)


def check_recipe(source: str | Path, *overrides: str) -> None:
    """Load a recipe, `package/name` or a file, and train it for two steps on random images.

    Raises:
        RecipeError: with every problem of the recipe.
        AssertionError: a loss or a gradient is not finite.
    """
    recipe = load_recipe(source, overrides)
    options = recipe.data.options
    channels = {d: options.get(f"channels_{d}", 3) for d in "ab"}
    size = options.get("size", 64)
    translator = recipe.translator(ImageSpec(channels, size))
    training = recipe.training
    train_two_steps(translator, size, training.batch_size, training.precision, recipe.optimizers)


def _spec(name: str, options: Mapping[str, Any], size: int, batch_size: int) -> Spec:
    spec, problems = check({"name": name, **options}, name, METHOD, Setting(size, batch_size, paired=True))
    require(not problems, "\n".join(map(str, problems)))
    return spec


def _built(spec: Spec, size: int, channels: tuple[int, int] = (3, 3), seed: int = 0) -> Translator:
    torch.manual_seed(seed)
    translator: Translator = spec(ImageSpec(dict(zip("ab", channels, strict=True)), size))
    return translator


def _check_declarations(translator: Translator, name: str) -> None:
    roles = [*translator.generative, *translator.adversarial]
    require(len(set(roles)) == len(roles), f"{name}: a role is declared twice: {roles}")
    phases = translator.phases()
    names = [phase.name for phase in phases]
    weights = list(translator.weights)
    require(
        sorted(names) == sorted(weights),
        f"{name}: phases {names}, but weights for {weights}; both should agree",
    )
    for role, network in translator.networks.items():
        trained = any(network is net for phase in phases for net in phase.trains)
        require(trained, f"{name}: no phase trains the network '{role}'")
    for phase in phases:
        known = all(any(net is n for n in translator.networks.values()) for net in phase.trains)
        require(known, f"{name}: phase '{phase.name}' trains a module that is none of the networks")


def _batch(size: int, count: int, dtype: torch.dtype = torch.float32) -> Batch:
    generator = torch.Generator().manual_seed(1)
    shape = (count, 3, size, size)
    return {d: (torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1).to(dtype) for d in "ab"}


def _run_phase(
    translator: Translator, phase: Phase, batch: Batch, handed: Handed
) -> tuple[Losses, dict[str, Tensor]]:
    draws = normal_draws(0, 0, phase.name, phase.draws, range(len(batch["a"])))
    losses, new = phase.losses(batch, draws, handed)
    return losses, {**handed, **new}


def _check_phases(translator: Translator, name: str, size: int, count: int) -> None:
    """Losses, and that gradients reach exactly what each phase trains."""
    translator.train()
    batch, handed = _batch(size, count), dict[str, Tensor]()
    moved: set[int] = set()
    for phase in translator.phases():
        where = f"{name}, phase '{phase.name}'"
        idle = [net for net in translator.networks.values() if not any(net is t for t in phase.trains)]
        translator.zero_grad()
        with frozen(*idle):
            losses, handed = _run_phase(translator, phase, batch, handed)
            _check_losses(losses, translator.weights[phase.name], where)
            torch.autograd.backward(weighted_total(losses, translator.weights[phase.name]))
        for key, tensor in handed.items():
            require(not tensor.requires_grad, f"{where}: it hands on '{key}' with its graph; detach it")
        for role, network in translator.networks.items():
            trained = any(network is t for t in phase.trains)
            _check_reach(network, trained, f"{where}: the network '{role}'")
        moved |= {id(p) for p in translator.parameters() if p.grad is not None and p.grad.any()}
    still = [key for key, p in translator.named_parameters() if id(p) not in moved and _is_weight(key)]
    require(not still, f"{name}: no phase moves the parameters {', '.join(still)}")


def _is_weight(name: str) -> bool:
    """Biases before a norm have no gradient by nature."""
    return not name.endswith("bias")


def _check_losses(losses: Losses, weights: Mapping[str, float], where: str) -> None:
    require(losses, f"{where}: it returns no losses")
    for key, loss in losses.items():
        require(isinstance(loss, Tensor) and loss.shape == (), f"{where}: loss '{key}' is no scalar tensor")
        require(loss.isfinite(), f"{where}: loss '{key}' is {loss.item()}")
    names = {key.partition("/")[0] for key in losses}
    wanted = {key for key, weight in weights.items() if weight}
    require(names <= wanted, f"{where}: losses without a weight: {', '.join(sorted(names - wanted))}")
    require(wanted <= names, f"{where}: weights without a loss: {', '.join(sorted(wanted - names))}")


def _check_reach(network: torch.nn.Module, trained: bool, what: str) -> None:
    found = [p.grad for p in network.parameters() if p.grad is not None]
    if not trained:
        require(not found, f"{what} gets a gradient, but is not trained there")
        return
    require(any(g.any() for g in found), f"{what} is trained there, but gets no gradient")
    require(all(g.isfinite().all() for g in found), f"{what} gets a gradient that is not finite")


def _check_zero_weights(spec: Spec, name: str, size: int, count: int) -> None:
    """A loss of weight 0 is not computed, and the others are as they were."""
    weights = spec.options.get("weights")
    if weights is None:
        return  # an option of another name: its defaults are what the other checks saw
    for phase, of_phase in weights.items():
        used = [loss for loss, weight in of_phase.items() if weight]
        for loss in used if len(used) > 1 else []:
            changed = {**weights, phase: {**of_phase, loss: 0.0}}
            translator = _built(
                Spec(spec.kind, spec.name, {**spec.options, "weights": changed}), size
            ).train()
            batch, handed = _batch(size, count), dict[str, Tensor]()
            for each in translator.phases():
                losses, handed = _run_phase(translator, each, batch, handed)
                if each.name == phase:
                    _check_losses(losses, changed[phase], f"{name}, phase '{phase}' with {loss} = 0")
                    break


def _check_translations(translator: Translator, name: str, channels: tuple[int, int]) -> None:
    by_domain = dict(zip("ab", channels, strict=True))
    for to in translator.targets:
        source = "a" if to == "b" else "b"
        for height, width in SIDES:
            x = torch.rand(2, by_domain[source], height, width) * 2 - 1
            styles = translator.sample_style(2)
            _check_translation(translator, x, styles, to, (2, by_domain[to], height, width), name)
    _check_styles(translator, name, by_domain)


def _check_translation(
    translator: Translator, x: Tensor, styles: Tensor, to: str, expected: tuple[int, ...], name: str
) -> None:
    where = f"{name}: {x.shape[1]} x {x.shape[2]} x {x.shape[3]} translated into {to}"
    with torch.no_grad():
        y = translator.translate(x, styles, to)
        require(tuple(y.shape) == expected, f"{where} has the shape {tuple(y.shape)}, not {expected}")
        require(y.isfinite().all(), f"{where} is not finite")
        require(y.abs().max() <= 1, f"{where} has values up to {y.abs().max():.3g}; [-1, 1] is asked")
        require(torch.equal(y, translator.translate(x, styles, to)), f"{where} differs from call to call")
        alone = torch.cat([translator.translate(x[n : n + 1], styles[n : n + 1], to) for n in range(2)])
        require(torch.allclose(y, alone, atol=1e-3), f"{where} depends on the rest of the batch")
        if isinstance(translator, Reconstructing):
            real = torch.rand(expected) * 2 - 1
            again = translator.reconstruct(real, to)
            require(again.shape == real.shape, f"{name}: a reconstruction has another shape than its image")
        if isinstance(translator, StyleEncoding):
            codes = translator.encode_style(torch.rand(expected) * 2 - 1, to)
            require(codes.shape == styles.shape, f"{name}: encode_style gives {tuple(codes.shape)}")


def _check_styles(translator: Translator, name: str, channels: Mapping[str, int]) -> None:
    to = translator.targets[0]
    seeds = [translator.sample_style(2, torch.Generator().manual_seed(n)) for n in (1, 1, 2)]
    require(seeds[0].ndim == 2, f"{name}: sample_style(2) gives {tuple(seeds[0].shape)}; (2, n) is asked")
    require(torch.equal(seeds[0], seeds[1]), f"{name}: sample_style does not follow its generator")
    require(not torch.equal(seeds[0], seeds[2]), f"{name}: sample_style ignores its generator")
    x = (torch.rand(1, channels["a" if to == "b" else "b"], 64, 64) * 2 - 1).expand(2, -1, -1, -1)
    with torch.no_grad():
        one, two = translator.translate(x, seeds[0], to)
    require(not torch.equal(one, two), f"{name}: the style has no effect on a translation")


def _check_saving(spec: Spec, name: str, size: int) -> None:
    one, two = (_built(spec, size, seed=seed).eval() for seed in (1, 2))
    to = one.targets[0]
    x, style = _batch(size, 1)["a"], one.sample_style(1)
    with torch.no_grad():
        before = one.translate(x, style, to)
        two.load_state_dict(one.state_dict())
        same = torch.equal(before, two.translate(x, style, to))
    require(same, f"{name}: saved and loaded, it translates otherwise")


def train_two_steps(
    translator: Translator,
    size: int,
    batch_size: int,
    precision: Precision,
    optimizers: Mapping[str, OptimizerOptions] | None = None,
) -> TrainingState:
    """Two steps of training on random images, of the translator's channels.

    Raises:
        AssertionError: a loss or a gradient is not finite.
    """
    options = optimizers or {role: OptimizerOptions() for role in translator.networks}
    with tempfile.TemporaryDirectory() as folder:
        state = build(translator, options, new_accelerator(precision, Path(folder)), 2)
    device = state.accelerator.device
    batch = {d: x.to(device) for d, x in _batch(size, batch_size).items()}
    for t in range(2):
        losses = train_step(
            state, t, [MicroBatch(batch, range(batch_size))], functools.partial(_draw, t, device)
        )
        for key, loss in losses.items():
            require(loss.isfinite(), f"step {t}: loss '{key}' is {loss.item()} in {precision}")
        require(state.skips == 0, f"step {t}: gradients are not finite in {precision}")
    return state


def _draw(step: int, device: torch.device, phase: Phase, places: Sequence[int]) -> Draws:
    draws = normal_draws(0, step, phase.name, phase.draws, places)
    return {key: noise.to(device) for key, noise in draws.items()}


# Two processes


def gradients(state: TrainingState) -> dict[str, Tensor]:
    """Of the step that was just taken, one vector for each network; zeros where there is none."""
    return {
        role: torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in network.parameters()]
        )
        for role, network in state.translator.networks.items()
    }


def _check_two_processes(spec: Spec, name: str, size: int, batch_size: int) -> None:
    """Gradients and losses of a step in float64, against those of one process."""
    entry = registries["translators"].entry(spec.name)
    if entry.package == "registered":
        raise AssertionError(
            f"{name}: only this process knows it: install its package, or two_processes=False"
        )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "found.safetensors"
        arguments = [json.dumps(spec.table()), str(size), str(batch_size), str(file)]
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*launch, "-m", "i2ikit.testing.translators", *arguments],
            env=environment, capture_output=True, text=True, check=False, timeout=900,
        )  # fmt: skip
        require(done.returncode == 0, f"{name}: two processes fail:\n{done.stderr[-3000:]}")
        two = load_file(file)
    one = one_step(spec, size, batch_size)
    for key, expected in one.items():
        difference = (two[key] - expected).norm().item() / max(expected.norm().item(), 1e-12)
        require(
            difference <= SAME,
            f"{name}: {key} of two processes differs from that of one by {difference:.2g} of its size; "
            "is a loss no mean over samples, or does a layer look at its whole batch?",
        )


def one_step(spec: Spec, size: int, batch_size: int) -> dict[str, Tensor]:
    """Gradients and losses of a step in float64, over all processes of this command."""
    with processes() as group, tempfile.TemporaryDirectory() as folder:
        translator = _built(spec, size).double()
        options = {role: OptimizerOptions() for role in translator.networks}
        state = build(translator, options, new_accelerator("fp32", Path(folder)), 1)
        device = state.accelerator.device
        (share,) = shares(batch_size, translator.batch_parts, 1, group.count)
        places = share[group.rank]
        images = {d: x[places].to(device) for d, x in _batch(size, batch_size, torch.float64).items()}
        micro = MicroBatch(images, places, len(places) * group.count / batch_size)

        def draw(phase: Phase, at: Sequence[int]) -> Draws:
            noise = normal_draws(0, 0, phase.name, phase.draws, at, torch.float64)
            return {key: x.to(device) for key, x in noise.items()}

        losses = train_step(state, 0, [micro], draw)
        found = {f"the gradient of '{role}'": g.cpu() for role, g in gradients(state).items()}
        return found | {f"loss '{key}'": group.mean(loss).cpu() for key, loss in losses.items()}


def main(table: str, size: str, batch_size: str, out: str) -> None:
    """One of several processes: take the step; the first one keeps what it has."""
    given = json.loads(table)
    options = {key: value for key, value in given.items() if key != "name"}
    torch.set_num_threads(1)
    spec = _spec(given["name"], options, int(size), int(batch_size))
    with processes() as group:
        found = one_step(spec, int(size), int(batch_size))
        if group.is_main:
            save_file(found, out)


if __name__ == "__main__":
    main(*sys.argv[1:])

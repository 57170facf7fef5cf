"""Contract checks of translators and recipes: losses, gradients, translations, precision, processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from i2ikit.checking import check
from i2ikit.data.batches import shares
from i2ikit.processes import processes
from i2ikit.recipe import OptimizerOptions, Precision, load_recipe
from i2ikit.registry import Setting, Spec, registries
from i2ikit.state import TrainingState
from i2ikit.testing.networks import require
from i2ikit.testing.phases import check_phases, check_pure, check_zero_weights
from i2ikit.training import (
    MicroBatch,
    build,
    counted_draw,
    cut_batch,
    new_accelerator,
    train_step,
)
from i2ikit.translator import (
    TRANSLATOR_SLOT,
    ImageSpec,
    Reconstructing,
    StyleEncoding,
    Tensors,
    Translator,
)

__all__ = ["check_recipe", "check_translator", "gradients"]

SAME = 1e-6
"""Largest allowed relative difference, in float64, between one process and two."""

SIDES = ((64, 64), (61, 30), (17, 90))


def check_translator(
    name: str,
    options: Mapping[str, Any] | None = None,
    *,
    size: int = 64,
    batch_size: int = 4,
    two_processes: bool = True,
) -> None:
    """Check a translator by its name in recipes.

    Every network with trainable parameters is trained by a phase and receives its gradients; losses are
    finite and their names match the weights; a loss of weight 0 is not computed; a phase depends only on
    what it is given, and on the networks; translations keep shape and range, also at odd sides and with
    other channels; saving and loading changes nothing; it trains in bf16; two processes give the same
    gradients as one.

    Args:
        options: as in a recipe's [translator]; small networks make the test fast.
        size: side of the training images, in pixels.
        batch_size: images per domain; each of two processes gets half of them.
        two_processes: also compare the gradients of a step in two processes with those in one. The package
            must be installed.

    Raises:
        AssertionError: the translator breaks its contract.
    """
    spec = _spec(name, options or {}, size, batch_size)
    translator = _built(spec, size)
    _check_declarations(translator, name)
    for channels in ((3, 3), (1, 3)):
        check_phases(_built(spec, size, channels), name, _batch(size, batch_size, channels))
        _check_translations(_built(spec, size, channels).eval(), name, channels)
    check_pure(_built(spec, size), name, _batch(size, batch_size))
    check_zero_weights(spec, lambda spec: _built(spec, size), name, _batch(size, batch_size))
    trained = train_two_steps(translator, _batch(size, batch_size), "bf16").translator
    _check_saving(trained.eval(), _built(spec, size, seed=2).eval(), name, _batch(size, 1)["a"])
    if two_processes:
        _check_two_processes(spec, name, size, batch_size)


def check_recipe(source: str | Path, *overrides: str) -> None:
    """Load a recipe, given as `package/name` or a file, and train it for two steps on random images.

    Raises:
        RecipeError: the recipe is invalid; lists all its problems.
        AssertionError: a loss or a gradient is not finite.
    """
    recipe = load_recipe(source, overrides)
    options = recipe.data.options
    channels = options.get("channels_a", 3), options.get("channels_b", 3)
    training, size = recipe.training, options.get("size", 64)
    batch = _batch(size, training.batch_size, channels)
    train_two_steps(_built(recipe.translator, size, channels), batch, training.precision, recipe.optimizers)


def _spec(name: str, options: Mapping[str, Any], size: int, batch_size: int) -> Spec:
    spec, problems = check(
        {"name": name, **options}, name, TRANSLATOR_SLOT, Setting(size, batch_size, paired=True)
    )
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
        f"{name}: the phases are {names}, but there are weights for {weights}; they must match",
    )
    trained = {role for phase in phases for role in phase.trains}
    for role, network in translator.networks.items():
        needed = any(p.requires_grad for p in network.parameters())
        require(role in trained or not needed, f"{name}: no phase trains the network '{role}'")
    for word, own, declared in (
        ("parameters", translator.named_parameters(), translator.networks.parameters()),
        ("buffers", translator.named_buffers(), translator.networks.buffers()),
    ):
        inside = {id(tensor) for tensor in declared}
        strays = [key for key, tensor in own if id(tensor) not in inside]
        require(not strays, f"{name}: these {word} are not in `networks`: {', '.join(strays)}")
    valid = translator.targets and {*translator.targets} <= {"a", "b"}
    require(valid, f'{name}: targets are {translator.targets}; expected "a", "b" or both')
    for phase in phases:
        unknown = [role for role in phase.trains if role not in translator.networks]
        known = ", ".join(translator.networks)
        where = f"{name}, phase '{phase.name}'"
        require(not unknown, f"{where}: it trains {', '.join(unknown)}; the networks are {known}")


def _batch(
    size: int, count: int, channels: tuple[int, int] = (3, 3), dtype: torch.dtype = torch.float32
) -> Tensors:
    generator = torch.Generator().manual_seed(1)
    batch = {}
    for domain, number in zip("ab", channels, strict=True):
        images = torch.rand((count, number, size, size), generator=generator, dtype=torch.float64)
        batch[domain] = (images * 2 - 1).to(dtype)
    return batch


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
        require(tuple(y.shape) == expected, f"{where}: expected shape {expected}, got {tuple(y.shape)}")
        require(y.isfinite().all(), f"{where} is not finite")
        require(y.abs().max() <= 1, f"{where} has values up to {y.abs().max():.3g}; expected [-1, 1]")
        require(torch.equal(y, translator.translate(x, styles, to)), f"{where} differs from call to call")
        alone = torch.cat([translator.translate(x[n : n + 1], styles[n : n + 1], to) for n in range(2)])
        require(torch.allclose(y, alone, atol=1e-3), f"{where} depends on the rest of the batch")
        swapped = translator.translate(x.flip(0), styles, to)
        require(not torch.equal(y, swapped), f"{where} does not depend on the image")
        real = torch.rand(expected) * 2 - 1
        if isinstance(translator, Reconstructing):
            again = translator.reconstruct(real, to)
            fine = again.shape == real.shape and bool(again.isfinite().all())
            require(fine, f"{name}: a reconstruction is not finite or differs in shape from its image")
        if isinstance(translator, StyleEncoding):
            codes = translator.encode_style(real, to)
            require(codes.shape == styles.shape, f"{name}: encode_style returns shape {tuple(codes.shape)}")
            alone = torch.cat([translator.encode_style(real[n : n + 1], to) for n in range(2)])
            own = torch.allclose(codes, alone, atol=1e-3, rtol=1e-3)
            require(own, f"{name}: encode_style is not deterministic, or depends on the batch")


def _check_styles(translator: Translator, name: str, channels: Mapping[str, int]) -> None:
    to = translator.targets[0]
    seeds = [translator.sample_style(2, torch.Generator().manual_seed(n)) for n in (1, 1, 2)]
    require(seeds[0].ndim == 2, f"{name}: sample_style(2): expected (2, n), got {tuple(seeds[0].shape)}")
    require(torch.equal(seeds[0], seeds[1]), f"{name}: sample_style is not determined by its generator")
    require(not torch.equal(seeds[0], seeds[2]), f"{name}: sample_style ignores its generator")
    x = (torch.rand(1, channels["a" if to == "b" else "b"], 64, 64) * 2 - 1).expand(2, -1, -1, -1)
    with torch.no_grad():
        one, two = translator.translate(x, seeds[0], to)
    require(not torch.equal(one, two), f"{name}: the style has no effect on a translation")


def _check_saving(trained: Translator, fresh: Translator, name: str, x: Tensor) -> None:
    to = trained.targets[0]
    device = next(trained.parameters()).device
    fresh, x, style = fresh.to(device), x.to(device), trained.sample_style(1).to(device)
    with torch.no_grad():
        before = trained.translate(x, style, to)
        fresh.load_state_dict(trained.state_dict())
        same = torch.equal(before, fresh.translate(x, style, to))
    require(same, f"{name}: after training, saving and loading, its translations differ")


def train_two_steps(
    translator: Translator,
    images: Tensors,
    precision: Precision,
    optimizers: Mapping[str, OptimizerOptions] | None = None,
) -> TrainingState:
    """Train for two steps on the same images.

    Raises:
        AssertionError: a loss or a gradient is not finite.
    """
    options = optimizers or {role: OptimizerOptions() for role in translator.networks}
    places = range(len(next(iter(images.values()))))
    with tempfile.TemporaryDirectory() as folder:
        accelerator = new_accelerator(precision, Path(folder))
        state = build(translator, options, accelerator, 2, places, len(places))
    device = accelerator.device
    micro = MicroBatch({d: x.to(device) for d, x in images.items()}, places)
    for t in range(2):
        losses = train_step(state, t, [micro], counted_draw(0, t, device))
        for key, loss in losses.items():
            require(loss.isfinite(), f"step {t}: loss '{key}' is {loss.item()} in {precision}")
        require(state.skips == 0, f"step {t}: gradients are not finite in {precision}")
    return state


# Two processes


def gradients(state: TrainingState) -> dict[str, Tensor]:
    """Gradients of the last step, one vector for each network; zeros for parameters without one."""
    return {
        role: torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in network.parameters()]
        )
        for role, network in state.translator.networks.items()
    }


def _check_two_processes(spec: Spec, name: str, size: int, batch_size: int) -> None:
    """Compare gradients and losses of a float64 step in two processes with those in one."""
    entry = registries["translators"].entry(spec.name)
    if entry.package == "registered":
        raise AssertionError(
            f"{name}: registered in this process only; install its package, or pass two_processes=False"
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
        require(done.returncode == 0, f"{name}: training in two processes fails:\n{done.stderr[-3000:]}")
        two = load_file(file)
    one = one_step(spec, size, batch_size)
    for key, expected in one.items():
        difference = (two[key] - expected).norm().item() / max(expected.norm().item(), 1e-12)
        require(
            difference <= SAME,
            f"{name}: {key} differs by {difference:.2g} (relative) between two processes and one; possible "
            "causes: a loss that is not a mean over samples, batch statistics in a layer, undeclared draws",
        )


def one_step(spec: Spec, size: int, batch_size: int) -> dict[str, Tensor]:
    """Gradients and losses of a step in float64, averaged over all processes of this command."""
    with processes() as group, tempfile.TemporaryDirectory() as folder:
        translator = _built(spec, size).double()
        options = {role: OptimizerOptions() for role in translator.networks}
        (share,) = shares(batch_size, translator.batch_parts, 1, group.count)
        places = share[group.rank]
        accelerator = new_accelerator("fp32", Path(folder))
        state = build(translator, options, accelerator, 1, places, batch_size)
        device = accelerator.device
        images = {d: x[places].to(device) for d, x in _batch(size, batch_size, dtype=torch.float64).items()}
        micro_batches = cut_batch(images, [places], batch_size, group.count)
        losses = train_step(state, 0, micro_batches, counted_draw(0, 0, device, torch.float64))
        found = {f"the gradient of '{role}'": g.cpu() for role, g in gradients(state).items()}
        found |= {
            f"what it keeps, '{key}',": kept.double() for key, kept in state.gathered_kept(group).items()
        }
        return found | {f"loss '{key}'": group.mean(loss).cpu() for key, loss in losses.items()}


def main(table: str, size: str, batch_size: str, out: str) -> None:
    """Take the step in one of several processes; the first process saves the results."""
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

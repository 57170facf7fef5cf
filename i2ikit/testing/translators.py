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
from i2ikit.data.dataset import Dataset, Foretelling
from i2ikit.optimizer_options import OptimizerOptions, check_optimizers
from i2ikit.precision import Precision
from i2ikit.processes import processes
from i2ikit.recipe import Recipe, load_recipe
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
    Direction,
    ImageSpec,
    Reconstructing,
    StyleEncoding,
    Tensors,
    Translator,
)

__all__ = ["check_recipe", "check_translator", "gradients"]

SAME = 1e-9
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
    images, grey = _images(spec, size, 3), _images(spec, size, 1)
    translator = _built(spec, images)
    _check_declarations(translator, name)
    for each in (images, grey):
        check_phases(_built(spec, each), name, _batch(each, batch_size))
        _check_translations(_built(spec, each).eval(), name)
    batch = _batch(images, batch_size)
    check_pure(_built(spec, images), name, batch)
    check_zero_weights(spec, lambda spec: _built(spec, images), name, batch)
    trained = train_two_steps(translator, batch, "bf16").translator
    _check_saving(trained.eval(), _built(spec, images, seed=2).eval(), name, _batch(images, 1))
    if two_processes:
        _check_two_processes(spec, name, size, batch_size)


def check_recipe(source: str | Path, *overrides: str) -> None:
    """Load a recipe, given as `package/name` or a file, and train it for two steps on random images.

    Raises:
        RecipeError: the recipe is invalid; lists all its problems.
        AssertionError: a loss or a gradient is not finite.
    """
    recipe = load_recipe(source, overrides)
    images, training = _images_of(recipe), recipe.training
    batch = _batch(images, training.batch_size)
    train_two_steps(_built(recipe.translator, images), batch, training.precision, recipe.optimizers)


def _images_of(recipe: Recipe) -> ImageSpec:
    """The images of a recipe, without opening its dataset if that is not needed."""
    component = registries["datasets"].load(recipe.data.name)
    if isinstance(component, Foretelling):
        return component.image_spec(recipe.data.options)
    data: Dataset = recipe.data()
    return data.images


def _images(spec: Spec, size: int, first: int) -> ImageSpec:
    """As many domains as the translator takes (3 if it takes any number), the first with `first` channels."""
    count = registries["translators"].load(spec.name).num_domains or 3
    return ImageSpec({domain: 3 if n else first for n, domain in enumerate("abcdefgh"[:count])}, size)


def _spec(name: str, options: Mapping[str, Any], size: int, batch_size: int) -> Spec:
    spec, problems = check(
        {"name": name, **options}, name, TRANSLATOR_SLOT, Setting(size, batch_size, paired=True)
    )
    require(not problems, "\n".join(map(str, problems)))
    return spec


def _built(spec: Spec, images: ImageSpec, seed: int = 0) -> Translator:
    torch.manual_seed(seed)
    translator: Translator = spec(images)
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
    _default_optimizers(translator, name)
    for word, own, declared in (
        ("parameters", translator.named_parameters(), translator.networks.parameters()),
        ("buffers", translator.named_buffers(), translator.networks.buffers()),
    ):
        inside = {id(tensor) for tensor in declared}
        strays = [key for key, tensor in own if id(tensor) not in inside]
        require(not strays, f"{name}: these {word} are not in `networks`: {', '.join(strays)}")
    directions = translator.directions
    valid = directions and all(d.source != d.to and {*d} <= {*translator.domains} for d in directions)
    pairs = ", ".join(map(str, directions)) or "none"
    known = ", ".join(translator.domains)
    require(valid, f"{name}: its directions are {pairs}; expected pairs of the domains {known}")
    for phase in phases:
        unknown = [role for role in phase.trains if role not in translator.networks]
        networks = ", ".join(translator.networks)
        where = f"{name}, phase '{phase.name}'"
        require(not unknown, f"{where}: it trains {', '.join(unknown)}; the networks are {networks}")


def _default_optimizers(translator: Translator, name: str) -> dict[str, OptimizerOptions]:
    """The optimizers of a recipe that has no [optimizer]."""
    roles, defaults = list(translator.networks), translator.optimizer_defaults
    unknown = [role for role in defaults if role not in roles]
    known = ", ".join(roles)
    require(not unknown, f"{name}: optimizer_defaults names {', '.join(unknown)}; the networks are {known}")
    optimizers, problems, _ = check_optimizers({}, name, roles, defaults, (), None)
    require(not problems, f"{name}: optimizer_defaults: " + "; ".join(map(str, problems)))
    return optimizers


def _batch(spec: ImageSpec, count: int, dtype: torch.dtype = torch.float32) -> Tensors:
    generator = torch.Generator().manual_seed(1)
    batch = {}
    for domain, channels in spec.channels.items():
        shape = (count, channels, spec.size, spec.size)
        images = torch.rand(shape, generator=generator, dtype=torch.float64)
        batch[domain] = (images * 2 - 1).to(dtype)
    return batch


def _check_translations(translator: Translator, name: str) -> None:
    for direction in translator.directions:
        for height, width in SIDES:
            _check_translation(translator, direction, height, width, name)
    for to in {direction.to for direction in translator.directions}:
        _check_styles(translator, name, to)


def _check_translation(
    translator: Translator, direction: Direction, height: int, width: int, name: str
) -> None:
    (source, to), channels = direction, translator.images.channels
    x = torch.rand(2, channels[source], height, width) * 2 - 1
    expected = (2, channels[to], height, width)
    styles = translator.sample_style(2, to)
    where = f"{name}: {' x '.join(map(str, x.shape[1:]))} translated from {source} into {to}"

    def translated(x: Tensor, styles: Tensor) -> Tensor:
        return translator.translate(x, styles, source=source, to=to)

    with torch.no_grad():
        y = translated(x, styles)
        require(tuple(y.shape) == expected, f"{where}: expected shape {expected}, got {tuple(y.shape)}")
        require(y.isfinite().all(), f"{where} is not finite")
        require(y.abs().max() <= 1, f"{where} has values up to {y.abs().max():.3g}; expected [-1, 1]")
        require(torch.equal(y, translated(x, styles)), f"{where} differs from call to call")
        alone = torch.cat([translated(x[n : n + 1], styles[n : n + 1]) for n in range(2)])
        require(torch.allclose(y, alone, atol=1e-3), f"{where} depends on the rest of the batch")
        require(not torch.equal(y, translated(x.flip(0), styles)), f"{where} does not depend on the image")
        each = translator.translate_with_each(x[:1], styles, source=source, to=to)
        copies = translated(x[:1].expand(2, -1, -1, -1), styles)
        same = each.shape == copies.shape and torch.allclose(each, copies, atol=1e-3)
        require(same, f"{where}: translate_with_each differs from translate of copies of the image")
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


def _check_styles(translator: Translator, name: str, to: str) -> None:
    """Check the styles of one target; a deterministic translator has none."""
    seeds = [translator.sample_style(2, to, torch.Generator().manual_seed(n)) for n in (1, 1, 2)]
    valid = seeds[0].ndim == 2 and len(seeds[0]) == 2
    require(valid, f"{name}: sample_style(2): expected (2, n), got {tuple(seeds[0].shape)}")
    require(torch.equal(seeds[0], seeds[1]), f"{name}: sample_style is not determined by its generator")
    if translator.is_deterministic(to):
        return
    require(not torch.equal(seeds[0], seeds[2]), f"{name}: sample_style ignores its generator")
    source = next(direction.source for direction in translator.directions if direction.to == to)
    x = torch.rand(1, translator.images.channels[source], 64, 64) * 2 - 1
    with torch.no_grad():
        one, two = translator.translate(x.expand(2, -1, -1, -1), seeds[0], source=source, to=to)
    require(not torch.equal(one, two), f"{name}: the style has no effect on a translation")


def _check_saving(trained: Translator, fresh: Translator, name: str, batch: Tensors) -> None:
    source, to = trained.directions[0]
    device = next(trained.parameters()).device
    fresh, x, style = fresh.to(device), batch[source].to(device), trained.sample_style(1, to).to(device)
    with torch.no_grad():
        before = trained.translate(x, style, source=source, to=to)
        fresh.load_state_dict(trained.state_dict())
        same = torch.equal(before, fresh.translate(x, style, source=source, to=to))
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
    options = optimizers or _default_optimizers(translator, type(translator).__name__)
    places = range(len(next(iter(images.values()))))
    accelerator = new_accelerator(precision)
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
    with processes() as group:
        spec_of_images = _images(spec, size, 3)
        translator = _built(spec, spec_of_images).double()
        options = {role: OptimizerOptions() for role in translator.networks}
        (share,) = shares(batch_size, translator.batch_parts, 1, group.count)
        places = share[group.rank]
        accelerator = new_accelerator("fp32")
        state = build(translator, options, accelerator, 1, places, batch_size)
        device = accelerator.device
        batch = _batch(spec_of_images, batch_size, torch.float64)
        images = {d: x[places].to(device) for d, x in batch.items()}
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

"""Training: phases, optimizers, EMA, non-finite gradients, interruption, and exact resuming."""

from __future__ import annotations

import copy
import dataclasses
import io
import math
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from i2ikit.checkpoints import load_checkpoint, newest_checkpoint, save_checkpoint
from i2ikit.components.optimizers import SGD
from i2ikit.data.batches import shares, training_batches
from i2ikit.errors import ComponentError, RunError, TrainingError
from i2ikit.loop import train
from i2ikit.loss_weights import Weights
from i2ikit.metrics.style import DiversityProbe
from i2ikit.optimizer_options import ScheduleOptions
from i2ikit.recipe import Recipe, load_recipe
from i2ikit.run import RESOLVED, Run
from i2ikit.state import TrainingState
from i2ikit.testing.translators import gradients
from i2ikit.training import (
    MicroBatch,
    build,
    counted_draw,
    cut_batch,
    new_accelerator,
    new_translator,
    set_learning_rate,
    train_step,
    update_ema,
    weighted_total,
)
from i2ikit.translator import ImageSpec, Phase, Tensors, Translator
from tests.tiny import NARROW, metrics, run, tiny_recipe
from tests.toy import new_toy

IMAGES = ImageSpec({"a": 3, "b": 3}, 64)
QUIET = Console(quiet=True)


def new_state(recipe: Recipe) -> TrainingState:
    translator = new_translator(recipe, IMAGES)
    accelerator = new_accelerator(recipe.training.precision)
    return build(translator, recipe.optimizers, accelerator, recipe.training.steps)


def batch_of(n: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {d: torch.rand(n, 3, 64, 64, generator=generator) * 2 - 1 for d in "ab"}


def step(state: TrainingState, batch: Mapping[str, Tensor], t: int = 0) -> dict[str, Tensor]:
    return train_step(state, t, [MicroBatch(batch, range(len(batch["a"])))], counted_draw(0, t))


@pytest.mark.parametrize("order", ["generator-first", "discriminator-first"])
def test_a_step_returns_every_loss_that_has_a_weight_and_moves_every_network(
    folders: Path, order: str
) -> None:
    state = new_state(tiny_recipe(folders, f"translator.order={order}"))
    before = copy.deepcopy(state.translator.state_dict())
    losses = step(state, batch_of())
    weights = state.translator.weights
    names = {f"{phase}/{name}" for phase, own in weights.items() for name, w in own.items() if w}
    assert {key.rpartition("/")[0] for key in losses} == names
    assert all(math.isfinite(loss) and not loss.requires_grad for loss in losses.values())
    for name, after in state.translator.named_parameters():
        # A bias before a norm that subtracts the mean has no effect, hence no gradient worth the name.
        assert not name.endswith("weight") or not torch.equal(after, before[name]), name


@pytest.mark.parametrize("order", ["generator-first", "discriminator-first"])
def test_a_phase_gives_gradients_to_the_networks_it_trains_and_to_no_other(folders: Path, order: str) -> None:
    state = new_state(tiny_recipe(folders, f"translator.order={order}"))
    seen: list[str] = []
    for phase in state.phases:
        for optimizer in state.optimizers.values():
            optimizer.zero_grad()
        alone = copy.copy(state)
        fakes = {"b": batch_of()["a"], "a": batch_of()["b"]}
        alone.phases = (given(phase, fakes),)
        step(alone, batch_of())
        for role, network in state.translator.networks.items():
            has_gradient = any(p.grad is not None and p.grad.any() for p in network.parameters())
            assert has_gradient == (role in phase.trains), (phase.name, role)
        seen += phase.trains
    assert sorted(seen) == sorted(state.translator.networks)


def given(phase: Phase, handed: Tensors) -> Phase:
    """A phase, given what an earlier one would have handed on."""
    return dataclasses.replace(
        phase, losses=lambda given: phase.losses(dataclasses.replace(given, handed=handed))
    )


def test_weight_zero_is_neither_computed_nor_returned(folders: Path) -> None:
    overrides = [
        f"translator.weights.generator.{name}=0" for name in ("image_recon", "style_recon", "cycle_recon")
    ]
    state = new_state(tiny_recipe(folders, *overrides))
    losses = step(state, batch_of())
    assert {key for key in losses if key.startswith("generator")} == {
        f"generator/{name}/{d}" for name in ("adversarial", "content_recon") for d in "ab"
    }


def test_names_on_one_side_only_are_an_error() -> None:
    one = torch.tensor(1.0)
    assert weighted_total({"x/a": one, "x/b": one, "y": one}, Weights({"x": 2, "y": 3, "z": 0})).item() == 7
    with pytest.raises(TrainingError, match=r"losses \['y'\] have no weight"):
        weighted_total({"x": one, "y": one}, Weights({"x": 1}))
    with pytest.raises(TrainingError, match=r"weights \['y'\] have no loss"):
        weighted_total({"x": one}, Weights({"x": 1, "y": 1}))


def test_a_weight_of_a_part_that_there_is_not_is_an_error_with_its_phase_and_the_losses() -> None:
    message = r"phase 'p': weights \['x/c'\] have no loss; use the same names for both \(losses: x/a, x/b\)"
    one = torch.tensor(1.0)
    with pytest.raises(TrainingError, match=message):
        weighted_total({"x/a": one, "x/b": one}, Weights({"x": 1, "x/c": 1}), "p")


@pytest.mark.slow
@pytest.mark.parametrize("constant", [1.0, -1.0, 0.0])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("norm", ["bn", "none"])
def test_a_constant_picture_does_not_poison_the_weights(
    folders: Path, constant: float, precision: str, norm: str
) -> None:
    """The official code gets gradients of 1e13 and NaN in its first step from one white picture."""
    overrides = (f"training.precision={precision}", f"translator.style_encoder.norm={norm}")
    recipe = tiny_recipe(
        folders,
        *overrides,
        # The limit below was found with these; it is about the norms, and the recipe's own values may change.
        "translator.style_dim=8",
        "translator.weights.generator.style_recon=4",
        "translator.weights.generator.cycle_recon=10",
        "translator.content_encoder.num_residual=4",
        "translator.decoder.num_residual=4",
        "translator.content_encoder.width=16",
    )

    def largest_gradient(batch: Mapping[str, Tensor]) -> float:
        state = new_state(recipe)
        step(state, batch)
        assert state.skips == 0
        roles = state.translator.generative
        grads = [
            p.grad for r in roles for p in state.translator.networks[r].parameters() if p.grad is not None
        ]
        assert all(p.isfinite().all() for p in state.translator.parameters())
        return torch.nn.utils.get_total_norm(grads).item()

    batch = batch_of()
    usual = largest_gradient(batch)
    for domain in "ab":
        poisoned = {**batch, domain: batch[domain].clone()}
        poisoned[domain][1] = constant
        assert largest_gradient(poisoned) < 20 * usual
    everywhere = {d: torch.full_like(x, constant) for d, x in batch.items()}
    assert largest_gradient(everywhere) < 20 * usual


def test_non_finite_gradients_are_skipped_and_leave_no_trace(folders: Path) -> None:
    """Weights, moments and batch norm's running statistics stay as they were."""
    state = new_state(tiny_recipe(folders))
    step(state, batch_of())
    before = copy.deepcopy(state.translator.state_dict())
    moments = copy.deepcopy(state.optimizers["decoders"].state_dict())
    bad = batch_of()
    bad["a"][0, 0, 0, 0] = math.nan
    step(state, bad, 1)
    assert state.skips == 2
    for name, tensor in state.translator.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    again = state.optimizers["decoders"].state_dict()
    assert torch.equal(again["state"][0]["exp_avg"], moments["state"][0]["exp_avg"])
    step(state, batch_of(), 2)
    assert state.skips == 0


def test_training_gives_up_after_many_non_finite_updates_and_names_the_losses(folders: Path) -> None:
    state = new_state(tiny_recipe(folders))
    bad = {d: torch.full((2, 3, 64, 64), math.nan) for d in "ab"}
    for t in range(9):
        step(state, bad, t)
    with pytest.raises(
        TrainingError, match=r"step 9, phase 'discriminator': .* 20 updates in a row; non-finite losses"
    ):
        step(state, bad, 9)


@pytest.mark.slow
def test_a_sound_discriminator_does_not_hide_a_generator_that_stays_broken(folders: Path) -> None:
    state = new_state(tiny_recipe(folders, "translator.order=discriminator-first"))

    def draw(phase: Phase, places: Sequence[int]) -> Tensors:
        value = math.nan if phase.name == "generator" else 0.0
        return {name: torch.full((2, *draw.shape), value) for name, draw in phase.draws.items()}

    micro_batches = [MicroBatch(batch_of(), range(2))]
    for t in range(19):
        train_step(state, t, micro_batches, draw)
    with pytest.raises(TrainingError, match=r"step 19, phase 'generator'"):
        train_step(state, 19, micro_batches, draw)


def test_ema_follows_the_weights_slowly_and_the_buffers_at_once(folders: Path) -> None:
    state = new_state(tiny_recipe(folders, "translator.style_encoder.norm=bn"))
    first = copy.deepcopy(state.ema.state_dict())
    step(state, batch_of())
    update_ema(state.ema, state.translator, 0.9, step=1000)
    live, averaged = state.translator.state_dict(), state.ema.state_dict()
    buffers = {name for name, _ in state.translator.named_buffers()}
    assert any("running_mean" in name for name in buffers)
    for name in averaged:
        if "discriminators" in name:
            continue
        expected = live[name] if name in buffers else 0.9 * first[name] + 0.1 * live[name]
        torch.testing.assert_close(averaged[name], expected)
    assert any(not torch.equal(averaged[n], first[n]) for n in buffers if "running_mean" in n)


def test_an_optimizer_without_a_learning_rate_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Still(torch.optim.Optimizer):
        def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
            super().__init__(parameters, {})

    monkeypatch.setattr(SGD, "optimizer", lambda self, parameters: Still(parameters))
    with pytest.raises(
        ComponentError, match="optimizer 'sgd' made a Still without a default `lr`, which the"
    ):
        new_toy({"n": nn.Conv2d(1, 1, 1)}, [], {})


def test_ema_of_a_generative_network_without_parameters_has_its_buffers() -> None:
    state = new_toy({"fixed": nn.BatchNorm2d(1, affine=False)}, [], {})
    state.translator.networks["fixed"].running_mean.fill_(5.0)
    update_ema(state.ema, state.translator, 0.9, step=0)
    assert state.ema.networks["fixed"].running_mean.tolist() == [5.0]


def test_ema_forgets_the_initial_weights_early(folders: Path) -> None:
    state = new_state(tiny_recipe(folders))
    with torch.no_grad():
        for parameter in state.translator.parameters():
            parameter.fill_(1.0)
    update_ema(state.ema, state.translator, 0.999, step=0)
    for t in range(1, 60):
        update_ema(state.ema, state.translator, 0.999, step=t)
    for role in state.ema.generative:
        assert all((p - 1).abs().max() < 1e-4 for p in state.ema.networks[role].parameters())


@pytest.mark.parametrize(
    ("options", "step_number", "factor"),
    [
        ({"decay": "none"}, 10**6, 1),
        ({"decay": "step", "decay_steps": 100_000}, 99_998, 1),
        ({"decay": "step", "decay_steps": 100_000}, 99_999, 0.5),
        ({"decay": "step", "decay_steps": 100_000}, 199_999, 0.25),
        ({"decay": "linear", "decay_steps": 50}, 49, 1),
        ({"decay": "linear", "decay_steps": 50}, 75, 0.5),
        ({"decay": "linear", "decay_steps": 50}, 99, 0.02),
    ],
)
def test_the_learning_rate_is_a_function_of_the_step(options: dict, step_number: int, factor: float) -> None:
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=2e-4)
    set_learning_rate(optimizer, ScheduleOptions(**options), step_number, steps=100)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(2e-4 * factor)


def test_bf16_trains_with_fp32_weights_and_losses(folders: Path) -> None:
    state = new_state(tiny_recipe(folders, "training.precision=bf16"))
    losses = step(state, batch_of())
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    assert all(p.dtype == torch.float32 for p in state.translator.parameters())


def test_bf16_is_really_used(folders: Path) -> None:
    recipe = tiny_recipe(folders)
    plain = step(new_state(recipe), batch_of())
    state = new_state(tiny_recipe(folders, "training.precision=bf16"))
    rounded = step(state, batch_of())
    assert any(plain[k] != rounded[k] for k in plain)
    assert all(plain[k].item() == pytest.approx(rounded[k].item(), abs=0.1, rel=0.1) for k in plain)


@pytest.mark.parametrize("order", ["generator-first", "discriminator-first"])
def test_loss_scaling_leaves_no_trace_in_the_gradients(folders: Path, order: str) -> None:
    """As fp16 on a GPU has it: one scale, several optimizers, several micro-batches."""
    own = (f"translator.order={order}", "translator.style_encoder.norm=none")
    plain, scaled = (new_state(tiny_recipe(folders, *own)) for _ in range(2))
    scaled.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, growth_interval=2)
    batch = batch_of(4)
    parts = [MicroBatch({d: x[n : n + 2] for d, x in batch.items()}, (n, n + 1), 0.5) for n in (0, 2)]
    for state in (plain, scaled):
        train_step(state, 0, parts, counted_draw(0, 0))
    for role, network in plain.translator.networks.items():
        for one, two in zip(network.parameters(), scaled.translator.networks[role].parameters(), strict=True):
            torch.testing.assert_close(two.grad, one.grad, rtol=1e-5, atol=1e-7)
    assert scaled.accelerator.scaler.get_scale() == 2.0**13  # two phases, two sound updates


def test_a_scale_that_overflows_is_halved_and_that_update_skipped(folders: Path) -> None:
    """All networks of the phase stay as they were; the discriminators' phase is sound.

    That is how fp16 finds its scale, and no failure: one at a scale of 1 is.
    """
    state = new_state(tiny_recipe(folders))
    state.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    before = copy.deepcopy(state.translator.networks.state_dict())
    losses = step(state, batch_of())
    assert all(math.isfinite(loss) for loss in losses.values())
    assert (state.skips, state.accelerator.scaler.get_scale()) == (0, 2.0**126)
    moved = {
        name.split(".")[0]
        for name, tensor in state.translator.networks.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    assert moved == {"discriminators"}
    state.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    step(state, {d: torch.full((2, 3, 64, 64), math.nan) for d in "ab"})
    assert state.skips == 2


def test_the_loss_scale_is_in_the_checkpoint(folders: Path, tmp_path: Path) -> None:
    state = new_state(tiny_recipe(folders))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    scaler.scale(torch.ones(()))  # a scaler begins with its first use
    state.accelerator.scaler = scaler
    path = save_checkpoint(tmp_path, 1, state, keep=1)
    state.accelerator.scaler = again = torch.amp.GradScaler("cpu")
    assert load_checkpoint(path, state) == 1
    assert again.state_dict() == scaler.state_dict()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_trains_on_a_gpu(folders: Path, precision: str) -> None:
    """Twenty steps: losses stay finite, no update fails but for the scale, every network moves."""
    state = new_state(tiny_recipe(folders, f"training.precision={precision}"))
    assert (state.accelerator.scaler is not None) == (precision == "fp16")
    images = {d: x.to(state.accelerator.device) for d, x in batch_of().items()}
    before = {role: next(net.parameters()).clone() for role, net in state.translator.networks.items()}
    draw = counted_draw(0, 0, state.accelerator.device)
    for t in range(20):
        losses = train_step(state, t, [MicroBatch(images, range(2))], draw)
        assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())
    assert state.skips == 0
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in state.translator.parameters())
    for role, network in state.translator.networks.items():
        assert not torch.equal(next(network.parameters()), before[role]), role


@pytest.mark.gpu
def test_gradients_in_fp16_are_those_of_fp32_but_for_rounding(folders: Path) -> None:
    """Scaling or unscaling twice would be wrong by powers of two."""
    found = {}
    for precision in ("fp32", "fp16"):
        state = new_state(tiny_recipe(folders, f"training.precision={precision}"))
        if state.accelerator.scaler is not None:
            state.accelerator.scaler = torch.amp.GradScaler(init_scale=1024.0)
        images = {d: x.to(state.accelerator.device) for d, x in batch_of().items()}
        train_step(state, 0, [MicroBatch(images, range(2))], counted_draw(0, 0, "cuda"))
        found[precision] = torch.cat(
            [p.grad.flatten() for p in state.translator.parameters() if p.grad is not None]
        )
    assert (found["fp16"] - found["fp32"]).norm() < 0.1 * found["fp32"].norm()


def test_a_run_leaves_everything_that_the_docs_promise(folders: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(folders, "training.sample_every=1")
    assert run(recipe, tmp_path / "run") == 2
    names = {str(p.relative_to(tmp_path / "run")) for p in (tmp_path / "run").rglob("*") if p.is_file()}
    assert {
        "resolved.toml",
        "weights.safetensors",
        "metrics.jsonl",
        "samples/step-000000.png",
        "samples/step-000001.png",
        "samples/step-000002.png",
        "samples/step-000002-b2a.png",
        "checkpoints/step-000000002/manifest.json",
    } <= names
    assert any(name.startswith("tensorboard/events") for name in names)
    assert not any(name.endswith((".pkl", ".pt", ".tmp")) for name in names)
    assert [line["step"] for line in metrics(tmp_path / "run")] == [1, 2]


def test_no_pictures_before_the_end_where_the_recipe_wants_none(folders: Path, tmp_path: Path) -> None:
    """`sample_every = 0` means at the end only, so not at the start either."""
    run(tiny_recipe(folders, "training.sample_every=0"), tmp_path / "run")
    pictures = sorted(path.name for path in (tmp_path / "run" / "samples").iterdir())
    assert pictures == ["step-000002-b2a.png", "step-000002.png"]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(
    folders: Path, tmp_path: Path, one_thread: None
) -> None:
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        run(tiny_recipe(folders, f"seed={seed}"), tmp_path / name)
    one, two, three = (metrics(tmp_path / name) for name in ("one", "two", "three"))
    assert one == two
    assert one != three


def test_a_probe_looks_at_the_averaged_weights_with_every_sample(folders: Path, tmp_path: Path) -> None:
    """Its numbers go to metrics.jsonl, and what they mean to the log."""
    recipe = tiny_recipe(folders, "training.steps=3", "training.sample_every=2", "training.log_every=3")
    seen: list[Translator] = []

    def probe(translator: Translator) -> dict[str, float]:
        seen.append(translator)
        return {"diversity/a2b": 0.25 * (3 - len(seen))}

    folder = tmp_path / "run"
    folder.mkdir()
    console = Console(file=io.StringIO(), width=100)
    train(recipe, recipe.data(), folder, probe=probe, console=console)
    assert not any(translator.training for translator in seen)
    lines = [line for line in metrics(folder) if "diversity/a2b" in line]
    assert lines == [{"step": step, "diversity/a2b": 0.25 * (3 - n)} for n, step in enumerate((0, 2, 3), 1)]
    said = console.file.getvalue()
    assert "step 2/3: styles differ by 0.250 (a2b)\n" in said
    assert "step 3/3: image_recon" in said
    assert "styles differ by 0.000 (a2b)" in said


def test_the_command_watches_diversity(folders: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(folders, "training.steps=1")
    data = recipe.data()
    (tmp_path / "run").mkdir()
    train(recipe, data, tmp_path / "run", probe=DiversityProbe(data, 0), console=QUIET)
    line = metrics(tmp_path / "run")[-1]
    assert set(line) == {"step", "diversity/a2b", "diversity/b2a"}
    assert all(0 < line[f"diversity/{way}"] < 1 for way in ("a2b", "b2a"))


def test_dropout_repeats_itself_when_resuming(folders: Path, tmp_path: Path, one_thread: None) -> None:
    """It draws from counted numbers, and leaves torch's own generator alone."""
    own = (
        "data.name=folders",
        f'data.root="{folders}"',
        "data.size=64",
        "data.paired=true",
        "translator.generator.dropout=0.5",
    )
    short = ("training.precision=fp32", "training.steps=3", "training.checkpoint_every=1", "training.keep=9")
    recipe = load_recipe("bicyclegan", [*own, *short, *NARROW["bicyclegan"]])
    assert run(recipe, tmp_path / "whole") == 3
    torch.manual_seed(9)
    before = torch.random.get_rng_state()
    run(recipe, tmp_path / "parts")
    assert torch.equal(torch.random.get_rng_state(), before)
    for later in (2, 3):
        shutil.rmtree(tmp_path / "parts" / "checkpoints" / f"step-{later:09d}")
    assert run(recipe, tmp_path / "parts", resume=True) == 3
    name = "checkpoints/step-000000003/networks.safetensors"
    assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
def test_a_step_in_micro_batches_is_that_of_the_whole_batch(folders: Path, tmp_path: Path) -> None:
    """Also where micro-batches differ in size; the learning rate follows the step alone.

    Updates are small here, since Adam's first one is all but the sign of a gradient, which rounding turns over
    where it is nearly 0; tests/test_processes.py compares them in float64.
    """
    own = ("translator.style_encoder.norm=none", "training.batch_size=5", "optimizer.decay=linear")
    own = (*own, "optimizer.lr=1e-6", "optimizer.discriminators.lr=1e-6")
    for accumulation in (1, 2, 5):
        recipe = tiny_recipe(
            folders, *own, f"training.accumulation={accumulation}", "optimizer.decay_steps=1"
        )
        run(recipe, tmp_path / str(accumulation))
    whole, *cut = (metrics(tmp_path / str(n)) for n in (1, 2, 5))
    for lines in cut:
        for line, expected in zip(lines, whole, strict=True):
            assert line == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("munit", (3, 2)), ("bicyclegan", (4, 2)), ("cyclegan-noise", (1, 2)), ("cyclegan", (1, 2))],
)
def test_the_mean_of_the_shares_gradients_is_the_gradient_of_the_batch(
    folders: Path, name: str, sizes: tuple[int, int]
) -> None:
    """What two processes compute, one after the other here; tests/test_processes.py starts two."""
    count = sum(sizes)
    own = ("data.name=folders", f'data.root="{folders}"', "data.size=64", "data.paired=true")
    narrow = NARROW[load_recipe(name).translator.name]
    encoder = {"munit": "style_encoder", "bicyclegan": "encoder"}
    norms = [f"translator.{encoder[name]}.norm=none"] if name in encoder else []  # bn sees the whole batch
    recipe = load_recipe(
        name, [*own, *narrow, *norms, f"training.batch_size={count}", "training.precision=fp32"]
    )

    def found(places: Sequence[int], processes: int) -> dict[str, Tensor]:
        state = new_state(recipe)
        state.translator.double()
        images = {d: x[list(places)].double() for d, x in batch_of(count).items()}
        draw = counted_draw(0, 0, dtype=torch.float64)
        train_step(state, 0, cut_batch(images, [places], count, processes), draw)
        return gradients(state)

    whole = found(range(count), 1)
    (shared,) = shares(count, new_state(recipe).translator.batch_parts, 1, 2)
    one, two = (found(share, 2) for share in shared)
    for role, expected in whole.items():
        assert expected.norm() > 0
        torch.testing.assert_close((one[role] + two[role]) / 2, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("stop", "discriminator"), [(1, None), (2, None), (4, None), (2, "projected")])
def test_resuming_is_bit_exact(
    folders: Path, tmp_path: Path, one_thread: None, stop: int, discriminator: str | None, alexnet_file: str
) -> None:
    """In mid-epoch too: 6 pictures, batches of 2, 5 steps; spectral norm goes on where it was."""
    whole = ("training.steps=5", "training.checkpoint_every=1", "training.keep=9", "optimizer.decay=linear")
    overrides = [*whole, "optimizer.decay_steps=2", "translator.style_encoder.norm=bn"]
    if discriminator:
        overrides.append(
            f"translator.discriminator={{name='{discriminator}', weights='{alexnet_file}', width=4}}"
        )
    recipe = tiny_recipe(folders, *overrides)
    run(recipe, tmp_path / "whole")
    run(recipe, tmp_path / "parts")
    for later in range(stop + 1, 6):
        folder = tmp_path / "parts" / "checkpoints" / f"step-{later:09d}"
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    (tmp_path / "parts" / "metrics.jsonl").unlink()
    assert run(recipe, tmp_path / "parts", resume=True) == 5
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")[stop:]
    for file in ("networks", "ema", "optimizers"):
        name = f"checkpoints/step-000000005/{file}.safetensors"
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_resuming_after_a_kill_forgets_the_lines_of_steps_that_it_does_again(
    folders: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(folders, "training.steps=3", "training.checkpoint_every=1", "training.keep=9")
    run(recipe, tmp_path / "r")
    for file in (tmp_path / "r/checkpoints/step-000000003").iterdir():
        file.unlink()
    with (tmp_path / "r/metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "cut o')
    run(recipe, tmp_path / "r", resume=True)
    assert [line["step"] for line in metrics(tmp_path / "r")] == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_stops(folders: Path, tmp_path: Path, number: signal.Signals) -> None:
    recipe = tiny_recipe(
        folders, "training.steps=1000", "training.sample_every=0", "training.checkpoint_every=0"
    )
    data = recipe.data()
    reads = data.image

    def image(split: str, domain: str, index: int, rng: object = None) -> Tensor:
        image.count += 1
        if image.count == 60:
            os.kill(os.getpid(), number)
        return reads(split, domain, index, rng)

    image.count = 0
    data.image = image
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / RESOLVED).write_text(recipe.to_toml())
    before = signal.getsignal(number)
    stopped = train(recipe, data, folder, console=QUIET)
    assert stopped.signal == number
    assert 0 < stopped.step < 100
    assert newest_checkpoint(folder).name == f"step-{stopped.step:09d}"
    assert (folder / f"samples/step-{stopped.step:06d}.png").is_file()
    assert Run(folder).step == stopped.step
    assert signal.getsignal(number) is before


def test_only_the_newest_checkpoints_are_kept(folders: Path, tmp_path: Path) -> None:
    run(
        tiny_recipe(folders, "training.steps=4", "training.checkpoint_every=1", "training.keep=2"),
        tmp_path / "r",
    )
    names = sorted(p.name for p in (tmp_path / "r" / "checkpoints").iterdir())
    assert names == ["step-000000003", "step-000000004"]


def test_a_damaged_checkpoint_is_passed_over_and_only_damaged_ones_are_an_error(
    folders: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "r"
    run(tiny_recipe(folders, "training.checkpoint_every=1"), folder)
    ema = folder / "checkpoints/step-000000002/ema.safetensors"
    ema.write_bytes(ema.read_bytes()[:-1] + b"\x00")
    damaged = bytearray(ema.read_bytes())
    damaged[-5] ^= 1
    ema.write_bytes(damaged)
    assert newest_checkpoint(folder).name == "step-000000001"
    (folder / "checkpoints/step-000000001/manifest.json").unlink()
    with pytest.raises(
        RunError, match="no checkpoint to resume from; damaged: step-000000002, step-000000001"
    ):
        newest_checkpoint(folder)


def test_weights_translate_without_the_data(folders: Path, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    run(tiny_recipe(folders), folder)
    for file in list(folders.rglob("*.png")):
        file.unlink()
    translator = Run(folder).translator
    y = translator.translate(torch.rand(1, 3, 30, 21), translator.sample_style(1, "b"), source="a", to="b")
    assert y.shape == (1, 3, 30, 21)


def test_batches_come_in_the_same_order_from_workers_and_from_the_middle(folders: Path) -> None:
    data = tiny_recipe(folders).data()
    alone = list(training_batches(data, 0, 0, 4, 2, range(2)))
    workers = list(training_batches(data, 0, 0, 4, 2, range(2), num_workers=1))
    later = list(training_batches(data, 0, 2, 4, 2, range(2)))
    for one, two in zip([*alone, *alone[2:]], [*workers, *later], strict=True):
        assert all(torch.equal(one[d], two[d]) for d in "ab")

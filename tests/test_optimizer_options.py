"""What a recipe says about optimizers: inheritance between tables, schedules, and messages."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from i2ikit.errors import RecipeError
from i2ikit.optimizer_options import OptimizerOptions, ScheduleOptions, check_optimizers
from i2ikit.recipe import load_recipe
from i2ikit.registry import Setting
from i2ikit.training import set_learning_rate

ROLES = ("generator", "critic")
ADAM = {"lr": 1e-4, "betas": (0.5, 0.999), "eps": 1e-8, "weight_decay": 0.0}


def found(
    text: str, defaults: Mapping[str, Mapping[str, Any]] | None = None, roles: Sequence[str] = ROLES
) -> tuple[dict[str, OptimizerOptions], list[str]]:
    """Options and problems of [optimizer] tables in TOML."""
    table = tomllib.loads(text).get("optimizer", {})
    optimizers, problems, _ = check_optimizers(table, "toy", roles, defaults or {}, (), Setting(64, 1))
    return optimizers, [str(problem) for problem in problems]


def checked(
    text: str, defaults: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, OptimizerOptions]:
    optimizers, problems = found(text, defaults)
    assert problems == []
    return optimizers


def chosen(optimizers: Mapping[str, OptimizerOptions], role: str) -> tuple[str, dict[str, Any]]:
    spec = optimizers[role].optimizer
    return spec.name, dict(spec.options)


def test_without_any_table_every_network_has_adam_and_a_constant_learning_rate() -> None:
    """With the defaults of MUNIT's paper, and no clipping."""
    for role in ROLES:
        assert chosen(checked(""), role) == ("adam", ADAM)
        assert checked("")[role].schedule == ScheduleOptions()
    assert (ScheduleOptions().decay, ScheduleOptions().warmup_steps) == ("none", 0)
    assert ScheduleOptions().max_grad_norm is None


def test_a_flat_table_is_for_every_network_and_a_role_overrides_it() -> None:
    """Tables without `name`, as in earlier runs, mean Adam."""
    optimizers = checked("""
        [optimizer]
        lr = 3e-4
        betas = [0.0, 0.9]
        decay = "step"
        decay_steps = 7
        [optimizer.critic]
        lr = 1e-3
        weight_decay = 0.5
    """)
    assert chosen(optimizers, "generator") == ("adam", {**ADAM, "lr": 3e-4, "betas": (0.0, 0.9)})
    own = {**ADAM, "lr": 1e-3, "betas": (0.0, 0.9), "weight_decay": 0.5}
    assert chosen(optimizers, "critic") == ("adam", own)
    assert [o.schedule.decay_steps for o in optimizers.values()] == [7, 7]


def test_another_optimizer_does_not_inherit_the_options_of_the_first_but_its_schedule() -> None:
    """A learning rate for Adam means nothing for SGD."""
    optimizers = checked("""
        [optimizer]
        lr = 3e-4
        weight_decay = 0.2
        decay = "cosine"
        warmup_steps = 3
        max_grad_norm = 2.0
        [optimizer.critic]
        name = "sgd"
        momentum = 0.5
    """)
    sgd = {"lr": 1e-4, "momentum": 0.5, "nesterov": False, "weight_decay": 0.0}
    assert chosen(optimizers, "critic") == ("sgd", sgd)
    assert chosen(optimizers, "generator") == ("adam", {**ADAM, "lr": 3e-4, "weight_decay": 0.2})
    assert optimizers["critic"].schedule == optimizers["generator"].schedule
    assert optimizers["critic"].schedule.max_grad_norm == 2


def test_naming_the_same_optimizer_again_keeps_its_options() -> None:
    """Whether the table that names none, or the one below, comes first."""
    for text in (
        'lr = 0.5\n[optimizer.critic]\nname = "adam"',
        'name = "adam"\nlr = 0.5\n[optimizer.critic]',
    ):
        assert chosen(checked(f"[optimizer]\n{text}"), "critic") == ("adam", {**ADAM, "lr": 0.5})


def test_a_translators_defaults_lie_between_optimizer_and_the_table_of_a_role() -> None:
    """[optimizer] replaces them only if it names another optimizer."""
    defaults = {
        "critic": {"name": "rmsprop", "lr": 5e-5, "decay": "linear"},
        "generator": {"lr": 2e-4, "betas": [0.0, 0.99]},
    }
    rmsprop = {"lr": 5e-5, "alpha": 0.99, "eps": 1e-8, "momentum": 0.0, "weight_decay": 0.0}
    optimizers = checked("", defaults)
    assert chosen(optimizers, "critic") == ("rmsprop", rmsprop)
    assert chosen(optimizers, "generator") == ("adam", {**ADAM, "lr": 2e-4, "betas": (0.0, 0.99)})
    assert [optimizers[role].schedule.decay for role in ROLES] == ["none", "linear"]
    optimizers = checked("[optimizer]\nlr = 1.0\n[optimizer.critic]\nalpha = 0.5\ndecay = 'none'", defaults)
    assert chosen(optimizers, "critic") == ("rmsprop", {**rmsprop, "alpha": 0.5})
    assert chosen(optimizers, "generator") == ("adam", {**ADAM, "lr": 2e-4, "betas": (0.0, 0.99)})
    assert optimizers["critic"].schedule.decay == "none"
    optimizers = checked('[optimizer]\nname = "sgd"\n[optimizer.generator]\nname = "adam"', defaults)
    assert chosen(optimizers, "critic")[1]["lr"] == 1e-4
    assert chosen(optimizers, "generator") == ("adam", ADAM)
    assert optimizers["critic"].schedule.decay == "linear"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optimizer]\nlrr = 1.0", "optimizer.lrr: optimizer 'adam' has no option 'lrr'; did you mean 'lr'?"),
        (
            "[optimizer.critic]\nmomentum = 0.5",
            "optimizer.critic.momentum: optimizer 'adam' has no option 'momentum'",
        ),
        (
            '[optimizer]\nbetas = [0.5, 0.9]\n[optimizer.critic]\nname = "sgd"\nbetas = [0.1, 0.2]',
            "optimizer.critic.betas: optimizer 'sgd' has no option 'betas'",
        ),
        (
            '[optimizer]\nname = "sgd"\n[optimizer.critic]\nbetas = [0.1, 0.2]',
            "optimizer.critic.betas: optimizer 'sgd' has no option 'betas'",
        ),
        ('[optimizer.critic]\nname = "sdg"', "optimizer.critic.name: no optimizer named 'sdg'"),
        ("[optimizer.critc]\nlr = 1.0", "optimizer.critc: translator 'toy' has no network 'critc'; did you mean 'critic'?"),
        ("[optimizer.critic]\nlr = -1.0", "optimizer.critic.lr: should be greater than 0, got -1.0"),
        ("[optimizer]\nwarmup_steps = -1", "optimizer.warmup_steps: should be greater than or equal to 0, got -1"),
        ("[optimizer]\nwarmup_step = 1", "optimizer.warmup_step: optimizer 'adam' has no option 'warmup_step'; did you mean 'warmup_steps'?"),
        ("[optimizer.critic]\nmax_grad_norm = 0.0", "optimizer.critic.max_grad_norm: should be greater than 0, got 0.0"),
        ("[optimizer]\ndecay = 'exponential'", "optimizer.decay: should be 'none', 'step', 'linear' or 'cosine'"),
        ("[optimizer]\ndecay_factor = 1.5", "optimizer.decay_factor: should be less than or equal to 1, got 1.5"),
    ],
)  # fmt: skip
def test_a_problem_is_said_once_and_of_the_table_that_has_the_key(text: str, message: str) -> None:
    """Not of every network that inherits it."""
    (problem,) = found(text)[1]
    assert problem.startswith(message)


def test_a_wrong_default_of_a_translator_is_not_said_of_the_recipe() -> None:
    problems = found("[optimizer]\nlr = 1.0", {"critic": {"lrr": 1.0}})[1]
    message = "its default for 'critic' is wrong: optimizer.lrr: optimizer 'adam' has no option 'lrr'"
    assert problems == [f"translator.name: {message}; did you mean 'lr'?"]


def test_problems_of_a_shared_table_are_found_though_the_networks_are_not_known() -> None:
    """The translator may be misspelt in the same recipe."""
    assert len(found("[optimizer]\nlrr = 1.0\ndecay = 3", roles=())[1]) == 2


RECIPE = """
extends = "munit"
[optimizer]
name = "adamw"
lr = 2e-3
decay = "cosine"
warmup_steps = 5
max_grad_norm = 4.0
[optimizer.discriminators]
name = "rmsprop"
alpha = 0.9
"""


def test_a_recipe_and_its_resolved_form_give_the_same_optimizers(folders: Path, tmp_path: Path) -> None:
    """Through `extends`, `--set`, and resolved.toml, which has a table for each network."""
    own = [
        *("data.name=folders", f'data.root="{folders}"', "data.size=64"),
        "translator.discriminator={name='multiscale-patch', width=4}",
    ]
    path = tmp_path / "mine.toml"
    path.write_text(RECIPE)
    recipe = load_recipe(path, own)
    assert recipe.optimizers["decoders"].table() == {
        "name": "adamw", "lr": 2e-3, "betas": (0.5, 0.999), "eps": 1e-8, "weight_decay": 0.01,
        "decay": "cosine", "decay_steps": None,
        "decay_factor": 0.5, "warmup_steps": 5, "max_grad_norm": 4.0,
    }  # fmt: skip
    critic = recipe.optimizers["discriminators"]
    assert (critic.optimizer.name, critic.optimizer.options["alpha"]) == ("rmsprop", 0.9)
    assert critic.schedule == recipe.optimizers["decoders"].schedule
    path.write_text(recipe.to_toml())
    assert load_recipe(path).optimizers == recipe.optimizers
    set_back = load_recipe(path, ["optimizer.decoders.name=sgd"]).optimizers["decoders"]
    assert set_back.optimizer.options == {"lr": 1e-4, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    assert set_back.schedule == critic.schedule
    with pytest.raises(
        RecipeError, match=r"optimizer\.decoders\.alpha: optimizer 'adamw' has no option 'alpha'"
    ):
        load_recipe(path, ["optimizer.decoders.alpha=0.5"])


def munit() -> dict[str, Any]:
    """[optimizer] of the recipe that is extended."""
    table: dict[str, Any] = tomllib.loads(Path("recipes/munit.toml").read_text())["optimizer"]
    return table


def test_tables_of_earlier_resolved_recipes_stay_valid() -> None:
    """They have no `name`, and none of the keys that came later."""
    optimizers = checked("""
        [optimizer.generator]
        lr = 0.0008
        betas = [0.5, 0.999]
        eps = 1e-08
        weight_decay = 0.0001
        decay = "step"
        decay_steps = 420
        decay_factor = 0.5
    """)
    assert chosen(optimizers, "generator") == ("adam", {**ADAM, "lr": 0.0008, "weight_decay": 0.0001})
    assert optimizers["generator"].schedule == ScheduleOptions(decay="step", decay_steps=420)


STEPS = 12


def by_formula(options: Mapping[str, Any], step: int) -> float:
    """The factor, written out for update `step` of 12."""
    warm = options.get("warmup_steps", 0)
    ramp = min(Fraction(1), Fraction(step + 1, warm)) if warm else Fraction(1)
    if options["decay"] == "step":
        return float(ramp) * 0.5 ** sum(1 for n in range(1, step + 2) if n % options["decay_steps"] == 0)
    if options["decay"] == "linear":
        left = Fraction(STEPS - step, STEPS - options["decay_steps"])
        return float(ramp * min(Fraction(1), left))
    if options["decay"] == "cosine":
        angle = math.pi * max(0, step - warm) / (STEPS - warm)
        return float(ramp) * math.cos(angle / 2) ** 2
    return float(ramp)


@pytest.mark.parametrize("warmup", [0, 1, 4])
@pytest.mark.parametrize(
    "options",
    [
        {"decay": "none"},
        {"decay": "step", "decay_steps": 5},
        {"decay": "linear", "decay_steps": 7},
        {"decay": "cosine"},
    ],
    ids=lambda options: options["decay"],
)
def test_a_schedule_follows_its_formula_at_every_step(options: dict[str, Any], warmup: int) -> None:
    """Also in the optimizer, whose own learning rate it multiplies."""
    options = {**options, "warmup_steps": warmup}
    schedule = ScheduleOptions(**options)
    optimizer = torch.optim.SGD([Parameter(torch.zeros(1))], lr=0.3)
    for step in range(STEPS):
        expected = by_formula(options, step)
        assert schedule.factor(step, STEPS) == pytest.approx(expected, rel=1e-12)
        set_learning_rate(optimizer, schedule, step, STEPS)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.3 * expected, rel=1e-12)


@pytest.mark.parametrize(
    ("steps", "linear", "step"),
    [
        (1, [1], [0.5]),
        (2, [1, 1], [0.5, 0.25]),
        (5, [1, 1, 1, 2 / 3, 1 / 3], [1, 0.5, 0.5, 0.25, 0.25]),
        (8, [1, 1, 1, 1, 1, 0.75, 0.5, 0.25], [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25]),
    ],
)
def test_a_decay_begins_after_half_of_the_steps_unless_the_recipe_says_when(
    steps: int, linear: list[float], step: list[float]
) -> None:
    """A training of another length needs no other change of the recipe."""
    for decay, factors in (("linear", linear), ("step", step)):
        schedule = ScheduleOptions(decay=decay)  # type: ignore[arg-type]
        found = [schedule.factor(n, steps) for n in range(steps)]
        assert found == pytest.approx(factors, rel=1e-12)


@pytest.mark.parametrize(
    ("options", "first", "last"),
    [
        ({"decay": "none"}, 1.0, 1.0),
        ({"decay": "none", "warmup_steps": 4}, 0.25, 1.0),
        ({"decay": "step", "decay_steps": 5}, 1.0, 0.25),
        ({"decay": "linear", "decay_steps": 2}, 1.0, 0.1),
        ({"decay": "linear", "decay_steps": 2, "warmup_steps": 2}, 0.5, 0.1),
        ({"decay": "cosine"}, 1.0, (1 - math.cos(math.pi / 12)) / 2),
        ({"decay": "cosine", "warmup_steps": 4}, 0.25, (1 - math.cos(math.pi / 8)) / 2),
    ],
)
def test_the_first_and_the_last_update(options: dict[str, Any], first: float, last: float) -> None:
    """A warm-up starts above 0, and linear and cosine end above 0: no update is without effect."""
    schedule = ScheduleOptions(**options)
    found = schedule.factor(0, STEPS), schedule.factor(STEPS - 1, STEPS)
    assert found == pytest.approx((first, last), rel=1e-9)


@pytest.mark.parametrize("decay", ["none", "step", "linear", "cosine"])
def test_a_schedule_longer_than_the_run_gives_usable_numbers(decay: str) -> None:
    """Warm-up and decay may be longer than the run, or as long."""
    for long in (3, 4, 100):
        schedule = ScheduleOptions(decay=decay, decay_steps=long, warmup_steps=long)  # type: ignore[arg-type]
        factors = [schedule.factor(step, 3) for step in range(3)]
        assert all(0 < factor <= 1 for factor in factors)
        assert factors[0] == pytest.approx(1 / long)

"""Optimizers by name: torch's updates, our defaults, and what checkpoints save of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from i2ikit.checking import check
from i2ikit.components.optimizers import OPTIMIZER_SLOT
from i2ikit.registry import Setting, optimizers

SETTING = Setting(64, 1)
CASES: list[tuple[str, dict[str, Any], Callable[..., Optimizer], dict[str, Any]]] = [
    ("adam", {}, torch.optim.Adam, {"lr": 1e-4, "betas": (0.5, 0.999), "fused": True}),
    (
        "adam",
        {"lr": 0.01, "betas": [0.0, 0.9], "eps": 1e-3, "weight_decay": 0.1},
        torch.optim.Adam,
        {"lr": 0.01, "betas": (0.0, 0.9), "eps": 1e-3, "weight_decay": 0.1, "fused": True},
    ),
    (
        "adamw",
        {},
        torch.optim.AdamW,
        {"lr": 1e-4, "betas": (0.5, 0.999), "weight_decay": 0.01, "fused": True},
    ),
    (
        "adamw",
        {"lr": 0.01, "betas": [0.9, 0.95], "eps": 1e-3, "weight_decay": 0.5},
        torch.optim.AdamW,
        {"lr": 0.01, "betas": (0.9, 0.95), "eps": 1e-3, "weight_decay": 0.5, "fused": True},
    ),
    ("sgd", {}, torch.optim.SGD, {"lr": 1e-4, "fused": True}),
    (
        "sgd",
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    ),
    ("rmsprop", {}, torch.optim.RMSprop, {"lr": 1e-4}),
    (
        "rmsprop",
        {"lr": 0.01, "alpha": 0.8, "eps": 1e-3, "momentum": 0.5, "weight_decay": 0.1},
        torch.optim.RMSprop,
        {"lr": 0.01, "alpha": 0.8, "eps": 1e-3, "momentum": 0.5, "weight_decay": 0.1},
    ),
]


def made(name: str, options: dict[str, Any], parameters: list[Parameter]) -> Optimizer:
    """The optimizer that a recipe's table gives."""
    spec, problems = check({"name": name, **options}, "optimizer", OPTIMIZER_SLOT, SETTING)
    assert problems == []
    optimizer: Optimizer = spec().optimizer(parameters)
    return optimizer


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def five_steps(model: nn.Module, optimizer: Optimizer) -> Iterator[None]:
    generator = torch.Generator().manual_seed(2)
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.rand(6, 3, generator=generator)).square().sum().backward()
        optimizer.step()
        yield


@pytest.mark.parametrize(("name", "options", "torchs", "own"), CASES)
def test_five_updates_are_those_of_torch_bit_for_bit(
    name: str, options: dict[str, Any], torchs: Callable[..., Optimizer], own: dict[str, Any]
) -> None:
    """With the same options, and the documented defaults."""
    ours, theirs = network(), network()
    two = zip(
        five_steps(ours, made(name, options, list(ours.parameters()))),
        five_steps(theirs, torchs(theirs.parameters(), **own)),
        strict=True,
    )
    start = [p.clone() for p in network().parameters()]
    for _ in two:
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(one, other)
    assert not any(torch.equal(p, before) for p, before in zip(ours.parameters(), start, strict=True))


def by_hand(name: str, gradients: list[float], **o: Any) -> float:
    """A parameter that starts at 1, by the formulas of the papers, in plain Python."""
    x, m, v, velocity = 1.0, 0.0, 0.0, 0.0
    for t, gradient in enumerate(gradients, 1):
        g = gradient + (o["weight_decay"] * x if name != "adamw" else 0)
        if name in ("adam", "adamw"):
            x -= o["lr"] * o["weight_decay"] * x if name == "adamw" else 0
            (one, two) = o["betas"]
            m, v = one * m + (1 - one) * g, two * v + (1 - two) * g * g
            x -= o["lr"] * (m / (1 - one**t)) / (math.sqrt(v / (1 - two**t)) + o["eps"])
        elif name == "sgd":
            velocity = o["momentum"] * velocity + g
            x -= o["lr"] * velocity
        else:
            v = o["alpha"] * v + (1 - o["alpha"]) * g * g
            velocity = o["momentum"] * velocity + g / (math.sqrt(v) + o["eps"])
            x -= o["lr"] * velocity
    return x


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("adam", {"lr": 0.1, "betas": (0.5, 0.999), "eps": 1e-8, "weight_decay": 0.2}),
        ("adamw", {"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-2, "weight_decay": 0.2}),
        ("sgd", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.2}),
        ("rmsprop", {"lr": 0.1, "alpha": 0.9, "eps": 1e-2, "momentum": 0.3, "weight_decay": 0.2}),
    ],
)
def test_updates_follow_the_published_formulas(name: str, options: dict[str, Any]) -> None:
    """In float64, five updates of one number."""
    gradients = [1.0, -0.3, 0.7, 0.0, 2.0]
    parameter = Parameter(torch.ones((), dtype=torch.float64))
    optimizer = made(name, options, [parameter])
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
    assert parameter.item() == pytest.approx(by_hand(name, gradients, **options), rel=1e-12)


def test_exactly_these_optimizers_ship() -> None:
    """Their defaults are those that the reference documents."""
    shipped = [entry.name for entry in optimizers.entries() if entry.package == "i2ikit"]
    assert shipped == ["adam", "adamw", "rmsprop", "sgd"]
    defaults = {name: check(name, "optimizer", OPTIMIZER_SLOT)[0].options for name in shipped}
    assert defaults == {
        "adam": {"lr": 1e-4, "betas": (0.5, 0.999), "eps": 1e-8, "weight_decay": 0.0},
        "adamw": {"lr": 1e-4, "betas": (0.5, 0.999), "eps": 1e-8, "weight_decay": 0.01},
        "rmsprop": {"lr": 1e-4, "alpha": 0.99, "eps": 1e-8, "momentum": 0.0, "weight_decay": 0.0},
        "sgd": {"lr": 1e-4, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0},
    }


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"name": "sgd", "nesterov": True}, "optimizer: nesterov = true needs a momentum above 0"),
        ({"name": "sgd", "betas": [0.5, 0.9]}, "optimizer.betas: optimizer 'sgd' has no option 'betas'"),
        ({"name": "adam", "betas": [0.5, 1.0]}, "optimizer.betas.1: should be less than 1, got 1"),
        ({"name": "adam", "lr": 0}, "optimizer.lr: should be greater than 0, got 0"),
        ({"name": "rmsprop", "alpha": -0.1}, "optimizer.alpha: should be greater than or equal to 0"),
        (
            {"name": "adamw", "weight_decay": -1},
            "optimizer.weight_decay: should be greater than or equal to 0",
        ),
        ({"name": "adan"}, "optimizer.name: no optimizer named 'adan'; did you mean 'adam'?"),
    ],
)
def test_impossible_options_are_refused(table: dict[str, Any], message: str) -> None:
    """With the place in the recipe."""
    _, problems = check(table, "optimizer", OPTIMIZER_SLOT, SETTING)
    assert message in "\n".join(map(str, problems))


def test_nesterov_with_momentum_is_possible() -> None:
    """The check is about the two together."""
    assert made("sgd", {"momentum": 0.9, "nesterov": True}, [Parameter(torch.zeros(1))]) is not None


@pytest.mark.parametrize(("name", "options"), [case[:2] for case in CASES])
def test_all_that_an_optimizer_keeps_are_tensors_by_parameter(name: str, options: dict[str, Any]) -> None:
    """Which is what checkpoints can hold."""
    model = network()
    optimizer = made(name, options, list(model.parameters()))
    for _ in five_steps(model, optimizer):
        pass
    kept = [value for own in optimizer.state_dict()["state"].values() for value in own.values()]
    assert all(isinstance(value, Tensor) for value in kept if value is not None)

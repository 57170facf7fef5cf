"""The checks of phases follow training: schedules, and weights of parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from i2ikit.registry import Spec
from i2ikit.testing.phases import check_phases, check_pure, check_zero_weights
from i2ikit.translator import Given, Phase, Result
from tests.toy import Numbers, Toy, images

DEFAULTS = {"first": {"x": 1.0, "y": 1.0}, "second": {"z": 1.0}}


def toy(weights: Mapping[str, Mapping[str, Any]], forgets: str = "", eager: str = "") -> Toy:
    """The second phase needs what the first one hands on.

    Args:
        forgets: a loss that it leaves out.
        eager: a loss that it returns though its weight is 0.
    """
    networks = {"one": Numbers(p=1.0), "two": Numbers(p=2.0)}

    def wanted(given: Given, *names: str) -> list[str]:
        return [name for name in names if name == eager or (given.weights[name] and name != forgets)]

    def first(given: Given) -> Result:
        p, x = networks["one"].p, given.images["a"].mean()
        losses = {name: (p * (x + n)).square() for n, name in enumerate(wanted(given, "x/a", "x/b", "y"))}
        return Result(losses, {"p": p.detach() * torch.ones(len(given.images["a"]))})

    def second(given: Given) -> Result:
        handed: Tensor = given.handed["p"]
        return Result({name: (networks["two"].p * handed).square().mean() for name in wanted(given, "z")})

    phases = [Phase("first", first, ("one",)), Phase("second", second, ("two",))]
    return Toy(
        networks, phases, {phase: {**own, **weights.get(phase, {})} for phase, own in DEFAULTS.items()}
    )


def check(weights: Mapping[str, Mapping[str, Any]], **wrong: str) -> None:
    """All checks of phases."""
    translator = toy(weights, **wrong)
    check_phases(translator, "toy", images())
    check_pure(translator, "toy", images())
    spec = Spec("translators", "toy", {"weights": translator.weights})
    check_zero_weights(spec, lambda spec: toy(spec.options["weights"], **wrong), "toy", images())


@pytest.mark.parametrize(
    "first",
    [
        {},
        {"x/a": 5.0},
        {"x": 0.0, "x/a": 5.0},
        {"x/b": 0.0},
        {"x/a": 0.0, "x/b": 0.0},
        {"x": {"start": 1.0, "end": 0.0, "steps": 2}},
        {"x": {"start": 0.0, "end": 1.0, "steps": 2}, "y": 0.0},
        {"x": {"start": 0.0, "end": 1.0, "steps": 3}, "y": {"start": 1.0, "end": 0.0, "steps": 2}},
        {"y": {"start": 1.0, "end": 0.0, "steps": 2}, "x": {"start": 1.0, "end": 0.0, "steps": 2}},
    ],
)
def test_a_right_translator_passes_with_any_weights(first: dict[str, Any]) -> None:
    """Also where a phase is off at some steps, and a later one needs what it hands on."""
    check({"first": first})


@pytest.mark.parametrize(
    ("weights", "wrong", "message"),
    [
        ({}, {"forgets": "x/b"}, None),
        ({}, {"forgets": "y"}, "toy, phase 'first': weights without a loss: y"),
        ({"x/a": 5.0}, {"forgets": "x/a"}, "toy, phase 'first': weights without a loss: x/a"),
        ({"x/a": 0.0}, {"eager": "x/a"}, "toy, phase 'first': losses without a weight: x/a"),
        ({"y": 0.0}, {"eager": "y"}, "toy, phase 'first': losses without a weight: y"),
        ({"y": {"start": 1.0, "end": 0.0, "steps": 1}}, {"eager": "y"}, "toy, phase 'first': losses without a weight: y"),
    ],
)  # fmt: skip
def test_a_loss_without_a_weight_and_a_weight_without_a_loss_are_found(
    weights: dict[str, Any], wrong: dict[str, str], message: str | None
) -> None:
    """By part where the part has a weight of its own; a part that has none may be missing."""
    if message is None:
        check({"first": weights}, **wrong)
        return
    with pytest.raises(AssertionError, match=message):
        check({"first": weights}, **wrong)

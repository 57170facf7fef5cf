"""Counted randomness."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from i2ikit import draws as draws_module
from i2ikit.draws import Draw, counted_draws, counted_seed


def test_draws_depend_on_what_they_are_for_and_on_nothing_else() -> None:
    shapes = {"z": Draw((3,)), "eps": Draw((2, 2))}
    draws = counted_draws(0, 5, "generator", shapes, range(4))
    assert {name: tuple(d.shape) for name, d in draws.items()} == {"z": (4, 3), "eps": (4, 2, 2)}
    later = counted_draws(0, 5, "generator", {"z": Draw((3,))}, [2])
    assert torch.equal(later["z"][0], draws["z"][2])
    others = [counted_draws(1, 5, "generator", shapes, [2]), counted_draws(0, 6, "generator", shapes, [2])]
    others.append(counted_draws(0, 5, "discriminator", shapes, [2]))
    assert all(not torch.equal(other["z"][0], draws["z"][2]) for other in others)


def test_draws_are_standard_normal() -> None:
    z = counted_draws(0, 0, "p", {"z": Draw((100_000,))}, [0])["z"]
    assert z.mean().item() == pytest.approx(0, abs=0.02)
    assert z.std().item() == pytest.approx(1, abs=0.02)
    assert z.abs().mean().item() == pytest.approx(0.798, abs=0.02)


def test_uniform_and_categorical_draws_fill_their_range() -> None:
    draws = {"u": Draw((50_000,), "uniform"), "k": Draw((50_000,), "categorical", categories=5)}
    found = counted_draws(0, 0, "p", draws, [0], torch.float64)
    assert 0 <= found["u"].min() < 1e-4
    assert 1 - 1e-4 < found["u"].max() < 1
    assert found["u"].mean().item() == pytest.approx(0.5, abs=0.01)
    assert found["k"].dtype == torch.int64
    assert torch.bincount(found["k"][0]).tolist() == [pytest.approx(10_000, rel=0.05)] * 5


def test_a_draw_per_step_is_the_same_in_all_places_and_another_one_at_the_next_step() -> None:
    draws = {"ids": Draw((4,), "categorical", categories=1000, per_step=True)}
    one = counted_draws(0, 0, "p", draws, [0, 1])["ids"]
    elsewhere = counted_draws(0, 0, "p", draws, [7])["ids"]
    assert one.shape == (2, 4)
    assert torch.equal(one, elsewhere.expand(2, -1))
    assert not torch.equal(counted_draws(0, 1, "p", draws, [7])["ids"], elsewhere)


@pytest.mark.parametrize(("kind", "categories"), [("categorical", 0), ("normal", 3), ("uniform", 1)])
def test_categories_belong_to_categorical_draws_alone(kind: Any, categories: int) -> None:
    with pytest.raises(ValueError, match=rf"a {kind} draw has categories = {categories}"):
        Draw((), kind, categories=categories)


def test_seeds_are_the_same_on_every_machine() -> None:
    assert counted_seed(0, "noise", 1) == 128985677152142988982045038048339697992


KINDS = {
    "z": Draw((3,)),
    "u": Draw((2, 2), "uniform"),
    "k": Draw((), "categorical", categories=7),
    "shared": Draw((4,), "uniform", per_step=True),
}


def drawn(places: Sequence[int], step: int = 3, **draws: Draw) -> dict[str, torch.Tensor]:
    return counted_draws(5, step, "generator", draws or KINDS, places)


def test_normal_draws_are_those_of_every_earlier_version() -> None:
    """Their key and their numbers are recorded: a checkpoint from before goes on with the same ones."""
    digest = hashlib.sha256()
    for seed, step, phase in ((0, 0, "generator"), (7, 123_456, "discriminator")):
        draws = {"s_a": Draw((8,)), "eps": Draw((2, 3)), "one": Draw()}
        found = counted_draws(seed, step, phase, draws, [0, 3, 1], torch.float64)
        for name in sorted(found):
            digest.update(found[name].contiguous().numpy().tobytes())
    assert digest.hexdigest() == "a60709ee6e61e68b5884f5deadcffb98b1cb56bb479f55c577cf51f5cbb71ac9"


def test_a_place_has_its_draws_in_any_order_and_any_division() -> None:
    """For every kind: two processes with the places 0, 2 and 1, 3 draw what one process draws."""
    whole = drawn(range(4))
    for places in ([0, 2], [1, 3], [3, 0, 1], [2]):
        part = drawn(places)
        for name, tensor in part.items():
            assert torch.equal(tensor, whole[name][places]), name
    assert {name: tuple(x.shape[1:]) for name, x in whole.items()} == {n: d.shape for n, d in KINDS.items()}
    places_differ = {name: len({row.numpy().tobytes() for row in x}) for name, x in whole.items()}
    assert (places_differ["z"], places_differ["u"], places_differ["shared"]) == (4, 4, 1)


def test_draws_do_not_depend_on_what_else_is_drawn() -> None:
    """Nor on the order of names, so that a new draw leaves the others as they were."""
    whole = drawn(range(3))
    backwards = drawn(range(3), **dict(reversed(KINDS.items())))
    for name, draw in KINDS.items():
        assert torch.equal(drawn(range(3), **{name: draw})[name], whole[name])
        assert torch.equal(backwards[name], whole[name])


@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_draws_of_two_names_two_places_or_two_steps_are_independent(kind: Any) -> None:
    """Correlations of 20,000 numbers are those of chance: below 4 / sqrt(n)."""
    n = 20_000
    draws = {"one": Draw((n,), kind), "two": Draw((n,), kind)}
    found = drawn([0, 1], **draws)
    later = drawn([0], step=4, **draws)
    rows = [found["one"][0], found["two"][0], found["one"][1], later["one"][0]]
    correlations = torch.corrcoef(torch.stack(rows).double()) - torch.eye(4)
    assert correlations.abs().max() < 4 / n**0.5


def test_categories_are_equally_frequent_and_independent() -> None:
    """Chi-square of 7 categories (6 degrees of freedom) and of pairs (48) below the 99.9% quantiles."""
    n = 14_000
    draws = {name: Draw((n,), "categorical", categories=7) for name in ("one", "two")}
    found = drawn([0], **draws)
    one, two = found["one"][0], found["two"][0]
    assert (one.min(), one.max()) == (0, 6)

    def chi_square(values: torch.Tensor, categories: int) -> float:
        expected = n / categories
        return ((torch.bincount(values, minlength=categories) - expected) ** 2 / expected).sum().item()

    assert chi_square(one, 7) < 22.46
    assert chi_square(7 * one + two, 49) < 84.04


def test_one_category_is_always_0() -> None:
    """The smallest number of categories."""
    assert drawn([0, 1], k=Draw((3,), "categorical", categories=1))["k"].tolist() == [[0, 0, 0]] * 2


@pytest.mark.parametrize("kind", ["normal", "uniform", "categorical"])
def test_a_draw_per_step_differs_between_steps_phases_names_and_seeds(kind: Any) -> None:
    """And only there: all places of all processes have it."""
    draw = Draw((5,), kind, categories=1000 if kind == "categorical" else 0, per_step=True)
    one = counted_draws(0, 0, "p", {"x": draw}, [0, 9])["x"]
    assert torch.equal(one[0], one[1])
    others = [
        counted_draws(0, 1, "p", {"x": draw}, [0])["x"],
        counted_draws(0, 0, "q", {"x": draw}, [0])["x"],
        counted_draws(0, 0, "p", {"y": draw}, [0])["y"],
        counted_draws(1, 0, "p", {"x": draw}, [0])["x"],
    ]
    assert all(not torch.equal(other[0], one[0]) for other in others)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_have_the_type_that_is_asked_for_and_categories_are_integers(dtype: torch.dtype) -> None:
    """A step in float64 has the same numbers, unrounded."""
    found = counted_draws(0, 0, "p", KINDS, [0], dtype)
    assert {name: x.dtype for name, x in found.items()} == {
        "z": dtype, "u": dtype, "k": torch.int64, "shared": dtype,
    }  # fmt: skip
    exact = counted_draws(0, 0, "p", KINDS, [0], torch.float64)
    assert all(torch.equal(x, exact[name].to(x.dtype)) for name, x in found.items())


class Highest:
    """A generator that draws the largest number below 1."""

    def random(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.full(shape, np.nextafter(1.0, 0.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_a_uniform_draw_is_below_1_after_rounding_too(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    """One in 30 million would round to 1.0 in float32, and choose an element behind the last."""
    monkeypatch.setattr(draws_module, "counted_generator", lambda *key: Highest())
    found = counted_draws(0, 0, "p", {"u": Draw((2,), "uniform")}, [0], dtype)["u"]
    assert found.dtype == dtype
    assert (found > 0.99).all()
    assert (found < 1).all()

"""Counted randomness."""

from __future__ import annotations

from typing import Any

import pytest
import torch

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

"""Counted randomness."""

from __future__ import annotations

import pytest
import torch

from i2ikit.draws import counted_seed, normal_draws


def test_draws_depend_on_what_they_are_for_and_on_nothing_else() -> None:
    shapes = {"z": (3,), "eps": (2, 2)}
    draws = normal_draws(0, 5, "generator", shapes, range(4))
    assert {name: tuple(d.shape) for name, d in draws.items()} == {"z": (4, 3), "eps": (4, 2, 2)}
    later = normal_draws(0, 5, "generator", {"z": (3,)}, [2])
    assert torch.equal(later["z"][0], draws["z"][2])
    others = [normal_draws(1, 5, "generator", shapes, [2]), normal_draws(0, 6, "generator", shapes, [2])]
    others.append(normal_draws(0, 5, "discriminator", shapes, [2]))
    assert all(not torch.equal(other["z"][0], draws["z"][2]) for other in others)


def test_draws_are_standard_normal() -> None:
    z = normal_draws(0, 0, "p", {"z": (100_000,)}, [0])["z"]
    assert z.mean().item() == pytest.approx(0, abs=0.02)
    assert z.std().item() == pytest.approx(1, abs=0.02)
    assert z.abs().mean().item() == pytest.approx(0.798, abs=0.02)


def test_seeds_are_the_same_on_every_machine() -> None:
    assert counted_seed(0, "noise", 1) == 128985677152142988982045038048339697992

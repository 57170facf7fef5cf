"""What metrics are given: distinct inputs, styles of their own, the same from every process."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from i2ikit.errors import DataError
from i2ikit.metrics.pixels import L1Diversity
from i2ikit.metrics.subject import Case, standard_error
from i2ikit.sampling import distinct_test_indices


def test_inputs_are_distinct(outlines, subject) -> None:
    assert len(subject(outlines).inputs(100)) == 11
    assert len(distinct_test_indices(outlines, "a", 5, seed=0)) == 5
    assert distinct_test_indices(outlines, "a", 5, 0) != distinct_test_indices(outlines, "a", 5, 1)


def test_the_seed_decides_and_decides_again(outlines, subject) -> None:
    once, again = (L1Diversity().measure(subject(outlines)).values for _ in range(2))
    assert once == again != L1Diversity().measure(subject(outlines, seed=1)).values


def test_an_input_has_its_own_styles_however_many_inputs_there_are(outlines, subject) -> None:
    whole = subject(outlines)
    assert not torch.equal(whole.styles(4, 0), whole.styles(4, 1))
    few = whole.over_inputs(whole.inputs(3), 4, lambda case: case.outputs)
    assert torch.equal(few, whole.over_inputs(whole.inputs(11), 4, lambda case: case.outputs)[:3])


def test_real_images_are_in_one_pair_at_most(outlines, subject) -> None:
    x, y = subject(outlines).target_pairs(100)
    assert len(x) == len(y) == 6
    assert len(torch.cat([x, y]).flatten(1).unique(dim=0)) == 12


def part(rank, count, gather):
    """One of several processes, whose messages a test carries."""
    return SimpleNamespace(rank=rank, count=count, is_main=rank == 0, gather=gather)


def test_processes_share_the_inputs_and_put_the_parts_together_in_order(outlines, subject) -> None:
    whole = subject(outlines)
    inputs = whole.inputs(100)
    expected = whole.over_inputs(inputs, 3, lambda case: case.outputs.mean((1, 2, 3)))
    for count in (2, 3, 12):  # twelve processes for eleven inputs: one has nothing to do
        parts = []
        for rank in range(count):
            group = part(rank, count, lambda mine: [*mine, torch.zeros(3)])
            alone = dataclasses.replace(whole, group=group)
            parts += list(alone.over_inputs(inputs, 3, lambda case: case.outputs.mean((1, 2, 3)))[:-1])
        assert torch.equal(torch.stack(parts), expected)


def test_what_one_process_cannot_measure_is_an_error_in_all(outlines, subject) -> None:
    """Else one would go on to the next metric, and take its numbers for those of this one."""

    def measure(case: Case) -> torch.Tensor:
        raise DataError("testA/3.png: not a readable image")

    given: list[object] = []
    broken = dataclasses.replace(subject(outlines), group=part(1, 2, lambda mine: given.append(mine) or mine))
    with pytest.raises(DataError, match=r"testA/3\.png"):
        broken.over_inputs(broken.inputs(4), 3, measure)
    sound = dataclasses.replace(broken, group=part(0, 2, lambda mine: [*mine, *given[0]]))
    with pytest.raises(DataError, match=r"testA/3\.png"):
        sound.over_inputs(sound.inputs(4), 3, lambda case: case.outputs.mean())


def test_the_standard_error_of_one_number_is_0() -> None:
    assert standard_error(torch.tensor([2.0])) == 0
    assert standard_error(torch.tensor([1.0, 3.0])) == 1

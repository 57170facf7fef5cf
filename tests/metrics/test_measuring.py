"""Metrics in several processes: an error in one process is raised in all of them, and none keeps waiting."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from i2ikit.errors import DataError, I2IKitError
from i2ikit.metrics.measuring import measure
from i2ikit.metrics.subject import Measured, Subject
from i2ikit.processes import Processes


class Threads(Processes):
    """Threads in place of processes."""

    def gather(self, items: list[Any]) -> list[Any]:
        barrier.wait(10)
        slots[self.rank] = items
        barrier.wait(10)
        return [item for rank in range(self.count) for item in slots[rank]]


barrier = threading.Barrier(1)
slots: dict[int, list[Any]] = {}


def in_all(count: int, whole: Subject, metric: Callable[[int], Any]) -> list[Measured | I2IKitError]:
    global barrier
    barrier = threading.Barrier(count)
    groups = [Threads(rank, count, torch.device("cpu"), "threads") for rank in range(count)]
    with ThreadPoolExecutor(count) as pool:
        work = [pool.submit(measure, metric(g.rank), dataclasses.replace(whole, group=g)) for g in groups]
        return [one.result() for one in work]


class Mean:
    """The mean of all translations; may fail early, or where inputs are shared."""

    def __init__(self, early: bool, late: bool) -> None:
        self.early = early
        self.late = late

    def measure(self, subject: Subject) -> Measured:
        if self.early:
            raise DataError("early")

        def mean(case: Any) -> torch.Tensor:
            if self.late:
                raise DataError("late")
            return case.outputs.mean()

        return Measured({"mean": subject.over_inputs(subject.inputs(4), 2, mean).mean().item()})


@pytest.mark.parametrize("count", [1, 2, 5])
def test_all_have_the_same_result(outlines, subject, count: int) -> None:
    found = in_all(count, subject(outlines), lambda rank: Mean(False, False))
    assert found == [found[0]] * count
    assert isinstance(found[0], Measured)


@pytest.mark.parametrize("count", [1, 2, 5])  # five processes for four inputs: one has nothing to do
@pytest.mark.parametrize("early", [(0,), (-1,), range(5)])
@pytest.mark.parametrize("late", [(), (1,)])
def test_an_error_of_one_process_is_that_of_all(outlines, subject, count: int, early, late) -> None:
    ranks = [rank % count for rank in early]
    found = in_all(count, subject(outlines), lambda rank: Mean(rank in ranks, rank in late))
    assert len({str(error) for error in found}) == 1
    assert all(isinstance(error, DataError) for error in found)

"""Memory: how much is free, how much a computation takes, and which errors say that there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from i2ikit.errors import DataError
from i2ikit.memory import OutOfMemory, available_memory, memory_taken, out_of_memory_named


def test_what_a_computation_takes_is_measured() -> None:
    """Also what it frees at once."""

    def compute() -> None:
        for _ in range(3):
            np.ones(25_000_000)

    assert 190e6 < memory_taken(compute) < 250e6


@pytest.mark.parametrize("version", [1, 2])
def test_the_limit_of_a_container_counts(tmp_path: Path, version: int) -> None:
    """What it uses counts too, without the cache of files that can be given up."""
    free = available_memory(tmp_path)
    assert free > 10**8
    folder = tmp_path / "memory" if version == 1 else tmp_path
    folder.mkdir(exist_ok=True)
    limit, used, cache = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ("memory.max", "memory.current", "inactive_file"),
    )[version - 1]
    (folder / limit).write_text("1000000\n")
    (folder / used).write_text("400000\n")
    (folder / "memory.stat").write_text(f"anon 5\n{cache} 100000\n")
    assert available_memory(tmp_path) == 700000
    (folder / limit).write_text("max\n")
    assert available_memory(tmp_path) > 10**8


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        RuntimeError("std::bad_alloc"),
        RuntimeError("could not create a primitive"),
    ],
)
def test_every_error_of_an_allocation_is_recognised(error: Exception) -> None:
    with pytest.raises(OutOfMemory), out_of_memory_named():
        raise error


@pytest.mark.parametrize("error", [RuntimeError("shape"), DataError("out of memory.png: not readable")])
def test_other_errors_stay(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, out_of_memory_named():
        raise error
    assert raised.value is error


def test_a_real_allocation_that_fails_is_recognised() -> None:
    with pytest.raises(OutOfMemory), out_of_memory_named():
        torch.empty(2**50)


def test_memory_that_was_freed_before_counts() -> None:
    """glibc keeps it, so that the memory of the process does not grow when it is used again."""

    def compute() -> None:
        held = [np.ones(100_000) for _ in range(200)]
        del held

    compute()
    assert memory_taken(compute) > 120e6

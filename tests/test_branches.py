"""Processes that reach different parameters compute what one process does."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from i2ikit.processes import ALONE
from tests import branches

CASES = [f"{name} {accumulation}" for name in branches.SIZES for accumulation in (1, 2)]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Any]]]:
    """What each of two processes computed; without torchrun, which would only take time here."""
    out = tmp_path_factory.mktemp("branches") / "found.pt"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.branches", str(out)],
            env={**os.environ, **group, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    for process in running:
        try:
            _, errors = process.communicate(timeout=120)
        finally:
            process.kill()
        assert process.returncode == 0, errors
    found: list[dict[str, dict[str, Any]]] = torch.load(out)
    return found


@pytest.fixture(scope="module")
def one() -> dict[str, dict[str, Any]]:
    """What this process computes alone."""
    return branches.results(ALONE)


def distances(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    """The largest difference; a gradient on one side only is infinitely far."""
    assert ours.keys() == theirs.keys()
    return max(
        math.inf
        if (x is None) != (theirs[name] is None)
        else 0.0
        if x is None
        else (x - theirs[name]).abs().max().item()
        for name, x in ours.items()
    )


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_one_process_though_labels_are_divided(
    one: dict[str, Any], two: list[dict[str, Any]], case: str
) -> None:
    """In float64 to 1e-9, at every step, whether the heads have equal or unequal sizes."""
    for rank in two:
        for step, gradients in enumerate(one[case]["gradients"]):
            if step != branches.BAD_STEP:
                assert distances(gradients, rank[case]["gradients"][step]) < 1e-9
            assert distances(one[case]["parameters"][step], rank[case]["parameters"][step]) < 1e-9
        good = [step for step in range(len(branches.LABELS)) if step != branches.BAD_STEP]
        losses = [[found[case]["losses"][step] for step in good] for found in (one, rank)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_exactly_the_heads_of_labels_that_some_process_has_get_gradients(
    one: dict[str, Any], two: list[dict[str, Any]], case: str
) -> None:
    """Others have None, and AdamW's weight decay leaves them as they are."""
    for found in (one, *two):
        gradients = found[case]["gradients"]
        for step, labels in enumerate(branches.LABELS):
            for name, gradient in gradients[step].items():
                reached = reached_by(labels, name)
                assert (gradient is not None) == reached, (step, name)
                if reached and step != branches.BAD_STEP:
                    assert gradient.abs().max() > 1e-6
        parameters = found[case]["parameters"]
        for step in range(1, len(branches.LABELS)):
            for name, parameter in parameters[step].items():
                moves = step != branches.BAD_STEP and reached_by(branches.LABELS[step], name)
                assert torch.equal(parameter, parameters[step - 1][name]) != moves, (step, name)


def reached_by(labels: Sequence[int], name: str) -> bool:
    """Whether a parameter is in the layer for all images, or in the head of one of these labels."""
    return name.startswith("trunk") or int(name.split(".")[1]) in labels


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_all_processes_skip_an_update_that_one_of_them_finds_not_finite(
    one: dict[str, Any], two: list[dict[str, Any]], case: str
) -> None:
    """The NaN is in the image of one place; what is kept is gathered by place, and not that of the skipped step."""
    kept, expected = [0, 0, 0, 0], []
    for step, labels in enumerate(branches.LABELS):
        kept = (
            kept
            if step == branches.BAD_STEP
            else [10 * k + label for k, label in zip(kept, labels, strict=True)]
        )
        expected.append(kept)
    for found in (one, *two):
        assert found[case]["kept"] == expected
        assert found[case]["skips"] == [0, 0, 0, 1, 0]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_both_processes_have_the_same_bits(two: list[dict[str, Any]], case: str) -> None:
    """Parameters never drift apart."""
    first, second = (rank[case]["parameters"] for rank in two)
    for ours, theirs in zip(first, second, strict=True):
        assert distances(ours, theirs) == 0

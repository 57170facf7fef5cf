"""LPIPS of all pairs of an input's translations: one trunk forward per image, against one call per pair."""

from __future__ import annotations

import time

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from i2ikit.metrics.perceptual import NETWORKS, PerceptualDistance
from i2ikit.pretrained.weights import load_weights

SAMPLES = 20
PAIRS = torch.triu_indices(SAMPLES, SAMPLES, 1).tolist()
"""190 pairs; 100 inputs are a hundred times this."""


@pytest.fixture
def distance(alexnet_file: str) -> PerceptualDistance:
    return PerceptualDistance("alex", "0.1", load_weights(NETWORKS["alex"], alexnet_file))


@pytest.fixture
def outputs() -> Tensor:
    return torch.rand(SAMPLES, 3, 64, 64) * 2 - 1


@torch.no_grad()
def ours(distance: PerceptualDistance, outputs: Tensor) -> Tensor:
    return distance.between(distance.features(outputs), *PAIRS)


@torch.no_grad()
def call_per_pair(distance: PerceptualDistance, outputs: Tensor, most: int = 190) -> Tensor:
    pairs = list(zip(*PAIRS, strict=True))[:most]
    return torch.cat([distance.lpips(outputs[i : i + 1], outputs[j : j + 1]).flatten() for i, j in pairs])


@pytest.mark.benchmark(group="LPIPS, 190 pairs of 20 translations")
def test_one_forward_per_image(
    benchmark: BenchmarkFixture, distance: PerceptualDistance, outputs: Tensor
) -> None:
    benchmark(ours, distance, outputs)


@pytest.mark.slow
@pytest.mark.benchmark(group="LPIPS, 190 pairs of 20 translations")
def test_one_call_per_pair(
    benchmark: BenchmarkFixture, distance: PerceptualDistance, outputs: Tensor
) -> None:
    benchmark.pedantic(call_per_pair, (distance, outputs), rounds=3)


@pytest.mark.slow
@pytest.mark.parametrize("side", [64, 256])
def test_the_same_numbers_to_1e_6_at_least_five_times_as_fast(
    distance: PerceptualDistance, side: int
) -> None:
    """Interleaved, the best of three, so that a busy machine slows both; a fifth of the calls, times five."""
    outputs = torch.rand(SAMPLES, 3, side, side) * 2 - 1
    fifth = len(PAIRS[0]) // 5
    seconds: dict[str, list[float]] = {"ours": [], "calls": []}
    for _ in range(3):
        started = time.perf_counter()
        found = ours(distance, outputs)
        seconds["ours"].append(time.perf_counter() - started)
        started = time.perf_counter()
        expected = call_per_pair(distance, outputs, fifth)
        seconds["calls"].append(5 * (time.perf_counter() - started))
    assert torch.allclose(found[:fifth], expected, rtol=0, atol=1e-6)
    assert min(seconds["calls"]) > 5 * min(seconds["ours"])

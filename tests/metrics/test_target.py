"""LPIPS to the target, mean and best of k."""

from __future__ import annotations

import pytest
import torch

from i2ikit.errors import DataError
from i2ikit.metrics.perceptual import NETWORKS, PerceptualDistance
from i2ikit.metrics.target import LPIPSToTarget
from i2ikit.pretrained.weights import load_weights


@torch.no_grad()
def test_the_mean_and_the_nearest_of_k_translations(
    large_outlines, subject, alexnet_file, monkeypatch
) -> None:
    monkeypatch.setattr(large_outlines, "aligned", True, raising=False)
    found = LPIPSToTarget(num_inputs=4, num_samples=3, weights=alexnet_file).measure(subject(large_outlines))
    library = PerceptualDistance("alex", "0.0", load_weights(NETWORKS["alex"], alexnet_file)).lpips
    means, bests = [], []
    for index in subject(large_outlines).inputs(4):
        target = large_outlines.image("test", "b", index)
        each = library(subject(large_outlines).case(index, 3).outputs, target[None]).flatten()
        means.append(each.mean())
        bests.append(each.min())
    assert found.values["LPIPS v0.0/mean"] == pytest.approx(torch.stack(means).mean().item(), abs=1e-6)
    assert found.values["LPIPS v0.0/best_of_3"] == pytest.approx(torch.stack(bests).mean().item(), abs=1e-6)
    error = torch.stack(bests).std().item() / 2
    assert found.values["LPIPS v0.0/best_of_3_se"] == pytest.approx(error, abs=1e-6)


def test_data_without_pairs_is_refused(large_outlines, subject, alexnet_file) -> None:
    with pytest.raises(DataError, match="has no pairs"):
        LPIPSToTarget(weights=alexnet_file).measure(subject(large_outlines))

"""Conditional inception score."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from i2ikit.errors import WeightsError
from i2ikit.metrics.classifier import ConditionalInception
from tests.metrics.stand_ins import DarkOrLight


@pytest.fixture
def classifier(tmp_path) -> str:
    file = tmp_path / "classifier.pt2"
    shapes = ({0: torch.export.Dim("n")},)
    torch.export.save(
        torch.export.export(DarkOrLight(), (torch.zeros(2, 3, 16, 16),), dynamic_shapes=shapes), file
    )
    return str(file)


def entropy(p: Tensor) -> Tensor:
    return -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p))


@torch.no_grad()
def test_a_certain_classifier_gives_the_entropy_of_the_kinds(outlines, subject, classifier) -> None:
    """KL(p(y|x), q) of a certain p is -log q(y): its mean is the entropy of q."""
    found = ConditionalInception(classifier=classifier, num_samples=60).measure(subject(outlines))
    inputs = subject(outlines).inputs(100)
    light = torch.stack([(subject(outlines).styles(60, n) > 0).double().mean() for n in inputs])
    assert found.values["cis"] == pytest.approx(entropy(light).mean().item(), abs=1e-6)
    assert found.values["is"] == pytest.approx(entropy(light.mean()).item(), abs=1e-6)
    assert found.values["cis"] <= found.values["is"] <= math.log(2)
    assert found.facts["classes"] == 2


@torch.no_grad()
def test_one_kind_of_translation_scores_0(outlines, subject, classifier) -> None:
    metric = ConditionalInception(classifier=classifier, num_samples=10)
    values = metric.measure(subject(outlines, deaf=True)).values
    assert values["cis"] == pytest.approx(0, abs=1e-9)


def test_a_file_that_is_no_classifier_is_named(tmp_path, outlines, subject) -> None:
    with pytest.raises(WeightsError, match=r"no such classifier file: nowhere\.pt2"):
        ConditionalInception(classifier="nowhere.pt2")
    (tmp_path / "text.pt2").write_text("no program")
    with pytest.raises(WeightsError, match="is not an exported program"):
        ConditionalInception(classifier=str(tmp_path / "text.pt2"))


@torch.no_grad()
def test_a_classifier_of_other_images_is_named(tmp_path, outlines, subject) -> None:
    file = tmp_path / "large.pt2"
    shapes = ({0: torch.export.Dim("n")},)
    torch.export.save(
        torch.export.export(DarkOrLight(), (torch.zeros(2, 3, 20, 20),), dynamic_shapes=shapes), file
    )
    with pytest.raises(WeightsError, match=r"does not accept images \(\d+, 3, 16, 16\)"):
        ConditionalInception(classifier=str(file)).measure(subject(outlines))

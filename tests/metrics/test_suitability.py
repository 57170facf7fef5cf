"""Metrics say what they cannot measure: a deterministic translator's diversity, images without colours."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from i2ikit.data.reading import COLOURS
from i2ikit.errors import DataError
from i2ikit.metrics.diversity import LPIPSDiversity
from i2ikit.metrics.pixels import L1Diversity, LineContrast
from i2ikit.metrics.regions import RegionColour
from i2ikit.metrics.style import StyleHealth
from i2ikit.metrics.subject import Subject
from i2ikit.metrics.target import LPIPSToTarget
from i2ikit.translator import Direction, ImageSpec, Phase, Translator
from tests.outside.blobs import Blobs


class Mixer(Translator):
    """Deterministic: each band of the target is a mean of those of the source."""

    generative = ("mixer",)
    adversarial = ()

    def __init__(self, images: ImageSpec) -> None:
        self.calls = 0
        super().__init__(images, {"mixer": nn.Linear(1, 1)}, {})

    def phases(self) -> tuple[Phase, ...]:
        return ()

    def translate(self, x: Tensor, style: Tensor, *, source: str, to: str) -> Tensor:
        self.calls += len(x)
        return x.mean(1, keepdim=True).expand(-1, self.images.channels[to], -1, -1)

    def encode_style(self, x: Tensor, domain: str) -> Tensor:
        return x.new_zeros(len(x), 0)


def mixed(*channels: int) -> Subject:
    """From a into b, 36 px, aligned."""
    data = Blobs(domains=["a", "b"], channels=list(channels), size=36)
    return Subject(Mixer(data.images).eval(), data, Direction("a", "b"), 0)


@pytest.mark.parametrize("metric", ["lpips-diversity", "l1-diversity", "style-health"])
def test_a_deterministic_translator_has_no_diversity_and_no_style(metric: str, alexnet_file: str) -> None:
    built = {
        "lpips-diversity": lambda: LPIPSDiversity(weights=alexnet_file),
        "l1-diversity": L1Diversity,
        "style-health": StyleHealth,
    }[metric]()
    with pytest.raises(DataError, match="deterministic: an input has only one translation"):
        built.measure(mixed(3, 3))


@torch.no_grad()
def test_one_translation_of_each_input_is_measured_if_there_is_only_one(alexnet_file: str) -> None:
    """No best of many is pretended, and no translation is computed twice."""
    subject = mixed(3, 3)
    found = LPIPSToTarget(num_samples=20, weights=alexnet_file).measure(subject)
    assert set(found.values) == {f"LPIPS v0.{n}/mean{se}" for n in (0, 1) for se in ("", "_se")}
    assert found.facts["num_samples"] == 1
    assert found.notes[0] == "4 inputs x 1 translations."
    assert subject.translator.calls == 4


@torch.no_grad()
@pytest.mark.parametrize(("source", "to"), [(1, 3), (3, 1), (1, 1), (4, 3), (3, 5), (13, 2)])
def test_metrics_of_colours_name_the_domain_that_has_none(source: int, to: int, alexnet_file: str) -> None:
    both = {"line-contrast": LineContrast(), "region-colour": RegionColour()}
    of_target = {"lpips-to-target": LPIPSToTarget(weights=alexnet_file)}
    for name, metric in {**both, **of_target}.items():
        needed = {"b": to} if name in of_target else {"a": source, "b": to}
        wrong = [(d, n) for d, n in needed.items() if n not in COLOURS]
        try:
            metric.measure(mixed(source, to))
            message = ""
        except DataError as error:
            message = str(error)
        expected = "images of domain {} have {} channels; this metric needs 1 (grey) or 3 (RGB)"
        assert (message == expected.format(*wrong[0])) if wrong else ("channels" not in message)

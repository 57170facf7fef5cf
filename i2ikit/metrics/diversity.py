"""LPIPS diversity, with the protocols of the MUNIT and BicycleGAN papers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from PIL import Image
from torch import Tensor

from i2ikit.metrics.perceptual import (
    LEAST_SIDE,
    NETWORKS,
    VERSIONS,
    PerceptualDistance,
    Trunk,
    Versions,
    cautions,
    origin,
)
from i2ikit.metrics.subject import Case, Count, Measured, Styles, Subject, compared_with_real
from i2ikit.paths import FilePath
from i2ikit.pretrained.weights import load_weights
from i2ikit.registry import Setting
from i2ikit.sampling import sheet
from i2ikit.sizes import SizeRequirement

__all__ = ["LPIPSDiversity"]

SHOWN = 4  # the picture shows this many of the most and of the least diverse inputs
SHOWN_STYLES = 8
INPUTS = 100
PRESET = {"munit": 38, "bicyclegan": 20, "all-pairs": 20}
"""Translations per input of each protocol."""

PAIRING = {
    "munit": "independent pairs",
    "bicyclegan": "consecutive pairs",
    "all-pairs": "pairs (all)",
}


class LPIPSDiversity:
    """LPIPS between translations of one input: the diversity reported in the MUNIT and BicycleGAN papers.

    For each LPIPS version: `diversity`, the mean distance of pairs, averaged over inputs, with its
    standard error; `real_pairs`, the same for random pairs of real images of the target domain (the
    papers' upper bound), with its standard error; `of_real`, their ratio. Outputs are compared as
    tensors.

    Source: the evaluations of Huang et al. (arXiv 1804.04732) and Zhu et al. (arXiv 1711.11586); both
        used version 0.0 and AlexNet at 256 px.

    Args:
        protocol: "munit", 19 pairs of independent translations per input; "bicyclegan", 20
            translations, each compared with the next; "all-pairs", all pairs of 20 translations.
        num_inputs: number of distinct held-out inputs (fewer if fewer exist).
        num_samples: translations per input; by default 38 for "munit", else 20.
        trunk: the network whose features are compared.
        versions: versions of LPIPS. The papers' 0.0 and the current 0.1 are different scales.
        weights: file of the trunk's weights; looked up or downloaded if not given.

    Raises:
        WeightsError: the trunk's weights are not available.
    """

    higher_is_better: ClassVar[Mapping[str, bool]] = {
        f"LPIPS v{version}/diversity": True for version in VERSIONS
    }

    def __init__(
        self,
        *,
        protocol: Literal["munit", "bicyclegan", "all-pairs"] = "munit",
        num_inputs: Count = INPUTS,
        num_samples: Styles | None = None,
        trunk: Trunk = "alex",
        versions: Versions = ("0.0", "0.1"),
        weights: FilePath | None = None,
    ) -> None:
        self.protocol = protocol
        self.num_inputs = num_inputs
        self.num_samples = num_samples or PRESET[protocol]
        self.pairs = _pairs(protocol, self.num_samples)
        self.trunk: Trunk = trunk
        self.versions = tuple(dict.fromkeys(versions))
        self.weights = load_weights(NETWORKS[trunk], weights)

    @staticmethod
    def problems(options: Mapping[str, Any], setting: Setting) -> Iterable[str]:
        """An odd number of samples for independent pairs."""
        samples = options["num_samples"]
        if options["protocol"] == "munit" and samples and samples % 2:
            yield f"num_samples = {samples} is odd; protocol 'munit' needs an even number (independent pairs)"

    @staticmethod
    def size_requirement(options: Mapping[str, Any]) -> SizeRequirement:
        """Sides that leave at least one pixel in the trunk's last layer."""
        return SizeRequirement(LEAST_SIDE[options["trunk"]])

    def measure(self, subject: Subject) -> Measured:
        """See the class."""
        subject.check_styles()
        subject.check_colours(subject.to)
        lpips = [PerceptualDistance(self.trunk, v, self.weights, subject.device) for v in self.versions]

        def diversity(case: Case) -> Tensor:
            pairs = [d.between(d.features(case.outputs), *self.pairs) for d in lpips]
            return torch.stack(pairs).mean(1)

        inputs = subject.inputs(self.num_inputs)
        found = subject.over_inputs(inputs, self.num_samples, diversity)
        x, y = subject.target_pairs(self.num_inputs)
        values = {}
        for distance, per_input in zip(lpips, found.T, strict=True):
            row = f"LPIPS v{distance.version}"
            real = distance(x, y).cpu() if len(x) else torch.zeros(0)
            for name, value in compared_with_real(per_input, real).items():
                values[f"{row}/{name}"] = value
        facts = {
            **self._facts(subject, inputs),
            "num_real_pairs": len(x),
            "per_input": _per_input(subject, inputs, self.versions, found),
        }
        sheets = {"extremes": self._extremes(subject, inputs, found[:, -1])}
        return Measured(values, facts, self._notes(subject, inputs), sheets)

    def _facts(self, subject: Subject, inputs: Sequence[int]) -> dict[str, Any]:
        return {
            "protocol": self.protocol,
            "num_inputs": len(inputs),
            "num_samples": self.num_samples,
            "pairs_per_input": len(self.pairs[0]),
            "pairing": PAIRING[self.protocol],
            **origin(self.trunk, self.versions, self.weights),
        }

    def _notes(self, subject: Subject, inputs: Sequence[int]) -> list[str]:
        side = subject.data.images.size
        counts = f"{len(inputs)} inputs x {len(self.pairs[0])} {PAIRING[self.protocol]}"
        if len(inputs) < self.num_inputs:
            counts += " (no more distinct ones exist)"
        elif (self.num_inputs, self.num_samples) != (INPUTS, PRESET[self.protocol]):
            counts += f" (default counts: {INPUTS} x {len(_pairs(self.protocol, PRESET[self.protocol])[0])})"
        return [
            f"Protocol {self.protocol}: {counts}; {self.trunk}, {side} px, compared as tensors.",
            *cautions(self.versions, self.trunk, side),
        ]

    def _extremes(self, subject: Subject, inputs: Sequence[int], diversity: Tensor) -> Image.Image:
        """A picture of the most and the least diverse inputs, each in its first styles."""
        order = diversity.argsort(descending=True).tolist()
        places = order if len(order) <= 2 * SHOWN else [*order[:SHOWN], *order[-SHOWN:]]
        shown = [inputs[place] for place in places]
        x = torch.stack([subject.input(index) for index in shown])
        styles = [subject.styles(self.num_samples, index)[:SHOWN_STYLES] for index in shown]
        outputs = torch.stack([subject.translate(*pair) for pair in zip(x, styles, strict=True)], dim=1)
        columns = [("input", x), *((f"style {n}", y) for n, y in enumerate(outputs, 1))]
        numbers = [f"{diversity[place]:.3f}" for place in places]
        return sheet(columns, (f"v{self.versions[-1]}", numbers))


def _pairs(protocol: str, samples: int) -> tuple[list[int], list[int]]:
    """Indices of the compared translations of an input: first and second of each pair."""
    if protocol == "munit":
        return list(range(0, samples, 2)), list(range(1, samples, 2))
    if protocol == "bicyclegan":
        return list(range(samples - 1)), list(range(1, samples))
    first, second = torch.triu_indices(samples, samples, 1).tolist()
    return first, second


def _per_input(
    subject: Subject, inputs: Sequence[int], versions: Sequence[str], found: Tensor
) -> list[dict[str, Any]]:
    """Name and diversity of each input, the most diverse first."""
    rows = [
        {
            "input": subject.data.name("test", subject.source, index),
            **{f"v{v}": round(n, 6) for v, n in zip(versions, numbers.tolist(), strict=True)},
        }
        for index, numbers in zip(inputs, found, strict=True)
    ]
    return sorted(rows, key=lambda row: -row[f"v{versions[-1]}"])

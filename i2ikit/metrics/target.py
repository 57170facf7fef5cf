"""LPIPS to the target: the distance between translations and the paired target of their input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from i2ikit.errors import DataError
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
from i2ikit.metrics.subject import Case, Count, Measured, Subject, counts_note, standard_error
from i2ikit.paths import FilePath
from i2ikit.pretrained.weights import load_weights
from i2ikit.sizes import SizeRequirement

__all__ = ["LPIPSToTarget"]

SAMPLES = 20


class LPIPSToTarget:
    """LPIPS between translations and the paired target of their input; needs data with pairs.

    For each LPIPS version, averaged over inputs: `mean`, the mean distance of the translations, and
    `best_of_k`, the smallest one, each with its standard error. Lower is better; with many plausible
    targets the best of k is more informative than the mean. If k is 1, or the translator is deterministic,
    there is only the mean.

    Args:
        num_inputs: number of distinct held-out inputs (fewer if fewer exist).
        num_samples: translations per input, k.
        trunk: the network whose features are compared.
        versions: versions of LPIPS, which are different scales.
        weights: file of the trunk's weights; looked up or downloaded if not given.

    Raises:
        WeightsError: the trunk's weights are not available.
    """

    higher_is_better: ClassVar[Mapping[str, bool]] = {
        f"LPIPS v{version}/{value}": False for version in VERSIONS for value in ("mean", f"best_of_{SAMPLES}")
    }
    """`best_of_k` only for the default k: values of other k are on other scales."""

    def __init__(
        self,
        *,
        num_inputs: Count = 100,
        num_samples: Count = SAMPLES,
        trunk: Trunk = "alex",
        versions: Versions = ("0.0", "0.1"),
        weights: FilePath | None = None,
    ) -> None:
        self.num_inputs = num_inputs
        self.num_samples = num_samples
        self.trunk: Trunk = trunk
        self.versions = tuple(dict.fromkeys(versions))
        self.weights = load_weights(NETWORKS[trunk], weights)

    @staticmethod
    def size_requirement(options: Mapping[str, Any]) -> SizeRequirement:
        """Sides that leave at least one pixel in the trunk's last layer."""
        return SizeRequirement(LEAST_SIDE[options["trunk"]])

    def measure(self, subject: Subject) -> Measured:
        """See the class."""
        if not subject.data.aligned:
            raise DataError("the data has no pairs, so translations cannot be compared with a target")
        subject.check_colours(subject.to)
        samples = subject.samples(self.num_samples)
        lpips = [PerceptualDistance(self.trunk, v, self.weights, subject.device) for v in self.versions]

        def to_target(case: Case) -> Tensor:
            targets = subject.target(case.index).expand_as(case.outputs)
            each = [distance(case.outputs, targets) for distance in lpips]
            return torch.stack([torch.stack([d.mean(), d.min()]) for d in each])

        inputs = subject.inputs(self.num_inputs)
        found = subject.over_inputs(inputs, samples, to_target)
        values = {}
        for version, (mean, best) in zip(self.versions, found.permute(1, 2, 0), strict=True):
            values[f"LPIPS v{version}/mean"] = mean.mean().item()
            values[f"LPIPS v{version}/mean_se"] = standard_error(mean)
            if samples > 1:
                values[f"LPIPS v{version}/best_of_{samples}"] = best.mean().item()
                values[f"LPIPS v{version}/best_of_{samples}_se"] = standard_error(best)
        facts = {
            "num_inputs": len(inputs),
            "num_samples": samples,
            **origin(self.trunk, self.versions, self.weights),
        }
        return Measured(
            values,
            facts,
            [
                counts_note(inputs, samples),
                *cautions(self.versions, self.trunk, subject.data.images.size),
            ],
        )

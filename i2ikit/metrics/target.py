"""LPIPS to the target: how near translations come to the image that belongs to their input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from i2ikit.errors import DataError
from i2ikit.metrics.perceptual import (
    LEAST_SIDE,
    NETWORKS,
    PerceptualDistance,
    Trunk,
    Versions,
    cautions,
    origin,
)
from i2ikit.metrics.subject import Case, Count, Measured, Subject, counts_note, standard_error
from i2ikit.pretrained.weights import load_weights
from i2ikit.sizes import SizeRequirement

__all__ = ["LPIPSToTarget"]


class LPIPSToTarget:
    """LPIPS between translations and the image that belongs to their input; needs data with pairs.

    For each LPIPS version, over the inputs: `mean` distance of the translations, `best_of_k` (the
    nearest of them), each with its standard error. Lower is better; with many plausible targets the
    best of k says more than the mean.

    Args:
        num_inputs: distinct held-out inputs (fewer if there are not as many).
        num_samples: translations per input, k.
        trunk: the network whose features are compared.
        versions: of LPIPS, which are two scales.
        weights: file of the trunk's weights; found or fetched when not given.

    Raises:
        WeightsError: the trunk's weights cannot be had.
    """

    def __init__(
        self,
        *,
        num_inputs: Count = 100,
        num_samples: Count = 20,
        trunk: Trunk = "alex",
        versions: Versions = ("0.0", "0.1"),
        weights: str | None = None,
    ) -> None:
        self.num_inputs = num_inputs
        self.num_samples = num_samples
        self.trunk: Trunk = trunk
        self.versions = tuple(dict.fromkeys(versions))
        self.weights = load_weights(NETWORKS[trunk], weights)

    @staticmethod
    def size_requirement(options: Mapping[str, Any]) -> SizeRequirement:
        """Sides that leave the trunk's last layer a pixel."""
        return SizeRequirement(LEAST_SIDE[options["trunk"]])

    def measure(self, subject: Subject) -> Measured:
        """See the class."""
        if not subject.data.aligned:
            raise DataError("the data has no pairs, so no translation has a target to be compared with")
        lpips = [PerceptualDistance(self.trunk, v, self.weights, subject.device) for v in self.versions]

        def to_target(case: Case) -> Tensor:
            targets = subject.target(case.index).expand_as(case.outputs)
            each = [distance(case.outputs, targets) for distance in lpips]
            return torch.stack([torch.stack([d.mean(), d.min()]) for d in each])

        inputs = subject.inputs(self.num_inputs)
        found = subject.over_inputs(inputs, self.num_samples, to_target)
        values = {}
        for version, (mean, best) in zip(self.versions, found.permute(1, 2, 0), strict=True):
            values[f"LPIPS v{version}/mean"] = mean.mean().item()
            values[f"LPIPS v{version}/mean_se"] = standard_error(mean)
            values[f"LPIPS v{version}/best_of_{self.num_samples}"] = best.mean().item()
            values[f"LPIPS v{version}/best_of_{self.num_samples}_se"] = standard_error(best)
        facts = {
            "num_inputs": len(inputs),
            "num_samples": self.num_samples,
            **origin(self.trunk, self.versions, self.weights),
        }
        return Measured(
            values,
            facts,
            [
                counts_note(inputs, self.num_samples),
                *cautions(self.versions, self.trunk, subject.data.images.size),
            ],
        )

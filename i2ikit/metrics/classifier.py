"""Conditional inception score: diversity according to a classifier of the target domain."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from i2ikit.errors import WeightsError
from i2ikit.metrics.subject import Case, Count, Measured, Styles, Subject, counts_note, standard_error
from i2ikit.paths import FilePath

__all__ = ["ConditionalInception"]

CHUNK = 50


class ConditionalInception:
    """Conditional inception score (CIS) and inception score (IS) with a classifier of the target domain.

    With p(y|x) the classifier's probabilities for one translation, p(y|input) their mean over the
    translations of one input, and p(y) their mean over all:

    `cis`: mean KL(p(y|x), p(y|input)); high if the translations of one input belong to many classes.
    `is`: mean KL(p(y|x), p(y)); high if all translations together belong to many classes. In nats,
    without the exponential, as in the paper; the official script prints the exponentials.

    Source: Huang et al. (arXiv 1804.04732), its section on metrics.

    Args:
        classifier: file of an exported program (`torch.export.save`): images (N, C, H, W) in [-1, 1],
            any N, to logits (N, classes).
        num_inputs: number of distinct held-out inputs (fewer if fewer exist).
        num_samples: translations per input.

    Raises:
        WeightsError: the classifier cannot be read, or does not accept these images.
    """

    higher_is_better: ClassVar[Mapping[str, bool]] = {"cis": True, "is": True}

    def __init__(self, *, classifier: FilePath, num_inputs: Count = 100, num_samples: Styles = 100) -> None:
        self.path = Path(classifier)
        self.num_inputs = num_inputs
        self.num_samples = num_samples
        if not self.path.is_file():
            raise WeightsError(f"no such classifier file: {classifier} (looked in {Path.cwd()})")
        try:
            self.classifier = torch.export.load(self.path).module()
        except Exception as error:  # invalid files raise many exceptions
            raise WeightsError(
                f"{classifier} is not an exported program of torch.export.save: {error}"
            ) from error

    def measure(self, subject: Subject) -> Measured:
        """See the class."""
        subject.check_styles()
        self.classifier.to(subject.device)

        def probabilities(case: Case) -> Tensor:
            return torch.cat([self._classify(part) for part in torch.split(case.outputs, CHUNK)])

        inputs = subject.inputs(self.num_inputs)
        p = subject.over_inputs(inputs, self.num_samples, probabilities)
        conditional = _divergence(p, p.mean(1, keepdim=True)).mean(1)
        values = {
            "cis": conditional.mean().item(),
            "cis_se": standard_error(conditional),
            "is": _divergence(p, p.mean((0, 1))).mean().item(),
        }
        facts = {
            "num_inputs": len(inputs),
            "classes": p.shape[-1],
            "classifier": {"file": str(self.path), "sha256": _sha256(self.path)},
        }
        return Measured(values, facts, [counts_note(inputs, self.num_samples)])

    def _classify(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> probabilities (N, classes)."""
        shape = tuple(images.shape)
        try:
            logits = self.classifier(images)
        except Exception as error:  # exported programs raise many exceptions for invalid inputs
            raise WeightsError(f"classifier {self.path} does not accept images {shape}: {error}") from error
        if logits.ndim != 2 or len(logits) != len(images):
            raise WeightsError(
                f"classifier {self.path} should return (N, classes) for images {shape}, "
                f"got {tuple(logits.shape)}"
            )
        return logits.cpu().double().softmax(1)


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p, q) over the last dimension, in nats; 0 log 0 is 0."""
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

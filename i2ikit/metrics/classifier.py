"""Conditional inception score: diversity according to a classifier of the target domain."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from i2ikit.errors import WeightsError, in_one_line
from i2ikit.metrics.subject import Case, Count, Measured, Styles, Subject, counts_note, standard_error
from i2ikit.onnx_session import open_session
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
        classifier: file of an ONNX model with its weights, from images (N, C, H, W) in [-1, 1], any N, to
            logits (N, classes). It runs on the CPU, and needs `pip install "i2ikit[export]"`.
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
        self.classifier = open_session(self.path, "conditional-inception")

    def measure(self, subject: Subject) -> Measured:
        """See the class."""
        subject.check_styles()

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
        given = {self.classifier.get_inputs()[0].name: images.float().cpu().numpy()}
        try:
            logits = np.asarray(self.classifier.run(None, given)[0])
        except Exception as error:  # onnxruntime has an exception for each kind of failure
            reason = in_one_line(error)
            raise WeightsError(f"classifier {self.path} does not accept images {shape}: {reason}") from error
        if logits.ndim != 2 or len(logits) != len(images) or logits.dtype.kind != "f":
            raise WeightsError(
                f"classifier {self.path} should return numbers (N, classes) for images {shape}, "
                f"got {logits.dtype} {logits.shape}"
            )
        return torch.from_numpy(logits).double().softmax(1)


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p, q) over the last dimension, in nats; 0 log 0 is 0."""
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

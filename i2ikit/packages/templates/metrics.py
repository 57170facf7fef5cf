"""A metric for i2ikit: measures a trained translator on held-out images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from i2ikit.metrics.subject import Case, Count, Measured, Styles, Subject, counts_note, standard_error
from torch import Tensor

__all__ = ["MyPlugin"]


class MyPlugin:
    """How much the mean colour of a translation changes with its style (0..1 scale).

    `spread`: standard deviation of the mean colour over styles, averaged over channels and inputs.

    Args:
        num_inputs: number of held-out inputs; all of them if there are fewer.
        num_styles: random styles per input.
    """

    higher_is_better: ClassVar[Mapping[str, bool]] = {"spread": True}

    def __init__(self, *, num_inputs: Count = 100, num_styles: Styles = 6) -> None:
        self.num_inputs = num_inputs
        self.num_styles = num_styles

    def measure(self, subject: Subject) -> Measured:
        """Measure the spread and its standard error."""
        inputs = subject.inputs(self.num_inputs)
        spread = subject.over_inputs(inputs, self.num_styles, _spread)
        # To report another number, return its mean from another function of a Case, and add it here.
        values = {"spread": spread.mean().item(), "spread_se": standard_error(spread)}
        return Measured(values, {"num_inputs": len(inputs)}, [counts_note(inputs, self.num_styles)])


def _spread(case: Case) -> Tensor:
    """The spread of one input's translations (K, C, H, W): a scalar."""
    return (case.outputs.mean(dim=(2, 3)) / 2).std(dim=0).mean()

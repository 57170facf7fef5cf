"""The interface of metrics: their input (`Subject`) and their result (`Measured`).

A metric is a class with options after `*` and `measure(subject)`. The subject provides held-out inputs
and their translations, splits the work over all processes, and shows progress.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol, runtime_checkable

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from i2ikit.data.dataset import Dataset
from i2ikit.data.reading import COLOURS
from i2ikit.draws import counted_generator
from i2ikit.errors import DataError, I2IKitError, WeightsError
from i2ikit.pretrained.cache import progress_over
from i2ikit.processes import ALONE, Processes
from i2ikit.registry import Slot
from i2ikit.sampling import distinct_test_indices, random_styles
from i2ikit.translator import Direction, Translator

__all__ = [
    "METRIC_SLOT",
    "Case",
    "Count",
    "Ended",
    "Measured",
    "Metric",
    "Styles",
    "Subject",
    "better_values",
    "compared_with_real",
    "counts_note",
    "standard_error",
]

Count = Annotated[int, Field(ge=1, le=100_000)]
Styles = Annotated[int, Field(ge=2, le=1000)]


@dataclass(frozen=True)
class Measured:
    """The result of a metric.

    Args:
        values: numbers by name, the most important first; names `row/column` form a table, `name_se` is
            the standard error of `name`.
        facts: facts needed to reproduce the values, as JSON: counts, versions, checksums.
        notes: remarks that qualify the values.
        sheets: pictures by name, saved beside the report.
    """

    values: Mapping[str, float]
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    sheets: Mapping[str, Image.Image] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """One held-out input and its translations.

    Args:
        index: its index in the test split.
        x: the input, (C, H, W) in [-1, 1].
        styles: random codes, (K, style_dim).
        outputs: x in each style, (K, C, H, W) in [-1, 1].
    """

    index: int
    x: Tensor
    styles: Tensor
    outputs: Tensor


@dataclass(frozen=True)
class Ended:
    """What a process sends to the others when it has measured a metric, or has failed to.

    Args:
        error: why it failed.
    """

    error: I2IKitError | None


@dataclass(frozen=True)
class Subject:
    """What a metric measures: a translator in eval mode, on held-out data, in one direction.

    Args:
        seed: inputs, styles and pairs depend only on it.
        title: label of the progress bar.
    """

    translator: Translator
    data: Dataset
    direction: Direction
    seed: int
    group: Processes = ALONE
    title: str = ""

    @property
    def source(self) -> str:
        """The domain of the inputs."""
        return self.direction.source

    @property
    def to(self) -> str:
        """The target domain."""
        return self.direction.to

    @property
    def device(self) -> torch.device:
        """The device of the translator and of all images returned by this class."""
        return next(self.translator.parameters()).device

    def inputs(self, most: int) -> list[int]:
        """Indices of up to `most` distinct held-out inputs, in an order that depends on the seed."""
        return distinct_test_indices(self.data, self.source, most, self.seed)

    def input(self, index: int) -> Tensor:
        """A held-out image of the source domain, (C, H, W) in [-1, 1]."""
        return self.data.image("test", self.source, index).to(self.device)

    def targets(self, most: int) -> list[int]:
        """Indices of up to `most` distinct held-out images of the target domain."""
        return distinct_test_indices(self.data, self.to, most, self.seed)

    def several_targets(self, most: int) -> list[int]:
        """As `targets`, but at least two.

        Raises:
            DataError: there is only one.
        """
        indices = self.targets(most)
        if len(indices) < 2:
            raise DataError(f"domain {self.to} has only one distinct held-out image; 2 or more are needed")
        return indices

    def target(self, index: int) -> Tensor:
        """A held-out image of the target domain, (C, H, W) in [-1, 1]."""
        return self.data.image("test", self.to, index).to(self.device)

    def target_pairs(self, most: int) -> tuple[Tensor, Tensor]:
        """Up to `most` random pairs of distinct real images of the target domain, without repetition.

        (N, C, H, W) twice; N is 0 if there is only one image.
        """
        images = torch.stack([self.target(index) for index in self.targets(2 * most)])
        half = len(images) // 2
        return images[:half], images[half : 2 * half]

    def samples(self, number: int) -> int:
        """Number of translations of each input: 1 if the translator is deterministic, else `number`."""
        return 1 if self.translator.is_deterministic(self.to) else number

    def styles(self, num_styles: int, index: int) -> Tensor:
        """Independent random style codes for one input, (num_styles, style_dim)."""
        seed = int(counted_generator(self.seed, "metric", index).integers(2**62))
        return random_styles(self.translator, num_styles, self.to, seed).to(self.device)

    def translate(self, x: Tensor, styles: Tensor) -> Tensor:
        """Translate x (C, H, W) in each style (K, style_dim): (K, C, H, W)."""
        source, to = self.direction
        return self.translator.translate_with_each(x[None], styles, source=source, to=to)

    def check_styles(self) -> None:
        """Check that an input has several translations.

        Raises:
            DataError: the translator is deterministic.
        """
        if self.translator.is_deterministic(self.to):
            raise DataError("this translator is deterministic: an input has only one translation")

    def check_colours(self, *domains: str) -> None:
        """Check that images of these domains are grey or RGB.

        Raises:
            DataError: they are not.
        """
        for domain in domains:
            number = self.data.images.channels[domain]
            if number not in COLOURS:
                raise DataError(
                    f"images of domain {domain} have {number} channels; this metric needs 1 (grey) or 3 (RGB)"
                )

    def case(self, index: int, num_styles: int) -> Case:
        """An input and its translations in random styles, which depend on the input."""
        x, styles = self.input(index), self.styles(num_styles, index)
        return Case(index, x, styles, self.translate(x, styles))

    def over_inputs(
        self, indices: Sequence[int], num_styles: int, measure: Callable[[Case], Tensor]
    ) -> Tensor:
        """Apply `measure` to each input and its translations; returns results on the CPU, (N, *shape).

        Each process measures its share; all receive all results, in the order of `indices`.
        """
        rank, count = self.group.rank, self.group.count
        mine = indices[len(indices) * rank // count : len(indices) * (rank + 1) // count]
        shown = progress_over(mine, len(mine), self.title) if self.group.is_main else mine
        try:
            own: list[Any] = [measure(self.case(i, num_styles)).cpu() for i in shown]
        except (DataError, WeightsError) as error:  # raised below in all processes, or the others would wait
            own = [error]
        found = self.group.gather(own)
        for item in found:
            failure = item.error if isinstance(item, Ended) else item
            if isinstance(failure, I2IKitError):
                raise failure
        return torch.stack(found)


@runtime_checkable
class Metric(Protocol):
    """A measurement of a trained translator.

    A metric may have a class attribute `higher_is_better: ClassVar[Mapping[str, bool]]`: for each value that
    can be judged, by its name, whether a higher one is better. Values for which neither holds (ratios,
    counts) are left out. `[validation]` of a recipe can keep the best weights by such a value.
    """

    def measure(self, subject: Subject) -> Measured:
        """Measure the subject.

        Raises:
            DataError: the data is not suitable for this metric.
        """
        ...


METRIC_SLOT = Slot("metrics", (), like=Metric)
"""The slot of a metric named on the command line."""


def better_values(metric: type) -> Mapping[str, bool]:
    """For each value of a metric that can be judged, whether a higher one is better; see `Metric`."""
    declared: Mapping[str, bool] = getattr(metric, "higher_is_better", {})
    return declared


def compared_with_real(diversity: Tensor, real_pairs: Tensor) -> dict[str, float]:
    """Diversity of translations (one number for each input) and of real pairs, and their ratio.

    Without real pairs (only one real image): only the first.
    """
    values = {"diversity": diversity.mean().item(), "diversity_se": standard_error(diversity)}
    if len(real_pairs):
        values["real_pairs"] = real_pairs.mean().item()
        values["real_pairs_se"] = standard_error(real_pairs)
        values["of_real"] = (diversity.mean() / real_pairs.mean()).item()
    return values


def counts_note(inputs: Sequence[int], samples: int) -> str:
    """A note with the counts."""
    return f"{len(inputs)} inputs x {samples} translations."


def standard_error(per_input: Tensor) -> float:
    """Standard error of the mean of one number per input, (N,); 0 if there is only one input."""
    return (per_input.std(correction=min(1, len(per_input) - 1)) / len(per_input) ** 0.5).item()

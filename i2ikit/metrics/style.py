"""Health of the style encoder, and a probe that warns early in training if the style has no effect."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from i2ikit.data.dataset import Dataset
from i2ikit.draws import counted_generator
from i2ikit.errors import DataError
from i2ikit.metrics.pixels import difference, pairwise_difference
from i2ikit.metrics.subject import Case, Count, Measured, Styles, Subject, counts_note
from i2ikit.translator import Reconstructing, StyleEncoding, Translator, one_per_target

__all__ = ["DiversityProbe", "StyleHealth"]


class StyleHealth:
    """Whether the style encoder recovers styles from translations, and exemplars have an effect.

    `style_recon`: mean absolute error of a random style that is encoded again from its translation;
    0.798 is chance (the mean of |N(0, 1)|). `encoded_std`: standard deviation of the codes of real
    images; 1 for the prior. `guided_of_random`: pairwise difference of translations in the styles of
    exemplars, divided by that in the same number of random styles. `image_recon`: mean absolute error
    (0..1 scale) of reconstructed target images; `eval_of_train`: the same divided by its value in
    training mode (batch statistics), which reveals unsuitable running statistics of norms. The last
    two only for translators with `reconstruct`.

    Args:
        num_inputs: number of distinct held-out inputs (fewer if fewer exist).
        num_styles: random styles, and exemplars, per input.
        batch_size: batch size in training mode.
    """

    higher_is_better: ClassVar[Mapping[str, bool]] = {
        "style_recon": False,
        "guided_diversity": True,
        "image_recon": False,
    }

    def __init__(
        self, *, num_inputs: Count = 100, num_styles: Styles = 6, batch_size: Annotated[int, Field(ge=2)] = 4
    ) -> None:
        self.num_inputs = num_inputs
        self.num_styles = num_styles
        self.batch_size = batch_size

    def measure(self, subject: Subject) -> Measured:
        """See the class."""
        translator, to = subject.translator, subject.to
        if not isinstance(translator, StyleEncoding):
            raise DataError("this translator has no style encoder, which this metric needs")
        subject.check_styles()
        real = torch.stack([subject.target(index) for index in subject.several_targets(2 * self.num_inputs)])
        codes = translator.encode_style(real, to)

        def three(case: Case) -> Tensor:
            # Without replacement: the exemplars are different images.
            order = counted_generator(subject.seed, "exemplars", case.index).permutation(len(codes))
            guided = subject.translate(case.x, codes[order[: self.num_styles]])
            error = F.l1_loss(translator.encode_style(case.outputs, to), case.styles)
            return torch.stack([error, pairwise_difference(guided), pairwise_difference(case.outputs)])

        inputs = subject.inputs(self.num_inputs)
        style_recon, guided, random = subject.over_inputs(inputs, self.num_styles, three).mean(0)
        values = {
            "style_recon": style_recon.item(),
            "encoded_mean": codes.mean(0).abs().mean().item(),
            "encoded_std": codes.std(0).mean().item(),
            "guided_diversity": guided.item(),
            "guided_of_random": (guided / random).item(),
        }
        if isinstance(subject.translator, Reconstructing):
            # No batch of one image: batch norm in training mode would act as instance norm.
            batches = [real[n : n + self.batch_size] for n in range(0, len(real) - 1, self.batch_size)]
            values["image_recon"] = _reconstruction_error(subject.translator, batches, to)
            in_training = copy.deepcopy(subject.translator).train()
            values["eval_of_train"] = values["image_recon"] / _reconstruction_error(in_training, batches, to)
        return Measured(values, {"num_inputs": len(inputs)}, [counts_note(inputs, self.num_styles)])


def _reconstruction_error(translator: Reconstructing, batches: Sequence[Tensor], to: str) -> float:
    errors = [difference(translator.reconstruct(batch, to), batch).mean() for batch in batches]
    return torch.stack(errors).mean().item()


class DiversityProbe:
    """A cheap measurement of diversity during training.

    Measures the mean absolute difference (0..1 scale) of translations of a few held-out inputs in a
    few random styles, the same each time, for each target domain.

    Args:
        data: its test split provides the inputs.
        seed: inputs and styles depend only on it.
    """

    NUM_INPUTS = 4
    NUM_STYLES = 4

    def __init__(self, data: Dataset, seed: int) -> None:
        self.data = data
        self.seed = seed

    @torch.no_grad()
    def __call__(self, translator: Translator) -> Mapping[str, float]:
        """Values by name, `diversity/DIRECTION`; empty for a deterministic translator.

        Args:
            translator: in eval mode.
        """
        values = {}
        for direction in one_per_target(translator):
            if translator.is_deterministic(direction.to):
                continue
            subject = Subject(translator, self.data, direction, self.seed)
            inputs = subject.inputs(self.NUM_INPUTS)
            cases = [subject.case(index, self.NUM_STYLES) for index in inputs]
            mean = torch.stack([pairwise_difference(case.outputs) for case in cases]).mean().item()
            values[f"diversity/{direction}"] = mean
        return values

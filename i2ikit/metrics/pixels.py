"""Metrics that compare pixels: how much styles change images, and whether lines are preserved.

Differences between images are on a 0..1 scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from i2ikit.errors import DataError
from i2ikit.metrics.subject import Case, Count, Measured, Styles, Subject, compared_with_real, counts_note

__all__ = ["L1Diversity", "LineContrast", "difference", "is_line", "pairwise_difference"]


class L1Diversity:
    """Mean absolute difference between translations of one input, relative to that between real images.

    `diversity`: mean absolute difference (0..1 scale), over inputs and all pairs of their styles.
    `real_pairs`: the same for random pairs of distinct real images of the target domain.
    `of_real`: their ratio. `same_style`: difference of two translations in the same style; 0 unless
    something other than the style is random.

    Args:
        num_inputs: number of distinct held-out inputs (fewer if fewer exist).
        num_styles: random styles per input.
    """

    higher_is_better: ClassVar[Mapping[str, bool]] = {"diversity": True}

    def __init__(self, *, num_inputs: Count = 100, num_styles: Styles = 6) -> None:
        self.num_inputs = num_inputs
        self.num_styles = num_styles

    def measure(self, subject: Subject) -> Measured:
        """See the class."""
        subject.check_styles()

        def both(case: Case) -> Tensor:
            once, again = subject.translate(case.x, case.styles[:1].expand(2, -1))
            return torch.stack([pairwise_difference(case.outputs), difference(once, again)])

        inputs = subject.inputs(self.num_inputs)
        diversity, same_style = subject.over_inputs(inputs, self.num_styles, both).unbind(1)
        real_pairs = difference(*subject.target_pairs(self.num_inputs)).cpu()
        values = {**compared_with_real(diversity, real_pairs), "same_style": same_style.max().item()}
        return Measured(values, {"num_inputs": len(inputs)}, [counts_note(inputs, self.num_styles)])


class LineContrast:
    """Whether dark lines of an input stay dark in its translations, with light surroundings.

    Lines are the pixels whose input luminance (ITU-R 601, 0..1) is below 0.5; their ring is the set of
    pixels at distance two. `kept`: the fraction of translations in which the mean luminance of the
    ring is at least 0.3 above that of the lines.

    Args:
        num_inputs: number of distinct held-out inputs (fewer if fewer exist); inputs without lines
            are ignored.
        num_styles: random styles per input.
        margin: smallest luminance difference that counts as kept.
    """

    higher_is_better: ClassVar[Mapping[str, bool]] = {"kept": True}

    def __init__(
        self,
        *,
        num_inputs: Count = 100,
        num_styles: Styles = 6,
        margin: Annotated[float, Field(gt=0, lt=1)] = 0.3,
    ) -> None:
        self.num_inputs = num_inputs
        self.num_styles = num_styles
        self.margin = margin

    def measure(self, subject: Subject) -> Measured:
        """See the class."""
        subject.check_colours(*subject.direction)
        samples = subject.samples(self.num_styles)
        inputs = [n for n in subject.inputs(self.num_inputs) if _has_lines(subject.input(n))]
        if not inputs:
            raise DataError("no held-out input has lines: pixels darker than 0.5 with lighter ones around")
        on_line, on_ring = subject.over_inputs(inputs, samples, _luminances).unbind(1)
        values = {
            "kept": (on_ring - on_line >= self.margin).float().mean().item(),
            "line_luminance": on_line.mean().item(),
            "ring_luminance": on_ring.mean().item(),
        }
        return Measured(values, {"num_inputs": len(inputs)}, [counts_note(inputs, samples)])


def difference(x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute difference of each pair of images, on a 0..1 scale: (..., C, H, W) -> (...)."""
    return (x - y).abs().mean(dim=(-3, -2, -1)) / 2


def pairwise_difference(outputs: Tensor) -> Tensor:
    """Mean difference over all pairs of translations: (K, ..., C, H, W) -> (...)."""
    pairs = [(i, j) for i in range(len(outputs)) for j in range(i)]
    return torch.stack([difference(outputs[i], outputs[j]) for i, j in pairs]).mean(0)


def _luminances(case: Case) -> Tensor:
    """Mean luminance of each translation on the lines of the input and on their ring: (2, K)."""
    line, ring = _line_and_ring(case.x)
    y = _luminance(case.outputs)
    return torch.stack([(y * part).sum((-2, -1)) / part.sum() for part in (line, ring)])


def _has_lines(x: Tensor) -> bool:
    return all(part.any() for part in _line_and_ring(x))


def is_line(x: Tensor) -> Tensor:
    """Mask of luminance (ITU-R 601, 0..1) below 0.5: (C, H, W) in [-1, 1] -> (H, W)."""
    return _luminance(x) < 0.5


def _line_and_ring(x: Tensor) -> tuple[Tensor, Tensor]:
    line = is_line(x)
    return line, _grown(line, 2) & ~_grown(line, 1)


def _luminance(x: Tensor) -> Tensor:
    """(..., C, H, W) in [-1, 1] -> (..., H, W) in 0..1."""
    x = (x + 1) / 2
    if x.shape[-3] == 1:
        return x[..., 0, :, :]
    weights = torch.tensor([0.299, 0.587, 0.114], device=x.device)
    return (x * weights[:, None, None]).sum(-3)


def _grown(mask: Tensor, radius: int) -> Tensor:
    """A mask (H, W), dilated by a square of this radius."""
    return F.max_pool2d(mask[None].float(), 2 * radius + 1, 1, radius)[0] > 0

"""Metrics that need no other network: how much styles change, whether lines survive, whether style lives.

A metric is a class with options after `*` and `measure(subject)`, which returns named numbers.
Differences between images are on a 0..1 scale.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Protocol, runtime_checkable

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from i2ikit.data import Dataset
from i2ikit.draws import counted_generator
from i2ikit.errors import DataError
from i2ikit.sampling import distinct_test_indices, random_styles
from i2ikit.translator import Translator, other

__all__ = ["L1Diversity", "LineContrast", "Metric", "StyleHealth", "Subject"]

Count = Annotated[int, Field(ge=1, le=100_000)]
Styles = Annotated[int, Field(ge=2, le=1000)]
CHUNK = 50


@dataclass(frozen=True)
class Subject:
    """What is measured: a translator in eval mode, on held-out data, into domain `to`."""

    translator: Translator
    data: Dataset
    to: str
    seed: int

    def inputs(self, most: int) -> Tensor:
        """Up to `most` distinct held-out inputs, (N, C, H, W) in [-1, 1]."""
        return self._images(other(self.to), most)

    def targets(self, most: int) -> Tensor:
        """Up to `most` distinct held-out images of the target domain, (N, C, H, W) in [-1, 1]."""
        return self._images(self.to, most)

    def styles(self, num_styles: int, num_inputs: int) -> Tensor:
        """Independent random style codes, (num_styles, num_inputs, style_dim)."""
        seed = int(counted_generator(self.seed, "metric", "").integers(2**62))
        codes = random_styles(self.translator, num_styles * num_inputs, seed)
        return codes.view(num_styles, num_inputs, -1)

    def translate(self, x: Tensor, styles: Tensor) -> Tensor:
        """x in each of its styles: (K, N, style_dim) -> (K, N, C, H, W)."""
        translate = self.translator.translate
        return torch.stack(
            [
                torch.cat(
                    [translate(x[n : n + CHUNK], s[n : n + CHUNK], self.to) for n in range(0, len(x), CHUNK)]
                )
                for s in styles
            ]
        )

    def pairable_targets(self, most: int) -> Tensor:
        """The same, at least two of them.

        Raises:
            DataError: there is only one.
        """
        images = self.targets(most)
        if len(images) < 2:
            raise DataError(f"domain {self.to} has one held-out image; 2 or more distinct ones are needed")
        return images

    def _images(self, domain: str, most: int) -> Tensor:
        indices = distinct_test_indices(self.data, domain, most, self.seed)
        return torch.stack([self.data.image("test", domain, index) for index in indices])


@runtime_checkable
class Metric(Protocol):
    """Something that can be measured of a trained translator."""

    def measure(self, subject: Subject) -> Mapping[str, float]:
        """Named numbers; the first is the headline."""
        ...


class L1Diversity:
    """How far apart translations of one input are, as a part of how far apart real images are.

    `diversity`: mean absolute difference (0..1 scale), over inputs and all pairs of their styles.
    `real_pairs`: the same for random pairs of distinct real images of the target domain.
    `of_real`: their ratio. `same_style`: difference of one style used twice; 0 unless something
    other than the style is random.

    Args:
        num_inputs: distinct held-out inputs (fewer if there are not as many).
        num_styles: random styles per input.
    """

    def __init__(self, *, num_inputs: Count = 100, num_styles: Styles = 6) -> None:
        self.num_inputs = num_inputs
        self.num_styles = num_styles

    def measure(self, subject: Subject) -> Mapping[str, float]:
        """See the class."""
        x = subject.inputs(self.num_inputs)
        styles = subject.styles(self.num_styles, len(x))
        diversity = _pairwise(subject.translate(x, styles))
        once, again = subject.translate(x, styles[:1].expand(2, -1, -1))
        real = subject.pairable_targets(2 * self.num_inputs)
        half = len(real) // 2
        real_pairs = _difference(real[:half], real[half : 2 * half]).mean()
        return {
            "diversity": diversity.mean().item(),
            "standard_error": (diversity.std(correction=min(1, len(x) - 1)) / len(x) ** 0.5).item(),
            "real_pairs": real_pairs.item(),
            "of_real": (diversity.mean() / real_pairs).item(),
            "same_style": _difference(once, again).max().item(),
            "num_inputs": len(x),
            "num_styles": self.num_styles,
        }


class LineContrast:
    """Whether an input's dark lines are dark in its translations, and their surroundings light.

    Lines are where the input's luminance (ITU-R 601, 0..1) is below 0.5; their ring is what lies
    two pixels outside them. `kept`: the part of translations in which the mean luminance of the
    ring is at least 0.3 above that of the lines.

    Args:
        num_inputs: distinct held-out inputs (fewer if there are not as many).
        num_styles: random styles per input.
        margin: the difference that counts as kept.
    """

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

    def measure(self, subject: Subject) -> Mapping[str, float]:
        """See the class."""
        x = subject.inputs(self.num_inputs)
        line = _luminance(x) < 0.5
        ring = _grown(line, 2) & ~_grown(line, 1)
        usable = line.any((1, 2)) & ring.any((1, 2))
        if not usable.any():
            raise DataError("no held-out input has lines: pixels darker than 0.5 with lighter ones around")
        x, line, ring = x[usable], line[usable], ring[usable]
        y = _luminance(subject.translate(x, subject.styles(self.num_styles, len(x))))
        on_line = (y * line).sum((2, 3)) / line.sum((1, 2))
        on_ring = (y * ring).sum((2, 3)) / ring.sum((1, 2))
        return {
            "kept": (on_ring - on_line >= self.margin).float().mean().item(),
            "line_luminance": on_line.mean().item(),
            "ring_luminance": on_ring.mean().item(),
            "num_inputs": len(x),
            "num_styles": self.num_styles,
        }


class StyleHealth:
    """Whether the style encoder hears what the decoder says, and exemplars have an effect.

    `style_recon`: mean absolute error of a random style, encoded again from its translation;
    0.798 is chance (the mean of |N(0, 1)|). `encoded_std`: standard deviation of the codes of real
    images, where the prior has 1. `guided_of_random`: pairwise difference of translations in the
    styles of as many exemplars, as a part of that in random styles. `image_recon`: mean absolute
    error (0..1 scale) of reconstructed target images; `eval_of_train`: the same divided by its
    value in training mode (batch statistics), where norms that keep running statistics would show.

    Args:
        num_inputs: distinct held-out inputs (fewer if there are not as many).
        num_styles: random styles, and exemplars, per input.
        batch_size: images at once in training mode.
    """

    def __init__(
        self, *, num_inputs: Count = 100, num_styles: Styles = 6, batch_size: Annotated[int, Field(ge=2)] = 4
    ) -> None:
        self.num_inputs = num_inputs
        self.num_styles = num_styles
        self.batch_size = batch_size

    def measure(self, subject: Subject) -> Mapping[str, float]:
        """See the class."""
        translator, to = subject.translator, subject.to
        x = subject.inputs(self.num_inputs)
        real = subject.pairable_targets(2 * self.num_inputs)
        styles = subject.styles(self.num_styles, len(x))
        random_outputs = subject.translate(x, styles)
        again = torch.stack([translator.encode_style(y, to) for y in random_outputs])
        codes = translator.encode_style(real, to)
        rng = counted_generator(subject.seed, "exemplars")
        # Without replacement for each input: six exemplars are six different pictures.
        picks = [rng.permutation(len(real))[: self.num_styles] for _ in range(len(x))]
        exemplars = codes[torch.from_numpy(np.stack(picks, axis=1))]
        guided = subject.translate(x, exemplars)
        # A last batch of one would be instance norm to a batch norm in training mode.
        batches = [real[n : n + self.batch_size] for n in range(0, len(real) - 1, self.batch_size)]
        in_training = copy.deepcopy(translator).train()
        recon = [_difference(translator.reconstruct(batch, to), batch).mean() for batch in batches]
        recon_train = [_difference(in_training.reconstruct(batch, to), batch).mean() for batch in batches]
        image_recon, image_recon_train = torch.stack(recon).mean(), torch.stack(recon_train).mean()
        random_difference, guided_difference = _pairwise(random_outputs).mean(), _pairwise(guided).mean()
        return {
            "style_recon": F.l1_loss(again, styles).item(),
            "encoded_mean": codes.mean(0).abs().mean().item(),
            "encoded_std": codes.std(0).mean().item(),
            "guided_diversity": guided_difference.item(),
            "guided_of_random": (guided_difference / random_difference).item(),
            "image_recon": image_recon.item(),
            "eval_of_train": (image_recon / image_recon_train).item(),
            "num_inputs": len(x),
            "num_styles": self.num_styles,
        }


def _difference(x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute difference of each pair of images, on a 0..1 scale: (N,)."""
    return (x - y).abs().mean(dim=(-3, -2, -1)) / 2


def _pairwise(outputs: Tensor) -> Tensor:
    """Mean difference over all pairs of the K translations of each input: (K, N, C, H, W) -> (N,)."""
    pairs = [(i, j) for i in range(len(outputs)) for j in range(i)]
    return torch.stack([_difference(outputs[i], outputs[j]) for i, j in pairs]).mean(0)


def _luminance(x: Tensor) -> Tensor:
    """(..., C, H, W) in [-1, 1] -> (..., H, W) in 0..1."""
    x = (x + 1) / 2
    if x.shape[-3] == 1:
        return x[..., 0, :, :]
    weights = torch.tensor([0.299, 0.587, 0.114])
    return (x * weights[:, None, None]).sum(-3)


def _grown(mask: Tensor, radius: int) -> Tensor:
    """A mask (N, H, W), grown by a square of that radius."""
    return F.max_pool2d(mask[:, None].float(), 2 * radius + 1, 1, radius)[:, 0] > 0

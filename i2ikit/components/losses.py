"""Losses: adversarial losses (for discriminator and generator) and reconstruction losses (distances).

All are unweighted; the recipe sets the weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2ikit.errors import WeightsError
from i2ikit.registry import Setting, Slot, Spec
from i2ikit.translator import Given

__all__ = [
    "L1",
    "LSGAN",
    "NSGAN",
    "AdversarialLoss",
    "AdversarialLossSpec",
    "ImageLoss",
    "ImageLossSpec",
    "ReconstructionLoss",
    "ReconstructionLossSpec",
    "discriminator_losses",
    "image_loss_problems",
]


@runtime_checkable
class AdversarialLoss(Protocol):
    """The losses of discriminator and generator, computed from the discriminator's score maps."""

    def discriminator(self, fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
        """Scalar; `fake` and `real` contain one score map (N, 1, h, w) per scale."""
        ...

    def generator(self, fake: Sequence[Tensor]) -> Tensor:
        """Scalar; `fake` contains one score map (N, 1, h, w) per scale."""
        ...


@runtime_checkable
class ReconstructionLoss(Protocol):
    """A distance between a prediction and its target."""

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Scalar; both of the same shape; gradients flow to both."""
        ...


@runtime_checkable
class ImageLoss(Protocol):
    """A distance between an image and its translation, which should have the same content."""

    def least_side(self) -> int:
        """Smallest valid side of the images, in pixels."""
        ...

    def compare(self, translation: Tensor, original: Tensor) -> Tensor:
        """Scalar; both (N, C, H, W) in [-1, 1], C may differ; gradients flow to both."""
        ...


AdversarialLossSpec = Annotated[Spec, Slot("losses", (), like=AdversarialLoss)]
"""An option that holds an adversarial loss."""

ReconstructionLossSpec = Annotated[Spec, Slot("losses", (), like=ReconstructionLoss)]
"""An option that holds a reconstruction loss."""

ImageLossSpec = Annotated[Spec, Slot("losses", (), like=ImageLoss)]
"""An option that holds a loss between a translation and its original."""


def image_loss_problems(options: Mapping[str, Any], setting: Setting, *names: str) -> Iterable[str]:
    """What prevents a translator's losses `NAME_loss` with a weight above 0: no weights, too small images."""
    for name in names:
        if not options["weights"]["generator"][name]:
            continue
        try:
            loss: ImageLoss = options[f"{name}_loss"]()
        except WeightsError as error:
            yield f"the {name} loss needs its pretrained weights: {error}"
            continue
        if setting.size is not None and setting.size < loss.least_side():
            yield f"the {name} loss needs {loss.least_side()} px, but the images have {setting.size}"


class LSGAN:
    """Least squares GAN: the discriminator targets 0 for fake and 1 for real, the generator 1 for fake.

    discriminator = SUM over scales of mean(fake**2) + mean((real - 1)**2)
    generator = SUM over scales of mean((fake - 1)**2)

    Reduction: mean over samples and patches, SUM over scales; no factor 1/2.
    Weight: 1 in MUNIT.
    Source: Mao et al. (arXiv 1611.04076), eq. 9 (a = 0, b = c = 1), without the 1/2, as in
        the official MUNIT and BicycleGAN code.
    """

    def discriminator(self, fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
        """Scalar from score maps (N, 1, h, w) per scale."""
        return _total(
            _wide(f).square().mean() + (_wide(r) - 1).square().mean() for f, r in zip(fake, real, strict=True)
        )

    def generator(self, fake: Sequence[Tensor]) -> Tensor:
        """Scalar from score maps (N, 1, h, w) per scale."""
        return _total((_wide(f) - 1).square().mean() for f in fake)


class NSGAN:
    """Non-saturating GAN: binary cross-entropy on the sigmoid of the scores.

    discriminator = SUM over scales of mean(-log(1 - sigmoid(fake))) + mean(-log(sigmoid(real)))
    generator = SUM over scales of mean(-log(sigmoid(fake)))

    Reduction: mean over samples and patches, SUM over scales.
    Source: Goodfellow et al. (arXiv 1406.2661), section 3; `nsgan` in the official MUNIT code, `vanilla`
        in that of pix2pix.
    """

    def discriminator(self, fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
        """Scalar from score maps (N, 1, h, w) per scale."""
        return _total(
            F.softplus(_wide(f)).mean() + F.softplus(-_wide(r)).mean()
            for f, r in zip(fake, real, strict=True)
        )

    def generator(self, fake: Sequence[Tensor]) -> Tensor:
        """Scalar from score maps (N, 1, h, w) per scale."""
        return _total(F.softplus(-_wide(f)).mean() for f in fake)


class L1:
    """Mean absolute error: mean(|prediction - target|).

    Reduction: mean over all elements. Gradients flow to both arguments.
    Weight: 10 for images, 1 for codes in MUNIT.
    """

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Scalar from two tensors of the same shape."""
        return F.l1_loss(_wide(prediction), _wide(target))


def discriminator_losses(
    given: Given, discriminators: Mapping[str, nn.Module], loss: AdversarialLoss, fake: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """`adversarial/DOMAIN` for each domain whose weight is not 0, on `given.images` and translations.

    Args:
        discriminators: by domain.
        fake: translations into each domain, (N, C, H, W).
    """
    losses = {}
    for d, discriminator in discriminators.items():
        if given.weights[f"adversarial/{d}"]:
            on_fake = given.drawing(f"{d}/fake", discriminator)(fake[d])
            on_real = given.drawing(f"{d}/real", discriminator)(given.images[d])
            losses[f"adversarial/{d}"] = loss.discriminator(on_fake, on_real)
    return losses


def _total(terms: Iterable[Tensor]) -> Tensor:
    """Sum of scalars, one for each scale."""
    return torch.stack(list(terms)).sum()


def _wide(scores: Tensor) -> Tensor:
    """Scores in at least fp32; autocast passes bf16, whose 8 significant bits are too few for sums."""
    return scores if scores.dtype == torch.float64 else scores.float()

"""pix2pix: translation learned from pairs (Isola et al., arXiv 1611.07004).

One generator, which is deterministic but for dropout, and a discriminator that sees the input beside the
translation or the real target.

Source: the paper's section 3 and appendix 6; order of the updates and of the discriminator's input as in the
official PyTorch code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from i2ikit.components.blocks import initialise_normal
from i2ikit.components.decoders import GeneratorSpec
from i2ikit.components.discriminators import DiscriminatorSpec
from i2ikit.components.losses import AdversarialLossSpec, ReconstructionLossSpec
from i2ikit.components.norms import statistics_unchanged
from i2ikit.registry import LossWeights, Setting, Spec
from i2ikit.translator import (
    Direction,
    Given,
    ImageSpec,
    Phase,
    Result,
    Translator,
    at_any_size,
    draws_of,
)

__all__ = ["Pix2Pix"]

DEFAULT_WEIGHTS: Mapping[str, Mapping[str, float]] = {
    "discriminator": {"adversarial": 0.5},
    "generator": {"adversarial": 1.0, "image_recon": 100.0},
}
"""The paper's weights; it halves the discriminator's loss, to slow down its learning (section 3.3)."""


class Pix2Pix(Translator):
    """pix2pix for paired data, in one direction, built from the recipe's components.

    Args:
        images: channels of both domains; the size is only used in checks of the components.
        direction: "a2b" is from the first domain into the second, "b2a" the reverse.
        generator: gets a code of length 0.
        discriminator: gets the input and an image of the target domain as one image, the input first.
        weights: loss weights; by default the paper's.
    """

    generative = ("generator",)
    adversarial = ("discriminator",)

    def __init__(
        self,
        images: ImageSpec,
        *,
        direction: Literal["a2b", "b2a"] = "a2b",
        generator: GeneratorSpec = Spec(
            "decoders", "unet", {"inject": "input", "norm": Spec("norms", "bn"), "dropout": 0.5}
        ),
        discriminator: DiscriminatorSpec = Spec(
            "discriminators", "patchgan", {"num_scales": 1, "norm": Spec("norms", "bn")}
        ),
        adversarial_loss: AdversarialLossSpec = Spec("losses", "nsgan"),
        recon_loss: ReconstructionLossSpec = Spec("losses", "l1"),
        weights: LossWeights = DEFAULT_WEIGHTS,
    ) -> None:
        domains = tuple(images.channels)
        way = Direction(*(domains if direction == "a2b" else domains[::-1]))
        source, target = images.channels[way.source], images.channels[way.to]
        networks = {
            "generator": generator(source, target, 0),
            "discriminator": discriminator(source + target),
        }
        super().__init__(images, networks, weights)
        for network in networks.values():
            initialise_normal(network, 0.02)
        self.directions = (way,)
        self.adversarial_loss = adversarial_loss()
        self.recon_loss = recon_loss()

    @property
    def generator(self) -> nn.Module:
        """From an image of the source domain to one of the target domain."""
        return self.networks["generator"]

    @property
    def discriminator(self) -> nn.Module:
        """From both images to score maps."""
        return self.networks["discriminator"]

    @staticmethod
    def problems(options: Mapping[str, Any], setting: Setting) -> Iterable[str]:
        """Data without pairs."""
        if setting.paired is False:
            yield (
                "pix2pix learns from pairs, but this data is unpaired: set data.paired = true (for "
                "folders, files are then matched by name)"
            )

    def phases(self) -> tuple[Phase, ...]:
        """The discriminator, then the generator with the updated discriminator."""
        size = self.images.size
        generating = draws_of(size, {"generator": self.generator}, "translated")
        judge = {"discriminator": self.discriminator}
        judging = generating | draws_of(size, judge, "fake", "real")
        return (
            Phase("discriminator", self.discriminator_losses, self.adversarial, judging),
            Phase(
                "generator",
                self.generator_losses,
                self.generative,
                generating | draws_of(size, judge, "fake"),
            ),
        )

    def discriminator_losses(self, given: Given) -> Result:
        """Loss of the discriminator (paper, eq. 1).

        Dropout in the generator has other random numbers here than in the generator's phase: each phase draws
        its own. The official code translates once for both.
        """
        if not given.weights["adversarial"]:
            return Result({})
        # The generator's phase translates the same images with the same weights, and updates the statistics.
        with torch.no_grad(), statistics_unchanged(self.generator):
            fake = self._translated(given)
        on_fake = self._scores(given, "fake", fake)
        on_real = self._scores(given, "real", given.images[self.directions[0].to])
        return Result({"adversarial": self.adversarial_loss.discriminator(on_fake, on_real)})

    def generator_losses(self, given: Given) -> Result:
        """Losses of the generator (paper, eq. 4)."""
        fake, losses = self._translated(given), {}
        if given.weights["adversarial"]:
            losses["adversarial"] = self.adversarial_loss.generator(self._scores(given, "fake", fake))
        if given.weights["image_recon"]:
            losses["image_recon"] = self.recon_loss(fake, given.images[self.directions[0].to])
        return Result(losses)

    def translate(self, x: Tensor, style: Tensor, *, source: str, to: str) -> Tensor:
        """Translate x; the style has length 0: (N, C, H, W), (N, 0) -> (N, C of the target, H, W).

        Sizes that the generator does not accept are padded by repeating edges, then cropped.
        """
        return at_any_size(
            lambda padded: self.generator(padded, style), x, self.size_required_by("generator")
        )

    def _translated(self, given: Given) -> Tensor:
        x = given.images[self.directions[0].source]
        fake: Tensor = given.drawing("generator/translated", self.generator)(x, x.new_zeros(len(x), 0))
        return fake

    def _scores(self, given: Given, call: str, image: Tensor) -> list[Tensor]:
        """The discriminator's score maps of an image of the target domain, given the input."""
        x = given.images[self.directions[0].source]
        scores: list[Tensor] = given.drawing(f"discriminator/{call}", self.discriminator)(
            torch.cat([x, image.to(x.dtype)], dim=1)
        )
        return scores

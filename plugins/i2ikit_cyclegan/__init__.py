"""CycleGAN with noise: a baseline that learns to ignore its noise input (Zhu et al., arXiv 1703.10593).

Two generators, one for each direction. The noise at their input could make translations diverse, but no
loss rewards diversity, and the cycle loss is lower without it. The MUNIT paper uses it as a baseline.

Source: the paper's sections 3 and 4; U-Net and noise at the input as in the MUNIT paper's section 5.2.
Without the paper's pool of 50 earlier translations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from i2ikit.components.blocks import initialise_normal
from i2ikit.components.decoders import UNetSpec
from i2ikit.components.discriminators import DiscriminatorSpec
from i2ikit.components.losses import AdversarialLossSpec, ReconstructionLossSpec, judged
from i2ikit.registry import LossWeights, Spec
from i2ikit.translator import Batch, Draws, Handed, ImageSpec, Losses, Phase, Translator, at_any_size, other

__all__ = ["CycleGAN"]

DEFAULT_WEIGHTS: Mapping[str, Mapping[str, float]] = {
    "generator": {"adversarial": 1.0, "cycle_recon": 10.0},
    "discriminator": {"adversarial": 1.0},
}
"""The paper's weights (section 4)."""


class CycleGAN(Translator):
    """CycleGAN with noise for two domains, built from the recipe's components.

    Args:
        images: channels of both domains; the size is only used in checks of the components.
        noise_dim: length of the noise vector.
        weights: loss weights; by default the paper's.
    """

    generative = ("generators",)
    adversarial = ("discriminators",)

    def __init__(
        self,
        images: ImageSpec,
        *,
        noise_dim: Annotated[int, Field(gt=0, le=1024)] = 8,
        generator: UNetSpec = Spec("decoders", "unet", {"inject": "input"}),
        discriminator: DiscriminatorSpec = Spec("discriminators", "patchgan", {"num_scales": 1}),
        adversarial_loss: AdversarialLossSpec = Spec("losses", "lsgan"),
        recon_loss: ReconstructionLossSpec = Spec("losses", "l1"),
        weights: LossWeights = DEFAULT_WEIGHTS,
    ) -> None:
        channels = images.channels
        generators = {d: generator(channels[other(d)], channels[d], noise_dim) for d in "ab"}
        networks = {
            "generators": nn.ModuleDict(generators),
            "discriminators": nn.ModuleDict({d: discriminator(channels[d]) for d in "ab"}),
        }
        super().__init__(networks, weights)
        for network in networks.values():
            initialise_normal(network, 0.02)
        self.noise_dim = noise_dim
        self.generators = generators
        self.discriminators = {d: networks["discriminators"][d] for d in "ab"}
        self.adversarial_loss = adversarial_loss()
        self.recon_loss = recon_loss()

    def phases(self) -> tuple[Phase, ...]:
        """Generators, then the discriminators on the translations of the same step."""
        noise = dict.fromkeys(("a", "b", "cycle_a", "cycle_b"), (self.noise_dim,))
        return (
            Phase("generator", self.generator_losses, (self.networks["generators"],), noise),
            Phase("discriminator", self.discriminator_losses, (self.networks["discriminators"],)),
        )

    def generator_losses(self, batch: Batch, draws: Draws, handed: Handed) -> tuple[Losses, Handed]:
        """Losses of the generators (paper, section 3, eq. 1 to 3). Passes on the translations."""
        wanted = self.weights["generator"]
        losses: dict[str, Tensor] = {}
        translated = {d: self.generators[d](batch[other(d)], draws[d]) for d in "ab"}
        for d in "ab":
            if wanted["adversarial"]:
                scores = self.discriminators[d](translated[d])
                losses[f"adversarial/{d}"] = self.adversarial_loss.generator(scores)
            if wanted["cycle_recon"]:
                cycled = self.generators[d](translated[other(d)], draws[f"cycle_{d}"])
                losses[f"cycle_recon/{d}"] = self.recon_loss(cycled, batch[d])
        return losses, {d: x.detach() for d, x in translated.items()}

    def discriminator_losses(self, batch: Batch, draws: Draws, handed: Handed) -> tuple[Losses, Handed]:
        """Losses of the discriminators."""
        return judged(self.discriminators, self.adversarial_loss, handed, batch), {}

    def translate(self, x: Tensor, style: Tensor, to: str) -> Tensor:
        """Translate x with the noise `style`: (N, C, H, W), (N, noise_dim) -> (N, C of `to`, H, W)."""
        return at_any_size(lambda padded: self.generators[to](padded, style), x, self.size_required_by())

    def sample_style(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n noise vectors: (n, noise_dim)."""
        return torch.randn(n, self.noise_dim, generator=generator)

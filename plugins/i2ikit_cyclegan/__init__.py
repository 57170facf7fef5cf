"""CycleGAN: unsupervised translation by cycle consistency (Zhu et al., arXiv 1703.10593).

Two generators, one for each direction: the paper's ResNet (`resnet`), a U-Net (`unet`), or any other that
translates whole images. Without noise, the translator is deterministic. Noise at the generators' input could
make translations diverse, but no loss rewards diversity, and the cycle loss is lower without it. The MUNIT
paper uses this as a baseline.

Source: the paper's sections 3 and 4; U-Net and noise at the input as in the MUNIT paper's section 5.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from i2ikit.components.blocks import initialise_normal
from i2ikit.components.decoders import GeneratorSpec
from i2ikit.components.discriminators import DiscriminatorSpec
from i2ikit.components.image_pool import POOL_DRAW, pool_keeps, pooled
from i2ikit.components.losses import AdversarialLossSpec, ReconstructionLossSpec
from i2ikit.draws import Draw
from i2ikit.registry import LossWeights, Setting, Spec
from i2ikit.translator import Given, ImageSpec, Phase, Result, Translator, at_any_size, draws_of

__all__ = ["CycleGAN"]

DEFAULT_WEIGHTS: Mapping[str, Mapping[str, float]] = {
    "generator": {"adversarial": 1.0, "cycle_recon": 10.0, "identity": 0.0},
    "discriminator": {"adversarial": 1.0},
}
"""The paper's weights (section 4). It uses an identity loss of weight 5 for photographs of paintings only."""


class CycleGAN(Translator):
    """CycleGAN for two domains, built from the recipe's components.

    Args:
        images: channels of both domains, and the size of the images in the pool.
        noise_dim: length of the noise vector; 0 makes the translator deterministic.
        pool_size: number of earlier translations that the discriminators may see again; 50 in the paper.
        generator: of each direction; "resnet" is the paper's.
        weights: loss weights; by default the paper's.
    """

    generative = ("generators",)
    adversarial = ("discriminators",)

    def __init__(
        self,
        images: ImageSpec,
        *,
        noise_dim: Annotated[int, Field(ge=0, le=1024)] = 8,
        pool_size: Annotated[int, Field(ge=0, le=65536)] = 0,
        generator: GeneratorSpec = Spec("decoders", "unet", {"inject": "input"}),
        discriminator: DiscriminatorSpec = Spec("discriminators", "patchgan", {"num_scales": 1}),
        adversarial_loss: AdversarialLossSpec = Spec("losses", "lsgan"),
        recon_loss: ReconstructionLossSpec = Spec("losses", "l1"),
        weights: LossWeights = DEFAULT_WEIGHTS,
    ) -> None:
        channels, (a, b) = images.channels, images.channels
        generators = {d: generator(channels[other], channels[d], noise_dim) for d, other in ((a, b), (b, a))}
        networks = {
            "generators": nn.ModuleDict(generators),
            "discriminators": nn.ModuleDict({d: discriminator(channels[d]) for d in channels}),
        }
        super().__init__(images, networks, weights)
        for network in networks.values():
            initialise_normal(network, 0.02)
        self.noise_dim = noise_dim
        self.pool_size = pool_size
        self.generators = generators
        self.discriminators = {d: networks["discriminators"][d] for d in self.domains}
        self.adversarial_loss = adversarial_loss()
        self.recon_loss = recon_loss()

    @staticmethod
    def problems(options: Mapping[str, Any], setting: Setting) -> Iterable[str]:
        """An identity loss between domains whose images differ in channels."""
        channels = setting.channels
        if options["weights"]["generator"]["identity"] and len(set(channels.values())) > 1:
            found = " and ".join(f"{number} ({domain})" for domain, number in channels.items())
            yield f"the identity loss needs domains with equal numbers of channels, but they have {found}"

    def phases(self) -> tuple[Phase, ...]:
        """Generators, then the discriminators on the translations of the same step or of earlier ones."""
        size, noise = self.images.size, Draw((self.noise_dim,))
        draws = {f"{call}{d}": noise for call in ("", "cycle_", "identity_") for d in self.domains}
        draws |= draws_of(size, self.generators, "translated", "cycle", "identity")
        draws |= draws_of(size, self.discriminators, "fake")
        judging = draws_of(size, self.discriminators, "fake", "real")
        keeps = {}
        for d in self.domains if self.pool_size else ():
            keeps[f"pool_{d}"], keeps[f"filled_{d}"] = pool_keeps(
                self.pool_size, self.images.channels[d], size
            )
            judging[f"pool_{d}"] = POOL_DRAW
        return (
            Phase("generator", self.generator_losses, self.generative, draws),
            Phase("discriminator", self.discriminator_losses, self.adversarial, judging, keeps),
        )

    def generator_losses(self, given: Given) -> Result:
        """Losses of the generators (paper, section 3, eq. 1 to 3, and 5.2). Passes on the translations."""
        x, draws, weights = given.images, given.draws, given.weights
        losses: dict[str, Tensor] = {}
        translated: dict[str, Tensor] = {}

        def generated(d: str, call: str, source: Tensor, noise: Tensor) -> Tensor:
            made: Tensor = given.drawing(f"{d}/{call}", self.generators[d])(source, noise)
            return made

        # The order of the official code, on which the running statistics of batch norm depend.
        for source, to in self.directions:
            translated[to] = generated(to, "translated", x[source], draws[to])
            if weights[f"cycle_recon/{source}"]:
                cycled = generated(source, "cycle", translated[to], draws[f"cycle_{source}"])
                losses[f"cycle_recon/{source}"] = self.recon_loss(cycled, x[source])
        for d in self.domains:
            if weights[f"adversarial/{d}"]:
                scores = given.drawing(f"{d}/fake", self.discriminators[d])(translated[d])
                losses[f"adversarial/{d}"] = self.adversarial_loss.generator(scores)
            if weights[f"identity/{d}"]:
                same = generated(d, "identity", x[d], draws[f"identity_{d}"])
                losses[f"identity/{d}"] = self.recon_loss(same, x[d])
        return Result(losses, {d: y.detach() for d, y in translated.items()})

    def discriminator_losses(self, given: Given) -> Result:
        """Losses of the discriminators."""
        fake, kept = dict(given.handed), {}
        for d in self.domains if self.pool_size else ():
            pool = given.kept[f"pool_{d}"], given.kept[f"filled_{d}"], given.draws[f"pool_{d}"]
            fake[d], kept[f"pool_{d}"], kept[f"filled_{d}"] = pooled(fake[d], *pool)
        losses = {}
        for d, discriminator in self.discriminators.items():
            if given.weights[f"adversarial/{d}"]:
                # Real images first, as in the official code, for the running statistics of batch norm.
                on_real = given.drawing(f"{d}/real", discriminator)(given.images[d])
                on_fake = given.drawing(f"{d}/fake", discriminator)(fake[d])
                losses[f"adversarial/{d}"] = self.adversarial_loss.discriminator(on_fake, on_real)
        return Result(losses, kept=kept)

    def translate(self, x: Tensor, style: Tensor, *, source: str, to: str) -> Tensor:
        """Translate x with the noise `style`: (N, C, H, W), (N, noise_dim) -> (N, C of `to`, H, W)."""
        return at_any_size(lambda padded: self.generators[to](padded, style), x, self.size_required_by())

    def sample_style(self, n: int, to: str, generator: torch.Generator | None = None) -> Tensor:
        """n noise vectors: (n, noise_dim)."""
        return torch.randn(n, self.noise_dim, generator=generator)

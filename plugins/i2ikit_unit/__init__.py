"""UNIT: one latent space that both domains share (Liu et al., arXiv 1703.00848).

An image is encoded as a map of latent variables: the encoder's means plus Gaussian noise. Translation
decodes it in the other domain. There is no style code: translations differ only by the noise, so they are
nearly identical. The MUNIT paper uses it as a baseline.

Source: the paper's section 3. As in the official MUNIT repository's UNIT, the latent space is shared
through the cycle and the noise, not through shared layers.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2ikit.components.blocks import initialise_kaiming, initialise_normal
from i2ikit.components.decoders import DecoderSpec
from i2ikit.components.discriminators import DiscriminatorSpec
from i2ikit.components.encoders import ContentEncoderSpec
from i2ikit.components.losses import AdversarialLossSpec, ReconstructionLossSpec, discriminator_losses
from i2ikit.draws import Draw
from i2ikit.registry import LossWeights, Spec
from i2ikit.sizes import SizeRequirement
from i2ikit.translator import Given, ImageSpec, Phase, Result, Translator, at_any_size, draws_of

__all__ = ["UNIT"]

DEFAULT_WEIGHTS: Mapping[str, Mapping[str, float]] = {
    "generator": {"adversarial": 1.0, "image_recon": 10.0, "cycle_recon": 10.0, "kl": 0.01},
    "discriminator": {"adversarial": 1.0},
}
"""The weights of UNIT in the official MUNIT repository."""


class UNIT(Translator):
    """UNIT for two domains, built from MUNIT's content encoder and decoder.

    The decoder's style code is a constant, so that its AdaIN parameters are equal for all images.

    Args:
        images: channels of both domains; the size sets the size of the noise maps.
        weights: loss weights; `kl` applies to the means of both encodings of the cycle, with variance 1.
    """

    generative = ("encoders", "decoders")
    adversarial = ("discriminators",)

    def __init__(
        self,
        images: ImageSpec,
        *,
        encoder: ContentEncoderSpec = Spec("encoders", "munit-content"),
        decoder: DecoderSpec = Spec("decoders", "munit-adain"),
        discriminator: DiscriminatorSpec = Spec("discriminators", "multiscale-patch"),
        adversarial_loss: AdversarialLossSpec = Spec("losses", "lsgan"),
        recon_loss: ReconstructionLossSpec = Spec("losses", "l1"),
        weights: LossWeights = DEFAULT_WEIGHTS,
    ) -> None:
        channels = images.channels
        encoders = {d: encoder(channels[d]) for d in channels}
        first = next(iter(encoders.values()))
        width, halvings = first.out_channels, first.num_downsample
        decoders = {d: decoder(width, channels[d], 1, halvings) for d in channels}
        networks = {
            "encoders": nn.ModuleDict(encoders),
            "decoders": nn.ModuleDict(decoders),
            "discriminators": nn.ModuleDict({d: discriminator(channels[d]) for d in channels}),
        }
        super().__init__(images, networks, weights)
        for role in self.generative:
            initialise_kaiming(networks[role])
        initialise_normal(networks["discriminators"], 0.02)
        # An encoder may omit the size requirement that follows from num_downsample.
        self.sides = self.size_required_by() & SizeRequirement(multiple_of=2**halvings)
        side = images.size // 2**halvings
        self.noise_shape = (width, side, side)
        self.encoders = encoders
        self.decoders = decoders
        self.discriminators = {d: networks["discriminators"][d] for d in self.domains}
        self.adversarial_loss = adversarial_loss()
        self.recon_loss = recon_loss()

    def phases(self) -> tuple[Phase, ...]:
        """Encoders and decoders, then the discriminators on the translations of the same step."""
        noise = {f"{call}{d}": Draw(self.noise_shape) for call in ("", "cycle_") for d in self.domains}
        draws = noise | draws_of(self.images.size, self.discriminators, "fake")
        judging = draws_of(self.images.size, self.discriminators, "fake", "real")
        return (
            Phase("generator", self.generator_losses, self.generative, draws),
            Phase("discriminator", self.discriminator_losses, self.adversarial, judging),
        )

    def generator_losses(self, given: Given) -> Result:
        """Losses of encoders and decoders (paper, section 3, eq. 1 to 8). Passes on the translations."""
        x, draws, weights, other = given.images, given.draws, given.weights, dict(self.directions)
        losses, means = dict[str, Tensor](), {d: self.encoders[d](x[d]) for d in self.domains}
        codes = {d: means[d] + draws[d] for d in self.domains}
        translated = {d: self._decode(codes[other[d]], d) for d in self.domains}
        for d in self.domains:
            again = self.encoders[other[d]](translated[other[d]])
            if weights[f"adversarial/{d}"]:
                scores = given.drawing(f"{d}/fake", self.discriminators[d])(translated[d])
                losses[f"adversarial/{d}"] = self.adversarial_loss.generator(scores)
            if weights[f"image_recon/{d}"]:
                losses[f"image_recon/{d}"] = self.recon_loss(self._decode(codes[d], d), x[d])
            if weights[f"cycle_recon/{d}"]:
                cycled = self._decode(again + draws[f"cycle_{d}"], d)
                losses[f"cycle_recon/{d}"] = self.recon_loss(cycled, x[d])
            if weights[f"kl/{d}"]:
                losses[f"kl/{d}"] = means[d].square().mean() + again.square().mean()
        return Result(losses, {d: y.detach() for d, y in translated.items()})

    def discriminator_losses(self, given: Given) -> Result:
        """Losses of the discriminators."""
        return Result(discriminator_losses(given, self.discriminators, self.adversarial_loss, given.handed))

    def translate(self, x: Tensor, style: Tensor, *, source: str, to: str) -> Tensor:
        """Decode x in domain `to`: (N, C, H, W), noise (N, style_dim) -> (N, C of `to`, H, W).

        The noise maps have the training size and are interpolated to that of x.
        """

        def translated(padded: Tensor) -> Tensor:
            mean = self.encoders[source](padded)
            noise = F.interpolate(torch.unflatten(style, 1, self.noise_shape), mean.shape[2:])
            return self._decode(mean + noise, to)

        return at_any_size(translated, x, self.sides)

    def reconstruct(self, x: Tensor, domain: str) -> Tensor:
        """Decode x from its means: (N, C, H, W) -> same."""
        return at_any_size(lambda padded: self._decode(self.encoders[domain](padded), domain), x, self.sides)

    def sample_style(self, n: int, to: str, generator: torch.Generator | None = None) -> Tensor:
        """Flattened noise for n images: (n, style_dim)."""
        return torch.randn(n, *self.noise_shape, generator=generator).flatten(1)

    def _decode(self, code: Tensor, domain: str) -> Tensor:
        return self.decoders[domain](code, code.new_ones(code.shape[0], 1))

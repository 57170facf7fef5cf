"""MUNIT: multimodal unsupervised image-to-image translation (Huang et al., arXiv 1804.04732).

An image is encoded as a content code, in a space that both domains share, and a style code of its
domain. Translation decodes the content code with a style code of the other domain, either random or
encoded from an exemplar.

Source: the paper's sections 3 to 5 and appendix B; docstrings state where the implementation follows
the official code instead (order of updates, reductions, initial weights).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from i2ikit.components.blocks import initialise_kaiming, initialise_normal
from i2ikit.components.decoders import DecoderSpec
from i2ikit.components.discriminators import DiscriminatorSpec
from i2ikit.components.encoders import ContentEncoderSpec, StyleEncoderSpec
from i2ikit.components.losses import (
    AdversarialLossSpec,
    ImageLoss,
    ImageLossSpec,
    ReconstructionLossSpec,
    discriminator_losses,
    image_loss_problems,
)
from i2ikit.draws import Draw
from i2ikit.registry import LossWeights, Setting, Spec
from i2ikit.sizes import SizeRequirement
from i2ikit.translator import (
    Given,
    ImageSpec,
    Phase,
    Result,
    Translator,
    at_any_size,
    draws_of,
    few_at_once,
    padded,
    repeated,
)

__all__ = ["Munit"]

DEFAULT_WEIGHTS: Mapping[str, Mapping[str, float]] = {
    "discriminator": {"adversarial": 1.0},
    "generator": {
        "adversarial": 1.0,
        "image_recon": 10.0,
        "content_recon": 1.0,
        "style_recon": 1.0,
        "cycle_recon": 0.0,
        "perceptual": 0.0,
        "smoothness": 0.0,
    },
}
"""The paper's weights (section 5.1). The cycle loss is optional in the official code and absent in the
paper; the perceptual loss is for images above 512 px; smoothness is in neither."""


class Munit(Translator):
    """MUNIT for two domains, built from the recipe's components.

    Args:
        images: channels of both domains; the size is only used in checks of the components.
        style_dim: length of a style code; 8 in the paper.
        order: "generator-first" trains the generator, then the discriminator on the same translations:
            one generator forward pass per step. "discriminator-first" is the official order, with new
            style codes in each of the two updates.
        weights: loss weights; by default the paper's.
    """

    generative = ("content_encoders", "style_encoders", "decoders")
    adversarial = ("discriminators",)

    def __init__(
        self,
        images: ImageSpec,
        *,
        style_dim: Annotated[int, Field(gt=0, le=1024)] = 8,
        order: Literal["generator-first", "discriminator-first"] = "generator-first",
        content_encoder: ContentEncoderSpec = Spec("encoders", "munit-content"),
        style_encoder: StyleEncoderSpec = Spec("encoders", "munit-style"),
        decoder: DecoderSpec = Spec("decoders", "munit-adain"),
        discriminator: DiscriminatorSpec = Spec("discriminators", "multiscale-patch"),
        adversarial_loss: AdversarialLossSpec = Spec("losses", "lsgan"),
        recon_loss: ReconstructionLossSpec = Spec("losses", "l1"),
        perceptual_loss: ImageLossSpec = Spec("losses", "vgg-perceptual"),
        smoothness_loss: ImageLossSpec = Spec("losses", "edge-aware-smoothness"),
        weights: LossWeights = DEFAULT_WEIGHTS,
    ) -> None:
        channels = images.channels
        content = {d: content_encoder(channels[d]) for d in channels}
        style = {d: style_encoder(channels[d], style_dim) for d in channels}
        decoders = {
            d: decoder(content[d].out_channels, channels[d], style_dim, content[d].num_downsample)
            for d in channels
        }
        networks = {
            "content_encoders": nn.ModuleDict(content),
            "style_encoders": nn.ModuleDict(style),
            "decoders": nn.ModuleDict(decoders),
            "discriminators": nn.ModuleDict({d: discriminator(channels[d]) for d in channels}),
        }
        super().__init__(images, networks, weights)
        for role in self.generative:
            initialise_kaiming(networks[role])
        initialise_normal(networks["discriminators"], 0.02)
        self.style_dim = style_dim
        self.order = order
        # A content encoder may omit the size requirement that follows from num_downsample.
        halvings = max(encoder.num_downsample for encoder in content.values())
        self.sides = self.size_required_by() & SizeRequirement(multiple_of=2**halvings)
        self.content_encoders = content
        self.style_encoders = style
        self.decoders = decoders
        self.discriminators = {d: networks["discriminators"][d] for d in self.domains}
        self.adversarial_loss = adversarial_loss()
        self.recon_loss = recon_loss()
        self.perceptual_spec = perceptual_loss
        self.smoothness_spec = smoothness_loss

    @functools.cached_property
    def perceptual_loss(self) -> ImageLoss:
        """Built at its first use: only training needs it, and it may download weights."""
        loss: ImageLoss = self.perceptual_spec()
        return loss

    @functools.cached_property
    def smoothness_loss(self) -> ImageLoss:
        """Built at its first use."""
        loss: ImageLoss = self.smoothness_spec()
        return loss

    @staticmethod
    def problems(options: Mapping[str, Any], setting: Setting) -> Iterable[str]:
        """A generator without a loss; a loss between images without its weights, or for larger images."""
        if not any(options["weights"]["generator"].values()):
            yield "all of [translator.weights.generator] are 0; set one above 0 to train the generator"
        yield from image_loss_problems(options, setting, "perceptual", "smoothness")

    def phases(self) -> tuple[Phase, ...]:
        """Generator and discriminator, in the recipe's order."""
        styles = {f"s_{d}": Draw((self.style_dim,)) for d in self.domains}
        judging = draws_of(self.images.size, self.discriminators, "fake", "real")
        draws = styles | draws_of(self.images.size, self.discriminators, "fake")
        generator = Phase("generator", self.generator_losses, self.generative, draws)
        if self.order == "discriminator-first":
            fresh = self.fresh_discriminator_losses
            return Phase("discriminator", fresh, self.adversarial, styles | judging), generator
        return generator, Phase("discriminator", self.discriminator_losses, self.adversarial, judging)

    def generator_losses(self, given: Given) -> Result:
        """Losses of encoders and decoders (paper, section 3.1, eq. 1 to 5).

        Passes on the translations into each domain, detached. The target of the content loss is not
        detached, as in the official code.
        """
        x, weights, other = given.images, given.weights, dict(self.directions)
        losses: dict[str, Tensor] = {}
        content = {d: self.content_encoders[d](x[d]) for d in self.domains}
        needed = [d for d in self.domains if weights[f"image_recon/{d}"] or weights[f"cycle_recon/{d}"]]
        own_style = {d: self.style_encoders[d](x[d]) for d in needed}
        translated = {d: self.decoders[d](content[other[d]], given.draws[f"s_{d}"]) for d in self.domains}
        for d, source in other.items():
            if weights[f"adversarial/{d}"]:
                scores = given.drawing(f"{d}/fake", self.discriminators[d])(translated[d])
                losses[f"adversarial/{d}"] = self.adversarial_loss.generator(scores)
            if weights[f"image_recon/{d}"]:
                recon = self.decoders[d](content[d], own_style[d])
                losses[f"image_recon/{d}"] = self.recon_loss(recon, x[d])
            if weights[f"style_recon/{d}"]:
                style = self.style_encoders[d](translated[d])
                losses[f"style_recon/{d}"] = self.recon_loss(style, given.draws[f"s_{d}"])
            if weights[f"content_recon/{source}"] or weights[f"cycle_recon/{source}"]:
                content_again = self.content_encoders[d](translated[d])
            if weights[f"content_recon/{source}"]:
                losses[f"content_recon/{source}"] = self.recon_loss(content_again, content[source])
            if weights[f"cycle_recon/{source}"]:
                cycled = self.decoders[source](content_again, own_style[source])
                losses[f"cycle_recon/{source}"] = self.recon_loss(cycled, x[source])
            if weights[f"perceptual/{d}"]:
                losses[f"perceptual/{d}"] = self.perceptual_loss.compare(translated[d], x[source])
            if weights[f"smoothness/{d}"]:
                losses[f"smoothness/{d}"] = self.smoothness_loss.compare(translated[d], x[source])
        return Result(losses, {d: y.detach() for d, y in translated.items()})

    def discriminator_losses(self, given: Given) -> Result:
        """Losses of the discriminators, on the translations passed on by the generator phase."""
        return Result(discriminator_losses(given, self.discriminators, self.adversarial_loss, given.handed))

    def fresh_discriminator_losses(self, given: Given) -> Result:
        """Losses of the discriminators, on new translations with their own style codes."""
        other = dict(self.directions)
        with torch.no_grad():
            content = {d: self.content_encoders[d](given.images[d]) for d in self.domains}
            fake = {d: self.decoders[d](content[other[d]], given.draws[f"s_{d}"]) for d in self.domains}
        return Result(discriminator_losses(given, self.discriminators, self.adversarial_loss, fake))

    def translate(self, x: Tensor, style: Tensor, *, source: str, to: str) -> Tensor:
        """Decode the content of x with `style`: (N, C, H, W), (N, style_dim) -> (N, C of `to`, H, W).

        Sizes that the encoder does not accept are padded by repeating edges, then cropped.
        """

        def network(padded: Tensor) -> Tensor:
            return self.decoders[to](self.content_encoders[source](padded), style)

        return at_any_size(network, x, self.sides)

    def translate_with_each(self, x: Tensor, styles: Tensor, *, source: str, to: str) -> Tensor:
        """As `translate` of copies of x (1, C, H, W); its content is encoded once."""

        def network(padded: Tensor) -> Tensor:
            content = self.content_encoders[source](padded)

            def decoded(part: Tensor) -> Tensor:
                return self.decoders[to](repeated(content, part), part)

            return few_at_once(decoded, styles, padded)

        return at_any_size(network, x, self.sides)

    def encode_style(self, x: Tensor, domain: str) -> Tensor:
        """Style codes of images of `domain`: (N, C, H, W) -> (N, style_dim)."""
        return self.style_encoders[domain](padded(x, self.size_required_by("style_encoders")))

    def reconstruct(self, x: Tensor, domain: str) -> Tensor:
        """Decode x from its own content and style: (N, C, H, W) -> same."""
        style = self.encode_style(x, domain)
        encoder, decoder = self.content_encoders[domain], self.decoders[domain]
        return at_any_size(lambda padded: decoder(encoder(padded), style), x, self.sides)

    def sample_style(self, n: int, to: str, generator: torch.Generator | None = None) -> Tensor:
        """n style codes from the prior N(0, I): (n, style_dim)."""
        return torch.randn(n, self.style_dim, generator=generator)

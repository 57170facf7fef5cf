"""BicycleGAN: multimodal translation learned from pairs (Zhu et al., arXiv 1711.11586).

A latent code selects one of many possible targets. Two cycles make the code informative: cVAE-GAN
reconstructs the target image from its encoded code; cLR-GAN recovers a random code from the generated
image.

Source: the paper's sections 3 and 4; docstrings state where the implementation follows the official
code instead (halves of the batch, initial weights).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from i2ikit.components.blocks import initialise_xavier
from i2ikit.components.decoders import GeneratorSpec
from i2ikit.components.discriminators import DiscriminatorSpec
from i2ikit.components.encoders import LatentEncoderSpec
from i2ikit.components.losses import (
    AdversarialLossSpec,
    ImageLoss,
    ImageLossSpec,
    ReconstructionLossSpec,
    image_loss_problems,
)
from i2ikit.draws import Draw
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
    frozen,
    padded,
)

__all__ = ["BicycleGAN"]

DEFAULT_WEIGHTS: Mapping[str, Mapping[str, float]] = {
    "generator": {
        "adversarial_encoded": 1.0,
        "adversarial_random": 1.0,
        "image_recon": 10.0,
        "latent_recon": 0.5,
        "kl": 0.01,
        "smoothness": 0.0,
    },
    "discriminator": {"adversarial_encoded": 1.0, "adversarial_random": 1.0},
}
"""The paper's weights (section 4); smoothness is not in the paper. With the weights of the `random` branch
at 0, this is cVAE-GAN."""

BRANCHES = {
    "encoded": ("adversarial_encoded", "image_recon", "kl", "smoothness"),
    "random": ("adversarial_random", "latent_recon"),
}
"""Losses that need the translation with an encoded code, or with a random one."""


class BicycleGAN(Translator):
    """BicycleGAN for paired data, in one direction, built from the recipe's components.

    The first half of a batch is "encoded": its target images provide the codes. The second half provides
    only real images for the discriminator of random translations. In a batch of odd size, the extra pair
    is in the first half; a single pair is used for both. Batches that are split over processes or
    micro-batches must have an even size.

    Args:
        images: channels of both domains; the size is only used in checks of the components.
        direction: "a2b" is from the first domain into the second, "b2a" the reverse.
        latent_dim: length of a latent code; 8 in the paper.
        shared_discriminator: use one discriminator for encoded and random translations; the paper's
            default is one for each.
        init_gain: gain of the initial weights of generator and encoder, by default that of the official
            code. With it, codes hardly depend on their images for hundreds of steps; with 1 they do from
            the start. The discriminators always have that of the official code.
        latent_recon_trains: networks that the latent loss trains, "generator" in the paper. With
            "generator-and-encoder" the encoder also learns to recover codes from translations.
        weights: loss weights; by default the paper's.
    """

    generative = ("generator", "encoder")
    adversarial = ("discriminators",)
    batch_parts = 2

    def __init__(
        self,
        images: ImageSpec,
        *,
        direction: Literal["a2b", "b2a"] = "a2b",
        latent_dim: Annotated[int, Field(gt=0, le=1024)] = 8,
        shared_discriminator: bool = False,
        init_gain: Annotated[float, Field(gt=0)] = 0.02,
        latent_recon_trains: Literal["generator", "generator-and-encoder"] = "generator",
        generator: GeneratorSpec = Spec("decoders", "unet"),
        encoder: LatentEncoderSpec = Spec("encoders", "resnet-latent"),
        discriminator: DiscriminatorSpec = Spec("discriminators", "patchgan"),
        adversarial_loss: AdversarialLossSpec = Spec("losses", "lsgan"),
        recon_loss: ReconstructionLossSpec = Spec("losses", "l1"),
        smoothness_loss: ImageLossSpec = Spec("losses", "edge-aware-smoothness"),
        weights: LossWeights = DEFAULT_WEIGHTS,
    ) -> None:
        domains = tuple(images.channels)
        way = Direction(*(domains if direction == "a2b" else domains[::-1]))
        source, target = images.channels[way.source], images.channels[way.to]
        judges = {branch: "shared" if shared_discriminator else branch for branch in BRANCHES}
        networks = {
            "generator": generator(source, target, latent_dim),
            "encoder": encoder(target, latent_dim),
            "discriminators": nn.ModuleDict({n: discriminator(target) for n in sorted({*judges.values()})}),
        }
        super().__init__(images, networks, weights)
        for role in self.generative:
            initialise_xavier(networks[role], init_gain)
        initialise_xavier(networks["discriminators"], 0.02)
        self.directions = (way,)
        self.latent_dim = latent_dim
        self.latent_recon_trains = latent_recon_trains
        self.discriminators = {branch: networks["discriminators"][name] for branch, name in judges.items()}
        self.adversarial_loss = adversarial_loss()
        self.recon_loss = recon_loss()
        self.smoothness_spec = smoothness_loss

    @functools.cached_property
    def smoothness_loss(self) -> ImageLoss:
        """Built at its first use: only training needs it."""
        loss: ImageLoss = self.smoothness_spec()
        return loss

    @property
    def generator(self) -> nn.Module:
        """The U-Net, from an image and a code to an image."""
        return self.networks["generator"]

    @property
    def encoder(self) -> nn.Module:
        """From an image of the target domain to the mean and log variance of its code."""
        return self.networks["encoder"]

    @staticmethod
    def problems(options: Mapping[str, Any], setting: Setting) -> Iterable[str]:
        """Data without pairs; an encoder without a loss; a smoothness loss that cannot be computed."""
        if setting.paired is False:
            yield (
                "BicycleGAN learns from pairs, but this data is unpaired: set data.paired = true (for "
                "folders, files are then matched by name)"
            )
        wanted = options["weights"]["generator"]
        if not any(wanted[name] for name in ("adversarial_encoded", "image_recon")):
            yield "adversarial_encoded or image_recon must be above 0: no other loss makes codes informative"
        yield from image_loss_problems(options, setting, "smoothness")

    def phases(self) -> tuple[Phase, ...]:
        """Generator and encoder, then the discriminators on the translations of the same step."""
        size, drawing = self.images.size, dict.fromkeys(BRANCHES, self.generator)
        codes = dict.fromkeys(BRANCHES, Draw((self.latent_dim,))) | draws_of(size, drawing, "translated")
        judging = draws_of(size, self.discriminators, "fake", "real")
        codes |= draws_of(size, self.discriminators, "fake")
        return (
            Phase("generator", self.generator_losses, self.generative, codes),
            Phase("discriminator", self.discriminator_losses, self.adversarial, judging),
        )

    def generator_losses(self, given: Given) -> Result:
        """Losses of generator and encoder (paper, section 3.3, eq. 10).

        Both translations use inputs of the encoded half. `kl` is the SUM over dimensions and the mean
        over samples; the official code sums over samples as well, which is equal for its batch of one
        pair for each half. `smoothness` is the mean over the translation of the encoded code and, if
        another loss needs it, that of the random code. Passes on the translations `encoded` and `random`,
        detached.
        """
        ((source, to),), weights = self.directions, given.weights
        part = _halves(len(given.images[to]))["encoded"]
        real, x = given.images[to][part], given.images[source][part]
        losses, made = dict[str, Tensor](), dict[str, Tensor]()
        if self._needs("encoded", given):
            mean, log_variance = self.encoder(real)
            code = mean + given.draws["encoded"][part] * (log_variance / 2).exp()
            made["encoded"] = given.drawing("encoded/translated", self.generator, part)(x, code)
            if weights["image_recon"]:
                losses["image_recon"] = self.recon_loss(made["encoded"], real)
            if weights["kl"]:
                losses["kl"] = kl_divergence(mean, log_variance)
        if self._needs("random", given):
            code = given.draws["random"][part]
            made["random"] = given.drawing("random/translated", self.generator, part)(x, code)
            if weights["latent_recon"]:
                # Trained by this loss, the encoder may help the generator to hide the code in the image.
                alone = self.latent_recon_trains == "generator"
                with frozen(self.encoder) if alone else nullcontext():
                    recovered, _ = self.encoder(made["random"])
                losses["latent_recon"] = self.recon_loss(recovered, code)
        if weights["smoothness"]:
            smoothness = [self.smoothness_loss.compare(fake, x) for fake in made.values()]
            losses["smoothness"] = torch.stack(smoothness).mean()
        for branch, fake in made.items():
            if weights[f"adversarial_{branch}"]:
                scores = given.drawing(f"{branch}/fake", self.discriminators[branch], part)(fake)
                losses[f"adversarial_{branch}"] = self.adversarial_loss.generator(scores)
        return Result(losses, {branch: fake.detach() for branch, fake in made.items()})

    def discriminator_losses(self, given: Given) -> Result:
        """Losses of the discriminators; each one sees different real images."""
        images = given.images[self.directions[0].to]
        halves, losses = _halves(len(images)), {}
        for branch, judge in self.discriminators.items():
            if given.weights[f"adversarial_{branch}"]:
                fake, real = given.handed[branch], images[halves[branch]]
                on_fake = given.drawing(f"{branch}/fake", judge, halves["encoded"])(fake)
                on_real = given.drawing(f"{branch}/real", judge, halves[branch])(real)
                losses[f"adversarial_{branch}"] = self.adversarial_loss.discriminator(on_fake, on_real)
        return Result(losses)

    def translate(self, x: Tensor, style: Tensor, *, source: str, to: str) -> Tensor:
        """Translate x with latent code `style`: (N, C, H, W), (N, latent_dim) -> (N, C of the target, H, W).

        Sizes that the U-Net does not accept are padded by repeating edges, then cropped.
        """
        return at_any_size(
            lambda padded: self.generator(padded, style), x, self.size_required_by("generator")
        )

    def encode_style(self, x: Tensor, domain: str) -> Tensor:
        """Mean codes of images of the target domain: (N, C, H, W) -> (N, latent_dim)."""
        mean, _ = self.encoder(padded(x, self.size_required_by("encoder")))
        return mean

    def sample_style(self, n: int, to: str, generator: torch.Generator | None = None) -> Tensor:
        """n latent codes from the prior N(0, I): (n, latent_dim)."""
        return torch.randn(n, self.latent_dim, generator=generator)

    def _needs(self, branch: str, given: Given) -> bool:
        judging = self.weights_at("discriminator", given.step, given.steps)
        return bool(judging[f"adversarial_{branch}"] or any(given.weights[name] for name in BRANCHES[branch]))


def _halves(count: int) -> dict[str, slice]:
    """The places of both halves of a batch; a single pair is used for both."""
    half = (count + 1) // 2
    return {"encoded": slice(half), "random": slice(half, None) if count > 1 else slice(1)}


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, I)) of codes (N, latent_dim): SUM over dimensions, mean over N."""
    m, v = (t if t.dtype == torch.float64 else t.float() for t in (mean, log_variance))
    return -0.5 * (1 + v - m.square() - v.exp()).sum(1).mean()

"""A translator for i2ikit: networks by role, phases that return named losses, and inference."""

from __future__ import annotations

from typing import Annotated

import torch
from i2ikit.components.discriminators import DiscriminatorSpec
from i2ikit.components.losses import AdversarialLossSpec, ReconstructionLossSpec, discriminator_losses
from i2ikit.draws import Draw
from i2ikit.registry import LossWeights, Spec
from i2ikit.translator import Given, ImageSpec, Phase, Result, Translator, draws_of
from pydantic import Field
from torch import Tensor, nn

__all__ = ["MyPlugin"]

DEFAULT_WEIGHTS: LossWeights = {
    "generator": {"adversarial": 1.0, "cycle_recon": 10.0},
    "discriminator": {"adversarial": 1.0},
}
"""The weight of each loss, by phase. One that changes with the step is a table, here as in a recipe:
`"cycle_recon": {"start": 10.0, "end": 1.0}`."""


class MyPlugin(Translator):
    """Two small generators with cycle consistency; the style code is concatenated as constant maps.

    Args:
        images: channels of both domains.
        style_dim: length of a style code.
        width: channels of the generators' layers.
        weights: weight of each loss, by phase.
    """

    generative = ("generators",)
    adversarial = ("discriminators",)

    def __init__(
        self,
        images: ImageSpec,
        *,
        style_dim: Annotated[int, Field(gt=0, le=256)] = 8,
        width: Annotated[int, Field(gt=0, le=1024)] = 32,
        discriminator: DiscriminatorSpec = Spec("discriminators", "patchgan", {"num_scales": 1, "width": 32}),
        adversarial_loss: AdversarialLossSpec = Spec("losses", "lsgan"),
        recon_loss: ReconstructionLossSpec = Spec("losses", "l1"),
        weights: LossWeights = DEFAULT_WEIGHTS,
    ) -> None:
        channels, (a, b) = images.channels, images.channels
        # Call networks through such dicts: self.generators["a"](x). A type checker rejects
        # self.networks["generators"]["a"](x), because torch does not type the values of an nn.ModuleDict.
        generators: dict[str, nn.Module] = {
            to: _generator(channels[source] + style_dim, channels[to], width)
            for source, to in ((b, a), (a, b))
        }
        discriminators: dict[str, nn.Module] = {d: discriminator(channels[d]) for d in channels}
        # To add a role, such as "style_encoders" or a single network "mapping": add it here, to `generative`
        # above (or to `adversarial`, if translations do not need it), and to what a phase trains.
        networks: dict[str, nn.Module] = {
            "generators": nn.ModuleDict(generators),
            "discriminators": nn.ModuleDict(discriminators),
        }
        super().__init__(images, networks, weights)
        self.style_dim = style_dim
        self.generators = generators
        self.discriminators = discriminators
        self.adversarial_loss = adversarial_loss()
        self.recon_loss = recon_loss()

    def phases(self) -> tuple[Phase, ...]:
        """Train the generators, then the discriminators on the translations just made."""
        styles = {f"{call}{d}": Draw((self.style_dim,)) for call in ("", "cycle_") for d in self.domains}
        # The random numbers of discriminators that need some, such as those with augmentation.
        fake = draws_of(self.images.size, self.discriminators, "fake")
        judging = draws_of(self.images.size, self.discriminators, "fake", "real")
        return (
            Phase("generator", self.generator_losses, ("generators",), styles | fake),
            Phase("discriminator", self.discriminator_losses, ("discriminators",), judging),
        )

    def generator_losses(self, given: Given) -> Result:
        """The losses of the generators; passes the translations to the next phase."""
        x, styles, weights = given.images, given.draws, given.weights
        losses: dict[str, Tensor] = {}
        other = dict(self.directions)
        translated = {d: self.translate(x[other[d]], styles[d], source=other[d], to=d) for d in self.domains}
        # To add a loss: give it a weight in DEFAULT_WEIGHTS, and compute it here, as a mean over samples, if
        # its weight is not 0. The call of a network has type Any; where a method returns the result, annotate
        # it first: code: Tensor = self.style_encoders[d](x).
        for d in self.domains:
            if weights[f"adversarial/{d}"]:
                scores = given.drawing(f"{d}/fake", self.discriminators[d])(translated[d])
                losses[f"adversarial/{d}"] = self.adversarial_loss.generator(scores)
            if weights[f"cycle_recon/{d}"]:
                back = translated[other[d]]
                cycled = self.translate(back, styles[f"cycle_{d}"], source=other[d], to=d)
                losses[f"cycle_recon/{d}"] = self.recon_loss(cycled, x[d])
        return Result(losses, {d: y.detach() for d, y in translated.items()})

    def discriminator_losses(self, given: Given) -> Result:
        """The losses of the discriminators."""
        fake = dict(given.handed)
        # To show the discriminators earlier translations too, keep a pool for each domain, with
        # i2ikit.components.image_pool. In `phases`, this phase declares it as its last argument,
        # {"pool_a": ..., "filled_a": ...} of `pool_keeps`, and a POOL_DRAW in its draws. Here, `pooled`
        # exchanges images of fake[d]; return what it keeps: Result(losses, kept=...).
        losses = discriminator_losses(given, self.discriminators, self.adversarial_loss, fake)
        return Result(losses)

    def translate(self, x: Tensor, style: Tensor, *, source: str, to: str) -> Tensor:
        """Translate x (N, C of `source`, H, W) with style (N, style_dim): (N, C of `to`, H, W)."""
        maps = style[:, :, None, None].expand(-1, -1, *x.shape[2:])
        return torch.tanh(self.generators[to](torch.cat([x, maps], dim=1)))

    def sample_style(self, n: int, to: str, generator: torch.Generator | None = None) -> Tensor:
        """Draw n style codes (n, style_dim) from N(0, I)."""
        return torch.randn(n, self.style_dim, generator=generator)


def _generator(in_channels: int, out_channels: int, width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 7, 1, 3),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, 1, 1),
        nn.ReLU(),
        nn.Conv2d(width, out_channels, 7, 1, 3),
    )

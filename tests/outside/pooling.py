"""Two generators with cycle consistency, a pool of earlier translations, and a network that is not trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from i2ikit.components.discriminators import DiscriminatorSpec
from i2ikit.components.losses import AdversarialLossSpec, discriminator_losses
from i2ikit.draws import Draw
from i2ikit.registry import LossWeights, Spec
from i2ikit.translator import Given, ImageSpec, Kept, Phase, Result, Translator, draws_of

DEFAULT_WEIGHTS: Mapping[str, Mapping[str, float]] = {
    "generator": {"adversarial": 1.0, "cycle_recon": 10.0, "colour": 1.0},
    "discriminator": {"adversarial": 1.0},
}


class Pooling(Translator):
    """Each place in the batch remembers its last translations; one of them is judged in place of the new one."""

    generative = ("generators",)
    adversarial = ("discriminators", "colours")

    def __init__(
        self,
        images: ImageSpec,
        *,
        width: Annotated[int, Field(gt=0)] = 8,
        remembered: Annotated[int, Field(gt=0)] = 4,
        discriminator: DiscriminatorSpec = Spec("discriminators", "patchgan", {"num_scales": 1, "width": 8}),
        adversarial_loss: AdversarialLossSpec = Spec("losses", "lsgan"),
        weights: LossWeights = DEFAULT_WEIGHTS,
    ) -> None:
        channels, (a, b) = images.channels, images.channels
        generators = {to: painter(channels[d], channels[to], width) for d, to in ((b, a), (a, b))}
        colours = {d: nn.Conv2d(channels[d], 4, 1).requires_grad_(False) for d in channels}
        networks = {
            "generators": nn.ModuleDict(generators),
            "discriminators": nn.ModuleDict({d: discriminator(channels[d]) for d in channels}),
            "colours": nn.ModuleDict(colours),
        }
        super().__init__(images, networks, weights)
        self.remembered = remembered
        self.generators, self.colours = generators, colours
        self.discriminators = {d: networks["discriminators"][d] for d in channels}
        self.adversarial_loss = adversarial_loss()

    def phases(self) -> tuple[Phase, ...]:
        size, keeps, judging = (
            self.images.size,
            {},
            draws_of(self.images.size, self.discriminators, "fake", "real"),
        )
        for d in self.domains:
            keeps[f"earlier/{d}"] = Kept((self.remembered, self.images.channels[d], size, size))
            keeps[f"seen/{d}"] = Kept((), torch.int64)
            judging[f"which/{d}"] = Draw((), "categorical", self.remembered)
        made = draws_of(size, self.discriminators, "fake")
        return (
            Phase("generator", self.generator_losses, ("generators",), made),
            Phase("discriminator", self.discriminator_losses, ("discriminators",), judging, keeps),
        )

    def generator_losses(self, given: Given) -> Result:
        x, losses, other = given.images, dict[str, Tensor](), dict(self.directions)
        made = {d: self.generators[d](x[other[d]]) for d in self.domains}
        for d in self.domains:
            if given.weights[f"adversarial/{d}"]:
                scores = given.drawing(f"{d}/fake", self.discriminators[d])(made[d])
                losses[f"adversarial/{d}"] = self.adversarial_loss.generator(scores)
            if given.weights[f"cycle_recon/{d}"]:
                losses[f"cycle_recon/{d}"] = (self.generators[d](made[other[d]]) - x[d]).abs().mean()
            if given.weights[f"colour/{d}"]:
                seen, real = (self.colours[d](image).mean((2, 3)) for image in (made[d], x[d]))
                losses[f"colour/{d}"] = (seen - real.mean(1, keepdim=True)).square().mean()
        return Result(losses, {d: y.detach() for d, y in made.items()})

    def discriminator_losses(self, given: Given) -> Result:
        shown, kept = {}, {}
        for d in self.domains:
            shown[d], kept[f"earlier/{d}"], kept[f"seen/{d}"] = self.remember(given, d)
        losses = discriminator_losses(given, self.discriminators, self.adversarial_loss, shown)
        return Result(losses, kept=kept)

    def remember(self, given: Given, d: str) -> tuple[Tensor, Tensor, Tensor]:
        """An earlier translation of each place, once there are enough, and what it remembers now."""
        fake, earlier, seen = given.handed[d], given.kept[f"earlier/{d}"], given.kept[f"seen/{d}"]
        here = torch.arange(len(fake), device=fake.device)
        old = earlier[here, given.draws[f"which/{d}"]].to(fake.dtype)
        enough = (seen >= self.remembered)[:, None, None, None]
        place = seen % self.remembered
        now = earlier.index_put((here, place), fake.to(earlier.dtype))
        return torch.where(enough, old, fake), now, seen + 1

    def translate(self, x: Tensor, style: Tensor, *, source: str, to: str) -> Tensor:
        return self.generators[to](x)


class OwnList(Pooling):
    """Wrong: remembers translations in a list of its own."""

    def remember(self, given: Given, d: str) -> tuple[Tensor, Tensor, Tensor]:
        if not hasattr(self, "lists"):
            self.lists: dict[str, list[Tensor]] = {domain: [] for domain in self.domains}
        self.lists[d].append(given.handed[d])
        return self.lists[d][0], given.kept[f"earlier/{d}"], given.kept[f"seen/{d}"]


class Attached(Pooling):
    """Wrong: keeps what it does not declare."""

    def remember(self, given: Given, d: str) -> tuple[Tensor, Tensor, Tensor]:
        shown, earlier, seen = super().remember(given, d)
        return shown, earlier[:, 1:], seen


class TrainsColours(Pooling):
    """Wrong: trains a network that has no trainable parameter."""

    def phases(self) -> tuple[Phase, ...]:
        generator, discriminator = super().phases()
        trained = Phase("generator", generator.losses, ("generators", "colors"), generator.draws)
        return trained, discriminator


def painter(in_channels: int, out_channels: int, width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3, 1, 1), nn.ReLU(), nn.Conv2d(width, out_channels, 3, 1, 1), nn.Tanh()
    )

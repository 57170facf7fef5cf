"""Contrastive translation from a to b: deterministic, with features from inside its generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from i2ikit.components.discriminators import DiscriminatorSpec
from i2ikit.components.losses import AdversarialLossSpec
from i2ikit.draws import Draw
from i2ikit.registry import LossWeights, Spec
from i2ikit.translator import Direction, Given, ImageSpec, Phase, Result, Translator, draws_of

DEFAULT_WEIGHTS: Mapping[str, Mapping[str, float]] = {
    "discriminator": {"adversarial": 1.0},
    "generator": {"adversarial": 1.0, "nce": 1.0, "identity_nce": 1.0},
}
HALVINGS = 1


class Generator(nn.Module):
    """An image to an image; `features` stops halfway."""

    def __init__(self, in_channels: int, out_channels: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, width, 3, 1, 1, padding_mode="reflect")
        self.down = nn.Conv2d(width, 2 * width, 4, 2, 1)
        self.block = nn.Conv2d(2 * width, 2 * width, 3, 1, 1)
        self.up = nn.ConvTranspose2d(2 * width, width, 4, 2, 1)
        self.head = nn.Conv2d(width, out_channels, 3, 1, 1)

    def features(self, x: Tensor) -> list[Tensor]:
        stem = self.stem(x)
        down = self.down(stem.relu())
        return [stem, down + self.block(down.relu())]

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.head(self.up(self.features(x)[-1].relu()).relu()))


class Projection(nn.Module):
    """Features at some patches to vectors of length 1."""

    def __init__(self, widths: Sequence[int], dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(width, dim), nn.ReLU(), nn.Linear(dim, dim)) for width in widths
        )

    def forward(self, features: Sequence[Tensor], ids: Sequence[Tensor]) -> list[Tensor]:
        vectors = []
        for layer, x, chosen in zip(self.layers, features, ids, strict=True):
            patches = x.flatten(2).transpose(1, 2)  # (N, H * W, C)
            here = patches.gather(1, chosen[:, :, None].expand(-1, -1, patches.shape[2]))
            vectors.append(F.normalize(layer(here), dim=2))
        return vectors


class CutLike(Translator):
    """Patches of the translation are recognised among patches of its input."""

    generative = ("generator",)
    adversarial = ("projection", "discriminator")

    def __init__(
        self,
        images: ImageSpec,
        *,
        width: Annotated[int, Field(gt=0)] = 8,
        patches: Annotated[int, Field(gt=1)] = 16,
        discriminator: DiscriminatorSpec = Spec("discriminators", "patchgan", {"num_scales": 1, "width": 8}),
        adversarial_loss: AdversarialLossSpec = Spec("losses", "lsgan"),
        weights: LossWeights = DEFAULT_WEIGHTS,
    ) -> None:
        source, to = images.channels
        self_channels = images.channels[source], images.channels[to]
        networks = {
            "generator": Generator(*self_channels, width),
            "projection": Projection([width, 2 * width], 16),
            "discriminator": discriminator(images.channels[to]),
        }
        super().__init__(images, networks, weights)
        self.directions = (Direction(source, to),)
        self.patches = patches
        self.generator = networks["generator"]
        self.projection = networks["projection"]
        self.discriminator = networks["discriminator"]
        self.adversarial_loss = adversarial_loss()
        self.same_channels = len(set(self_channels)) == 1

    def phases(self) -> tuple[Phase, ...]:
        size, judge = self.images.size, {"judge": self.discriminator}
        ids = {
            f"{call}/{level}": Draw(((size // 2**level) ** 2,), "uniform", per_step=True)
            for call in ("nce", "identity_nce")
            for level in (0, 1)
        }
        trained = ("generator", "projection")
        return (
            Phase(
                "discriminator",
                self.discriminator_losses,
                ("discriminator",),
                draws_of(size, judge, "fake", "real"),
            ),
            Phase("generator", self.generator_losses, trained, ids | draws_of(size, judge, "fake")),
        )

    def discriminator_losses(self, given: Given) -> Result:
        ((source, to),) = self.directions
        with torch.no_grad():
            fake = self.generator(given.images[source])
        on_fake = given.drawing("judge/fake", self.discriminator)(fake)
        on_real = given.drawing("judge/real", self.discriminator)(given.images[to])
        loss = self.adversarial_loss.discriminator(on_fake, on_real)
        return Result({"adversarial": loss}, notes={"real_score": on_real[0].detach().mean()})

    def generator_losses(self, given: Given) -> Result:
        ((source, to),), losses = self.directions, dict[str, Tensor]()
        fake = self.generator(given.images[source])
        if given.weights["adversarial"]:
            scores = given.drawing("judge/fake", self.discriminator)(fake)
            losses["adversarial"] = self.adversarial_loss.generator(scores)
        if given.weights["nce"]:
            losses["nce"] = self._nce(given, "nce", given.images[source], fake)
        if given.weights["identity_nce"]:
            real = given.images[to]
            same = real if self.same_channels else real.mean(1, True).expand_as(given.images[source])
            losses["identity_nce"] = self._nce(given, "identity_nce", same, self.generator(same))
        return Result(losses)

    def _nce(self, given: Given, call: str, x: Tensor, y: Tensor) -> Tensor:
        if y.shape[1] != x.shape[1]:
            y = y.mean(1, True).expand_as(x)
        ids = [self.chosen(given.draws[f"{call}/{level}"]) for level in (0, 1)]
        keys = self.projection(self.generator.features(x), ids)
        queries = self.projection(self.generator.features(y), ids)
        terms = []
        for q, k in zip(queries, keys, strict=True):
            logits = q @ k.detach().transpose(1, 2) / 0.07  # (N, P, P)
            truth = torch.arange(q.shape[1], device=q.device).expand(len(q), -1)
            terms.append(F.cross_entropy(logits.flatten(0, 1), truth.flatten()))
        return torch.stack(terms).mean()

    def chosen(self, noise: Tensor) -> Tensor:
        """Patches without repetition, the same for all images: (N, P)."""
        return noise.argsort(1)[:, : self.patches]

    def translate(self, x: Tensor, style: Tensor, *, source: str, to: str) -> Tensor:
        height, width = x.shape[2:]
        padded = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
        return self.generator(padded)[:, :, :height, :width]


class OwnPermutation(CutLike):
    """Wrong: chooses patches with torch's own generator."""

    def chosen(self, noise: Tensor) -> Tensor:
        return torch.randperm(noise.shape[1])[: self.patches].expand(len(noise), -1)

"""One generator for any number of domains, with a mapping network for each and a falling diversity weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from i2ikit.draws import Draw
from i2ikit.errors import DataError
from i2ikit.loss_weights import Weight
from i2ikit.registry import LossWeights
from i2ikit.translator import Given, ImageSpec, Phase, Result, Translator

LATENT = 4

DEFAULT_WEIGHTS: Mapping[str, Mapping[str, Weight]] = {
    "discriminator": {"adversarial": 1.0, "r1": 1.0},
    "generator": {
        "adversarial": 1.0,
        "style_recon": 1.0,
        "cycle_recon": 1.0,
        "diversity": {"start": 1.0, "end": 0.0, "steps": 3},
    },
}


class Mapped(nn.Module):
    """A latent code to a style code."""

    def __init__(self, style_dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(LATENT, 8), nn.ReLU(), nn.Linear(8, style_dim))

    def forward(self, z: Tensor) -> Tensor:
        # One product for each sample: the sums of a matrix product depend on the size of the batch.
        return torch.cat([self.layers(row) for row in z.split(1)])


class Encoded(nn.Module):
    """An image to its style code in one domain."""

    def __init__(self, channels: int, style_dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 8, 4, 4), nn.LeakyReLU(0.2), nn.Conv2d(8, style_dim, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).mean((2, 3))


class Painted(nn.Module):
    """An image and a style code to an image."""

    def __init__(self, channels: int, style_dim: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, 1, 1)
        self.style = nn.Conv2d(style_dim, width, 1)
        self.last = nn.Conv2d(width, channels, 3, 1, 1)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        y = self.first(x) + self.style(style[:, :, None, None])
        return torch.tanh(self.last(F.leaky_relu(y, 0.2)))


class Stars(Translator):
    """Each image is translated into a domain that is drawn for it."""

    generative = ("generator", "mapping", "style_encoder")
    adversarial = ("discriminator",)
    num_domains = None
    optimizer_defaults: ClassVar = {"mapping": {"lr": 1e-6}}

    def __init__(
        self,
        images: ImageSpec,
        *,
        style_dim: Annotated[int, Field(gt=0)] = 4,
        width: Annotated[int, Field(gt=0)] = 8,
        weights: LossWeights = DEFAULT_WEIGHTS,
    ) -> None:
        channels = max(images.channels.values())
        if len({*images.channels.values()} | {channels}) > 2 or min(images.channels.values()) not in (
            1,
            channels,
        ):
            raise DataError("all domains need the same number of channels, or one")
        domains = tuple(images.channels)
        networks = {
            "generator": Painted(channels, style_dim, width),
            "mapping": nn.ModuleDict({d: Mapped(style_dim) for d in domains}),
            "style_encoder": nn.ModuleDict({d: Encoded(channels, style_dim) for d in domains}),
            "discriminator": nn.ModuleDict({d: nn.Conv2d(channels, 1, 4, 4) for d in domains}),
        }
        super().__init__(images, networks, weights)
        self.channels = channels
        self.style_dim = style_dim
        self.generator = networks["generator"]
        self.mappings = {d: networks["mapping"][d] for d in domains}
        self.encoders = {d: networks["style_encoder"][d] for d in domains}
        self.judges = {d: networks["discriminator"][d] for d in domains}

    def phases(self) -> tuple[Phase, ...]:
        draws = {}
        for d in self.domains:
            draws[f"to/{d}"] = Draw((), "categorical", len(self.domains))
            draws[f"z/{d}"], draws[f"z2/{d}"] = Draw((LATENT,)), Draw((LATENT,))
        return (
            Phase("discriminator", self.discriminator_losses, ("discriminator",), draws),
            Phase("generator", self.generator_losses, ("generator", "mapping", "style_encoder"), draws),
        )

    def wide(self, x: Tensor) -> Tensor:
        return x.expand(-1, self.channels, -1, -1)

    def styles(self, z: Tensor, to: Tensor) -> Tensor:
        """The style of each code in the domain of its label."""
        styles = z.new_zeros(len(z), self.style_dim)
        for label, d in enumerate(self.domains):
            here = to == label
            if here.any():
                styles = styles.index_put((here,), self.mappings[d](z[here]).to(styles.dtype))
        return styles

    def of_each(self, networks: Mapping[str, nn.Module], x: Tensor, to: Tensor) -> Tensor:
        """Each image through the network of its label: (N, n)."""
        rows = [
            networks[self.domains[int(label)]](row).flatten(1)
            for row, label in zip(x.split(1), to, strict=True)
        ]
        return torch.cat(rows)

    def discriminator_losses(self, given: Given) -> Result:
        found: dict[str, list[Tensor]] = {}
        for d in self.domains:
            x = self.wide(given.images[d]).clone().requires_grad_()
            scores = self.judges[d](x)
            if given.weights["adversarial"]:
                to = given.draws[f"to/{d}"]
                with torch.no_grad():
                    fake = self.generator(x, self.styles(given.draws[f"z/{d}"], to))
                on_fake = F.softplus(self.of_each(self.judges, fake, to)).mean()
                found.setdefault("adversarial", []).extend([on_fake, F.softplus(-scores).mean()])
            if given.weights["r1"]:
                found.setdefault("r1", []).append(self.r1(scores, x))
        return Result({name: torch.stack(terms).mean() for name, terms in found.items()})

    def r1(self, scores: Tensor, x: Tensor) -> Tensor:
        """Squared gradient of the score of a real image: SUM over pixels, mean over samples."""
        (gradient,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
        return gradient.square().flatten(1).sum(1).mean() / 2

    def generator_losses(self, given: Given) -> Result:
        weights, found = given.weights, dict[str, list[Tensor]]()
        for d in self.domains:
            x, to, z = self.wide(given.images[d]), given.draws[f"to/{d}"], given.draws[f"z/{d}"]
            style = self.styles(z, to)
            fake = self.generator(x, style)
            if weights["adversarial"]:
                found.setdefault("adversarial", []).append(
                    F.softplus(-self.of_each(self.judges, fake, to)).mean()
                )
            if weights["style_recon"]:
                again = self.of_each(self.encoders, fake, to)
                found.setdefault("style_recon", []).append((again - style).abs().mean())
            if self.diversity(given):
                other = self.generator(x, self.styles(given.draws[f"z2/{d}"], to)).detach()
                found.setdefault("diversity", []).append(-(fake - other).abs().mean())
            if weights["cycle_recon"]:
                back = self.generator(fake, self.encoders[d](x))
                found.setdefault("cycle_recon", []).append((back - x).abs().mean())
        return Result({name: torch.stack(terms).mean() for name, terms in found.items()})

    def diversity(self, given: Given) -> float:
        return given.weights["diversity"]

    def translate(self, x: Tensor, style: Tensor, *, source: str, to: str) -> Tensor:
        y = self.generator(self.wide(x), style)
        return y if self.images.channels[to] == self.channels else y.mean(1, keepdim=True)

    def sample_style(self, n: int, to: str, generator: torch.Generator | None = None) -> Tensor:
        z = torch.randn(n, LATENT, generator=generator)
        mapping = self.mappings[to]
        with torch.no_grad():
            return mapping(z.to(next(mapping.parameters()))).cpu().float()

    def encode_style(self, x: Tensor, domain: str) -> Tensor:
        height, width = x.shape[2:]
        padded = F.pad(self.wide(x), (0, -width % 4, 0, -height % 4), mode="replicate")
        return self.encoders[domain](padded)


class Counting(Stars):
    """Wrong: counts the steps itself, for a weight that falls."""

    steps_seen = 0

    def diversity(self, given: Given) -> float:
        self.steps_seen += 1
        return given.weights["diversity"]


class SummedPenalty(Stars):
    """Wrong: the gradient penalty is a sum over samples."""

    def r1(self, scores: Tensor, x: Tensor) -> Tensor:
        return super().r1(scores, x) * len(x)

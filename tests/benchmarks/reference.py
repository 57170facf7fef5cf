"""MUNIT as one would write it from its description, without any of i2ikit: what the speed is compared with.

The official order: the discriminators first, on translations with a graph that is not used; then the
generators, while the discriminators collect gradients that are not used either. Padding, upsampling,
convolution, norm and activation are layers of their own; everything is fp32.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Reference"]


class AdaptiveNorm(nn.Module):
    """Instance norm of N * C maps at once, by batch norm, with given scales and shifts."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor, params: Tensor) -> Tensor:
        """(N, C, H, W) and (N, 2C): shifts, then scales."""
        n, c, h, w = x.shape
        shift, scale = params.chunk(2, dim=1)
        maps = x.reshape(1, n * c, h, w)
        y = F.batch_norm(maps, None, None, scale.flatten(), shift.flatten(), training=True, eps=1e-5)
        return y.view(n, c, h, w)


class LayerNorm(nn.Module):
    """Over each sample, with the deviation of torch.std plus eps; a gain and a bias for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (N, C, H, W)."""
        flat = x.view(len(x), -1)
        mean, std = flat.mean(1)[:, None, None, None], flat.std(1)[:, None, None, None]
        y = (x - mean) / (std + 1e-5)
        return y * self.gain[:, None, None] + self.bias[:, None, None]


def block(
    below: int, above: int, kernel: int, stride: int, padding: int, norm: nn.Module | None, slope: float = 0
) -> nn.Sequential:
    """Reflection padding, convolution, norm, activation."""
    layers: list[nn.Module] = [nn.ReflectionPad2d(padding), nn.Conv2d(below, above, kernel, stride)]
    if norm is not None:
        layers.append(norm)
    layers.append(nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class Residual(nn.Module):
    """Two 3x3 convolutions with instance norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = block(width, width, 3, 1, 1, nn.InstanceNorm2d(width))
        self.second = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.InstanceNorm2d(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add to x (N, width, H, W)."""
        return x + self.second(self.first(x))


class AdaptiveResidual(nn.Module):
    """Two 3x3 convolutions with adaptive instance norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pad = nn.ReflectionPad2d(1)
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3) for _ in range(2))
        self.norm = AdaptiveNorm(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor, params: Tensor) -> Tensor:
        """Add to x (N, width, H, W); params are (N, 4 * width)."""
        first, second = params.chunk(2, dim=1)
        y = self.relu(self.norm(self.convs[0](self.pad(x)), first))
        return x + self.norm(self.convs[1](self.pad(y)), second)


class Generator(nn.Module):
    """Content encoder, style encoder and decoder of one domain."""

    def __init__(self, width: int, style_dim: int) -> None:
        super().__init__()
        wide = 4 * width
        self.content = nn.Sequential(
            block(3, width, 7, 1, 3, nn.InstanceNorm2d(width)),
            block(width, 2 * width, 4, 2, 1, nn.InstanceNorm2d(2 * width)),
            block(2 * width, wide, 4, 2, 1, nn.InstanceNorm2d(wide)),
            *(Residual(wide) for _ in range(4)),
        )
        widths = [width, 2 * width, wide, wide, wide]
        self.style = nn.Sequential(
            block(3, width, 7, 1, 3, None),
            *(block(a, b, 4, 2, 1, None) for a, b in itertools.pairwise(widths)),
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(wide, style_dim, 1),
        )
        self.mlp = nn.Sequential(
            nn.Linear(style_dim, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 16 * wide)
        )
        self.residuals = nn.ModuleList(AdaptiveResidual(wide) for _ in range(4))
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2),
            block(wide, 2 * width, 5, 1, 2, LayerNorm(2 * width)),
            nn.Upsample(scale_factor=2),
            block(2 * width, width, 5, 1, 2, LayerNorm(width)),
            nn.ReflectionPad2d(3),
            nn.Conv2d(width, 3, 7),
            nn.Tanh(),
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Content (N, 4 * width, H / 4, W / 4) and style (N, style_dim)."""
        return self.content(x), self.style(x).flatten(1)

    def decode(self, content: Tensor, style: Tensor) -> Tensor:
        """An image (N, 3, H, W)."""
        params = self.mlp(style).chunk(4, dim=1)
        for residual, of_block in zip(self.residuals, params, strict=True):
            content = residual(content, of_block)
        return self.up(content)


class Discriminator(nn.Module):
    """Four convolutions and a 1x1 one, at three resolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [3, width, 2 * width, 4 * width, 8 * width]
        self.scales = nn.ModuleList(
            nn.Sequential(
                *(block(a, b, 4, 2, 1, None, 0.2) for a, b in itertools.pairwise(widths)),
                nn.Conv2d(widths[-1], 1, 1),
            )
            for _ in range(3)
        )
        self.pool = nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Scores for x (N, 3, H, W)."""
        scores = []
        for scale in self.scales:
            scores.append(scale(x))
            x = self.pool(x)
        return scores


class Reference:
    """Two generators, two discriminators and their optimizers; one call is one step.

    Args:
        width: channels of the first layers; 64 in the paper.
        style_dim: length of a style code.
    """

    def __init__(self, width: int, style_dim: int = 8) -> None:
        self.style_dim = style_dim
        self.generators = nn.ModuleList(Generator(width, style_dim) for _ in range(2))
        self.discriminators = nn.ModuleList(Discriminator(width) for _ in range(2))
        for layer in self.generators.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
        for layer in self.discriminators.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, 0, 0.02)
                nn.init.zeros_(layer.bias)
        self.optimizers = [
            torch.optim.Adam(part.parameters(), lr=1e-4, betas=(0.5, 0.999), weight_decay=1e-4)
            for part in (self.discriminators, self.generators)
        ]

    def __call__(self, a: Tensor, b: Tensor, styles: Iterable[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Update on images (N, 3, H, W) of both domains; returns both losses.

        Args:
            styles: four codes (N, style_dim), of a and b in each of the two updates; random by default.
        """
        draw = iter(styles or [torch.randn(len(a), self.style_dim) for _ in range(4)])
        x = (a, b)
        losses = []
        for optimizer, loss in zip(self.optimizers, (self._judge, self._paint), strict=True):
            optimizer.zero_grad()
            losses.append(loss(x, (next(draw), next(draw))))
            losses[-1].backward()
            optimizer.step()
        return losses[0], losses[1]

    def _translations(
        self, codes: list[tuple[Tensor, Tensor]], random: tuple[Tensor, Tensor]
    ) -> list[Tensor]:
        """The images with the style of a and the content of b, and the other way round."""
        return [self.generators[d].decode(codes[1 - d][0], random[d]) for d in range(2)]

    def _judge(self, x: tuple[Tensor, Tensor], random: tuple[Tensor, Tensor]) -> Tensor:
        fake = self._translations([g.encode(x[d]) for d, g in enumerate(self.generators)], random)
        loss = torch.zeros(())
        for d, discriminator in enumerate(self.discriminators):
            for on_fake, on_real in zip(discriminator(fake[d].detach()), discriminator(x[d]), strict=True):
                loss = loss + on_fake.square().mean() + (on_real - 1).square().mean()
        return loss

    def _paint(self, x: tuple[Tensor, Tensor], random: tuple[Tensor, Tensor]) -> Tensor:
        codes = [g.encode(x[d]) for d, g in enumerate(self.generators)]
        same = [g.decode(*codes[d]) for d, g in enumerate(self.generators)]
        fake = self._translations(codes, random)
        again = [g.encode(fake[d]) for d, g in enumerate(self.generators)]
        loss = torch.zeros(())
        for d, discriminator in enumerate(self.discriminators):
            loss = loss + 10 * F.l1_loss(same[d], x[d])
            loss = loss + F.l1_loss(again[d][1], random[d]) + F.l1_loss(again[d][0], codes[1 - d][0])
            for scores in discriminator(fake[d]):
                loss = loss + (scores - 1).square().mean()
        return loss

"""A discriminator that sees augmented images; its random numbers are its own draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from i2ikit.components.discriminators import DiscriminatorSpec
from i2ikit.draws import Draw
from i2ikit.registry import Spec


class Augmented(nn.Module):
    """Brightness and translation of an image, then an ordinary discriminator; gradients flow to the image.

    Shapes: (N, C, H, W) -> maps (N, 1, h, w) of `inner`
    """

    def __init__(
        self,
        in_channels: int,
        *,
        strength: Annotated[float, Field(ge=0, le=1)] = 0.25,
        inner: DiscriminatorSpec = Spec("discriminators", "patchgan", {"num_scales": 1, "width": 8}),
    ) -> None:
        super().__init__()
        self.strength = strength
        self.inner = inner(in_channels)

    def draws(self, size: int) -> dict[str, Draw]:
        return {"brightness": Draw((), "uniform"), "shift": Draw((2,), "uniform")}

    def forward(self, x: Tensor, *, draws: Mapping[str, Tensor] | None = None) -> list[Tensor]:
        if draws is None:
            return self.inner(x)
        return self.inner(self.augmented(x, draws["brightness"], draws["shift"]))

    def augmented(self, x: Tensor, brightness: Tensor, shift: Tensor) -> Tensor:
        lighter = x + (brightness.to(x.dtype) - 0.5)[:, None, None, None] * self.strength
        height, width = x.shape[2:]
        most = torch.tensor([height, width], device=x.device) * self.strength / 2
        down, right = ((2 * shift - 1) * most).round().long().unbind(1)
        rows = (torch.arange(height, device=x.device) - down[:, None]).clamp(0, height - 1)
        columns = (torch.arange(width, device=x.device) - right[:, None]).clamp(0, width - 1)
        moved = lighter.gather(2, rows[:, None, :, None].expand_as(lighter))
        return moved.gather(3, columns[:, None, None, :].expand_as(lighter))


class OwnNoise(Augmented):
    """Wrong: draws from torch's own generator."""

    def draws(self, size: int) -> dict[str, Draw]:
        return {}

    def forward(self, x: Tensor, *, draws: Mapping[str, Tensor] | None = None) -> list[Tensor]:
        noise = torch.rand(len(x), 3, device=x.device) if self.training else torch.full((len(x), 3), 0.5)
        return self.inner(self.augmented(x, noise[:, 0], noise[:, 1:]))

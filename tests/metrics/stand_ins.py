"""Small networks in the place of those that metrics would fetch."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn


class DarkOrLight(nn.Module):
    """Certain of one of two classes: whether the corner of a picture is light."""

    def forward(self, x: Tensor) -> Tensor:
        light = (x[:, :1, 0, 0] > 0).float() * 1000
        return torch.cat([light, 500 * torch.ones_like(light)], dim=1)


class FourFeatures(nn.Module):
    """Means of the colours of a corner and of a picture's first row, instead of Inception's 2,048."""

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        assert pixels.dtype == torch.uint8
        x = pixels.float() / 255
        columns = (x[:, 0, 0, 0], x[:, 0, 0].mean(1), x[:, 0, 0, :8].mean(1) ** 2, x.mean((1, 2, 3)))
        return (torch.stack(columns, dim=1),)


def saved_as_onnx(classifier: nn.Module, path: Path, side: int) -> Path:
    """An ONNX file for any number of images (N, 3, side, side)."""
    images, free = (torch.zeros(2, 3, side, side),), ({0: "n"},)
    torch.onnx.export(
        classifier.eval(), images, path, dynamic_shapes=free, external_data=False, verbose=False
    )
    return path

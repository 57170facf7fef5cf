"""A loss that keeps a translation smooth where its input is smooth."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

__all__ = ["EdgeAwareSmoothness"]


class EdgeAwareSmoothness:
    """Edge-aware smoothness: penalises contrast in a translation where its input has none.

    SUM over the two axes of mean(exp(-sharpness * |dx|) * |dy|), where dx and dy are the differences between
    neighbouring pixels of input and translation; |dx| is that of the channel that differs most.

    For domains whose edges are at the same places, such as outlines and flat drawings, or label maps: fills
    become even, and colour stays inside the lines. Not for domains with texture or shading where the input
    has none, such as maps and satellite images: the texture would be smoothed away.

    Reduction: mean over samples, channels and pixels, SUM over the axes. Gradients flow to both images.
    Source: the smoothness of disparities in Godard et al. (arXiv 1609.03677), equation 3, with the largest
        instead of the mean difference of the channels, and sharper.

    Args:
        sharpness: how quickly the penalty falls with the contrast of the input, for images in [-1, 1]; 0
            penalises all contrast (total variation).
    """

    def __init__(self, *, sharpness: Annotated[float, Field(ge=0)] = 10.0) -> None:
        self.sharpness = sharpness

    def least_side(self) -> int:
        """2 px: a pixel and its neighbour."""
        return 2

    def compare(self, translation: Tensor, original: Tensor) -> Tensor:
        """Scalar from images (N, C, H, W) in [-1, 1]; C may differ."""
        x, y = _at_least_fp32(original), _at_least_fp32(translation)
        return torch.stack([self._along(axis, x, y) for axis in (2, 3)]).sum()

    def _along(self, axis: int, x: Tensor, y: Tensor) -> Tensor:
        contrast = x.diff(dim=axis).abs().amax(1, keepdim=True)
        return ((-self.sharpness * contrast).exp() * y.diff(dim=axis).abs()).mean()


def _at_least_fp32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))

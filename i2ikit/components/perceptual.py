"""Losses that compare images by the features of a network that others trained."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from i2ikit.components.norms import InstanceNorm
from i2ikit.components.trunks import load_trunk, trunk_features

__all__ = ["VGGPerceptual"]

RELU5_3 = (4,)  # the deepest tap of VGG-16


class VGGPerceptual:
    """Domain-invariant perceptual loss: what an image shows, without its colours and contrast.

    Mean squared error of the relu5_3 features of VGG-16, each map instance-normalised first: zero mean
    and unit variance for each sample and channel, which takes the domain's statistics away.

    Reduction: mean over everything. Gradients flow to both images.
    Weight: 1 where MUNIT's official code uses it, above 512 px; 0 elsewhere.
    Source: Huang et al. (arXiv 1804.04732), the loss for high resolution. The official code has VGG-16
        in Caffe's weights (BGR, 0..255 minus a mean) and leaves out the pool after conv4_3, so that its
        features have a stride of 8; here they are torchvision's weights and layers, with a stride of 16.

    Args:
        weights: file of VGG-16's weights; found or fetched when not given.

    Raises:
        WeightsError: the weights cannot be had.
    """

    def __init__(self, *, weights: str | None = None) -> None:
        self.weights = weights
        load_trunk("vgg16", weights)

    def least_side(self) -> int:
        """Below 32 px a feature map has one pixel, which instance norm makes 0."""
        return 32

    def compare(self, translation: Tensor, original: Tensor) -> Tensor:
        """Scalar from images (N, 1 or 3, H, W) in [-1, 1]; grey is repeated three times."""
        return F.mse_loss(self._features(translation), self._features(original))

    def _features(self, x: Tensor) -> Tensor:
        (features,) = trunk_features("vgg16", x, RELU5_3, self.weights)
        normalised: Tensor = InstanceNorm(features.shape[1])(features.float())
        return normalised

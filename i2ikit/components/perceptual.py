"""Losses that compare images by the features of a pretrained network."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from i2ikit.components.norms import InstanceNorm
from i2ikit.components.trunks import load_trunk, trunk_features
from i2ikit.paths import FilePath

__all__ = ["VGGPerceptual"]

RELU5_3 = (4,)  # the deepest tap of VGG-16


class VGGPerceptual:
    """Domain-invariant perceptual loss: compares the content of images, not their colours and contrast.

    Mean squared error of the relu5_3 features of VGG-16 after instance norm: zero mean and unit variance
    for each sample and channel, which removes the statistics of the domain.

    Reduction: mean over all elements. Gradients flow to both images.
    Weight: 1 where MUNIT's official code uses it, above 512 px; 0 elsewhere.
    Source: Huang et al. (arXiv 1804.04732), the loss for high resolution. The official code uses
        VGG-16 with Caffe weights (BGR, 0..255 minus a mean) and omits the pooling after conv4_3, so that
        its features have a stride of 8; here the weights and layers are torchvision's, with a stride of 16.

    Args:
        weights: file of VGG-16's weights; looked up or downloaded if not given.

    Raises:
        WeightsError: the weights are not available.
    """

    def __init__(self, *, weights: FilePath | None = None) -> None:
        self.weights = weights
        load_trunk("vgg16", weights)

    def least_side(self) -> int:
        """32 px: below that, a feature map has one pixel, which instance norm sets to 0."""
        return 32

    def compare(self, translation: Tensor, original: Tensor) -> Tensor:
        """Scalar from images (N, 1 or 3, H, W) in [-1, 1]; greyscale is repeated to three channels."""
        return F.mse_loss(self._features(translation), self._features(original))

    def _features(self, x: Tensor) -> Tensor:
        (features,) = trunk_features("vgg16", x, RELU5_3, self.weights)
        normalised: Tensor = InstanceNorm(features.shape[1])(features.float())
        return normalised

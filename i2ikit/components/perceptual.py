"""Losses that compare images by the features of a network that others trained."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2ikit.components.norms import InstanceNorm
from i2ikit.errors import WeightsError
from i2ikit.pretrained import VGG16, load_weights

__all__ = ["VGGPerceptual", "vgg16_features"]

RELU5_3 = 30  # layers of torchvision's VGG-16 up to and with it
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


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
        _vgg16(weights, torch.device("cpu"))

    def least_side(self) -> int:
        """Below 32 px a feature map has one pixel, which instance norm makes 0."""
        return 32

    def compare(self, translation: Tensor, original: Tensor) -> Tensor:
        """Scalar from images (N, 1 or 3, H, W) in [-1, 1]; grey is repeated three times."""
        return F.mse_loss(self._features(translation), self._features(original))

    def _features(self, x: Tensor) -> Tensor:
        features = vgg16_features(x, self.weights)
        normalised: Tensor = InstanceNorm(features.shape[1])(features)
        return normalised


def vgg16_features(x: Tensor, weights: str | None) -> Tensor:
    """relu5_3 of VGG-16: (N, 1 or 3, H, W) in [-1, 1] -> (N, 512, H // 16, W // 16), fp32.

    Raises:
        WeightsError: the weights cannot be had.
    """
    mean, std = (torch.tensor(c, device=x.device)[:, None, None] for c in (MEAN, STD))
    scaled = ((x.float().expand(-1, 3, -1, -1) + 1) / 2 - mean) / std
    features: Tensor = _vgg16(weights, x.device)(scaled)
    return features.float()


@functools.cache
def _vgg16(weights: str | None, device: torch.device) -> nn.Module:
    """The frozen network, one for each device, whoever asks: copies of a method share it."""
    import torchvision  # takes a second, which only this loss should cost

    loaded = load_weights(VGG16, weights)
    with torch.device("meta"):
        network = torchvision.models.vgg16().features[:RELU5_3]
    tensors = {name.removeprefix(VGG16.part): tensor for name, tensor in loaded.tensors.items()}
    try:
        network.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise WeightsError(f"{loaded.source} does not hold the weights of VGG-16: {error}") from error
    return network.to(device).eval().requires_grad_(False)

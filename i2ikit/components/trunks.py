"""Trunks: the frozen convolutions of pretrained classifiers, as feature extractors.

A trunk is not a submodule of its user: it is loaded at its first use and cached in the process. Therefore it
is neither initialised nor trained, has no EMA copy, and is not saved with a run; inference does not need
its weights.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from i2ikit.errors import WeightsError
from i2ikit.pretrained.weights import ALEXNET, VGG16, Network, load_weights

__all__ = ["TRUNKS", "Trunk", "TrunkName", "load_trunk", "trunk_features"]

TrunkName = Literal["alexnet", "vgg16"]

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Trunk:
    """The properties of a trunk that do not depend on its weights.

    Args:
        network: where to find the weights.
        taps: indices in torchvision's `features` of the ReLUs that can be read, from shallow to deep.
        channels: number of channels at each tap.
        least_side: smallest image side that leaves one pixel at the deepest tap.
    """

    network: Network
    taps: tuple[int, ...]
    channels: tuple[int, ...]
    least_side: int


TRUNKS: dict[TrunkName, Trunk] = {
    "alexnet": Trunk(ALEXNET, (1, 4, 7, 9, 11), (64, 192, 384, 256, 256), 31),
    "vgg16": Trunk(VGG16, (3, 8, 15, 22, 29), (64, 128, 256, 512, 512), 16),
}


def trunk_features(
    name: TrunkName, x: Tensor, taps: Sequence[int], weights: str | None = None
) -> list[Tensor]:
    """Features of images at selected taps of a frozen trunk; gradients flow to the images.

    Shapes: (N, 1 or 3, H, W) -> (N, channels, h, w) for each tap. Greyscale is repeated to three channels.
    Values: input in [-1, 1]; output of a ReLU.

    Args:
        taps: indices into `TRUNKS[name].taps`, ascending.
        weights: file of the trunk's weights; looked up or downloaded if not given.

    Raises:
        WeightsError: the weights are not available.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    # autocast would cast the frozen weights anew at each call.
    autocast = torch.is_autocast_enabled(x.device.type) and dtype == torch.float32
    narrow = torch.get_autocast_dtype(x.device.type) if autocast else dtype
    layers = _layers(name, weights, x.device, narrow)
    mean, std = _mean_and_std(x.device, dtype)
    y = (((x.to(dtype).expand(-1, 3, -1, -1) + 1) / 2 - mean) / std).to(narrow)
    found = []
    start = 0
    for tap in taps:
        end = TRUNKS[name].taps[tap] + 1
        y = layers[start:end](y)
        found.append(y)
        start = end
    return found


def load_trunk(name: TrunkName, weights: str | None = None) -> None:
    """Load a trunk now, to fail early if its weights are not available.

    Raises:
        WeightsError: the weights are not available.
    """
    _layers(name, weights, torch.device("cpu"), torch.float32)


@functools.cache
@torch.inference_mode(False)  # it may be called first in inference mode, and later in training
def _mean_and_std(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(3, 1, 1) each; made once, because a copy to a GPU waits for all that this computes."""
    mean, std = (torch.tensor(c, device=device, dtype=dtype)[:, None, None] for c in (MEAN, STD))
    return mean, std


@functools.cache
@torch.inference_mode(False)
def _layers(name: TrunkName, weights: str | None, device: torch.device, dtype: torch.dtype) -> nn.Sequential:
    """The frozen layers up to the deepest tap, once for each device and precision."""
    import torchvision  # imported here because it takes a second

    trunk = TRUNKS[name]
    loaded = load_weights(trunk.network, weights)
    with torch.device("meta"):
        built = {"alexnet": torchvision.models.alexnet, "vgg16": torchvision.models.vgg16}[name]()
    layers: nn.Sequential = built.features[: trunk.taps[-1] + 1]
    tensors = {key.removeprefix(trunk.network.part): tensor for key, tensor in loaded.tensors.items()}
    try:
        layers.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise WeightsError(f"{loaded.source} does not hold the weights of '{name}': {error}") from error
    layers = layers.to(device, dtype).to(memory_format=torch.channels_last)
    return layers.eval().requires_grad_(False)

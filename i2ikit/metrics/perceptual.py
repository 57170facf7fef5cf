"""LPIPS, the perceptual distance that both papers use to measure diversity.

Trunk, scaling and linear heads are those of the package `lpips`. Only the pairing differs: the trunk
processes each image once instead of once for each pair.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import lpips
import torch
from pydantic import Field
from torch import Tensor

from i2ikit.errors import DataError, WeightsError
from i2ikit.pretrained.weights import ALEXNET, SQUEEZENET, VGG16, Weights

__all__ = [
    "LEAST_SIDE",
    "NETWORKS",
    "VERSIONS",
    "PerceptualDistance",
    "Trunk",
    "Versions",
    "cautions",
    "origin",
]

Trunk = Literal["alex", "vgg", "squeeze"]
Version = Literal["0.0", "0.1"]
VERSIONS: tuple[Version, ...] = ("0.0", "0.1")
Versions = Annotated[tuple[Version, ...], Field(min_length=1, max_length=2)]
NETWORKS = {"alex": ALEXNET, "vgg": VGG16, "squeeze": SQUEEZENET}
LEAST_SIDE = {"alex": 31, "vgg": 16, "squeeze": 17}
"""Smallest image side for which the trunk's last layer has a pixel."""

PAPER_SIDE = 256
CHUNK = 16  # images in the trunk at once
MOST_NUMBERS = 2**20  # floats of differences at once; more do not fit in the CPU cache


class PerceptualDistance:
    """LPIPS between images, with separate steps for the trunk's features and the comparison of pairs.

    Source: Zhang et al. (arXiv 1801.03924), in the package `lpips`.

    Args:
        trunk: "alex", "vgg" or "squeeze".
        version: "0.1" is current; "0.0" is the first release, which was trained on unscaled images and
            was used by the MUNIT and BicycleGAN papers.
        weights: weights of the trunk.
        device: device of the images.

    Raises:
        WeightsError: the weights do not belong to the trunk.
    """

    def __init__(
        self, trunk: Trunk, version: Version, weights: Weights, device: torch.device | str = "cpu"
    ) -> None:
        # lpips builds its trunk with a deprecated torchvision call (hence the warning) and with random
        # weights, all of which are replaced below.
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            self.lpips = lpips.LPIPS(net=trunk, version=version, pnet_rand=True, verbose=False)
        try:
            own = self.lpips.net.state_dict()  # slice1.0.weight is torchvision's features.0.weight
            tensors = {name: weights.tensors[f"features.{name.partition('.')[2]}"] for name in own}
            self.lpips.net.load_state_dict(tensors)
        except (KeyError, RuntimeError) as error:
            message = f"{weights.source} does not hold the weights of the trunk '{trunk}'"
            raise WeightsError(f"{message}: {error}") from error
        self.lpips = self.lpips.to(device).eval().requires_grad_(False)
        self.trunk = trunk
        self.version = version

    def features(self, x: Tensor) -> list[Tensor]:
        """The trunk's features of images, normalised to a unit vector per pixel of each layer.

        Shapes: (N, 1 or 3, H, W) -> (N, c, h, w) for each layer. Greyscale is repeated to three channels.
        Values: input in [-1, 1].

        Raises:
            DataError: the images are too small for the trunk.
        """
        if min(x.shape[2:]) < LEAST_SIDE[self.trunk]:
            raise DataError(
                f"images of {x.shape[3]}x{x.shape[2]} px are too small for LPIPS with the trunk "
                f"'{self.trunk}', which needs {LEAST_SIDE[self.trunk]} px"
            )
        parts = [self._features(part) for part in torch.split(x.float().expand(-1, 3, -1, -1), CHUNK)]
        return [torch.cat(layers) for layers in zip(*parts, strict=True)]

    def _features(self, x: Tensor) -> list[Tensor]:
        scaled = self.lpips.scaling_layer(x) if self.version == "0.1" else x
        return [lpips.normalize_tensor(layer) for layer in self.lpips.net(scaled)]

    def between(self, features: Sequence[Tensor], first: Sequence[int], second: Sequence[int]) -> Tensor:
        """LPIPS of pairs of images, given by their indices in `features`: (P,)."""
        return torch.stack(
            [
                torch.cat(
                    [
                        head((layer[i] - layer[j]) ** 2).mean((1, 2, 3))
                        for i, j in _parts(first, second, layer[0].numel())
                    ]
                )
                for head, layer in zip(self.lpips.lins, features, strict=True)
            ]
        ).sum(0)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """LPIPS of each image of x and the same one of y: (N, C, H, W) twice -> (N,)."""
        distances = []
        for ours, theirs in zip(torch.split(x, CHUNK), torch.split(y, CHUNK), strict=True):
            places = range(len(ours))
            features = self.features(torch.cat([ours, theirs]))
            distances.append(self.between(features, places, [len(ours) + place for place in places]))
        return torch.cat(distances)


def _parts(
    first: Sequence[int], second: Sequence[int], numbers: int
) -> Iterable[tuple[Sequence[int], Sequence[int]]]:
    """The pairs, in chunks that limit memory."""
    step = max(1, MOST_NUMBERS // numbers)
    for start in range(0, len(first), step):
        yield list(first[start : start + step]), list(second[start : start + step])


def origin(trunk: str, versions: Sequence[str], weights: Weights) -> dict[str, Any]:
    """The facts needed to reproduce the numbers: versions, trunk and weights."""
    return {
        "lpips_versions": list(versions),
        "trunk": trunk,
        "trunk_weights": {"source": weights.source, "sha256": weights.sha256},
    }


def cautions(versions: Sequence[str], trunk: str, side: int) -> list[str]:
    """Notes on which numbers these can be compared with."""
    notes = []
    if (trunk, side) != ("alex", PAPER_SIDE):
        notes.append(
            f"Not comparable with the MUNIT and BicycleGAN papers: they used alex (v0.0) at {PAPER_SIDE} px, "
            f"this is {trunk} at {side} px."
        )
    elif "0.0" in versions:
        notes.append("The numbers in the MUNIT and BicycleGAN papers are v0.0.")
    if len(versions) > 1:
        notes.append("v0.0 and v0.1 are different scales: only compare v0.0 with v0.0 and v0.1 with v0.1.")
    return notes

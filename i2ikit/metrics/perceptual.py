"""LPIPS, the distance that both papers measure diversity with.

The library `lpips` measures: its trunk, its scaling, its linear heads. Only the pairing is ours: the
trunk sees each image once instead of once for each pair.
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
    "PerceptualDistance",
    "Trunk",
    "Versions",
    "cautions",
    "origin",
]

Trunk = Literal["alex", "vgg", "squeeze"]
Version = Literal["0.0", "0.1"]
Versions = Annotated[tuple[Version, ...], Field(min_length=1, max_length=2)]
NETWORKS = {"alex": ALEXNET, "vgg": VGG16, "squeeze": SQUEEZENET}
LEAST_SIDE = {"alex": 31, "vgg": 16, "squeeze": 17}
"""Below it the trunk's last layer has no pixel left."""

PAPER_SIDE = 256
CHUNK = 16  # images in the trunk at once
MOST_NUMBERS = 2**20  # floats of differences at once; more do not stay in the processor's cache


class PerceptualDistance:
    """LPIPS between images, the trunk's features kept apart from the comparison of pairs.

    Source: Zhang et al. (arXiv 1801.03924), in the package `lpips`.

    Args:
        trunk: "alex", "vgg" or "squeeze".
        version: "0.1" is today's; "0.0" is the first release, whose trunk sees unscaled images and
            whose heads were learnt so: the MUNIT and BicycleGAN papers measured with it.
        weights: of the trunk.
        device: where images will be.

    Raises:
        WeightsError: the weights are not those of the trunk.
    """

    def __init__(
        self, trunk: Trunk, version: Version, weights: Weights, device: torch.device | str = "cpu"
    ) -> None:
        # lpips builds its trunk with an outdated call of torchvision, and with random weights that
        # are replaced, every one of them, right afterwards.
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
        """What the trunk sees in images, one unit vector per pixel of each layer.

        Shapes: (N, 1 or 3, H, W) -> (N, c, h, w) for each layer. Grey is repeated three times.
        Values: [-1, 1] in.

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
        """LPIPS of pairs of images, given by their places in `features`: (P,)."""
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
        """LPIPS of each image of x with that of y: (N, C, H, W) twice -> (N,)."""
        distances = []
        for ours, theirs in zip(torch.split(x, CHUNK), torch.split(y, CHUNK), strict=True):
            places = range(len(ours))
            features = self.features(torch.cat([ours, theirs]))
            distances.append(self.between(features, places, [len(ours) + place for place in places]))
        return torch.cat(distances)


def _parts(
    first: Sequence[int], second: Sequence[int], numbers: int
) -> Iterable[tuple[Sequence[int], Sequence[int]]]:
    """The pairs, as many at once as memory should hold."""
    step = max(1, MOST_NUMBERS // numbers)
    for start in range(0, len(first), step):
        yield list(first[start : start + step]), list(second[start : start + step])


def origin(trunk: str, versions: Sequence[str], weights: Weights) -> dict[str, Any]:
    """What a reviewer needs to get the same numbers."""
    return {
        "lpips_versions": list(versions),
        "trunk": trunk,
        "trunk_weights": {"source": weights.source, "sha256": weights.sha256},
    }


def cautions(versions: Sequence[str], trunk: str, side: int) -> list[str]:
    """What these numbers must not be compared with."""
    said = []
    if (trunk, side) != ("alex", PAPER_SIDE):
        said.append(
            f"Not comparable with the MUNIT and BicycleGAN papers: they measured with alex (v0.0) at "
            f"{PAPER_SIDE} px, this is {trunk} at {side} px."
        )
    elif "0.0" in versions:
        said.append("The MUNIT and BicycleGAN papers' numbers are v0.0.")
    if len(versions) > 1:
        said.append("v0.0 and v0.1 are two scales: compare v0.0 with v0.0 and v0.1 with v0.1 only.")
    return said

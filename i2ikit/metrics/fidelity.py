"""FID and KID: distances between the sets of translations and of real images, with torch-fidelity."""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from i2ikit.components.trunks import TRUNKS, TrunkName, trunk_features
from i2ikit.errors import DataError, WeightsError
from i2ikit.metrics.subject import Count, Measured, Subject
from i2ikit.paths import FilePath
from i2ikit.pretrained.cache import progress_over
from i2ikit.pretrained.weights import INCEPTION, Weights, load_weights

__all__ = ["FID", "KID"]

FEATURES = "2048"  # the name of the last layer before the classes, and its length
CHUNK = 16


class FID:
    """Fréchet Inception distance between translations and held-out real images; lower is better.

    Biased upwards for few images: only compare values of equal counts, and prefer `kid` below 2,048
    images.

    Source: Heusel et al. (arXiv 1706.08500); Inception-v3 of 2015-12-05, with its image resizing.

    Args:
        num_inputs: number of distinct held-out inputs, and of real images (fewer if fewer exist).
        num_styles: translations per input.
        weights: file of the Inception network's weights; looked up or downloaded if not given.

    Raises:
        WeightsError: the weights are not available.
    """

    higher_is_better: ClassVar[Mapping[str, bool]] = {"fid": False}

    def __init__(
        self,
        *,
        num_inputs: Count = 10_000,
        num_styles: Annotated[int, Field(ge=1, le=1000)] = 1,
        weights: FilePath | None = None,
    ) -> None:
        self.num_inputs = num_inputs
        self.num_styles = num_styles
        self.weights = load_weights(INCEPTION, weights)

    def measure(self, subject: Subject) -> Measured:
        """See the class."""
        network = _inception(self.weights, subject.device)
        features = _Features(subject, network, self.weights, self.num_inputs, self.num_styles)
        statistics = [fid_features_to_statistics(part) for part in (features.made, features.real)]
        fid = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
        notes = []
        if min(len(features.made), len(features.real)) < int(FEATURES):
            notes.append(
                f"{len(features.made)} translations and {len(features.real)} real images are fewer than the "
                f"{FEATURES} features of FID, which is then biased: only compare it at equal counts."
            )
        return Measured({"fid": fid}, features.facts, notes)


class KID:
    """Kernel Inception distance between translations and held-out real images; lower is better.

    `kid`: mean over random subsets; `kid_std`: standard deviation over the subsets; `kid_se`: standard
    error with respect to the choice of images (jackknife: leaves out each image of both sets once).
    Unbiased, so small sets can be compared; if the sets are similar, values slightly below 0 occur. With
    a network other than Inception, the distance has another scale and is called `kernel_distance`.

    Source: Bińkowski et al. (arXiv 1801.01401).

    Args:
        num_inputs: number of distinct held-out inputs, and of real images (fewer if fewer exist).
        num_styles: translations per input.
        num_subsets: number of random subsets.
        subset_size: images of each set in a subset (at most the size of the smaller set).
        network: "inception", or "vgg16" or "alexnet" if Inception is not available or the images are not
            photo-like: spatial means of the last convolution, 512 or 256 features. If one of them was used in
            the discriminator of the translator, evaluate with the other.
        weights: file of the network's weights; looked up or downloaded if not given.

    Raises:
        WeightsError: the weights are not available.
    """

    higher_is_better: ClassVar[Mapping[str, bool]] = {"kid": False, "kernel_distance": False}

    def __init__(
        self,
        *,
        num_inputs: Count = 10_000,
        num_styles: Annotated[int, Field(ge=1, le=1000)] = 1,
        num_subsets: Count = 100,
        subset_size: Annotated[int, Field(ge=2)] = 100,
        network: Literal["inception", "vgg16", "alexnet"] = "inception",
        weights: FilePath | None = None,
    ) -> None:
        self.num_inputs = num_inputs
        self.num_styles = num_styles
        self.num_subsets = num_subsets
        self.subset_size = subset_size
        self.network = network
        self.file = weights
        self.weights = load_weights(INCEPTION if network == "inception" else TRUNKS[network].network, weights)

    def measure(self, subject: Subject) -> Measured:
        """See the class."""
        network: Callable[[Tensor], tuple[Tensor, ...]]
        if self.network == "inception":
            network = _inception(self.weights, subject.device)
        else:
            network = functools.partial(_deepest_means, self.network, self.file)
        features = _Features(subject, network, self.weights, self.num_inputs, self.num_styles)
        size = min(self.subset_size, len(features.made), len(features.real))
        if size < 2:
            raise DataError("there is only one translation; a kernel distance needs two or more")
        found = kid_features_to_metric(
            features.made,
            features.real,
            kid_subsets=self.num_subsets,
            kid_subset_size=size,
            rng_seed=subject.seed % 2**32,
            verbose=False,
        )
        name = "kid" if self.network == "inception" else "kernel_distance"
        values = {
            name: found["kernel_inception_distance_mean"],
            f"{name}_std": found["kernel_inception_distance_std"],
            f"{name}_se": kernel_distance_error(features.made, features.real),
        }
        notes = (
            [] if self.network == "inception" else [f"Features of {self.network}: not comparable with KID."]
        )
        return Measured(values, {**features.facts, "subset_size": size}, notes)


def kernel_distance_error(x: Tensor, y: Tensor) -> float:
    """Standard error of the kernel distance between two sets of features, (M, F) and (N, F).

    Jackknife: the distance is recomputed without each sample in turn, and the variances of both sets are
    added. For a set of n samples, variance = (n - 1) / n * SUM (d_i - mean(d))**2. nan for sets of fewer
    than three.

    Source: Efron & Stein (1981), The jackknife estimate of variance; the kernel of KID.
    """
    x, y = x.double(), y.double()
    if min(len(x), len(y)) < 3:
        return math.nan
    within_x, within_y, across = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    without_x = _left_out(within_x) - 2 * _left_out(across, rows_only=True)
    without_y = _left_out(within_y) - 2 * _left_out(across.T, rows_only=True)
    variances = [(len(d) - 1) * d.var(correction=0) for d in (without_x, without_y)]
    return float(sum(variances)) ** 0.5


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """KID's polynomial kernel of all pairs: (M, F), (N, F) -> (M, N)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def _left_out(kernel: Tensor, *, rows_only: bool = False) -> Tensor:
    """Mean of a kernel without sample i, for each i; without rows_only, rows and columns, no diagonal."""
    n = len(kernel)
    rows = kernel.sum(1)
    if rows_only:
        return (kernel.sum() - rows) / ((n - 1) * kernel.shape[1])
    diagonal = kernel.diagonal()
    pairs = kernel.sum() - diagonal.sum() - 2 * (rows - diagonal)
    return pairs / ((n - 1) * (n - 2))


def _deepest_means(name: TrunkName, weights: str | None, pixels: Tensor) -> tuple[Tensor]:
    """Features of 8-bit images: (N, 3, H, W) -> ((N, F),)."""
    (features,) = trunk_features(name, pixels / 127.5 - 1, (len(TRUNKS[name].taps) - 1,), weights)
    return (features.mean((2, 3)),)


class _Features:
    """Features (N, F) of translations and of real images."""

    def __init__(
        self,
        subject: Subject,
        network: Callable[[Tensor], tuple[Tensor, ...]],
        weights: Weights,
        num_inputs: int,
        num_styles: int,
    ) -> None:
        subject.check_colours(subject.to)
        inputs = subject.inputs(num_inputs)
        of_case = functools.partial(_features, network)
        made = subject.over_inputs(inputs, subject.samples(num_styles), lambda case: of_case(case.outputs))
        self.made = made.flatten(0, 1)
        real = subject.several_targets(num_inputs)
        shown = progress_over(real, len(real), "real images") if subject.group.is_main else real
        self.real = torch.cat([of_case(subject.target(index)[None]).cpu() for index in shown])
        self.facts = {
            "num_translations": len(self.made),
            "num_real": len(self.real),
            "network_weights": {"source": weights.source, "sha256": weights.sha256},
        }


def _features(network: Callable[[Tensor], tuple[Tensor, ...]], images: Tensor) -> Tensor:
    """(N, 1 or 3, H, W) in [-1, 1] -> (N, F); FID is defined on 8-bit RGB."""
    pixels = ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    parts = torch.split(pixels.expand(-1, 3, -1, -1), CHUNK)
    return torch.cat([network(part)[0] for part in parts])


def _inception(weights: Weights, device: torch.device) -> nn.Module:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.pth"  # torch-fidelity only reads weights from a file
        torch.save(dict(weights.tensors), file)
        try:
            network = FeatureExtractorInceptionV3(
                "i2ikit", [FEATURES], feature_extractor_weights_path=str(file)
            )
        except RuntimeError as error:
            message = f"{weights.source} does not hold the weights of {INCEPTION.name}: {error}"
            raise WeightsError(message) from error
    return network.to(device)

"""LPIPS: the numbers are those of the library, for every trunk and version."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import lpips
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from i2ikit.errors import DataError, WeightsError
from i2ikit.metrics.perceptual import LEAST_SIDE, NETWORKS, PerceptualDistance
from i2ikit.pretrained.weights import load_weights

BUILDERS = {"alex": "alexnet", "vgg": "vgg16", "squeeze": "squeezenet1_1"}
COMBINATIONS = [(trunk, version) for trunk in BUILDERS for version in ("0.0", "0.1")]


@pytest.fixture(scope="module")
def trunks() -> dict[str, nn.Module]:
    """The convolutions of each trunk, with random weights."""
    torch.manual_seed(1)
    layers = torchvision.models.vgg
    return {
        "alex": torchvision.models.AlexNet().features,
        "vgg": layers.make_layers(layers.cfgs["D"]),
        "squeeze": torchvision.models.SqueezeNet("1_1").features,
    }


def official(trunk: str, version: str, features: nn.Module) -> lpips.LPIPS:
    """The library as its users have it, but for the trunk's download."""
    with pytest.MonkeyPatch.context() as patch:
        build = functools.partial(SimpleNamespace, features=features)
        patch.setattr(lpips.pretrained_networks.tv, BUILDERS[trunk], build)
        return lpips.LPIPS(net=trunk, version=version, verbose=False)


def ours(trunk: str, version: str, features: nn.Module, tmp_path) -> PerceptualDistance:
    file = tmp_path / f"{trunk}.safetensors"
    save_file({f"features.{k}": v for k, v in features.state_dict().items()}, file)
    return PerceptualDistance(trunk, version, load_weights(NETWORKS[trunk], file))


def pictures(count: int, side: int) -> Tensor:
    x = torch.rand(count, 3, side, side) * 2 - 1
    return nn.functional.avg_pool2d(x, 3, 1, 1)


@pytest.mark.slow
@pytest.mark.parametrize(("trunk", "version"), COMBINATIONS)
@torch.no_grad()
def test_distances_equal_those_of_the_library_to_1e_6(trunk, version, trunks, tmp_path) -> None:
    expected = official(trunk, version, trunks[trunk])
    distance = ours(trunk, version, trunks[trunk], tmp_path)
    x, y = pictures(18, 48), pictures(18, 48)
    assert expected(x, y).std() > 1e-5
    assert torch.allclose(distance(x, y), expected(x, y).flatten(), rtol=0, atol=1e-6)
    first, second = [0, 0, 5, 17], [1, 17, 5, 3]
    pairs = distance.between(distance.features(x), first, second)
    assert torch.allclose(pairs, expected(x[first], x[second]).flatten(), rtol=0, atol=1e-6)
    assert pairs[2] == 0


@torch.no_grad()
def test_many_pairs_are_compared_in_parts(trunks, tmp_path, monkeypatch) -> None:
    distance = ours("alex", "0.1", trunks["alex"], tmp_path)
    features = distance.features(pictures(6, 40))
    first, second = torch.triu_indices(6, 6, 1).tolist()
    whole = distance.between(features, first, second)
    monkeypatch.setattr("i2ikit.metrics.perceptual.MOST_NUMBERS", 1)
    assert torch.allclose(distance.between(features, first, second), whole, atol=1e-7)


@torch.no_grad()
def test_grey_images_are_repeated_three_times(trunks, tmp_path) -> None:
    distance = ours("alex", "0.1", trunks["alex"], tmp_path)
    x, y = pictures(2, 40)[:, :1], pictures(2, 40)[:, :1]
    assert torch.equal(distance(x, y), distance(x.repeat(1, 3, 1, 1), y.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize("trunk", BUILDERS)
@torch.no_grad()
def test_images_below_the_least_side_are_refused_with_a_sentence(trunk, trunks, tmp_path) -> None:
    distance = ours(trunk, "0.1", trunks[trunk], tmp_path)
    side = LEAST_SIDE[trunk]
    assert distance(pictures(1, side), pictures(1, side)).isfinite()
    with pytest.raises(DataError, match=f"{side - 1}x{side - 1} px are too small .* needs {side} px"):
        distance.features(pictures(1, side - 1))


def test_weights_of_another_trunk_are_refused(trunks, tmp_path) -> None:
    file = tmp_path / "vgg.safetensors"
    save_file({f"features.{k}": v for k, v in trunks["vgg"].state_dict().items()}, file)
    with pytest.raises(WeightsError, match="does not hold the weights of the trunk 'alex'"):
        PerceptualDistance("alex", "0.1", load_weights(NETWORKS["alex"], file))


def test_building_it_leaves_the_random_numbers_alone(trunks, tmp_path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    ours("alex", "0.0", trunks["alex"], tmp_path)
    assert torch.rand(1) == expected


@pytest.mark.parametrize(
    ("trunk", "version", "flipped", "faded"),
    [
        ("alex", "0.0", 0.126469, 0.022042),
        ("alex", "0.1", 0.186969, 0.024102),
        ("vgg", "0.0", 0.129894, 0.046113),
        ("vgg", "0.1", 0.331571, 0.067903),
    ],
)
@torch.no_grad()
def test_the_published_weights_give_these_distances(
    published_weights, trunk, version, flipped, faded
) -> None:
    """Measured once with lpips' own forward(), on weights that gave the published distances of the three
    images in the LPIPS repository, 0.722 and 0.138 (alex, v0.1).
    """
    distance = PerceptualDistance(trunk, version, published_weights(NETWORKS[trunk]))
    row = torch.linspace(-1, 1, 64)
    waves = torch.stack([row.expand(64, -1), row[:, None].expand(-1, 64), (row * 9).sin().expand(64, -1)])
    x = waves[None]
    assert distance(x, x.flip(1)).item() == pytest.approx(flipped, abs=1e-5)
    assert distance(x, x * 0.5).item() == pytest.approx(faded, abs=1e-5)

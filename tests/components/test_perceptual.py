"""MUNIT's domain-invariant perceptual loss."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import vgg

from i2ikit.components.perceptual import VGGPerceptual
from i2ikit.errors import WeightsError


@pytest.fixture(scope="module")
def features() -> nn.Module:
    """VGG-16's convolutions with random weights that keep the signal alive, up to relu5_3."""
    torch.manual_seed(2)
    network = vgg.make_layers(vgg.cfgs["D"])
    for layer in network:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    return network[:30].requires_grad_(False)


@pytest.fixture(scope="module")
def loss(features, tmp_path_factory: pytest.TempPathFactory) -> VGGPerceptual:
    file = tmp_path_factory.mktemp("vgg") / "vgg.safetensors"
    save_file({f"features.{k}": v for k, v in features.state_dict().items()}, file)
    return VGGPerceptual(weights=str(file))


def written_out(features: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """ImageNet's scaling, relu5_3, instance norm, mean squared error: step by step."""
    maps = []
    for image in (x, y):
        scaled = (image + 1) / 2 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
        out = features(scaled / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))
        mean, variance = out.mean((2, 3), keepdim=True), out.var((2, 3), keepdim=True, correction=0)
        maps.append((out - mean) / (variance + 1e-5).sqrt())
    return ((maps[0] - maps[1]) ** 2).mean()


def test_it_is_the_squared_error_of_instance_normalised_features(loss, features) -> None:
    x, y = torch.rand(2, 3, 64, 64) * 2 - 1, torch.rand(2, 3, 64, 64) * 2 - 1
    expected = written_out(features, x, y)
    assert expected > 0.1
    assert loss.compare(x, y).item() == pytest.approx(expected.item(), rel=1e-4)
    assert loss.compare(x, x) == 0


def test_it_has_a_stride_of_16(features) -> None:
    assert features(torch.zeros(1, 3, 64, 48)).shape == (1, 512, 4, 3)


def test_gradients_flow_to_the_image_and_not_to_the_network(loss) -> None:
    x = torch.rand(1, 3, 32, 32, requires_grad=True)
    loss.compare(x, torch.rand(1, 3, 32, 32)).backward()
    assert x.grad.abs().sum() > 0
    assert x.grad.isfinite().all()


def test_a_constant_picture_does_not_explode(loss) -> None:
    x = torch.full((1, 3, 64, 64), 1.0, requires_grad=True)
    loss.compare(x, torch.rand(1, 3, 64, 64)).backward()
    assert x.grad.isfinite().all()


def test_grey_and_colour_can_be_compared(loss) -> None:
    grey = torch.rand(1, 1, 32, 32)
    assert loss.compare(grey, grey.expand(-1, 3, -1, -1)) == 0


def test_copies_share_the_network(loss) -> None:
    """A copy of a method for its moving average must not hold another 59 MB."""
    assert not any(isinstance(value, nn.Module) for value in vars(copy.deepcopy(loss)).values())


def test_weights_of_another_network_are_refused(tmp_path) -> None:
    save_file({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "half.safetensors")
    with pytest.raises(WeightsError, match="does not hold the weights of 'vgg16'"):
        VGGPerceptual(weights=str(tmp_path / "half.safetensors"))

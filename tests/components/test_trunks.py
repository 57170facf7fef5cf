"""Frozen trunks, the discriminator that looks through one, and what initialisation leaves alone."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torchvision.models import alexnet, vgg16

from i2ikit.components.blocks import initialise_kaiming, initialise_normal, initialise_xavier, keep_weights
from i2ikit.components.projected import ProjectedDiscriminator
from i2ikit.components.trunks import TRUNKS, trunk_features
from i2ikit.errors import ShapeError, WeightsError
from i2ikit.registry import Setting, Spec

SMALL = Spec("discriminators", "multiscale-patch", {"width": 4, "num_scales": 2})


@pytest.mark.parametrize(("name", "build"), [("alexnet", alexnet), ("vgg16", vgg16)])
def test_features_are_those_of_torchvision_after_each_relu(name, build, alexnet_file, vgg_file) -> None:
    file = alexnet_file if name == "alexnet" else vgg_file
    network = build(weights=None).features
    network.load_state_dict({k.removeprefix("features."): v for k, v in load_file(file).items()})
    x = torch.rand(2, 3, 40, 48) * 2 - 1
    y = (x + 1) / 2 - torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    y = y / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    trunk = TRUNKS[name]
    found = trunk_features(name, x, range(5), file)
    for tap, channels, features in zip(trunk.taps, trunk.channels, found, strict=True):
        assert isinstance(network[tap], nn.ReLU)
        assert features.shape[1] == channels
        torch.testing.assert_close(features, network[: tap + 1](y))
    (alone,) = trunk_features(name, x, [2], file)
    torch.testing.assert_close(alone, found[2])


@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
def test_the_least_side_is_the_one_that_really_runs(name, alexnet_file, vgg_file) -> None:
    file = alexnet_file if name == "alexnet" else vgg_file
    least = TRUNKS[name].least_side
    assert trunk_features(name, torch.rand(1, 1, least, least), [4], file)[0].numel()
    with pytest.raises(RuntimeError):
        trunk_features(name, torch.rand(1, 1, least - 1, least - 1), [4], file)


def test_features_of_float64_images_are_float64(alexnet_file) -> None:
    x = torch.rand(1, 3, 64, 64)
    double, single = (trunk_features("alexnet", image, [3], alexnet_file)[0] for image in (x.double(), x))
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, rtol=1e-3, atol=1e-4)


def projected(file: str, **options) -> ProjectedDiscriminator:
    return ProjectedDiscriminator(3, weights=file, beside=SMALL, **options)


@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (1, 3, 70, 33), (1, 3, 200, 160)])
def test_there_is_a_score_map_for_each_tap_and_those_of_the_other_discriminator(shape, alexnet_file) -> None:
    discriminator = projected(alexnet_file, num_taps=3)
    x = torch.rand(shape) * 2 - 1
    scores = discriminator(x)
    assert len(scores) == 3 + 2
    assert all(s.shape[:2] == (shape[0], 1) for s in scores)
    for ours, theirs in zip(scores[3:], discriminator.beside(x), strict=True):
        torch.testing.assert_close(ours, theirs)
    shorter = max(128, min(shape[2:]))
    assert (
        min(scores[0].shape[2:]) == (shorter - 7) // 4 + 1
    )  # AlexNet's first convolution, then 3x3 with padding


def test_a_head_is_a_projection_and_two_convolutions_of_norm_1(alexnet_file) -> None:
    discriminator = projected(alexnet_file, num_taps=1, side=64, width=8)
    initialise_normal(discriminator, 0.02)
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    projection, first, _, last = discriminator.heads[0]
    (y,) = trunk_features("alexnet", x, [0], alexnet_file)
    y = F.conv2d(y, projection.weight)
    for layer, pad in ((first, 1), (last, 0)):
        w = layer.parametrizations.weight.original
        norm = torch.linalg.matrix_norm(w.flatten(1), 2)
        y = F.conv2d(F.leaky_relu(y, 0.2) if layer is last else y, w / norm, layer.bias, padding=pad)
    torch.testing.assert_close(discriminator.eval()(x)[0], y, rtol=0.05, atol=1e-3)


def test_the_trunk_is_no_part_of_the_discriminator(alexnet_file) -> None:
    """Neither trained, nor saved, nor copied; only heads and the other discriminator are."""
    discriminator = projected(alexnet_file, num_taps=2, width=8)
    discriminator(torch.rand(1, 3, 64, 64))
    names = {name.split(".")[0] for name in discriminator.state_dict()}
    assert names == {"heads", "beside"}
    again = copy.deepcopy(discriminator).eval()
    x = torch.rand(1, 3, 64, 64)
    for ours, theirs in zip(discriminator.eval()(x), again(x), strict=True):
        assert torch.equal(ours, theirs)
    fixed = [n for n, p in discriminator.named_parameters() if not p.requires_grad]
    assert fixed == ["heads.0.0.weight", "heads.1.0.weight"]


def test_gradients_reach_the_image_through_the_trunk(alexnet_file) -> None:
    x = torch.rand(1, 3, 64, 64, requires_grad=True)
    projected(alexnet_file, num_taps=4)(x)[3].sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_wrong_uses_are_answered(alexnet_file, tmp_path) -> None:
    with pytest.raises(ShapeError, match="need 1 or 3 channels, got 5"):
        ProjectedDiscriminator(5)
    options = {"trunk": "alexnet", "side": 24, "weights": alexnet_file}
    assert list(ProjectedDiscriminator.problems(options, Setting(64, 4))) == [
        "side = 24 is too small for trunk 'alexnet'; use 31 or more"
    ]
    options = {"trunk": "alexnet", "side": 128, "weights": str(tmp_path / "none.safetensors")}
    (problem,) = ProjectedDiscriminator.problems(options, Setting(64, 4))
    assert "the trunk 'alexnet' needs its weights" in problem
    with pytest.raises(WeightsError):
        ProjectedDiscriminator(3, weights=str(tmp_path / "none.safetensors"))(torch.rand(1, 3, 64, 64))


def test_a_finished_run_needs_no_trunk(tmp_path) -> None:
    """The discriminator can be built, and left unused, where the weights are not."""
    ProjectedDiscriminator(3, weights=str(tmp_path / "none.safetensors"))


STARTS = {
    "kaiming": (initialise_kaiming, (2 / (64 * 9)) ** 0.5),
    "normal": (lambda module: initialise_normal(module, 0.02), 0.02),
    "xavier": (lambda module: initialise_xavier(module, 0.02), 0.02 * (2 / (2 * 64 * 9)) ** 0.5),
}


@pytest.mark.parametrize("start", STARTS)
def test_initialisation_reaches_what_is_behind_spectral_norm(start: str) -> None:
    initialise, std = STARTS[start]
    layer = parametrizations.spectral_norm(nn.Conv2d(64, 64, 3))
    initialise(layer)
    assert layer.parametrizations.weight.original.std().item() == pytest.approx(std, rel=0.03)
    assert not layer.bias.any()
    layer.eval()
    assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.1)


def test_initialisation_reaches_what_is_behind_weight_norm() -> None:
    layer = parametrizations.weight_norm(nn.Linear(400, 400))
    initialise_normal(layer, 0.02)
    assert layer.weight.std().item() == pytest.approx(0.02, rel=0.03)


@pytest.mark.filterwarnings("ignore")  # the function is deprecated
def test_initialisation_reaches_the_weight_of_torch_s_older_spectral_norm() -> None:
    layer = torch.nn.utils.spectral_norm(nn.Conv2d(64, 64, 3))
    initialise_normal(layer, 0.02)
    assert layer.weight_orig.std().item() == pytest.approx(0.02, rel=0.03)


@pytest.mark.filterwarnings("ignore")
def test_a_weight_that_cannot_be_reached_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"Linear has no parameter 'weight' to initialise.*keep_weights"):
        initialise_normal(torch.nn.utils.weight_norm(nn.Linear(2, 2)), 0.02)


@pytest.mark.parametrize("how", ["frozen", "kept", "kept inside", "frozen behind spectral norm"])
def test_initialisation_leaves_alone_what_was_loaded_or_frozen(how: str) -> None:
    trunk = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Sequential(nn.Linear(8, 8)))
    if "spectral" in how:
        trunk = parametrizations.spectral_norm(nn.Conv2d(3, 8, 3)).eval()
    if "frozen" in how:
        trunk.requires_grad_(False)
    elif how == "kept":
        keep_weights(trunk)
    else:
        keep_weights(trunk[0])
        keep_weights(trunk[2])
    before = copy.deepcopy(trunk.state_dict())
    whole = nn.Sequential(trunk, nn.Conv2d(8, 1, 1))
    for initialise, _ in STARTS.values():
        initialise(whole)
    assert all(torch.equal(tensor, before[name]) for name, tensor in trunk.state_dict().items())
    assert not whole[1].bias.any()

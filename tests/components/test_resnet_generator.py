"""The ResNet generator; its outputs are compared with those of the official one in tests/reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, export
from torch.nn import functional as F

from i2ikit.components.resnet_generator import Blur, Downsampling, ResNetGenerator, Upsampling
from i2ikit.draws import counted_draws
from i2ikit.errors import ComponentError, ShapeError
from i2ikit.registry import Spec
from i2ikit.sizes import SizeRequirement


def small(latent_dim: int = 0, **options: object) -> ResNetGenerator:
    return ResNetGenerator(3, 3, latent_dim, **{"width": 2, "num_residual": 2, **options})  # type: ignore[arg-type]


def translated(generator: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return generator(x, x.new_zeros(len(x), 0))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts_are_the_official_ones() -> None:
    """With instance norm, where the official convolutions have biases too."""
    with torch.device("meta"):
        assert count(ResNetGenerator(3, 3, 0)) == 11_378_179
        assert count(ResNetGenerator(3, 3, 0, antialias_down=True, antialias_up=True)) == 11_378_179
        assert count(ResNetGenerator(3, 3, 0, num_residual=6)) == 7_837_699


@pytest.mark.parametrize("antialias_down", [False, True])
@pytest.mark.parametrize("antialias_up", [False, True])
def test_sides_are_rounded_up_to_a_multiple(antialias_down: bool, antialias_up: bool) -> None:
    generator = small(antialias_down=antialias_down, antialias_up=antialias_up)
    for height, width in ((8, 12), (33, 30), (9, 16)):
        found = translated(generator, torch.rand(1, 3, height, width))
        assert found.shape == (1, 3, -(-height // 4) * 4, -(-width // 4) * 4)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(("num_downsample", "smallest"), [(1, 4), (2, 8), (3, 16)])
def test_the_smallest_side_is_the_one_that_really_runs(
    num_downsample: int, smallest: int, antialias: bool
) -> None:
    """One multiple less fails: a reflection needs more pixels."""
    options = {"num_downsample": num_downsample}
    assert ResNetGenerator.size_requirement(options) == SizeRequirement(smallest, 2**num_downsample)
    generator = small(num_downsample=num_downsample, antialias_down=antialias)
    translated(generator, torch.rand(1, 3, smallest, smallest))
    side = smallest - 2**num_downsample
    with pytest.raises(RuntimeError):
        translated(generator, torch.rand(1, 3, side, side))


def test_a_code_reaches_every_pixel_through_instance_norm() -> None:
    generator = small(latent_dim=3)
    x = torch.rand(1, 3, 16, 24)
    one, two = generator(x, torch.randn(1, 3)), generator(x, torch.randn(1, 3))
    assert ((one - two).abs() > 1e-4).float().mean() > 0.9
    with pytest.raises(ShapeError, match=r"the code should be \(N, 3\), got \(1, 5\)"):
        generator(x, torch.rand(1, 5))


def test_the_blur_is_a_binomial_filter_at_every_second_pixel() -> None:
    """Written out for one row and column, with reflected borders; a constant image stays constant."""
    x = torch.rand(2, 3, 7, 6, dtype=torch.float64)
    blurred = Blur().double()(x)
    assert blurred.shape == (2, 3, 4, 3)
    around = F.pad(x, (1, 1, 1, 1), "reflect")[:, :, 4:7, 2:5]
    weights = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64)
    expected = torch.einsum("nchw,h,w->nc", around, weights, weights) / 16
    torch.testing.assert_close(blurred[:, :, 2, 1], expected)
    torch.testing.assert_close(Blur()(torch.ones(1, 2, 5, 5)), torch.ones(1, 2, 3, 3))


def test_antialiased_layers_move_with_the_image_more_than_strided_ones() -> None:
    """A shift by one pixel of the input of downsampling changes the mean of the output less."""
    x = torch.rand(8, 2, 33, 32)
    changes = {}
    for antialias in (False, True):
        torch.manual_seed(1)
        layer = Downsampling(2, 8, norm=Spec("norms", "none"), antialias=antialias)
        with torch.no_grad():
            one, two = layer(x[:, :, :-1]), layer(x[:, :, 1:])
        inner = [y[:, :, 2:-2, 2:-2].mean((2, 3)) for y in (one, two)]
        changes[antialias] = (inner[0] - inner[1]).abs().mean().item()
    assert changes[True] < 0.5 * changes[False]


def test_upsampling_interpolates_or_transposes() -> None:
    x = torch.rand(1, 4, 5, 6)
    interpolating = Upsampling(4, 2, norm=Spec("norms", "none"), antialias=True)
    larger = F.interpolate(x, size=(10, 12), mode="bilinear")
    torch.testing.assert_close(interpolating(x), F.relu(interpolating.conv(larger)))
    transposing = Upsampling(4, 2, norm=Spec("norms", "none"), antialias=False)
    assert isinstance(transposing.conv, nn.ConvTranspose2d)
    assert transposing(x).shape == (1, 2, 10, 12)


def test_constants_are_not_saved() -> None:
    antialiased = small(antialias_down=True, antialias_up=True)
    assert set(antialiased.state_dict()) == set(small().state_dict())


def test_dropout_is_in_every_block_and_off_in_eval() -> None:
    generator = small(dropout=0.5)
    declared = generator.draws(32)
    assert {name: draw.shape for name, draw in declared.items()} == {
        "dropout_0": (8, 8, 8), "dropout_1": (8, 8, 8),
    }  # fmt: skip
    assert small().draws(32) == {}
    x, code = torch.rand(2, 3, 32, 32), torch.zeros(2, 0)
    one, two = (counted_draws(0, step, "phase", declared, range(2), x.dtype) for step in (0, 1))
    assert torch.equal(generator(x, code, draws=one), generator(x, code, draws=one))
    assert not torch.equal(generator(x, code, draws=one), generator(x, code, draws=two))
    only_last = {**one, "dropout_1": two["dropout_1"]}
    assert not torch.equal(generator(x, code, draws=one), generator(x, code, draws=only_last))
    with pytest.raises(ComponentError, match="dropout needs random numbers"):
        generator(x, code)
    generator.eval()
    assert torch.equal(generator(x, code), generator(x, code, draws=one))


def test_dropout_removes_activations_between_the_convolutions_of_a_block() -> None:
    """Of ones before the second convolution, a quarter become 0, the others 4/3."""
    generator = small(dropout=0.25)
    block, seen = generator.residuals[0], list[Tensor]()
    block.first.register_forward_hook(lambda module, given, y: torch.ones_like(y))  # type: ignore[union-attr]
    block.second.register_forward_pre_hook(lambda module, given: seen.append(given[0]))  # type: ignore[union-attr]
    draws = counted_draws(0, 0, "phase", generator.draws(64), range(4), torch.float32)
    generator(torch.rand(4, 3, 64, 64), torch.zeros(4, 0), draws=draws)
    (activations,) = seen
    assert activations.unique().tolist() == pytest.approx([0, 4 / 3])
    assert activations.mean().item() == pytest.approx(1, abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("norm", ["none", "bn"])
def test_an_exported_program_takes_any_batch_and_sides(norm: str, antialias: bool) -> None:
    generator = small(2, norm=Spec("norms", norm), antialias_down=antialias, antialias_up=antialias).eval()
    free = Dim.DYNAMIC
    example = torch.rand(2, 3, 16, 24), torch.rand(2, 2)
    program = export(generator, example, dynamic_shapes=({0: free, 2: free, 3: free}, {0: free})).module()
    for shape in ((2, 3, 16, 24), (5, 3, 37, 22), (3, 3, 8, 64)):
        x, code = torch.rand(shape), torch.rand(shape[0], 2)
        torch.testing.assert_close(program(x, code), generator(x, code))

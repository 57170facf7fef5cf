"""Encoders, decoder and discriminator: parameter counts and shapes of the official networks."""

from __future__ import annotations

import pytest
import torch

from i2ikit.components.blocks import initialise_kaiming, initialise_normal, initialise_xavier
from i2ikit.components.decoders import AdaINDecoder, UNet
from i2ikit.components.discriminators import MultiScaleDiscriminator, PatchGAN
from i2ikit.components.encoders import ContentEncoder, LatentEncoder, StyleEncoder
from i2ikit.draws import counted_draws
from i2ikit.errors import ComponentError, ShapeError
from i2ikit.registry import Spec
from i2ikit.sizes import SizeRequirement


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts_are_the_official_ones_at_default_widths() -> None:
    assert count(ContentEncoder(3)) == 5_385_856
    assert count(StyleEncoder(3, 8)) == 2_764_936
    assert count(AdaINDecoder(256, 3, 8, 2)) == 5_754_627 + 1_120_768
    assert count(MultiScaleDiscriminator(3)) == 8_271_171
    assert count(UNet(1, 3, 8, num_downsample=8)) == 54_792_579
    assert count(UNet(1, 3, 8, num_downsample=8, inject="input")) == 54_415_747
    assert count(LatentEncoder(3, 8)) == 2_590_032
    assert count(PatchGAN(3)) == 3_458_978


@pytest.mark.parametrize("channels", [1, 3])
def test_codes_and_images_have_the_documented_shapes(channels: int) -> None:
    x = torch.rand(2, channels, 24, 16)
    content = ContentEncoder(channels, width=4, num_residual=1)(x)
    assert content.shape == (2, 16, 6, 4)
    style = StyleEncoder(channels, 5, width=4)(x)
    assert style.shape == (2, 5)
    y = AdaINDecoder(16, channels, 5, 2, num_residual=1, mlp_width=8)(content, style)
    assert y.shape == x.shape
    assert y.abs().max() <= 1


def test_score_maps_are_a_sixteenth_and_halved_per_scale() -> None:
    scores = MultiScaleDiscriminator(3, width=4)(torch.rand(2, 3, 256, 256))
    assert [tuple(s.shape) for s in scores] == [(2, 1, 16, 16), (2, 1, 8, 8), (2, 1, 4, 4)]


@pytest.mark.parametrize(
    ("network", "seen"),
    [
        (MultiScaleDiscriminator(1, width=2, num_scales=1), 46),
        (PatchGAN(1, width=2, num_scales=1, norm=Spec("norms", "none")), 70),
    ],
)
def test_a_score_sees_as_many_pixels_as_the_docs_say(network: torch.nn.Module, seen: int) -> None:
    x = torch.rand(1, 1, 256, 256, requires_grad=True)
    network(x)[0][0, 0, 8, 8].backward()
    assert x.grad is not None
    rows = x.grad[0, 0].abs().sum(1).nonzero().flatten()
    assert int(rows.max() - rows.min()) + 1 == seen


@pytest.mark.parametrize(("scales", "layers", "smallest"), [(3, 4, 61), (2, 4, 31), (1, 4, 16), (1, 1, 2)])
def test_the_smallest_side_is_the_one_that_really_runs(scales: int, layers: int, smallest: int) -> None:
    """The check that recipes get agrees with the network on either side of the limit."""
    options = {"num_layers": layers, "num_scales": scales}
    network = MultiScaleDiscriminator(3, width=2, num_layers=layers, num_scales=scales)
    network(torch.rand(1, 3, smallest, smallest))
    assert MultiScaleDiscriminator.size_requirement(options) == SizeRequirement(smallest)
    with pytest.raises(RuntimeError):
        network(torch.rand(1, 3, smallest - 1, smallest - 1))


@pytest.mark.parametrize("num_downsample", [1, 2, 4])
def test_the_style_encoders_smallest_side_is_the_one_that_really_runs(num_downsample: int) -> None:
    smallest = max(4, 2**num_downsample)
    network = StyleEncoder(3, 8, width=2, num_downsample=num_downsample)
    network(torch.rand(1, 3, smallest, smallest))
    assert StyleEncoder.size_requirement({"num_downsample": num_downsample}) == SizeRequirement(smallest)
    with pytest.raises(RuntimeError):
        network(torch.rand(1, 3, smallest - 1, smallest - 1))


def test_a_side_that_cannot_be_halved_is_refused_by_name() -> None:
    with pytest.raises(ShapeError, match="30x32 px; both sides must be multiples of 4"):
        ContentEncoder(3, width=2)(torch.rand(1, 3, 30, 32))
    assert ContentEncoder.size_requirement({"num_downsample": 2}) == SizeRequirement(8, 4)


def test_a_style_of_another_length_is_refused() -> None:
    decoder = AdaINDecoder(4, 3, 8, 1, num_residual=1, mlp_width=4)
    with pytest.raises(ShapeError, match=r"the style should be \(N, 8\), got \(1, 5\)"):
        decoder(torch.rand(1, 4, 8, 8), torch.rand(1, 5))


def test_one_sample_decodes_as_it_does_in_a_batch() -> None:
    decoder = AdaINDecoder(8, 3, 4, 2, num_residual=2, mlp_width=8).double()
    content, style = torch.rand(3, 8, 8, 8).double(), torch.randn(3, 4).double()
    alone = torch.cat([decoder(content[n : n + 1], style[n : n + 1]) for n in range(3)])
    torch.testing.assert_close(decoder(content, style), alone)


def test_initial_weights_have_the_documented_spread() -> None:
    encoder = ContentEncoder(3)
    initialise_kaiming(encoder)
    weight = encoder.layers[2].conv.weight
    assert weight.std().item() == pytest.approx((2 / (128 * 16)) ** 0.5, rel=0.02)
    critic = MultiScaleDiscriminator(3)
    initialise_normal(critic, 0.02)
    assert critic.scales[0][2].conv.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert not critic.scales[0][2].conv.bias.any()
    xavier = UNet(3, 3, 8)
    initialise_xavier(xavier, 0.02)
    weight = xavier.up[2].weight  # (512, 128, 4, 4): fan in 128 * 16, fan out 512 * 16
    assert weight.std().item() == pytest.approx(0.02 * (2 / (640 * 16)) ** 0.5, rel=0.02)


@pytest.mark.parametrize(("scales", "layers"), [(2, 3), (1, 3), (3, 2), (1, 1)])
def test_the_smallest_side_of_a_patchgan_is_the_one_that_really_runs(scales: int, layers: int) -> None:
    options = {"num_layers": layers, "num_scales": scales}
    network = PatchGAN(3, width=2, num_layers=layers, num_scales=scales)
    smallest = PatchGAN.size_requirement(options).minimum
    assert all(scores.numel() for scores in network(torch.rand(1, 3, smallest, smallest)))
    with pytest.raises(RuntimeError):
        network(torch.rand(1, 3, smallest - 1, smallest - 1))


@pytest.mark.parametrize("inject", ["all", "input"])
def test_a_code_reaches_every_pixel_and_sides_are_kept(inject: str) -> None:
    unet = UNet(1, 3, 4, width=4, num_downsample=3, inject=inject)
    x = torch.rand(1, 1, 16, 24)
    one, two = unet(x, torch.randn(1, 4)), unet(x, torch.randn(1, 4))
    assert one.shape == (1, 3, 16, 24)
    assert ((one - two).abs().amin((2, 3)) > 0).all()


def test_dropout_is_where_the_layers_are_widest_and_off_in_eval() -> None:
    unet = UNet(3, 3, 8, width=2, num_downsample=8, dropout=0.5)
    declared = unet.draws(256)
    assert {name: draw.shape for name, draw in declared.items()} == {
        "dropout_4": (16, 16, 16), "dropout_5": (16, 8, 8), "dropout_6": (16, 4, 4),
    }  # fmt: skip
    x, code = torch.rand(2, 3, 256, 256), torch.randn(2, 8)
    one, two = (counted_draws(0, step, "phase", declared, range(2), x.dtype) for step in (0, 1))
    assert torch.equal(unet(x, code, draws=one), unet(x, code, draws=one))
    assert not torch.equal(unet(x, code, draws=one), unet(x, code, draws=two))
    with pytest.raises(ComponentError, match="dropout needs random numbers"):
        unet(x, code)
    unet.eval()
    assert torch.equal(unet(x, code), unet(x, code, draws=one))


def test_dropout_keeps_the_mean_and_removes_the_share_that_was_asked_for() -> None:
    """A level of ones: a quarter of them become 0, the others 4/3."""
    unet = UNet(3, 3, 8, width=2, num_downsample=8, dropout=0.25)
    seen: list[torch.Tensor] = []
    unet.up_norms[4].register_forward_hook(lambda module, given, y: torch.ones_like(y))
    unet.up[3].register_forward_pre_hook(lambda module, given: seen.append(given[0][:, :16]))
    draws = counted_draws(0, 0, "phase", unet.draws(256), range(2), torch.float32)
    unet(torch.rand(2, 3, 256, 256), torch.randn(2, 8), draws=draws)
    (level,) = seen
    assert level.detach().unique().tolist() == pytest.approx([0, 4 / 3])
    assert level.mean().item() == pytest.approx(1, abs=0.03)


def test_a_u_net_says_what_it_cannot_do() -> None:
    with pytest.raises(ShapeError, match="96x64 px; both sides must be multiples of 64"):
        UNet(3, 3, 8, width=2)(torch.rand(1, 3, 96, 64), torch.rand(1, 8))
    with pytest.raises(ShapeError, match=r"the code should be \(N, 8\), got \(1, 5\)"):
        UNet(3, 3, 8, width=2)(torch.rand(1, 3, 64, 64), torch.rand(1, 5))


@pytest.mark.parametrize("shape", [(64, 64), (17, 90), (2, 2)])
def test_images_of_any_side_have_a_distribution_of_codes(shape: tuple[int, int]) -> None:
    mean, log_variance = LatentEncoder(3, 5, width=4)(torch.rand(2, 3, *shape))
    assert mean.shape == log_variance.shape == (2, 5)
    assert mean.isfinite().all()
    assert log_variance.isfinite().all()

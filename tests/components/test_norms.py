"""Norms against the formulas of their papers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from i2ikit.components.norms import AdaIN, BatchNorm, InstanceNorm, MunitLayerNorm, NoNorm
from i2ikit.registry import Setting, Spec, registries


def images(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return (torch.randn(3, 4, 6, 5, generator=generator, dtype=torch.float64) * 2 + 7).to(dtype)


def test_instance_norm_uses_the_biased_variance_of_each_map_and_eps_inside_the_root() -> None:
    x = images()
    mean, var = x.mean((2, 3), keepdim=True), x.var((2, 3), keepdim=True, correction=0)
    torch.testing.assert_close(InstanceNorm(4)(x), (x - mean) / torch.sqrt(var + 1e-5))


def test_adain_takes_shifts_first_then_scales_as_they_are() -> None:
    x = images()
    params = torch.arange(24, dtype=torch.float64).view(3, 8)
    mean, var = x.mean((2, 3), keepdim=True), x.var((2, 3), keepdim=True, correction=0)
    shift, scale = params[:, :4, None, None], params[:, 4:, None, None]
    expected = (x - mean) / torch.sqrt(var + 1e-5) * scale + shift
    torch.testing.assert_close(AdaIN(4)(x, params), expected)
    assert AdaIN(4).param_count() == 8


def test_munit_layer_norm_adds_eps_to_the_unbiased_deviation_over_a_whole_sample() -> None:
    x = images()
    norm = MunitLayerNorm(4).double()
    flat = x.flatten(1)
    std = flat.std(1, correction=1).view(3, 1, 1, 1)
    expected = (x - flat.mean(1).view(3, 1, 1, 1)) / (std + 1e-5)
    expected = expected * norm.gain.view(1, 4, 1, 1) + norm.bias.view(1, 4, 1, 1)
    torch.testing.assert_close(norm(x), expected)


def test_munit_layer_norm_starts_with_uniform_gains_and_no_bias() -> None:
    norm = MunitLayerNorm(10_000)
    assert 0 <= norm.gain.min() < 0.01 < 0.99 < norm.gain.max() <= 1
    assert norm.gain.mean().item() == pytest.approx(0.5, abs=0.02)
    assert not norm.bias.any()


@pytest.mark.parametrize("name", registries["norms"].names())
def test_bf16_inputs_are_summed_in_fp32(name: str) -> None:
    """A bf16 sum over 4096 values near 100 would be off by whole units. Every registered norm."""
    x = torch.randn(1, 2, 64, 64, dtype=torch.float64) + 100
    x = x.bfloat16()
    norm = Spec("norms", name)(2)
    extra = (torch.ones(1, 4),) if name == "adain" else ()
    exact = norm.double()(x.double(), *(e.double() for e in extra))
    got = norm.float()(x, *extra)
    assert got.dtype == torch.bfloat16
    assert (got.double() - exact).abs().max() < 0.02  # one bf16 rounding of values up to 4


@pytest.mark.parametrize("value", [1.0, -1.0, 0.3])
@pytest.mark.parametrize("norm", [InstanceNorm(2), AdaIN(2), MunitLayerNorm(2)])
def test_a_constant_map_is_normalised_without_gradient_or_nan(norm: nn.Module, value: float) -> None:
    x = torch.full((1, 2, 8, 8), value, requires_grad=True)
    extra = (torch.ones(1, 4),) if isinstance(norm, AdaIN) else ()
    y = norm(x, *extra)
    y.square().sum().backward()
    assert y.isfinite().all()
    assert x.grad is not None
    assert x.grad.abs().max() < 1e-3


def test_a_faint_but_real_pattern_is_still_normalised() -> None:
    """One grey level of 256 between two halves is a layout, and is kept."""
    x = torch.zeros(1, 1, 8, 8)
    x[..., 4:] = 2 / 255
    assert InstanceNorm(1)(x).std() > 0.7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("deviation", [1e-2, 1e-3, 1e-4, 3e-5])
def test_the_faint_maps_of_small_initial_weights_live(deviation: float, dtype: torch.dtype) -> None:
    """BicycleGAN's Xavier gain of 0.02 makes deviations of 5e-5; torch's own norm is the measure."""
    x = (torch.randn(1, 2, 16, 16, dtype=torch.float64) * deviation).to(dtype).requires_grad_()
    y = InstanceNorm(2)(x)
    expected = torch.nn.functional.instance_norm(x.detach().double())
    torch.testing.assert_close(y.double(), expected, rtol=0.02, atol=1e-3)
    (gradient,) = torch.autograd.grad(y.float().square().sum(), x)
    assert gradient.abs().sum() > 0


def test_batch_norm_keeps_what_differs_between_samples() -> None:
    x = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    y = BatchNorm(1).train()(x)
    assert y[0].mean().item() == pytest.approx(-1, abs=1e-3)
    assert y[1].mean().item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_batch_norm_is_torchs_in_value_gradient_and_running_statistics(
    dtype: torch.dtype, offset: float
) -> None:
    """In float64; also where the mean is large, and what fp32 cannot hold is no error of the sums."""
    x = (torch.randn(5, 3, 7, 6, dtype=torch.float64) * 2 + offset).to(dtype).requires_grad_()
    ours, torchs = (
        BatchNorm(3, momentum=0.3).to(dtype).train(),
        torch.nn.BatchNorm2d(3, momentum=0.3).double(),
    )
    pull = torch.randn(5, 3, 7, 6, dtype=torch.float64)
    y, expected = ours(x), torchs(x.double())
    close = {"rtol": 0, "atol": 1e-10 if dtype == torch.float64 else 3e-7 * (offset + 10)}
    torch.testing.assert_close(y.double(), expected, **close)
    (gradient,) = torch.autograd.grad((y.double() * pull).sum(), x)
    (wanted,) = torch.autograd.grad((expected * pull).sum(), x)
    torch.testing.assert_close(gradient, wanted, **close)
    for mine, theirs in zip(ours.norm.buffers(), torchs.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs.to(mine.dtype), rtol=1e-6, atol=1e-6)


def test_batch_norm_of_constant_channels_is_its_bias_with_a_finite_gradient() -> None:
    for value in (0.0, 1.0, -1000.0):
        x = torch.full((2, 3, 4, 4), value, requires_grad=True)
        y = BatchNorm(3).train()(x)
        (gradient,) = torch.autograd.grad((y * torch.randn_like(y)).sum(), x)
        assert y.abs().max() < 1e-3
        assert gradient.isfinite().all()


def test_batch_norm_refuses_a_batch_of_one() -> None:
    assert "batch_size = 1" in next(iter(BatchNorm.problems({"local": False}, Setting(64, 1))))
    assert list(BatchNorm.problems({"local": False}, Setting(64, 2))) == []


def test_no_norm_is_the_identity() -> None:
    x = images()
    assert NoNorm(4)(x) is x

"""Norms against the formulas of their papers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from i2ikit.components.norms import (
    AdaIN,
    BatchNorm,
    InstanceNorm,
    MunitLayerNorm,
    NoNorm,
    norm_layer,
    statistics_unchanged,
)
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


def last(x: torch.Tensor) -> torch.Tensor:
    """The same numbers in the memory format channels_last."""
    return x.contiguous(memory_format=torch.channels_last)


def with_parameters(name: str, channels: int) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """A norm in float64, and what it takes besides x."""
    norm = Spec("norms", name)(channels).double()
    generator = torch.Generator().manual_seed(2)
    params = torch.randn(3, 2 * channels, generator=generator, dtype=torch.float64)
    return norm, (params,) if name == "adain" else ()


@pytest.mark.parametrize("name", registries["norms"].names())
def test_channels_last_changes_nothing(name: str) -> None:
    """Outputs and gradients agree to 1e-12 in float64, a flat map included; the format is kept."""
    norm, extra = with_parameters(name, 4)
    x = images()
    x[1, 2] = 3.0
    weights = torch.randn_like(x)
    results = []
    for form in (x, last(x)):
        form = form.detach().requires_grad_()
        y = norm(form, *extra)
        assert y.is_contiguous(memory_format=torch.channels_last) == (form.stride()[1] == 1)
        (gradient,) = torch.autograd.grad((y * weights).sum(), form)
        results.append((y, gradient))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", registries["norms"].names())
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_second_derivatives_are_right(name: str, form: torch.memory_format) -> None:
    """By finite differences, in both memory formats: a penalty on gradients needs them."""
    norm, extra = with_parameters(name, 2)
    x = torch.randn(3, 2, 2, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x = x.contiguous(memory_format=form).requires_grad_()

    def normed(x: torch.Tensor) -> torch.Tensor:
        return norm(x.contiguous(memory_format=form), *extra)

    assert torch.autograd.gradcheck(normed, (x,))
    assert torch.autograd.gradgradcheck(normed, (x,))


@pytest.mark.parametrize("name", ["in", "adain", "ln", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sample_is_the_same_in_every_batch(name: str, dtype: torch.dtype) -> None:
    """Bit for bit in channels_last, for norms without statistics across samples."""
    norm = Spec("norms", name)(24)
    x = last(torch.randn(3, 24, 16, 16, generator=torch.Generator().manual_seed(4)).to(dtype))
    extra = (torch.randn(3, 48),) if name == "adain" else ()
    whole = norm(x, *extra)
    for n in range(3):
        assert torch.equal(norm(x[n : n + 1], *(e[n : n + 1] for e in extra)), whole[n : n + 1])


@pytest.mark.parametrize("name", ["in", "adain"])
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_large_constant_map_is_flat(name: str, form: torch.memory_format, dtype: torch.dtype) -> None:
    """Rounding of its mean is not layout: the result is 0 or the shift, whatever the value and the size."""
    norm = Spec("norms", name)(4)
    extra = (torch.arange(8.0)[None],) if name == "adain" else ()
    expected = torch.arange(4.0)[:, None, None] if name == "adain" else torch.zeros(4, 1, 1)
    for side, value in ((16, 1.7), (64, -30.0), (200, 100.0)):
        x = torch.full((1, 4, side, side), value, dtype=dtype).contiguous(memory_format=form)
        assert torch.equal(norm(x, *extra).float(), expected.expand(1, 4, side, side))


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_a_large_mean_costs_few_digits(form: torch.memory_format) -> None:
    """At 256 px and a mean of 10 deviations, fp32 differs by at most 1e-5 of the largest value."""
    x = torch.randn(1, 4, 256, 256, generator=torch.Generator().manual_seed(5), dtype=torch.float64) + 10
    exact = InstanceNorm(4)(x)
    got = InstanceNorm(4)(x.float().contiguous(memory_format=form))
    assert (got - exact).abs().max() <= 1e-5 * exact.abs().max()


class Viewing(nn.Module):
    """A third party's norm, which needs a contiguous x."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Divide each sample by its largest value."""
        return x / x.view(len(x), -1).amax(1)[:, None, None, None]


def test_a_norm_that_declares_nothing_gets_a_contiguous_x() -> None:
    """It may use `view`; its result is that of the plain module."""
    x = torch.rand(3, 4, 6, 5)
    layer = norm_layer(lambda channels: Viewing(), 4)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="view"):
        Viewing()(last(x))
    assert torch.equal(layer(last(x)), Viewing()(x))
    assert norm_layer(Spec("norms", "in"), 4)._forward_pre_hooks == {}


def test_statistics_stay_unchanged_where_they_should() -> None:
    """Outside of the context, passes update them."""
    norm = BatchNorm(3).train()
    x = torch.rand(2, 3, 4, 4)
    before = {name: buffer.clone() for name, buffer in norm.named_buffers()}

    def changed() -> bool:
        return any(not torch.equal(buffer, before[name]) for name, buffer in norm.named_buffers())

    with torch.no_grad(), statistics_unchanged(norm):
        norm(x)
        assert changed()
    assert not changed()
    norm(x)
    assert changed()

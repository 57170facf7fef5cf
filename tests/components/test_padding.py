"""Convolutions with reflection padding: those of torch, but for the memory that they need."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2ikit.components.padding import ReflectionConv, conv2d_after, pad


def both(kernel: int, stride: int, padding: int) -> tuple[ReflectionConv, nn.Conv2d]:
    """The layer, and torch's with the same weights."""
    ours = ReflectionConv(3, 5, kernel, stride, padding)
    theirs = nn.Conv2d(3, 5, kernel, stride, padding, padding_mode="reflect")
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def result(layer: nn.Module, dtype: torch.dtype, side: int) -> list[Tensor]:
    """Output and gradients in this dtype, or under autocast."""
    x = torch.randn(2, 3, side, side + 1, generator=torch.Generator().manual_seed(0))
    if dtype == torch.float64:
        layer, x = layer.double(), x.double()
    x.requires_grad_()
    with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
        y = layer(torch.relu(x))
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    return [y, *torch.autograd.grad((y * weights).float().sum(), [x, *layer.parameters()])]


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(7, 1, 3), (4, 2, 1), (3, 1, 1), (1, 1, 0)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_outputs_and_gradients_are_those_of_torch(
    dtype: torch.dtype, kernel: int, stride: int, padding: int
) -> None:
    """Bit for bit, but for bf16: torch pads in fp32 there, so that its gradient is summed in fp32."""
    ours, theirs = (result(layer, dtype, 9) for layer in both(kernel, stride, padding))
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == other.dtype
        close = 2**-7 * other.abs().max() if dtype == torch.bfloat16 else 0
        assert (one - other).abs().max() <= close


def test_second_derivatives_are_right() -> None:
    """By finite differences: a penalty on gradients needs them."""
    layer = ReflectionConv(2, 3, 3, 2, 1).double()
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(layer, (x,))
    assert torch.autograd.gradgradcheck(
        lambda x, weight: conv2d_after(lambda x: F.pad(x, (1, 1, 1, 1), "reflect"), x, weight), (x, weight)
    )


def test_the_prepared_images_are_not_kept_for_the_backward_pass() -> None:
    """They are freed after the forward pass, and made again, once, in the backward pass."""
    made: list[weakref.ref[Any]] = []

    def prepare(x: Tensor) -> Tensor:
        array = np.pad(x.detach().numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
        made.append(weakref.ref(array))
        return torch.from_numpy(array)

    x, weight = torch.randn(1, 2, 4, 4), torch.randn(3, 2, 3, 3, requires_grad=True)
    y = conv2d_after(prepare, x, weight)
    assert [array() for array in made] == [None]
    kept = F.conv2d(prepare(x), weight)
    assert made[-1]() is not None
    for result in (y, kept):
        result.square().sum().backward()
    assert len(made) == 3
    with torch.no_grad():
        conv2d_after(prepare, x, weight)
    assert len(made) == 4


@pytest.mark.parametrize("changed", ["input", "weight"])
def test_a_change_in_place_before_the_backward_pass_is_an_error(changed: str) -> None:
    """As torch reports it for tensors that it keeps itself: by an optimizer's step, for example."""
    layer = ReflectionConv(2, 3, 3, 1, 1)
    x = torch.randn(1, 2, 4, 4)
    y = layer(x.requires_grad_())
    with torch.no_grad():
        {"input": x, "weight": layer.weight}[changed].add_(1)
    with pytest.raises(RuntimeError, match="was changed before its backward pass"):
        y.sum().backward()


def test_a_weight_in_the_memory_of_the_images_has_its_own_gradient() -> None:
    """It is told from the prepared images by its shape or strides."""
    x = torch.randn(2, 2, 1, 1)
    weight = x.transpose(0, 1).requires_grad_()
    found = torch.autograd.grad(conv2d_after(lambda x: x, x, weight).square().sum(), weight)
    expected = torch.autograd.grad(F.conv2d(x, weight).square().sum(), weight)
    assert torch.equal(found[0], expected[0])


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_transforms_inference_mode_and_tracing_work() -> None:
    """There, images are padded as usual."""
    layer = ReflectionConv(2, 3, 3, 1, 1).requires_grad_(False)
    x = torch.randn(1, 2, 4, 4)
    expected = torch.autograd.grad(layer(x.requires_grad_()).sum(), x)[0]
    assert torch.equal(torch.func.grad(lambda x: layer(x).sum())(x.detach()), expected)
    with torch.inference_mode():
        inside = x * 1
    assert torch.equal(layer(inside), layer(x))
    assert torch.func.vmap(layer)(x.detach()).shape == (1, 3, 4, 4)
    traced = torch.jit.trace(layer, x.detach())  # type: ignore[no-untyped-call]
    assert torch.equal(traced(x), layer(x))


@pytest.mark.parametrize("sides", [(1, 1, 1, 1), (0, 0, 1, 1), (2, 0, 0, 3)])
def test_edges_are_repeated_in_compiled_programs_too(
    sides: tuple[int, int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values and gradients are those of F.pad."""
    x = torch.randn(2, 3, 4, 1, requires_grad=True)
    expected = pad(x, sides, "replicate")
    monkeypatch.setattr(torch.compiler, "is_dynamo_compiling", lambda: True)
    found = pad(x, sides, "replicate")
    assert torch.equal(found, expected)
    weights = torch.randn(found.shape)
    one, other = (torch.autograd.grad((y * weights).sum(), x)[0] for y in (found, expected))
    torch.testing.assert_close(one, other)


def test_several_backward_passes_of_one_graph_agree() -> None:
    """The images are prepared anew in each."""
    layer = ReflectionConv(2, 3, 3, 1, 1)
    loss = layer(torch.randn(1, 2, 4, 4)).square().sum()
    first, second = (torch.autograd.grad(loss, layer.weight, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)

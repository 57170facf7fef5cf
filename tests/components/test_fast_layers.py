"""Fast layers equal the plain ones, but for rounding: upsampling and 5x5, and 7x7 to few channels."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from i2ikit.components.decoders import AdaINDecoder
from i2ikit.components.space_to_depth import SpaceToDepthConv
from i2ikit.components.upsampling import UpsampledConv
from i2ikit.errors import ShapeError
from i2ikit.registry import Spec

Layer = UpsampledConv | SpaceToDepthConv
LAYERS = [UpsampledConv, SpaceToDepthConv]
SIZES = {
    UpsampledConv: [(2, 2), (2, 5), (3, 2), (4, 4), (7, 5), (16, 9)],
    SpaceToDepthConv: [(4, 4), (4, 6), (10, 4), (5, 4), (6, 7), (16, 18)],
}
each_layer = pytest.mark.parametrize("make", LAYERS)


def plain(conv: Layer) -> nn.Module:
    """The layers that it replaces, with its weights."""
    side = conv.kernel_size[0]
    layer = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        side,
        1,
        side // 2,
        padding_mode="reflect",
        dtype=conv.weight.dtype,
    )
    layer.load_state_dict(conv.state_dict())
    if isinstance(conv, SpaceToDepthConv):
        return nn.Sequential(layer)
    return nn.Sequential(nn.Upsample(scale_factor=2), layer)


def random_images(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gradients(layer: nn.Module, x: Tensor, weights: Tensor) -> list[Tensor]:
    """Of a weighted sum of the output, with respect to the input and the parameters."""
    x = x.clone().requires_grad_()
    return list(torch.autograd.grad((layer(x) * weights).sum(), [x, *layer.parameters()]))


@pytest.mark.parametrize("channels", [(1, 1), (3, 2), (5, 7)])
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("make", "size"), [(make, size) for make, sizes in SIZES.items() for size in sizes])
def test_outputs_and_gradients_are_those_of_the_plain_layers(
    make: type[Layer], size: tuple[int, int], form: torch.memory_format, channels: tuple[int, int]
) -> None:
    """To 1e-12 in float64, every row and column of the border included."""
    conv = make(*channels).double()
    x = random_images(2, channels[0], *size).contiguous(memory_format=form)
    expected = plain(conv)(x)
    torch.testing.assert_close(conv(x), expected, rtol=0, atol=1e-12)
    weights = random_images(*expected.shape, seed=1)
    found, wanted = gradients(conv, x, weights), gradients(plain(conv), x, weights)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@each_layer
def test_single_precision_differs_by_rounding(make: type[Layer]) -> None:
    """At most 1e-5 of the largest value, for outputs and for gradients."""
    conv = make(48, 24)
    x = random_images(2, 48, 16, 16, dtype=torch.float32)
    weights = random_images(*plain(conv)(x).shape, seed=1, dtype=torch.float32)
    ours = [conv(x), *gradients(conv, x, weights)]
    theirs = [plain(conv)(x), *gradients(plain(conv), x, weights)]
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).abs().max() <= 1e-5 * other.abs().max()


@each_layer
def test_bf16_rounds_no_worse_than_the_plain_layers(make: type[Layer]) -> None:
    """Under autocast: bf16 comes out, and its mean error is at most 1.2 times that of the plain layers."""
    conv = make(48, 24)
    x = random_images(2, 48, 16, 16, dtype=torch.float32)
    exact = plain(conv)(x)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = conv(x), plain(conv)(x)
    assert ours.dtype == theirs.dtype == torch.bfloat16
    errors = [(y.float() - exact).abs().mean().item() for y in (ours, theirs)]
    assert 0 < errors[0] <= 1.2 * errors[1]


@each_layer
def test_second_derivatives_are_right(make: type[Layer]) -> None:
    """By finite differences: a penalty on gradients needs them."""
    conv = make(2, 3).double()
    x = random_images(1, 2, 4, 4).requires_grad_()
    assert torch.autograd.gradcheck(conv, (x,))
    assert torch.autograd.gradgradcheck(conv, (x,))


@pytest.mark.parametrize("size", [(1, 4), (4, 1), (1, 1)])
def test_a_side_of_one_pixel_is_an_error(size: tuple[int, int]) -> None:
    """Its reflection does not exist; the plain layers fail too."""
    conv = UpsampledConv(2, 2)
    x = torch.zeros(1, 2, *size)
    with pytest.raises(ShapeError, match=f"{size[0]}x{size[1]} px"):
        conv(x)
    with pytest.raises(RuntimeError, match="Padding size"):
        plain(conv)(x)


@each_layer
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sample_is_the_same_in_every_batch(make: type[Layer], dtype: torch.dtype) -> None:
    """Bit for bit, at the widths and sizes of the recipes."""
    few = ((24, 3), 64), ((64, 3), 32)
    for channels, side in few if make is SpaceToDepthConv else (((96, 48), 16), ((48, 24), 32)):
        conv = make(*channels)
        x = random_images(5, channels[0], side, side, dtype=torch.float32)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32), torch.no_grad():
            whole = conv(x)
            for first, last in ((0, 1), (1, 3), (2, 5)):
                assert torch.equal(conv(x[first:last]), whole[first:last])


@each_layer
@torch.no_grad()
def test_nothing_is_kept_of_earlier_weights(make: type[Layer]) -> None:
    """A changed, loaded or averaged weight counts at the next call."""
    conv = make(3, 2).double()
    x = random_images(1, 3, 4, 4)
    conv(x)
    other = make(3, 2).double()
    for change in (
        lambda: conv.weight.add_(1),
        lambda: conv.weight.lerp_(other.weight, 0.5),
        lambda: conv.load_state_dict(other.state_dict()),
    ):
        change()
        torch.testing.assert_close(conv(x), plain(conv)(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(copy.deepcopy(conv)(x), conv(x), rtol=0, atol=0)


@each_layer
def test_one_step_of_an_optimizer_is_that_of_the_plain_layers(make: type[Layer]) -> None:
    """The second loss, after an update of Adam, agrees to 1e-10."""
    conv = make(3, 2).double()
    losses = []
    for layer in (copy.deepcopy(conv), plain(conv)):
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
        for _ in range(2):
            loss = layer(random_images(2, 3, 6, 4)).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)


@each_layer
def test_spectral_norm_is_that_of_the_plain_weight(make: type[Layer]) -> None:
    """The weight is parametrised as that of any convolution, and computed once for each call."""
    conv = make(3, 2).double()
    bounded = parametrizations.spectral_norm(copy.deepcopy(conv))
    layers = plain(conv)
    torch.manual_seed(0)
    layer = parametrizations.spectral_norm(layers[-1])  # type: ignore[index]
    layer.load_state_dict(bounded.state_dict())
    x = random_images(1, 3, 4, 4)
    for _ in range(3):  # each call in training mode is one power iteration
        torch.testing.assert_close(bounded(x), layers(x), rtol=0, atol=1e-12)
    ours, theirs = dict(bounded.named_buffers()), dict(layer.named_buffers())
    for name, buffer in theirs.items():
        torch.testing.assert_close(ours[name], buffer, rtol=0, atol=1e-12)


def test_hooks_see_the_layers_input_and_output() -> None:
    """The input is the small image, the output the large one."""
    conv = UpsampledConv(3, 2)
    seen: list[tuple[int, ...]] = []
    conv.register_forward_hook(lambda layer, inputs, y: seen.extend([inputs[0].shape, y.shape]))
    conv(torch.zeros(1, 3, 4, 6))
    assert seen == [(1, 3, 4, 6), (1, 2, 8, 12)]


@each_layer
def test_it_can_be_exported(make: type[Layer]) -> None:
    """The exported program computes the same."""
    conv = make(3, 2).double().eval()
    x = random_images(1, 3, 4, 6)
    program = torch.export.export(conv, (x,))
    torch.testing.assert_close(program.module()(x), plain(conv)(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ["ln", "in", "bn", "none"])
@pytest.mark.parametrize("size", [(2, 2), (3, 5), (4, 4)])
def test_a_decoder_is_that_of_the_paper(norm: str, size: tuple[int, int]) -> None:
    """Equals, to 1e-10 in float64, upsampling and 5x5 convolutions in turn, with norms and ReLU."""
    decoder = AdaINDecoder(8, 3, 4, 2, num_residual=1, mlp_width=8, up_norm=Spec("norms", norm)).double()
    seen: list[Tensor] = []
    decoder.residuals[0].register_forward_hook(lambda layer, inputs, y: seen.append(y))
    content, style = random_images(3, 8, *size), random_images(3, 4, seed=1)
    found = decoder(content, style)
    x = seen[0]
    for block in decoder.upsample:
        x = torch.relu(block.norm(plain(block.conv)(x)))
    torch.testing.assert_close(found, torch.tanh(decoder.head(x)), rtol=0, atol=1e-10)


def test_weights_have_the_names_of_the_plain_layers() -> None:
    """Weights saved before this layer existed are loaded: upsampling was a module of its own."""
    names = {name for name in AdaINDecoder(8, 3, 4, 2).state_dict() if name.startswith("upsample")}
    assert names == {
        f"upsample.{n}.{part}"
        for n in (1, 3)
        for part in ("conv.weight", "conv.bias", "norm.gain", "norm.bias")
    }

"""Upsampling by two and the 5x5 convolution after it, computed at the lower resolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2ikit.components.norms import norm_layer
from i2ikit.components.padding import ReflectionConv, conv2d_after, pad
from i2ikit.components.space_to_depth import depth_to_space
from i2ikit.errors import ShapeError
from i2ikit.registry import Spec

__all__ = ["UpsampledConv", "UpsamplingBlock"]

# Which taps of a 5-tap kernel fall on which pixel of the small image (left, same, right), for output pixels
# with even and with odd index: their neighbours in the doubled image are equal in pairs.
FOLDED = torch.tensor(
    [
        [[1.0, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]],
        [[1.0, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1]],
    ]
)


class UpsampledConv(ReflectionConv):
    """A 5x5 convolution with reflection padding and bias, of an image whose sides are doubled first.

    Equals `nn.Conv2d(in_channels, out_channels, 5, 1, 2, padding_mode="reflect")` after
    `nn.Upsample(scale_factor=2)`, with the same parameters, but computes at the lower resolution: a 3x3
    convolution with four outputs for each pixel, 9/25 of the multiplications. It differs from
    the larger convolution by rounding only.

    Shapes: (N, in_channels, H, W) -> (N, out_channels, 2H, 2W)

    Raises:
        ShapeError: a side has one pixel, which cannot be reflected.
    Source: Shi et al. (arXiv 1609.07009), for borders by zeros.
    """

    folded: Tensor

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 5, 1, 2)
        self.register_buffer("folded", FOLDED.clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve the doubled x (N, in_channels, H, W)."""
        exporting = torch.compiler.is_exporting()
        if not exporting and min(x.shape[2:]) < 2:
            raise ShapeError(f"upsampling: {x.shape[2]}x{x.shape[3]} px; both sides need two pixels or more")
        weight = self.weight  # read once: a parametrised weight is computed at each access
        # Any offset gives the same result. With the mean, a constant map stays constant: four kernels whose
        # sums are rounded differently would make a checkerboard of it, which norms amplify.
        offset = x.detach().mean((2, 3), keepdim=True)
        with torch.autocast(x.device.type, enabled=False):  # sums of weights are rounded once, by conv2d
            inner, rows, columns = self._kernels(weight)
            level = _level(offset, weight, self.bias)
        y = depth_to_space(conv2d_after(_with_edges, x - offset, inner))
        y = y + level.to(y.dtype)
        if exporting:
            return self._framed(y, x, weight)
        # The doubled image is reflected at its border: there, the outermost tap of the outermost output
        # meets the second pixel, where replication gives the first. Adding the differences is exact.
        y[..., :: y.shape[3] - 1] += _at_left_and_right(x, columns)
        y[:, :, :: y.shape[2] - 1] += _at_top_and_bottom(x, rows)
        return y

    def _framed(self, y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """y with its outermost rows and columns convolved as they are.

        An exported program cannot add to rows and columns that a size selects, as `forward` does.
        """

        def plain(part: Tensor, sides: tuple[int, ...]) -> Tensor:
            doubled = F.interpolate(part, scale_factor=2.0)
            return F.conv2d(pad(doubled, sides, "reflect"), weight, self.bias)

        left = plain(x[..., :2], (2, 0, 2, 2))[..., :1]
        right = plain(x[..., -2:], (0, 2, 2, 2))[..., -1:]
        above = plain(x[:, :, :2], (2, 2, 2, 0))[:, :, :1]
        below = plain(x[:, :, -2:], (2, 2, 0, 2))[:, :, -1:]
        columns = torch.cat([left, y[..., 1:-1], right], dim=3)
        return torch.cat([above, columns[:, :, 1:-1], below], dim=2)

    def _kernels(self, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The 3x3 kernels of the four outputs of a pixel, and those of the corrections at the borders."""
        folded = self.folded.to(weight.dtype)
        both = torch.einsum("pai,qbj->pqabij", folded, folded).reshape(36, 25)
        inner = torch.unflatten(weight.flatten(2) @ both.t(), 2, (2, 2, 3, 3)).permute(2, 3, 0, 1, 4, 5)
        rows = torch.cat([weight[:, :, :1], weight[:, :, 4:]])
        outer = torch.stack([weight[..., 0], weight[..., 4]])  # (side, out, in, 5)
        columns = torch.unflatten(outer @ folded.flatten(0, 1).t(), 3, (2, 3)).permute(0, 1, 3, 2, 4)
        return inner.flatten(0, 2), rows, columns.flatten(0, 2)[..., None]


def _with_edges(x: Tensor) -> Tensor:
    return pad(x, (1, 1, 1, 1), "replicate")


def _level(offset: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What the convolution makes of constant maps: (N, in_channels, 1, 1) -> (N, out_channels, 1, 1)."""
    # Products and sums, not a matrix product, whose rounding depends on the number of samples.
    level = (offset[:, None, :, 0, 0] * weight.sum((2, 3))).sum(2)
    return (level if bias is None else level + bias)[:, :, None, None]


def _at_left_and_right(x: Tensor, kernels: Tensor) -> Tensor:
    """What the first and the last column of the output lack, (N, out_channels, 2H, 2)."""
    steps = pad(_steps_inwards(x, 3), (0, 0, 1, 1), "replicate")
    found = torch.unflatten(F.conv2d(steps, kernels, groups=2), 1, (2, -1, 2))[..., 0]
    return found.permute(0, 2, 4, 3, 1).flatten(2, 3)  # from (N, side, out_channels, parity, H)


def _at_top_and_bottom(x: Tensor, kernels: Tensor) -> Tensor:
    """What the first and the last row of the output lack, (N, out_channels, 2, 2W)."""
    steps = pad(F.interpolate(_steps_inwards(x, 2), scale_factor=(1.0, 2.0)), (2, 2, 0, 0), "reflect")
    return torch.unflatten(F.conv2d(steps, kernels, groups=2), 1, (2, -1))[:, :, :, 0].transpose(1, 2)


def _steps_inwards(x: Tensor, dim: int) -> Tensor:
    """The second pixel less the first, from both ends of a dimension; (N, 2 * in_channels, ...)."""

    # Padding by less than nothing, because its backward pass keeps the memory format of x; that of a slice
    # does not.
    def without(x: Tensor, before: int, after: int) -> Tensor:
        return pad(x, (-before, -after) if dim == 3 else (0, 0, -before, -after), "constant")

    rest = x.shape[dim] - 2
    first, last = without(x, 0, rest), without(x, rest, 0)
    return torch.cat(
        [without(first, 1, 0) - without(first, 0, 1), without(last, 0, 1) - without(last, 1, 0)], dim=1
    )


class UpsamplingBlock(nn.Module):
    """`UpsampledConv`, norm, ReLU.

    Shapes: (N, in_channels, H, W) -> (N, out_channels, 2H, 2W)

    Args:
        norm: spec of a norm that is not adaptive.
    """

    def __init__(self, in_channels: int, out_channels: int, *, norm: Spec) -> None:
        super().__init__()
        self.conv = UpsampledConv(in_channels, out_channels)
        self.norm = norm_layer(norm, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Double the sides of x (N, in_channels, H, W)."""
        return F.relu(self.norm(self.conv(x)))

"""A residual generator, from an image and a latent code to an image, and how it changes resolution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from i2ikit.components.blocks import ConvBlock, Residual, with_code
from i2ikit.components.encoders import Width
from i2ikit.components.norms import NormSpec, norm_layer
from i2ikit.components.padding import ReflectionConv, pad
from i2ikit.draws import Draw
from i2ikit.errors import ComponentError, ShapeError
from i2ikit.registry import Spec
from i2ikit.sizes import SizeRequirement
from i2ikit.translator import Tensors

__all__ = ["Blur", "Downsampling", "ResNetGenerator", "Upsampling"]


class ResNetGenerator(nn.Module):
    """ResNet from an image and a latent code to an image; the code is added to the input as constant maps.

    A 7x7 convolution, `num_downsample` layers that halve the sides and double the width, residual blocks,
    as many layers that double the sides, a 7x7 convolution, tanh. Every convolution has a bias. The official
    code leaves out those before batch norm and, without norm, all but the last one; with a bias of 0 both are
    the same function.

    Shapes: x (N, in_channels, H, W), code (N, latent_dim) -> (N, out_channels, H, W); sides that are not
        multiples of 2**num_downsample are rounded up to one
    Values: x in [-1, 1], code unbounded; output in (-1, 1) (tanh).

    Args:
        width: channels of the first layer; CycleGAN uses 64.
        num_residual: residual blocks; CycleGAN uses 9 for 256 px and 6 for 128 px.
        num_downsample: how many times the sides are halved; CycleGAN uses 2.
        norm: norm after every convolution except the last and, if there is a code, the first; CycleGAN uses
            instance norm.
        antialias_down: halve the sides by a blur after a convolution of stride 1, as CUT does, instead of by
            a convolution of stride 2.
        antialias_up: double the sides by bilinear interpolation before a convolution, as CUT does, instead of
            by a transposed convolution.
        dropout: dropout rate inside each residual block; pix2pix with this generator uses 0.5.

    Raises:
        ShapeError: the code has the wrong length.
        ComponentError: dropout in training, without draws.
    Source: CycleGAN (arXiv 1703.10593), section 7.2, after Johnson et al. (arXiv 1603.08155); layers as in
        the official `resnet_9blocks`, and with both antialias options as in that of CUT (arXiv 2007.15651).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        latent_dim: int,
        *,
        width: Width = 64,
        num_residual: Annotated[int, Field(ge=1, le=32)] = 9,
        num_downsample: Annotated[int, Field(ge=1, le=6)] = 2,
        norm: NormSpec = Spec("norms", "in"),
        antialias_down: bool = False,
        antialias_up: bool = False,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__()
        widths = [width * 2**n for n in range(num_downsample + 1)]
        inner = widths[-1]
        # Instance norm would remove the code: it adds the same number to all pixels of a map.
        stem_norm = Spec("norms", "none") if latent_dim else norm
        self.stem = ConvBlock(in_channels + latent_dim, width, 7, 1, 3, norm=stem_norm)
        self.down = nn.Sequential(
            *(Downsampling(w, 2 * w, norm=norm, antialias=antialias_down) for w in widths[:-1])
        )
        self.residuals = nn.ModuleList(Residual(inner, norm=norm) for _ in range(num_residual))
        self.up = nn.Sequential(
            *(Upsampling(w, w // 2, norm=norm, antialias=antialias_up) for w in reversed(widths[1:]))
        )
        self.head = ReflectionConv(width, out_channels, 7, 1, 3)
        self.latent_dim = latent_dim
        self.dropout_rate = dropout
        self.inner_width = inner
        self.factor = 2**num_downsample

    @staticmethod
    def size_requirement(options: Mapping[str, Any]) -> SizeRequirement:
        """Sides that the reflections of all layers fit into, in multiples of 2**num_downsample."""
        factor = 2 ** options["num_downsample"]
        return SizeRequirement(max(4, 2 * factor), factor)

    def draws(self, size: int) -> dict[str, Draw]:
        """One uniform number for each activation that dropout may remove."""
        side = -(-size // self.factor)
        blocks = range(len(self.residuals)) if self.dropout_rate else ()
        return {f"dropout_{n}": Draw((self.inner_width, side, side), "uniform") for n in blocks}

    def forward(self, x: Tensor, code: Tensor, *, draws: Tensors | None = None) -> Tensor:
        """Translate x (N, in_channels, H, W) with code (N, latent_dim); dropout in training needs `draws`."""
        if code.shape[1:] != (self.latent_dim,):
            raise ShapeError(f"ResNet: the code should be (N, {self.latent_dim}), got {tuple(code.shape)}")
        drops = self.training and self.dropout_rate > 0
        if drops and not draws:
            raise ComponentError("ResNet: dropout needs random numbers; pass `draws` (see draws_of)")
        x = self.down(self.stem(with_code(x, code) if self.latent_dim else x))
        for n, block in enumerate(self.residuals):
            x = block(x, draws[f"dropout_{n}"] if draws and drops else None, self.dropout_rate)
        return torch.tanh(self.head(self.up(x)))


class Downsampling(nn.Module):
    """3x3 convolution, norm, ReLU; the sides are halved, and odd ones rounded up.

    Shapes: (N, in_channels, H, W) -> (N, out_channels, ceil(H / 2), ceil(W / 2))

    Args:
        norm: spec of a norm that is not adaptive.
        antialias: halve the sides by `Blur` at the end, instead of by the stride of the convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, *, norm: Spec, antialias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, 1 if antialias else 2, 1)
        self.norm = norm_layer(norm, out_channels)
        self.blur = Blur() if antialias else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Halve the sides of x (N, in_channels, H, W)."""
        return self.blur(F.relu(self.norm(self.conv(x))))


class Upsampling(nn.Module):
    """3x3 convolution, norm, ReLU; the sides are doubled.

    Shapes: (N, in_channels, H, W) -> (N, out_channels, 2H, 2W)

    Args:
        norm: spec of a norm that is not adaptive.
        antialias: double the sides by bilinear interpolation before the convolution, instead of by a
            transposed convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, *, norm: Spec, antialias: bool) -> None:
        super().__init__()
        self.antialias = antialias
        self.conv = (
            nn.Conv2d(in_channels, out_channels, 3, 1, 1)
            if antialias
            else nn.ConvTranspose2d(in_channels, out_channels, 3, 2, 1, output_padding=1)
        )
        self.norm = norm_layer(norm, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Double the sides of x (N, in_channels, H, W)."""
        if self.antialias:
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        return F.relu(self.norm(self.conv(x)))


class Blur(nn.Module):
    """A blur by [1, 2, 1] x [1, 2, 1] / 16 at every second pixel, so that downsampling does not alias.

    Shapes: (N, C, H, W) -> (N, C, ceil(H / 2), ceil(W / 2)); borders are reflected, so sides need 2 pixels
    Source: Zhang (arXiv 1904.11486), with the kernel that the official CUT code uses.
    """

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("kernel", torch.outer(line, line) / 16, persistent=False)  # a constant

    def forward(self, x: Tensor) -> Tensor:
        """Blur x (N, C, H, W) and halve its sides."""
        channels = x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(channels, 1, 3, 3)
        return F.conv2d(pad(x, (1, 1, 1, 1), "reflect"), kernel, stride=2, groups=channels)

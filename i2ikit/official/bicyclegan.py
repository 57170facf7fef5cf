"""Generators, encoders and discriminators of the BicycleGAN repository: their layout, and ours.

An official file holds the bare state dict of one network: G, E, D or D2. `names` is the table of both
layouts. `recognise` finds out what a state dict holds, from names and shapes alone; `to_ours` and
`to_official` convert.

Source: names and shapes of the networks of junyanz/BicycleGAN at 40b9d52. Those of batch norm, which is not
the default, follow from the positions of the norms, and from biases in the convolutions before them; a file
without these biases is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from i2ikit.errors import WeightsError
from i2ikit.official import tables
from i2ikit.official.fitting import cleaned, highest, official_norm, require_same, shape_of, unknown
from i2ikit.official.tables import NORMS, Entry, Norm, layer, norm_after
from i2ikit.registry import Spec

__all__ = [
    "DiscriminatorStructure",
    "EncoderStructure",
    "GeneratorStructure",
    "Structure",
    "component",
    "names",
    "recognise",
    "shapes",
    "structure_of",
    "to_official",
    "to_ours",
]

NETWORKS = "a generator, encoder or discriminator of the BicycleGAN repository"
MOST_LEVELS = 16
"""Of a U-Net; it halves images of 65,536 px to one."""

LATENT_DIM = 8
"""The length of a code in the paper and in the official scripts (`nz`)."""


@dataclass(frozen=True)
class GeneratorStructure:
    """A U-Net (G).

    Args:
        width: channels of the first layer (`ngf`).
        num_downsample: levels, 8 in `unet_256`.
        inject: the layers on the way down that get the code (`where_add`).
        norm: with tensors only if it is batch norm; the others look alike.
    """

    in_channels: int
    out_channels: int
    latent_dim: int
    width: int
    num_downsample: int
    inject: Literal["all", "input"] = "all"
    norm: Norm = "instance"


@dataclass(frozen=True)
class EncoderStructure:
    """A ResNet from an image to a distribution of codes (E).

    Args:
        width: channels of the first layer (`nef`).
        num_blocks: residual blocks, 4 in `resnet_256`.
    """

    in_channels: int
    latent_dim: int
    width: int
    num_blocks: int
    norm: Norm = "instance"


@dataclass(frozen=True)
class DiscriminatorStructure:
    """PatchGANs at several scales (D and D2); each coarser one is half as wide.

    Args:
        in_channels: a conditional discriminator sees both images.
        width: channels of the first layer at the finest scale (`ndf`).
        num_layers: convolutions between the first and the last of each scale.
    """

    in_channels: int
    width: int
    num_layers: int
    num_scales: int
    norm: Norm = "instance"


Structure = GeneratorStructure | EncoderStructure | DiscriminatorStructure


def _table(structure: Structure) -> list[Entry]:
    """Every tensor of both layouts."""
    if isinstance(structure, GeneratorStructure):
        return list(_generator(structure))
    if isinstance(structure, EncoderStructure):
        return list(_encoder(structure))
    return list(_discriminator(structure))


def _generator(s: GeneratorStructure) -> Iterator[Entry]:
    """Outermost level first; the order of concatenation is (upsampled, skip) in both layouts."""
    inner = s.num_downsample - 1
    widths = [s.width * min(2**n, 8) for n in range(s.num_downsample)]
    places = _places_all if s.inject == "all" else _places_input
    for n, (down, down_norm, up, up_norm) in enumerate(places(s.num_downsample)):
        code = s.latent_dim if n == 0 or s.inject == "all" else 0
        outside = widths[n - 1] if n else s.in_channels
        above = widths[n - 1] if n else s.out_channels
        inside = widths[n] if n == inner else 2 * widths[n]
        yield from layer(down, f"down.{n}", (widths[n], outside + code, 4, 4))
        if 0 < n < inner:
            yield from norm_after(down_norm, f"down_norms.{n}", s.norm, widths[n])
        yield from layer(up, f"up.{n}", (inside, above, 4, 4), transposed=True)
        if n:
            yield from norm_after(up_norm, f"up_norms.{n}", s.norm, above)


def _places_all(levels: int) -> Iterator[tuple[str, str, str, str]]:
    """Official names at each level of add_to_all: convolution down, its norm, convolution up, its norm."""
    prefix = "model."
    for n in range(levels):
        at = 1 if n else 0  # an activation comes first, except at the outermost level
        yield f"{prefix}down.{at}", f"{prefix}down.{at + 1}", f"{prefix}up.1", f"{prefix}up.2"
        prefix += "submodule."


def _places_input(levels: int) -> Iterator[tuple[str, str, str, str]]:
    """The same of add_to_input: a level is one nn.Sequential, in which the next level is a module."""
    prefix = "model.model."
    for n in range(levels):
        outermost, innermost = n == 0, n == levels - 1
        down, up = (0 if outermost else 1), (3 if outermost or innermost else 5)
        yield f"{prefix}{down}", f"{prefix}{down + 1}", f"{prefix}{up}", f"{prefix}{up + 1}"
        prefix += f"{1 if outermost else 3}.model."


def _encoder(s: EncoderStructure) -> Iterator[Entry]:
    widths = [s.width * min(4, n + 1) for n in range(s.num_blocks + 1)]
    yield from layer("conv.0", "first", (s.width, s.in_channels, 4, 4))
    for n in range(s.num_blocks):
        official, ours, given, made = f"conv.{n + 1}", f"blocks.{n}", widths[n], widths[n + 1]
        yield from norm_after(f"{official}.conv.0", f"{ours}.norm_first", s.norm, given)
        yield from layer(f"{official}.conv.2", f"{ours}.conv_first", (given, given, 3, 3))
        yield from norm_after(f"{official}.conv.3", f"{ours}.norm_second", s.norm, given)
        yield from layer(f"{official}.conv.5.0", f"{ours}.conv_second", (made, given, 3, 3))
        yield from layer(f"{official}.shortcut.1", f"{ours}.shortcut", (made, given, 1, 1))
    yield from layer("fc.0", "mean", (s.latent_dim, widths[-1]))
    yield from layer("fcVar.0", "log_variance", (s.latent_dim, widths[-1]))


def _discriminator(s: DiscriminatorStructure) -> Iterator[Entry]:
    """The positions in the official `nn.Sequential` are also those in ours."""
    for scale in range(s.num_scales):
        width = max(1, round(s.width / 2**scale))
        widths = [width * min(2**n, 8) for n in range(s.num_layers + 1)]
        official, ours = f"model_{scale}", f"scales.{scale}"
        yield from layer(f"{official}.0", f"{ours}.0", (width, s.in_channels, 4, 4))
        for n in range(1, s.num_layers + 1):
            at = 3 * n - 1
            yield from layer(f"{official}.{at}", f"{ours}.{at}", (widths[n], widths[n - 1], 4, 4))
            yield from norm_after(f"{official}.{at + 1}", f"{ours}.{at + 1}", s.norm, widths[n])
        last = 3 * s.num_layers + 2
        yield from layer(f"{official}.{last}", f"{ours}.{last}", (1, widths[-1], 4, 4))


def names(structure: Structure) -> dict[str, str]:
    """Our key for each official key."""
    return {entry.official: entry.ours for entry in _table(structure)}


def shapes(structure: Structure) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of the official state dict."""
    return {entry.official: entry.shape for entry in _table(structure)}


def component(structure: Structure) -> Spec:
    """Our component of this structure, for an option of the translator `bicyclegan`.

    The options are `generator`, `encoder` and `discriminator`; `latent_dim` is that of the structure. The
    dropout of a generator leaves no trace in a file.
    """
    s, options = structure, dict[str, Any](width=structure.width, norm=Spec("norms", NORMS[structure.norm]))
    if isinstance(s, GeneratorStructure):
        options |= {"num_downsample": s.num_downsample, "inject": s.inject}
        return Spec("decoders", "unet", options)
    if isinstance(s, EncoderStructure):
        return Spec("encoders", "resnet-latent", options | {"num_blocks": s.num_blocks})
    options |= {"num_layers": s.num_layers, "num_scales": s.num_scales}
    return Spec("discriminators", "patchgan", options)


def structure_of(spec: Spec, in_channels: int, out_channels: int, latent_dim: int) -> Structure:
    """The structure of one of our components; the inverse of `component`.

    Args:
        spec: with every option.

    Raises:
        WeightsError: the official repository has no such network.
    """
    known = {ours: official for official, ours in NORMS.items()}
    kinds = ("unet", "resnet-latent", "patchgan")
    if spec.name not in kinds:
        raise WeightsError(f"the official BicycleGAN has no '{spec.name}'; it has {', '.join(kinds)}")
    o, norm = spec.options, official_norm(spec, known, spec.name)
    made: Structure
    if spec.name == "unet":
        made = GeneratorStructure(
            in_channels, out_channels, latent_dim, o["width"], o["num_downsample"], o["inject"], norm
        )
    elif spec.name == "resnet-latent":
        made = EncoderStructure(in_channels, latent_dim, o["width"], o["num_blocks"], norm)
    else:
        made = DiscriminatorStructure(in_channels, o["width"], o["num_layers"], o["num_scales"], norm)
    require_same(spec, component(made))
    return made


def recognise(tensors: Mapping[str, Tensor], *, latent_dim: int = LATENT_DIM) -> Structure:
    """The structure of an official state dict, from names and shapes alone.

    Only batch norm has tensors; without any, the norm is taken to be instance norm, the official default. The
    U-Nets of pix2pix have the names of add_to_input, with another order of channels: `resnet_unet` converts
    them. The structure is checked no further than needed: `to_ours` compares every tensor with it.

    Args:
        latent_dim: length of the code of an add_to_input generator, whose file shows only the sum of the
            channels of image and code. Other files show it.

    Raises:
        WeightsError: it is not the state dict of one of these networks.
    """
    found = cleaned(tensors)
    if "fc.0.weight" in found:
        return _recognised_encoder(found)
    if any(key.startswith("model_") for key in found):
        return _recognised_discriminator(found)
    if "model.0.weight" in found:
        raise WeightsError(
            "the weights are those of a PatchGAN of one scale, which has the layout of pix2pix; "
            "i2ikit.official.resnet_unet converts it"
        )
    if {"model.up.3.weight", "model.model.5.weight"} & found.keys():
        raise WeightsError(
            "the weights are those of a U-Net with bilinear upsampling, which i2ikit does not have; that of "
            "i2ikit has transposed convolutions"
        )
    if any(key.startswith("model.down.") for key in found):
        return _recognised_all(found)
    return _recognised_input(found, latent_dim)


def _recognised_all(found: Mapping[str, Tensor]) -> GeneratorStructure:
    width, channels = shape_of(found, "model.down.0.weight", 4, NETWORKS)[:2]
    latent_dim = shape_of(found, "model.submodule.down.1.weight", 4, NETWORKS)[1] - width
    _require_code(channels, latent_dim)
    out_channels = shape_of(found, "model.up.1.weight", 4, NETWORKS)[1]
    levels = _levels(found, "model.submodule.", "submodule.")
    return GeneratorStructure(
        channels - latent_dim, out_channels, latent_dim, width, levels, "all", _seen_norm(found)
    )


def _recognised_input(found: Mapping[str, Tensor], latent_dim: int) -> GeneratorStructure:
    width, channels = shape_of(found, "model.model.0.weight", 4, NETWORKS)[:2]
    _require_code(channels, latent_dim)
    out_channels = shape_of(found, "model.model.3.weight", 4, NETWORKS)[1]
    levels = _levels(found, "model.model.1.model.", "3.model.")
    return GeneratorStructure(
        channels - latent_dim, out_channels, latent_dim, width, levels, "input", _seen_norm(found)
    )


def _levels(found: Mapping[str, Tensor], second: str, deeper: str) -> int:
    """Levels of a U-Net: keys of the second begin with `second`, and each later one adds `deeper`."""
    levels, prefix = 1, second
    while levels <= MOST_LEVELS and any(key.startswith(prefix) for key in found):
        levels, prefix = levels + 1, prefix + deeper
    if not 2 <= levels <= MOST_LEVELS:
        raise unknown(NETWORKS, f"it is a U-Net with {'one level' if levels == 1 else 'too many levels'}")
    return levels


def _require_code(channels: int, latent_dim: int) -> None:
    if not 0 <= latent_dim < channels:
        raise unknown(
            NETWORKS,
            f"its first layer has {channels} input channels, too few for an image and a code of length "
            f"{latent_dim}; for add_to_input, pass the length of the code (latent_dim)",
        )


def _recognised_encoder(found: Mapping[str, Tensor]) -> EncoderStructure:
    width, in_channels = shape_of(found, "conv.0.weight", 4, NETWORKS)[:2]
    num_blocks = highest(found, "conv.", ".shortcut.")
    if num_blocks < 1:
        raise unknown(NETWORKS, "it is an encoder without residual blocks 'conv.1.shortcut...'")
    latent_dim = shape_of(found, "fc.0.weight", 2, NETWORKS)[0]
    return EncoderStructure(in_channels, latent_dim, width, num_blocks, _seen_norm(found))


def _recognised_discriminator(found: Mapping[str, Tensor]) -> DiscriminatorStructure:
    width, in_channels = shape_of(found, "model_0.0.weight", 4, NETWORKS)[:2]
    last = highest(found, "model_0.", ".weight")
    if last < 5 or last % 3 != 2:
        raise unknown(NETWORKS, f"the last layer of its first scale is 'model_0.{last}'")
    num_scales = highest(found, "model_", ".") + 1
    return DiscriminatorStructure(in_channels, width, (last - 2) // 3, num_scales, _seen_norm(found))


def _seen_norm(found: Mapping[str, Tensor]) -> Norm:
    return "batch" if any(key.endswith(".running_mean") for key in found) else "instance"


def to_ours(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert an official state dict to the state dict of `component(recognise(tensors))`.

    Raises:
        WeightsError: tensors are missing, unexpected or have another shape; all are listed.
    """
    # For the conversion, it does not matter which input channels of add_to_input are those of the code.
    return tables.to_ours(cleaned(tensors), _table(recognise(tensors, latent_dim=0)))


def to_official(tensors: Mapping[str, Tensor], structure: Structure) -> dict[str, Tensor]:
    """Convert the state dict of `component(structure)` to the official layout.

    Raises:
        WeightsError: tensors are missing, unexpected or have another shape; all are listed.
    """
    return tables.to_official(tensors, _table(structure))

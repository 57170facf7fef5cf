"""Generators and discriminators of pytorch-CycleGAN-and-pix2pix and of CUT: their layout, and ours.

The official repositories save a bare state dict for each network; its keys are positions in `nn.Sequential`.
`layers` is the table of both layouts; everything else follows from it. `recognise` finds out what a state
dict holds, from names and shapes alone; `to_ours` and `to_official` convert.

Source: the repositories' modules at c3268ed (CycleGAN, pix2pix) and b3ac297 (CUT).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from i2ikit.errors import WeightsError
from i2ikit.official.fitting import (
    cleaned,
    listed,
    official_norm,
    require_fit,
    require_same,
    shape_of,
    unknown,
)
from i2ikit.official.tables import BATCH_NORM, NORMS
from i2ikit.registry import Spec

__all__ = [
    "Layer",
    "Structure",
    "cleaned",
    "component",
    "constants",
    "layers",
    "names",
    "recognise",
    "shapes",
    "structure_of",
    "to_official",
    "to_ours",
]

NETWORKS = "a generator or discriminator of the CycleGAN or CUT repository"

OUR_NORMS: Mapping[str, Literal["instance", "batch", "none"]] = {
    "in": "instance",
    "bn": "batch",
    "none": "none",
}
"""The official norm for each of ours."""

MOST_LEVELS = 16
"""Of a U-Net; it halves images of 65,536 px to one."""

RESNET_DOWNSAMPLE = 2
"""How many times the official ResNet generators halve the sides."""


@dataclass(frozen=True)
class Structure:
    """What a state dict in an official layout holds.

    Args:
        in_channels: of the network; a conditional discriminator sees both images.
        out_channels: of the network.
        width: channels of the first layer (`ngf`, `ndf`).
        depth: residual blocks of a ResNet, levels of a U-Net, `n_layers` of a PatchGAN; 1 for PixelGAN.
        antialias_down: sides are halved by a blur (ResNet and PatchGAN of the CUT repository).
        antialias_up: sides are doubled by an interpolation (ResNet of the CUT repository).
        dropout: a ResNet has dropout layers. Those of a U-Net leave no trace in a file.
    """

    arch: Literal["resnet", "unet", "patchgan", "pixelgan"]
    in_channels: int
    out_channels: int
    width: int
    depth: int
    norm: Literal["instance", "batch", "none"]
    antialias_down: bool = False
    antialias_up: bool = False
    dropout: bool = False


@dataclass(frozen=True)
class Layer:
    """A convolution in both layouts, and the norm after it.

    Args:
        official: name of the convolution in the official layout.
        ours: its name in our layout.
        shape: of its weight.
        official_norm: name of the norm in the official layout. It has tensors only with batch norm; empty if
            no norm follows.
        our_norm: its name in our layout.
        transposed: whether it is a transposed convolution, whose weight begins with its inputs.
        biased: whether the official convolution has a bias; ours always has one.
        concatenated: whether its input is the concatenation of a skip connection and the layer below. The
            official order is (skip, below), ours is (below, skip).
    """

    official: str
    ours: str
    shape: tuple[int, ...]
    official_norm: str = ""
    our_norm: str = ""
    transposed: bool = False
    biased: bool = True
    concatenated: bool = False

    @property
    def out_channels(self) -> int:
        """Output channels of the convolution."""
        return self.shape[1 if self.transposed else 0]


def layers(structure: Structure) -> list[Layer]:
    """The table of both layouts: every convolution of a network, in the order of the network.

    Raises:
        WeightsError: i2ikit has no such network.
    """
    if structure.arch == "resnet":
        return list(_resnet(structure))
    if structure.arch == "unet":
        return list(_unet(structure))
    if structure.arch == "patchgan" and not structure.antialias_down:
        return list(_patchgan(structure))
    what = "PixelGAN" if structure.arch == "pixelgan" else "PatchGAN with antialiasing"
    raise WeightsError(f"the weights are those of a {what}, which i2ikit does not have")


def _resnet(s: Structure) -> Iterator[Layer]:
    biased = s.norm == "instance"
    first_block = 4 + RESNET_DOWNSAMPLE * (3 + s.antialias_down)
    after_blocks = first_block + s.depth
    head = after_blocks + RESNET_DOWNSAMPLE * (3 + s.antialias_up) + 1

    def normed(parent: str, index: int, ours: str, shape: tuple[int, ...], transposed: bool = False) -> Layer:
        official = f"{parent}.{index}", f"{parent}.{index + 1}"
        return Layer(official[0], f"{ours}.conv", shape, official[1], f"{ours}.norm.norm", transposed, biased)

    width = s.width
    yield normed("model", 1, "stem", (width, s.in_channels, 7, 7))
    for n in range(RESNET_DOWNSAMPLE):
        yield normed("model", 4 + n * (3 + s.antialias_down), f"down.{n}", (2 * width, width, 3, 3))
        width *= 2
    for n in range(s.depth):
        block, shape = f"model.{first_block + n}.conv_block", (width, width, 3, 3)
        yield normed(block, 1, f"residuals.{n}.first", shape)
        yield normed(block, 5 + s.dropout, f"residuals.{n}.second", shape)
    for n in range(RESNET_DOWNSAMPLE):
        index = after_blocks + n * (3 + s.antialias_up) + s.antialias_up
        shape = (width // 2, width, 3, 3) if s.antialias_up else (width, width // 2, 3, 3)
        yield normed("model", index, f"up.{n}", shape, transposed=not s.antialias_up)
        width //= 2
    yield Layer(f"model.{head}", "head", (s.out_channels, width, 7, 7))


def _unet(s: Structure) -> Iterator[Layer]:
    """Outermost level first; each level is a module of the level around it."""
    inner, biased = s.depth - 1, s.norm == "instance"
    widths = [s.width * min(2**n, 8) for n in range(s.depth)]
    prefix = "model.model."
    for n, width in enumerate(widths):
        outside = widths[n - 1] if n else s.in_channels
        down, up = (1 if n else 0), (5 if 0 < n < inner else 3)
        inside = width if n == inner else 2 * width
        down_norm = (f"{prefix}{down + 1}", f"down_norms.{n}.norm") if 0 < n < inner else ("", "")
        up_norm = (f"{prefix}{up + 1}", f"up_norms.{n}.norm") if n else ("", "")
        up_shape = (inside, widths[n - 1] if n else s.out_channels, 4, 4)
        yield Layer(f"{prefix}{down}", f"down.{n}", (width, outside, 4, 4), *down_norm, False, biased, False)
        yield Layer(
            f"{prefix}{up}", f"up.{n}", up_shape, *up_norm, True, biased or n == 0, concatenated=n < inner
        )
        prefix += "3.model." if n else "1.model."


def _patchgan(s: Structure) -> Iterator[Layer]:
    """The positions in the official `nn.Sequential` are also those in ours."""
    widths = [s.width * min(2**n, 8) for n in range(s.depth + 1)]
    yield Layer("model.0", "scales.0.0", (s.width, s.in_channels, 4, 4))
    for n in range(1, s.depth + 1):
        index, shape = 3 * n - 1, (widths[n], widths[n - 1], 4, 4)
        norm = f"model.{index + 1}", f"scales.0.{index + 1}.norm"
        yield Layer(f"model.{index}", f"scales.0.{index}", shape, *norm, biased=s.norm == "instance")
    last = 3 * s.depth + 2
    yield Layer(f"model.{last}", f"scales.0.{last}", (s.out_channels, widths[-1], 4, 4))


def names(structure: Structure) -> dict[str, str]:
    """Our key for each official key.

    Left out are the official `constants`, and those of our biases that have no official counterpart.
    """
    found = {}
    for layer in layers(structure):
        found[f"{layer.official}.weight"] = f"{layer.ours}.weight"
        if layer.biased:
            found[f"{layer.official}.bias"] = f"{layer.ours}.bias"
        if layer.official_norm and structure.norm == "batch":
            found |= {f"{layer.official_norm}.{t}": f"{layer.our_norm}.{t}" for t in BATCH_NORM}
    return found


def shapes(structure: Structure) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of the official state dict, including `constants`."""
    ours = _our_shapes(structure)
    found = {official: ours[key] for official, key in names(structure).items()}
    kernels = _kernels(structure).items()
    return found | {key: (channels, 1, len(line), len(line)) for key, (line, channels) in kernels}


def _our_shapes(structure: Structure) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of our state dict."""
    found: dict[str, tuple[int, ...]] = {}
    for layer in layers(structure):
        channels = (layer.out_channels,)
        found |= {f"{layer.ours}.weight": layer.shape, f"{layer.ours}.bias": channels}
        if layer.our_norm and structure.norm == "batch":
            found |= {f"{layer.our_norm}.{t}": channels for t in BATCH_NORM[:-1]}
            found[f"{layer.our_norm}.{BATCH_NORM[-1]}"] = ()
    return found


def constants(structure: Structure) -> dict[str, Tensor]:
    """The buffers `filt` of antialiased ResNets, (C, 1, k, k): kernels for down- and for upsampling."""
    found = {}
    for key, (line, channels) in _kernels(structure).items():
        taps = torch.tensor(line)
        found[key] = (torch.outer(taps, taps) / 16).repeat(channels, 1, 1, 1)
    return found


def _kernels(s: Structure) -> dict[str, tuple[list[float], int]]:
    """For each buffer `filt`: a row of its kernel, times 4, and the number of channels."""
    found: dict[str, tuple[list[float], int]] = {}
    if s.arch == "resnet" and s.antialias_down:
        for n in range(RESNET_DOWNSAMPLE):
            found[f"model.{7 + 4 * n}.filt"] = [1.0, 2.0, 1.0], 2 ** (n + 1) * s.width
    if s.arch == "resnet" and s.antialias_up:
        after_blocks = 4 + RESNET_DOWNSAMPLE * (3 + s.antialias_down) + s.depth
        for n in range(RESNET_DOWNSAMPLE):
            channels = 2 ** (RESNET_DOWNSAMPLE - n) * s.width
            found[f"model.{after_blocks + 4 * n}.filt"] = [1.0, 3.0, 3.0, 1.0], channels
    return found


def component(structure: Structure) -> Spec:
    """Our component of this structure: a generator without a code, or a discriminator of one scale.

    Raises:
        WeightsError: i2ikit has no such network.
    """
    layers(structure)
    norm, options = Spec("norms", NORMS[structure.norm]), dict[str, Any](width=structure.width)
    if structure.arch == "patchgan":
        options |= {"num_layers": structure.depth, "num_scales": 1, "norm": norm}
        return Spec("discriminators", "patchgan", options)
    if structure.arch == "unet":
        options |= {"num_downsample": structure.depth, "inject": "input", "norm": norm}
        return Spec("decoders", "unet", options)
    options |= {"num_residual": structure.depth, "num_downsample": RESNET_DOWNSAMPLE, "norm": norm}
    options |= {"antialias_down": structure.antialias_down, "antialias_up": structure.antialias_up}
    return Spec("decoders", "resnet", options | {"dropout": 0.5 if structure.dropout else 0.0})


def structure_of(spec: Spec, in_channels: int, out_channels: int) -> Structure:
    """The structure of one of our components; the inverse of `component`.

    Args:
        spec: with every option.

    Raises:
        WeightsError: the official repositories have no such network.
    """
    depths = {"resnet": "num_residual", "unet": "num_downsample", "patchgan": "num_layers"}
    if spec.name not in depths:
        raise WeightsError(f"the official code has no network as '{spec.name}'; it has {', '.join(depths)}")
    options = spec.options
    structure = Structure(
        spec.name,  # type: ignore[arg-type]
        in_channels,
        out_channels,
        options["width"],
        options[depths[spec.name]],
        official_norm(spec, OUR_NORMS, spec.name),
        antialias_down=options.get("antialias_down", False),
        antialias_up=options.get("antialias_up", False),
        dropout=spec.name == "resnet" and options["dropout"] > 0,
    )
    made = component(structure).options
    require_same(spec, Spec(spec.kind, spec.name, {**made, "dropout": options.get("dropout")}))
    return structure


def recognise(tensors: Mapping[str, Tensor]) -> Structure:
    """The structure of an official state dict, from names and shapes alone.

    The structure is checked no further than needed: `to_ours` compares every tensor with it.

    Raises:
        WeightsError: it is not the state dict of one of these networks.
    """
    found = cleaned(tensors)
    if "net.0.weight" in found:
        width, in_channels = _conv_shape(found, "net.0.weight")[:2]
        return Structure("pixelgan", in_channels, 1, width, 1, _norm(found, "net.2.bias"))
    if "model.model.0.weight" in found:
        return _recognised_unet(found)
    if any(".conv_block." in key for key in found):
        return _recognised_resnet(found)
    return _recognised_patchgan(found)


def _recognised_resnet(found: Mapping[str, Tensor]) -> Structure:
    if any(key.endswith(".conv_block.0.weight") for key in found):
        raise WeightsError(
            "the weights are those of a ResNet from before 2017-07-05, which pads with zeros; i2ikit's pads "
            "by reflection"
        )
    width, in_channels = _conv_shape(found, "model.1.weight")[:2]
    blocks = {int(m[1]) for key in found if (m := re.match(r"model\.(\d{1,4})\.conv_block\.", key))}
    indices = [int(m[1]) for key in found if (m := re.fullmatch(r"model\.(\d{1,4})\.weight", key))]
    first, last = min(blocks, default=0), max(indices)
    ups = {7: False, 9: True}
    if first not in (10, 12) or last - first - len(blocks) not in ups:
        raise _unknown(f"its residual blocks begin at model.{first}, and its last layer is model.{last}")
    return Structure(
        "resnet",
        in_channels,
        _conv_shape(found, f"model.{last}.weight")[0],
        width,
        len(blocks),
        _norm(found, "model.1.bias"),
        antialias_down=first == 12,
        antialias_up=ups[last - first - len(blocks)],
        dropout=any(re.fullmatch(r".*\.conv_block\.6\.weight", k) and x.dim() == 4 for k, x in found.items()),
    )


def _recognised_unet(found: Mapping[str, Tensor]) -> Structure:
    width, in_channels = _conv_shape(found, "model.model.0.weight")[:2]
    depth, prefix = 1, "model.model.1.model."
    while depth <= MOST_LEVELS and any(key.startswith(prefix) for key in found):
        depth, prefix = depth + 1, f"{prefix}3.model."
    if not 2 <= depth <= MOST_LEVELS:
        raise _unknown(f"it is a U-Net of {'one level' if depth == 1 else 'too many levels'}")
    out_channels = _conv_shape(found, "model.model.3.weight")[1]
    return Structure("unet", in_channels, out_channels, width, depth, _norm(found, "model.model.0.bias"))


def _recognised_patchgan(found: Mapping[str, Tensor]) -> Structure:
    indices = sorted(
        int(m[1])
        for key, x in found.items()
        if x.dim() == 4 and (m := re.fullmatch(r"model\.(\d{1,4})\.weight", key))
    )
    if len(indices) < 3 or indices[0] != 0 or indices[1] not in (2, 3):
        raise _unknown("its names are not those of a ResNet, U-Net, PatchGAN or PixelGAN")
    width, in_channels = _conv_shape(found, "model.0.weight")[:2]
    out_channels = _conv_shape(found, f"model.{indices[-1]}.weight")[0]
    norm = _norm(found, f"model.{indices[1]}.bias")
    blurred = indices[1] == 3
    return Structure("patchgan", in_channels, out_channels, width, len(indices) - 2, norm, blurred)


def _norm(found: Mapping[str, Tensor], bias: str) -> Literal["instance", "batch", "none"]:
    """The norm: only batch norm has tensors, and only before instance norm there is this bias."""
    if any(key.endswith(".running_mean") for key in found):
        return "batch"
    return "instance" if bias in found else "none"


def _conv_shape(found: Mapping[str, Tensor], key: str) -> tuple[int, ...]:
    return shape_of(found, key, 4, NETWORKS)


def _unknown(reason: str) -> WeightsError:
    return unknown(NETWORKS, reason)


def to_ours(tensors: Mapping[str, Tensor], *, skip_first: bool = True) -> dict[str, Tensor]:
    """Convert an official state dict to the state dict of `component(recognise(tensors))`.

    Biases that the official network lacks become 0. `filt` buffers are constants and are left out.

    Args:
        skip_first: the order of concatenation in a U-Net is (skip, below), as since 2017-09-22. In earlier
            files it is (below, skip), as in ours; names and shapes do not show which it is.

    Raises:
        WeightsError: tensors are missing, unexpected or have another shape (all are listed), or i2ikit has no
            such network.
    """
    found, structure = cleaned(tensors), recognise(tensors)
    _require_constants(found, structure)
    found = {key: x for key, x in found.items() if not key.endswith(".filt")}
    table = layers(structure)
    # Files with batch norm from before 2017-08-22 have a bias before it, those of PyTorch 0.4.0 no counter.
    early = {f"{layer.official}.bias": (layer.out_channels,) for layer in table if structure.norm == "batch"}
    expected = {key: shape for key, shape in shapes(structure).items() if not key.endswith(".filt")}
    counters = {key for key in expected if key.endswith(".num_batches_tracked")}
    require_fit(found, expected, expected | early, optional=counters)
    ours = {}
    for layer in table:
        weight = found[f"{layer.official}.weight"]
        bias = found.get(f"{layer.official}.bias")
        ours[f"{layer.ours}.weight"] = (
            _halves_swapped(weight) if layer.concatenated and skip_first else weight
        )
        ours[f"{layer.ours}.bias"] = weight.new_zeros(layer.out_channels) if bias is None else bias
        if layer.official_norm and structure.norm == "batch":
            for tensor in BATCH_NORM:
                missing = torch.zeros((), dtype=torch.long)  # only a counter can be
                ours[f"{layer.our_norm}.{tensor}"] = found.get(f"{layer.official_norm}.{tensor}", missing)
    return ours


def to_official(tensors: Mapping[str, Tensor], structure: Structure) -> dict[str, Tensor]:
    """Convert the state dict of `component(structure)` to the official layout, with its constants.

    A bias before batch norm is subtracted from the running mean, which is the same function.

    Raises:
        WeightsError: tensors are missing, unexpected or have another shape, or biases are not 0 where the
            official network has none and no batch norm follows; all are listed.
    """
    expected = _our_shapes(structure)
    require_fit(tensors, expected, expected)
    official, lost = dict[str, Tensor](), list[str]()
    for layer in layers(structure):
        weight, bias = tensors[f"{layer.ours}.weight"], tensors[f"{layer.ours}.bias"]
        official[f"{layer.official}.weight"] = _halves_swapped(weight) if layer.concatenated else weight
        if layer.biased:
            official[f"{layer.official}.bias"] = bias
        normed = bool(layer.our_norm) and structure.norm == "batch"
        for tensor in BATCH_NORM if normed else ():
            official[f"{layer.official_norm}.{tensor}"] = tensors[f"{layer.our_norm}.{tensor}"]
        if not layer.biased and bias.any():
            if normed:
                official[f"{layer.official_norm}.running_mean"] = (
                    official[f"{layer.official_norm}.running_mean"] - bias
                )
            else:
                lost.append(f"{layer.ours}.bias")
    if lost:
        raise WeightsError(
            f"the official network has no bias here, but ours is not 0: {listed(lost)}; with norm "
            f"'{structure.norm}' these weights cannot be written in the official layout"
        )
    like = next(iter(official.values()))
    return official | {key: x.to(like) for key, x in constants(structure).items()}


def _require_constants(found: Mapping[str, Tensor], structure: Structure) -> None:
    """Raise WeightsError if a buffer `filt` is not the one of the official code; they may be missing."""
    known = constants(structure)

    def same(key: str, x: Tensor) -> bool:
        # Zeros were never filled in: no trained network has them.
        if key not in known or x.shape != known[key].shape:
            return False
        return not x.any() or torch.allclose(x, known[key].to(x))

    wrong = [key for key, x in found.items() if key.endswith(".filt") and not same(key, x)]
    if wrong:
        raise WeightsError(f"these kernels are not those of the official code: {listed(wrong)}")


def _halves_swapped(weight: Tensor) -> Tensor:
    """A transposed convolution's weight with both halves of its inputs (its first dimension) swapped."""
    first, second = weight.chunk(2)
    return torch.cat([second, first])

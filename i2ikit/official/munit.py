"""Generators and discriminators of the MUNIT repository: their layout, and ours.

An official file holds a state dict for each domain: of a generator, which consists of content encoder, style
encoder, decoder and MLP, or of a discriminator with all its scales. `names` is the table of both layouts.
`recognise` finds out what a state dict holds, from names and shapes alone; `to_ours` and `to_official`
convert. Our state dicts are named as the options of the translator `munit`.

Source: names and shapes of the networks of NVlabs/MUNIT at a82e222.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from i2ikit.errors import WeightsError
from i2ikit.official import tables
from i2ikit.official.fitting import cleaned, highest, official_norm, require_same, shape_of, unknown
from i2ikit.official.tables import NORMS, Entry, Norm, layer, norm_after
from i2ikit.registry import Spec

__all__ = [
    "DiscriminatorStructure",
    "GeneratorStructure",
    "Structure",
    "components",
    "constants",
    "names",
    "recognise",
    "shapes",
    "structure_of",
    "to_official",
    "to_ours",
]

NETWORKS = "a generator or discriminator of the MUNIT repository"
OURS = ("munit-content", "munit-style", "munit-adain", "multiscale-patch")
STYLE_DOWNSAMPLE = 4
"""How many times the official style encoder halves the sides, whatever the options are."""

DUMMIES = {"running_mean": 0.0, "running_var": 1.0}
"""Values of the running statistics of the official AdaIN layers, which training does not change."""


@dataclass(frozen=True)
class GeneratorStructure:
    """What an official state dict of a generator holds: two encoders and a decoder of one domain.

    Args:
        channels: of the images.
        width: channels of the first layers (`dim`).
        mlp_width: width of the hidden layers of the MLP (`mlp_dim`).
        num_downsample: of the content encoder; the decoder doubles the sides as many times.
        num_residual: residual blocks of the content encoder, and of the decoder.
        num_style_downsample: of the style encoder.
        content_norm: of the content encoder; here and below, the official norm is the default.
        style_norm: of the style encoder.
        up_norm: of the upsampling layers. The residual blocks of the decoder have AdaIN.
    """

    channels: int
    width: int
    style_dim: int
    mlp_width: int
    num_downsample: int
    num_residual: int
    num_style_downsample: int = STYLE_DOWNSAMPLE
    content_norm: Norm = "instance"
    style_norm: Norm = "none"
    up_norm: Norm = "layer"


@dataclass(frozen=True)
class DiscriminatorStructure:
    """What an official state dict of a discriminator holds: networks of equal width at several scales.

    Args:
        channels: of the images.
        width: channels of the first layer (`dim`).
        num_layers: stride-2 convolutions per scale (`n_layer`).
        norm: after every convolution except the first.
    """

    channels: int
    width: int
    num_layers: int
    num_scales: int
    norm: Norm = "none"


Structure = GeneratorStructure | DiscriminatorStructure


def _table(structure: Structure) -> list[Entry]:
    """Every tensor of both layouts; ours begin with the name of the option, such as `content_encoder.`."""
    if isinstance(structure, DiscriminatorStructure):
        return list(_discriminator(structure))
    return [*_content_encoder(structure), *_style_encoder(structure), *_decoder(structure)]


def _block(official: str, ours: str, shape: tuple[int, ...], norm: Norm) -> Iterator[Entry]:
    """A convolution and the norm after it."""
    yield from layer(f"{official}.conv", f"{ours}.conv", shape)
    yield from norm_after(f"{official}.norm", f"{ours}.norm", norm, shape[0])


def _content_encoder(s: GeneratorStructure) -> Iterator[Entry]:
    official, ours, width = "enc_content.model", "content_encoder.layers", s.width
    yield from _block(f"{official}.0", f"{ours}.0", (width, s.channels, 7, 7), s.content_norm)
    for n in range(1, s.num_downsample + 1):
        yield from _block(f"{official}.{n}", f"{ours}.{n}", (2 * width, width, 4, 4), s.content_norm)
        width *= 2
    first = s.num_downsample + 1
    for n in range(s.num_residual):
        for m, half in enumerate(("first", "second")):
            block = f"{official}.{first}.model.{n}.model.{m}"
            yield from _block(block, f"{ours}.{first + n}.{half}", (width, width, 3, 3), s.content_norm)


def _style_encoder(s: GeneratorStructure) -> Iterator[Entry]:
    official, ours, width = "enc_style.model", "style_encoder.layers", s.width
    yield from _block(f"{official}.0", f"{ours}.0", (width, s.channels, 7, 7), s.style_norm)
    for n in range(1, s.num_style_downsample + 1):
        wider = min(2 * width, 4 * s.width)
        yield from _block(f"{official}.{n}", f"{ours}.{n}", (wider, width, 4, 4), s.style_norm)
        width = wider
    head = s.num_style_downsample + 2  # after the pooling
    yield from layer(f"{official}.{head}", "style_encoder.head", (s.style_dim, width, 1, 1), linear=True)


def _decoder(s: GeneratorStructure) -> Iterator[Entry]:
    width = s.width * 2**s.num_downsample
    params = 4 * width * s.num_residual  # shift and scale for each channel, twice in each block
    sides = [s.style_dim, s.mlp_width, s.mlp_width, params]
    for n in range(3):
        yield from layer(f"mlp.model.{n}.fc", f"decoder.mlp.{2 * n}", (sides[n + 1], sides[n]))
    for n in range(s.num_residual):
        for m, half in enumerate(("first", "second")):
            official = f"dec.model.0.model.{n}.model.{m}.conv"
            yield from layer(official, f"decoder.residuals.{n}.conv_{half}", (width, width, 3, 3))
    for n in range(s.num_downsample):
        official, ours = f"dec.model.{2 * n + 2}", f"decoder.upsample.{2 * n + 1}"
        yield from _block(official, ours, (width // 2, width, 5, 5), s.up_norm)
        width //= 2
    yield from layer(f"dec.model.{2 * s.num_downsample + 1}.conv", "decoder.head", (s.channels, width, 7, 7))


def _discriminator(s: DiscriminatorStructure) -> Iterator[Entry]:
    for scale in range(s.num_scales):
        official, ours = f"cnns.{scale}", f"discriminator.scales.{scale}"
        yield from _block(f"{official}.0", f"{ours}.0", (s.width, s.channels, 4, 4), "none")
        width = s.width
        for n in range(1, s.num_layers):
            yield from _block(f"{official}.{n}", f"{ours}.{n}", (2 * width, width, 4, 4), s.norm)
            width *= 2
        yield from layer(f"{official}.{s.num_layers}", f"{ours}.{s.num_layers}", (1, width, 1, 1))


def names(structure: Structure) -> dict[str, str]:
    """Our key for each official key, such as `content_encoder.layers.0.conv.weight`.

    Left out are the official `constants`.
    """
    return {entry.official: entry.ours for entry in _table(structure)}


def shapes(structure: Structure) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of the official state dict, including `constants`."""
    found = {entry.official: entry.shape for entry in _table(structure)}
    return found | {
        f"{norm}.{tensor}": width for norm, width in _adain(structure).items() for tensor in DUMMIES
    }


def constants(structure: Structure) -> dict[str, Tensor]:
    """The running statistics of the official AdaIN layers, (C,)."""
    return {
        f"{norm}.{tensor}": torch.full(width, value)
        for norm, width in _adain(structure).items()
        for tensor, value in DUMMIES.items()
    }


def _adain(s: Structure) -> dict[str, tuple[int]]:
    """The official names of the AdaIN layers, and the shape (C,) of their statistics."""
    if isinstance(s, DiscriminatorStructure):
        return {}
    places = [(n, m) for n in range(s.num_residual) for m in range(2)]
    return {f"dec.model.0.model.{n}.model.{m}.norm": (s.width * 2**s.num_downsample,) for n, m in places}


def components(structure: Structure) -> dict[str, Spec]:
    """Our components of this structure, by the names of the options of the translator `munit`.

    Its option `style_dim` is that of the structure.
    """
    s = structure
    if isinstance(s, DiscriminatorStructure):
        options = {"width": s.width, "num_layers": s.num_layers, "num_scales": s.num_scales}
        norm = Spec("norms", NORMS[s.norm])
        return {"discriminator": Spec("discriminators", "multiscale-patch", {**options, "norm": norm})}
    content = {"width": s.width, "num_downsample": s.num_downsample, "num_residual": s.num_residual}
    style = {"width": s.width, "num_downsample": s.num_style_downsample}
    decoder = {"num_residual": s.num_residual, "mlp_width": s.mlp_width}
    norms = [Spec("norms", NORMS[norm]) for norm in (s.content_norm, s.style_norm, s.up_norm)]
    return {
        "content_encoder": Spec("encoders", "munit-content", {**content, "norm": norms[0]}),
        "style_encoder": Spec("encoders", "munit-style", {**style, "norm": norms[1]}),
        "decoder": Spec("decoders", "munit-adain", {**decoder, "up_norm": norms[2]}),
    }


def structure_of(specs: Mapping[str, Spec], channels: int, style_dim: int) -> Structure:
    """The structure of our components, by option; the inverse of `components`.

    Args:
        specs: with every option.

    Raises:
        WeightsError: the official repository has no such networks.
    """
    if other := [spec.name for spec in specs.values() if spec.name not in OURS]:
        raise WeightsError(f"the official MUNIT has no '{other[0]}'; it has {', '.join(OURS)}")
    known = {ours: official for official, ours in NORMS.items()}
    made: Structure
    if "discriminator" in specs:
        spec = specs["discriminator"]
        o, norm = spec.options, official_norm(spec, known, spec.name)
        made = DiscriminatorStructure(channels, o["width"], o["num_layers"], o["num_scales"], norm)
    else:
        content, style, decoder = (specs[key] for key in ("content_encoder", "style_encoder", "decoder"))
        made = GeneratorStructure(
            channels,
            content.options["width"],
            style_dim,
            decoder.options["mlp_width"],
            content.options["num_downsample"],
            content.options["num_residual"],
            style.options["num_downsample"],
            official_norm(content, known, content.name),
            official_norm(style, known, style.name),
            official_norm(Spec("norms", "", {"norm": decoder.options["up_norm"]}), known, decoder.name),
        )
    for option, spec in components(made).items():
        require_same(specs[option], spec)
    return made


def recognise(tensors: Mapping[str, Tensor]) -> Structure:
    """The structure of an official state dict, from names and shapes alone.

    Only batch norm and layer norm have tensors. Without any, the norm is taken to be the official default:
    a discriminator with instance norm looks like one without a norm. The structure is checked no further than
    needed: `to_ours` compares every tensor with it.

    Raises:
        WeightsError: it is not the state dict of one of these networks, or it has spectral norm.
    """
    found = cleaned(tensors)
    if any(key.endswith((".module.weight_bar", ".module.weight_u", ".module.weight_v")) for key in found):
        raise WeightsError(
            "the weights have spectral norm (keys such as '...module.weight_bar'), which is not supported; "
            "i2ikit converts MUNIT's networks with norms 'none', 'in', 'bn' and 'ln'"
        )
    if any(key.startswith("cnns.") for key in found):
        return _recognised_discriminator(found)
    return _recognised_generator(found)


def _recognised_generator(found: Mapping[str, Tensor]) -> GeneratorStructure:
    width, channels = shape_of(found, "enc_content.model.0.conv.weight", 4, NETWORKS)[:2]
    num_downsample = highest(found, "enc_content.model.", ".conv.")
    residuals = f"enc_content.model.{num_downsample + 1}.model."
    num_residual = highest(found, residuals, ".model.") + 1
    if not num_residual:
        raise unknown(NETWORKS, f"it has no residual blocks '{residuals}...'")
    num_style_downsample = highest(found, "enc_style.model.", ".conv.")
    head = f"enc_style.model.{num_style_downsample + 2}.weight"
    return GeneratorStructure(
        channels,
        width,
        shape_of(found, head, 4, NETWORKS)[0],
        shape_of(found, "mlp.model.0.fc.weight", 2, NETWORKS)[0],
        num_downsample,
        num_residual,
        num_style_downsample,
        _seen_norm(found, "enc_content.", "instance"),
        _seen_norm(found, "enc_style.", "none"),
        _seen_norm(found, "dec.", "layer"),
    )


def _recognised_discriminator(found: Mapping[str, Tensor]) -> DiscriminatorStructure:
    width, channels = shape_of(found, "cnns.0.0.conv.weight", 4, NETWORKS)[:2]
    num_layers = highest(found, "cnns.0.", ".conv.") + 1
    num_scales = highest(found, "cnns.", ".") + 1
    return DiscriminatorStructure(channels, width, num_layers, num_scales, _seen_norm(found, "cnns.", "none"))


def _seen_norm(found: Mapping[str, Tensor], prefix: str, unseen: Norm) -> Norm:
    """The norm of a part, from the tensors that it has; `unseen` if it has none."""
    part = [key for key in found if key.startswith(prefix)]
    if any(key.endswith(".norm.gamma") for key in part):
        return "layer"
    return "batch" if any(key.endswith(".norm.running_mean") for key in part) else unseen


def to_ours(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Convert an official state dict to the state dicts of `components(recognise(tensors))`.

    The result has the same keys, such as `content_encoder`. Statistics of instance norms and AdaIN are left
    out.

    Raises:
        WeightsError: tensors are missing, unexpected or have another shape; all are listed.
    """
    ours: dict[str, dict[str, Tensor]] = {}
    for key, x in tables.to_ours(cleaned(tensors), _table(recognise(tensors))).items():
        option, _, name = key.partition(".")
        ours.setdefault(option, {})[name] = x
    return ours


def to_official(tensors: Mapping[str, Mapping[str, Tensor]], structure: Structure) -> dict[str, Tensor]:
    """Convert the state dicts of `components(structure)` to one in the official layout, with its constants.

    Raises:
        WeightsError: tensors are missing, unexpected or have another shape; all are listed.
    """
    joined = {f"{option}.{key}": x for option, part in tensors.items() for key, x in part.items()}
    official = tables.to_official(joined, _table(structure))
    like = next(iter(official.values()))
    return official | {key: x.to(like) for key, x in constants(structure).items()}

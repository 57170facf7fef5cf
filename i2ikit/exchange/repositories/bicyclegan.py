"""BicycleGAN (junyanz/BicycleGAN): net_G, net_E, net_D and net_D2."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from i2ikit.errors import WeightsError
from i2ikit.exchange.assembly import (
    BSD,
    Assembly,
    OfficialFile,
    OfficialState,
    in_order,
    same_component,
    spec_of,
    under,
)
from i2ikit.official.bicyclegan import (
    DiscriminatorStructure,
    EncoderStructure,
    GeneratorStructure,
    Structure,
    component,
    recognise,
    structure_of,
    to_official,
    to_ours,
)
from i2ikit.translator import Translator

__all__ = ["assemble", "bicyclegan_files", "is_bicyclegan"]


ENCODER = "fc.0.weight"
"""A tensor that only the encoder has."""


def is_bicyclegan(files: Sequence[OfficialFile]) -> bool:
    """Whether one of the files is a network that only BicycleGAN has.

    A generator with the code at its input alone looks like that of pix2pix; the encoder beside it decides.
    """
    marks = {ENCODER, "model.down.0.weight", "model_0.0.weight"}
    return any(marks & _keys(file) for file in files)


def _keys(file: OfficialFile) -> set[str]:
    return {key.removeprefix("module.") for key in file.content}


def assemble(files: Sequence[OfficialFile]) -> Assembly:
    """A BicycleGAN of a generator and an encoder, with one or two discriminators or none.

    Raises:
        WeightsError: a file is not of such a network, or the networks do not make up a translator.
    """
    encoders = [file for file in files if ENCODER in _keys(file)]
    if len(encoders) != 1:
        raise WeightsError(
            f"a BicycleGAN has one encoder (net_E), but {len(encoders)} of these files are encoders"
        )
    (encoder,) = encoders
    seen = encoder.read(recognise)
    assert isinstance(seen, EncoderStructure)
    code = seen.latent_dim
    found = {file.path: file.read(lambda x: recognise(x, latent_dim=code)) for file in files}
    generators = [file for file in files if isinstance(found[file.path], GeneratorStructure)]
    judges = [file for file in files if isinstance(found[file.path], DiscriminatorStructure)]
    if len(generators) != 1 or len(judges) > 2:
        raise WeightsError(
            f"a BicycleGAN has one generator and at most two discriminators, but these are {len(generators)} "
            f"and {len(judges)}"
        )
    (generator,) = generators
    s = found[generator.path]
    assert isinstance(s, GeneratorStructure)
    if (s.latent_dim, s.out_channels) != (code, seen.in_channels):
        raise WeightsError(
            f"{generator.path.name} and {encoder.path.name} are not of one model: codes of length "
            f"{s.latent_dim} and {code}, images of {s.out_channels} and {seen.in_channels} channels"
        )
    options: dict[str, Any] = {
        "direction": "a2b",
        "latent_dim": code,
        "generator": {**component(s).table(), "dropout": 0.5},
        "encoder": component(seen).table(),
    }
    weights = under("generator", generator.read(to_ours)) | under("encoder", encoder.read(to_ours))
    taken = {generator.path: "generator a to b", encoder.path: "encoder of b"}
    weights |= _judged(in_order(judges, "D", "D2"), found, options, taken, s.out_channels)
    notes = ["the file does not say whether the U-Net was trained with dropout; the recipe has 0.5"]
    return Assembly(
        "BicycleGAN",
        "bicyclegan-paper",
        {"translator": options},
        {"a": s.in_channels, "b": s.out_channels},
        weights,
        taken,
        [] if judges else ["discriminators"],
        BSD,
        notes,
    )


def _judged(
    judges: Sequence[OfficialFile],
    found: Mapping[Path, Structure],
    options: dict[str, Any],
    taken: dict[Path, str],
    channels: int,
) -> dict[str, Tensor]:
    """The tensors of the discriminators, after adding what they are to the options and to `taken`."""
    if not judges:
        return {}
    for file in judges:
        if found[file.path].in_channels != channels:
            raise WeightsError(
                f"{file.path.name} judges {found[file.path].in_channels} channels, but images of b have "
                f"{channels}; discriminators that see the input as well are not supported"
            )
    kinds = {file.path: dataclasses.replace(found[file.path], in_channels=1) for file in judges}
    options["discriminator"] = component(same_component(kinds)).table()
    options["shared_discriminator"] = len(judges) == 1
    names = ["shared"] if len(judges) == 1 else ["encoded", "random"]
    weights: dict[str, Tensor] = {}
    for name, file in zip(names, judges, strict=True):
        taken[file.path] = "discriminator" if name == "shared" else f"discriminator of {name} translations"
        weights |= under(f"discriminators.{name}", file.read(to_ours))
    return weights


def bicyclegan_files(translator: Translator, judged: bool) -> OfficialState:
    """The files of a BicycleGAN.

    Args:
        judged: whether its discriminators are trained.

    Raises:
        WeightsError: the repository has no such network.
    """
    ((source, to),) = translator.directions
    given, made = translator.images.channels[source], translator.images.channels[to]
    code = translator.style_length(to)
    yield "latest_net_G.pth", _state(translator.networks["generator"], given, made, code)
    yield "latest_net_E.pth", _state(translator.networks["encoder"], made, made, code)
    judges = translator.networks["discriminators"]
    assert isinstance(judges, nn.ModuleDict)
    for name, judge in judges.items() if judged else ():
        file = "latest_net_D2.pth" if name == "random" else "latest_net_D.pth"
        yield file, _state(judge, made, made, code)


def _state(network: nn.Module, in_channels: int, out_channels: int, latent_dim: int) -> dict[str, Tensor]:
    spec = spec_of(network)
    return to_official(network.state_dict(), structure_of(spec, in_channels, out_channels, latent_dim))

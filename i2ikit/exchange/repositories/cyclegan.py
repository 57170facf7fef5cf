"""CycleGAN and pix2pix (pytorch-CycleGAN-and-pix2pix), and the generators of CUT."""

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
from i2ikit.official.resnet_unet import (
    Structure,
    component,
    recognise,
    structure_of,
    to_official,
    to_ours,
)
from i2ikit.translator import Translator

__all__ = ["assemble", "cyclegan_files", "pix2pix_files"]

Structures = Mapping[Path, Structure]


def assemble(files: Sequence[OfficialFile], old_unet: bool) -> Assembly:
    """A CycleGAN of two generators, else a translator in one direction.

    Args:
        old_unet: see `resnet_unet.to_ours`.

    Raises:
        WeightsError: a file is not of such a network, or the networks do not make up a translator.
    """
    found = {file.path: file.read(recognise) for file in files}
    tensors = {file.path: file.read(lambda x: to_ours(x, skip_first=not old_unet)) for file in files}
    generators = [file for file in files if found[file.path].arch in ("resnet", "unet")]
    judges = [file for file in files if found[file.path].arch == "patchgan"]
    if not generators:
        raise WeightsError("none of these files is a generator, without which nothing can be translated")
    if len(generators) > 2:
        raise WeightsError(
            f"{len(generators)} generators are more than a translator has; give the files of one model"
        )
    if len(generators) == 2 and len(judges) > 2:
        raise WeightsError(f"{len(judges)} discriminators are more than a CycleGAN has")
    if len(generators) == 2:
        return _cyclegan(in_order(generators, "G_A", "G_B"), in_order(judges, "D_A", "D_B"), found, tensors)
    return _one_direction(generators[0], judges, found, tensors)


def _cyclegan(
    generators: Sequence[OfficialFile],
    judges: Sequence[OfficialFile],
    found: Structures,
    tensors: Mapping[Path, Mapping[str, Tensor]],
) -> Assembly:
    """G_A translates a to b, and D_A judges images of b."""
    first, second = (file.path for file in generators)
    channels = {"a": found[first].in_channels, "b": found[first].out_channels}
    if (found[second].in_channels, found[second].out_channels) != (channels["b"], channels["a"]):
        raise WeightsError(
            f"{first.name} and {second.name} are not the two directions of one model: {channels['a']} to "
            f"{channels['b']} channels, and {found[second].in_channels} to {found[second].out_channels}"
        )
    options: dict[str, Any] = {"noise_dim": 0, "generator": _shared(generators, found)}
    weights = under("generators.b", tensors[first]) | under("generators.a", tensors[second])
    taken = {first: "generator a to b", second: "generator b to a"}
    if len(judges) == 2:
        of_b, of_a = (file.path for file in judges)
        for path, domain in ((of_b, "b"), (of_a, "a")):
            if found[path].in_channels != channels[domain]:
                raise WeightsError(
                    f"{path.name} judges {found[path].in_channels} channels, but images of {domain} have "
                    f"{channels[domain]}"
                )
        options["discriminator"] = _shared(judges, found)
        weights |= under("discriminators.b", tensors[of_b]) | under("discriminators.a", tensors[of_a])
        taken |= {of_b: "discriminator of b", of_a: "discriminator of a"}
    elif judges:
        name = judges[0].path.name
        raise WeightsError(f"a CycleGAN has two discriminators, but {name} is one; give both, or none")
    if len({*channels.values()}) > 1:
        options["weights"] = {"generator": {"identity": 0.0}}
    fresh = [] if judges else ["discriminators"]
    return Assembly(
        "CycleGAN", "cyclegan-paper", {"translator": options}, channels, weights, taken, fresh, BSD
    )


def _one_direction(
    generator: OfficialFile,
    judges: Sequence[OfficialFile],
    found: Structures,
    tensors: Mapping[Path, Mapping[str, Tensor]],
) -> Assembly:
    """pix2pix; or a generator of CycleGAN or CUT without the other networks of its training."""
    s = found[generator.path]
    spec, notes = component(s).table(), []
    if s.arch == "unet":
        spec["dropout"] = 0.5
        notes.append(
            "the file does not say whether the U-Net was trained with dropout; the recipe has 0.5, as pix2pix"
        )
    options: dict[str, Any] = {"direction": "a2b", "generator": spec}
    weights, taken = under("generator", tensors[generator.path]), {generator.path: "generator a to b"}
    fitting = [file for file in judges if found[file.path].in_channels == s.in_channels + s.out_channels]
    if len(fitting) == 1:
        (judge,) = (file.path for file in fitting)
        options["discriminator"] = component(found[judge]).table()
        weights |= under("discriminator", tensors[judge])
        taken[judge] = "discriminator of a beside b"
    else:
        notes += [f"{file.path.name} is not used: it does not see the input" for file in judges]
    if s.arch != "unet":
        notes.append("it has one generator: the recipe is that of pix2pix, which needs pairs for training on")
    name, fresh = ("pix2pix", []) if len(fitting) == 1 else ("one generator", ["discriminator"])
    channels = {"a": s.in_channels, "b": s.out_channels}
    return Assembly(
        name, "pix2pix-paper", {"translator": options}, channels, weights, taken, fresh, BSD, notes
    )


def _shared(files: Sequence[OfficialFile], found: Structures) -> dict[str, Any]:
    kinds = {
        file.path: dataclasses.replace(found[file.path], in_channels=1, out_channels=1) for file in files
    }
    return component(same_component(kinds)).table()


def cyclegan_files(translator: Translator, judged: bool) -> OfficialState:
    """The files of a CycleGAN.

    Args:
        judged: whether its discriminators are trained.

    Raises:
        WeightsError: the repository has no such network.
    """
    first, second = translator.domains
    channels = translator.images.channels
    generators, judges = translator.networks["generators"], translator.networks["discriminators"]
    assert isinstance(generators, nn.ModuleDict)
    assert isinstance(judges, nn.ModuleDict)
    for letter, source, to in (("A", first, second), ("B", second, first)):
        yield f"latest_net_G_{letter}.pth", _state(generators[to], channels[source], channels[to])
        if judged:
            yield f"latest_net_D_{letter}.pth", _state(judges[to], channels[to], 1)


def pix2pix_files(translator: Translator, judged: bool) -> OfficialState:
    """The files of a pix2pix; see `cyclegan_files`."""
    ((source, to),) = translator.directions
    given, made = translator.images.channels[source], translator.images.channels[to]
    yield "latest_net_G.pth", _state(translator.networks["generator"], given, made)
    if judged:
        yield "latest_net_D.pth", _state(translator.networks["discriminator"], given + made, 1)


def _state(network: nn.Module, in_channels: int, out_channels: int) -> dict[str, Tensor]:
    spec = spec_of(network)
    return to_official(network.state_dict(), structure_of(spec, in_channels, out_channels))

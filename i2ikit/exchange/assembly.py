"""Which translator the networks in official files make up, and which of its roles each one has."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from i2ikit.errors import WeightsError
from i2ikit.official import resnet_unet
from i2ikit.official.files import read_weights_file
from i2ikit.official.resnet_unet import Structure

__all__ = ["Assembly", "assembled"]

ROLE = re.compile(r"net_(G_A|G_B|D_A|D_B|G|D|E|D2|F)$")
"""The end of the name of a file of the official repositories, without its ending."""

FOLDER = ("*.pth", "*.pt")
BSD = "the official code is under a BSD licence; the licence of weights is a matter of those who trained them"


@dataclass(frozen=True)
class Assembly:
    """A translator made of official weights.

    Args:
        name: what it is, in words.
        recipe: the recipe that ships with i2ikit and has the published options.
        options: a table of recipe keys that differ from it.
        channels: of the domains a and b.
        tensors: by `role.name`.
        taken: what each file is.
        fresh: networks that start with random weights, for training on.
        licence: a note about the licence.
        notes: what the files do not say.
    """

    name: str
    recipe: str
    options: Mapping[str, Any]
    channels: Mapping[str, int]
    tensors: Mapping[str, Tensor]
    taken: Mapping[Path, str]
    fresh: Sequence[str]
    licence: str
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class _Network:
    """The network in a file of the CycleGAN or the CUT repository."""

    file: Path
    structure: Structure
    tensors: Mapping[str, Tensor]

    @property
    def role(self) -> str:
        """From the name of the file; empty if it says nothing."""
        found = ROLE.search(self.file.stem)
        return found[1] if found else ""

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors, named `prefix.name`."""
        return {f"{prefix}.{name}": x for name, x in self.tensors.items()}


def assembled(files: Sequence[Path], old_unet: bool = False) -> Assembly:
    """The translator in official files.

    Args:
        files: of one model; or one folder that holds them.
        old_unet: its U-Nets are from before 2017-09-22, see `resnet_unet.to_ours`.

    Raises:
        WeightsError: a file cannot be read, or is not of a network that i2ikit has; or these networks do not
            make up a translator.
    """
    networks = [_network(file, old_unet) for file in _listed(files)]
    generators = [n for n in networks if n.structure.arch in ("resnet", "unet")]
    discriminators = [n for n in networks if n.structure.arch == "patchgan"]
    if not generators:
        raise WeightsError("none of these files is a generator, without which nothing can be translated")
    if len(generators) > 2:
        raise WeightsError(
            f"{len(generators)} generators are more than a translator has: give one model at a time"
        )
    if len(generators) == 2:
        return _cyclegan(generators, discriminators)
    return _one_direction(generators[0], discriminators)


def _listed(files: Sequence[Path]) -> list[Path]:
    """The files; of a folder, those in it, which must be of one epoch."""
    found: list[Path] = []
    for path in files:
        found += sorted(file for ending in FOLDER for file in path.glob(ending)) if path.is_dir() else [path]
        if path.is_dir() and not found:
            raise WeightsError(f"{path}/ contains no .pth or .pt file")
    latest = [file for file in found if file.name.startswith("latest_")]
    return latest if latest and any(path.is_dir() for path in files) else found


def _network(file: Path, old_unet: bool) -> _Network:
    found = read_weights_file(file)
    try:
        structure = resnet_unet.recognise(found)
        return _Network(file, structure, resnet_unet.to_ours(found, skip_first=not old_unet))
    except WeightsError as error:
        raise WeightsError(f"{file}: {error}") from error


def _cyclegan(generators: Sequence[_Network], discriminators: Sequence[_Network]) -> Assembly:
    """G_A translates a to b, and D_A judges images of b."""
    first, second = _in_order(generators, "G_A", "G_B")
    channels = {"a": first.structure.in_channels, "b": first.structure.out_channels}
    if (second.structure.in_channels, second.structure.out_channels) != (channels["b"], channels["a"]):
        raise WeightsError(
            f"{first.file.name} and {second.file.name} are not the two directions of one model: "
            f"{channels['a']} to {channels['b']} channels, and {second.structure.in_channels} to "
            f"{second.structure.out_channels}"
        )
    spec = _same_component(first, second)
    tensors = first.under("generators.b") | second.under("generators.a")
    taken = {first.file: "generator a to b", second.file: "generator b to a"}
    options: dict[str, Any] = {"noise_dim": 0, "generator": spec}
    fresh = ["discriminators"]
    if len(discriminators) == 2:
        of_b, of_a = _in_order(discriminators, "D_A", "D_B")
        options["discriminator"] = _same_component(of_b, of_a)
        tensors |= of_b.under("discriminators.b") | of_a.under("discriminators.a")
        taken |= {of_b.file: "discriminator of b", of_a.file: "discriminator of a"}
        fresh = []
    elif discriminators:
        raise WeightsError(
            f"a CycleGAN has two discriminators, but {discriminators[0].file.name} is one; give both, or none"
        )
    if set(channels.values()) != {channels["a"]}:
        options["weights"] = {"generator": {"identity": 0.0}}
    return Assembly("CycleGAN", "cyclegan-paper", options, channels, tensors, taken, fresh, BSD)


def _one_direction(generator: _Network, discriminators: Sequence[_Network]) -> Assembly:
    """pix2pix; or a generator of CycleGAN or CUT without the other networks of its training."""
    s = generator.structure
    channels = {"a": s.in_channels, "b": s.out_channels}
    spec = resnet_unet.component(s).table()
    notes = []
    if s.arch == "unet":
        spec["dropout"] = 0.5
        notes.append(
            "the file does not say whether the U-Net was trained with dropout; the recipe has 0.5, as pix2pix"
        )
    options: dict[str, Any] = {"direction": "a2b", "generator": spec}
    tensors, taken = generator.under("generator"), {generator.file: "generator a to b"}
    judges = [d for d in discriminators if d.structure.in_channels == s.in_channels + s.out_channels]
    if len(judges) == 1:
        (judge,) = judges
        options["discriminator"] = resnet_unet.component(judge.structure).table()
        tensors |= judge.under("discriminator")
        taken[judge.file] = "discriminator of a beside b"
        return Assembly("pix2pix", "pix2pix-paper", options, channels, tensors, taken, [], BSD, notes)
    notes += [
        f"{d.file.name} is not used: it does not see the input, as that of pix2pix does"
        for d in discriminators
    ]
    if s.arch != "unet":
        notes.append("one generator: the recipe is that of pix2pix, which needs pairs for training on")
    return Assembly(
        "one generator", "pix2pix-paper", options, channels, tensors, taken, ["discriminator"], BSD, notes
    )


def _in_order(networks: Sequence[_Network], *roles: str) -> list[_Network]:
    """The networks in the order of these roles; in the order given if the names of the files say nothing."""
    by_role = {network.role: network for network in networks}
    return [by_role[role] for role in roles] if set(by_role) == set(roles) else list(networks)


def _same_component(*networks: _Network) -> dict[str, Any]:
    """The component of networks that differ in nothing but their channels."""
    kinds = {dataclasses.replace(n.structure, in_channels=1, out_channels=1) for n in networks}
    if len(kinds) > 1:
        names = " and ".join(n.file.name for n in networks)
        raise WeightsError(f"{names} have different structures: {', '.join(map(str, kinds))}")
    return resnet_unet.component(networks[0].structure).table()

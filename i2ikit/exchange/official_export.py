"""The networks of a run in the layout of an official repository, for its tools."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from i2ikit.checkpoints import newest_checkpoint, read_networks
from i2ikit.errors import ExportError, WeightsError
from i2ikit.official import resnet_unet
from i2ikit.registry import built_from
from i2ikit.run import Run
from i2ikit.translator import Translator

__all__ = ["official_files"]


def official_files(run: Run) -> dict[str, bytes]:
    """The content of each file, by its name in the official repository.

    Generators have the averaged weights, as in translation, and discriminators those of the newest
    checkpoint; without one, they are left out.

    Raises:
        ExportError: the official code has no such translator, or one of its networks is another one.
    """
    translator = run.model.translator
    spec = built_from(translator)
    writer = WRITERS.get(spec.name if spec else "")
    if writer is None:
        known = ", ".join(WRITERS)
        name = spec.name if spec else type(translator).__name__
        raise ExportError(f"the translator '{name}' has no official layout; these have: {known}")
    checkpoint = newest_checkpoint(run.folder)
    trained = {} if checkpoint is None else read_networks(checkpoint)[0]
    if trained:
        for role in translator.adversarial:
            prefix = f"{role}."
            own = {name.removeprefix(prefix): x for name, x in trained.items() if name.startswith(prefix)}
            translator.networks[role].load_state_dict(own)
    try:
        return {name: _saved(state) for name, state in writer(translator, bool(trained))}
    except WeightsError as error:
        raise ExportError(f"{run.folder} cannot be written in the official layout: {error}") from error


Files = Iterator[tuple[str, Mapping[str, Any]]]


def _cyclegan(translator: Translator, judged: bool) -> Files:
    """G_A translates a to b, and D_A judges images of b."""
    first, second = translator.domains
    channels = translator.images.channels
    generators, judges = translator.networks["generators"], translator.networks["discriminators"]
    assert isinstance(generators, nn.ModuleDict)
    assert isinstance(judges, nn.ModuleDict)
    for letter, source, to in (("A", first, second), ("B", second, first)):
        yield f"latest_net_G_{letter}.pth", _state(generators[to], channels[source], channels[to])
        if judged:
            yield f"latest_net_D_{letter}.pth", _state(judges[to], channels[to], 1)


def _pix2pix(translator: Translator, judged: bool) -> Files:
    """The discriminator sees both images."""
    ((source, to),) = translator.directions
    given, made = translator.images.channels[source], translator.images.channels[to]
    yield "latest_net_G.pth", _state(translator.networks["generator"], given, made)
    if judged:
        yield "latest_net_D.pth", _state(translator.networks["discriminator"], given + made, 1)


WRITERS: Mapping[str, Callable[[Translator, bool], Files]] = {"cyclegan": _cyclegan, "pix2pix": _pix2pix}
"""By the name of the translator: its files, and whether the discriminators are trained."""


def _state(network: nn.Module, in_channels: int, out_channels: int) -> dict[str, Tensor]:
    """A network of the CycleGAN repository in its own layout.

    Raises:
        WeightsError: it has no such network.
    """
    spec = built_from(network)
    if spec is None:
        raise WeightsError(f"{type(network).__name__} was not built from a recipe")
    structure = resnet_unet.structure_of(spec, in_channels, out_channels)
    return resnet_unet.to_official(network.state_dict(), structure)


def _saved(state: Mapping[str, Any]) -> bytes:
    file = io.BytesIO()
    torch.save(dict(state), file)
    return file.getvalue()

"""The networks of a run in the layout of an official repository, for its tools."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import torch

from i2ikit.checkpoints import newest_checkpoint, read_networks
from i2ikit.errors import ExportError, WeightsError
from i2ikit.exchange.assembly import OfficialState
from i2ikit.exchange.repositories.bicyclegan import bicyclegan_files
from i2ikit.exchange.repositories.cyclegan import cyclegan_files, pix2pix_files
from i2ikit.exchange.repositories.munit import munit_files
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


WRITERS: Mapping[str, Callable[[Translator, bool], OfficialState]] = {
    "munit": munit_files,
    "bicyclegan": bicyclegan_files,
    "cyclegan": cyclegan_files,
    "pix2pix": pix2pix_files,
}
"""By the name of the translator."""


def _saved(state: Mapping[str, Any]) -> bytes:
    file = io.BytesIO()
    torch.save(dict(state), file)
    return file.getvalue()

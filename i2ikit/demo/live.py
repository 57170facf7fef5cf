"""A trained model that is opened again when its file has changed, because its run is still training."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from i2ikit.data.dataset import Dataset
from i2ikit.errors import I2IKitError
from i2ikit.loading import load
from i2ikit.model import Model
from i2ikit.run import Run, open_run
from i2ikit.sampling import distinct_test_indices

__all__ = ["LiveModel", "opened"]


class LiveModel:
    """A run or an exported file, and the newest model that it has.

    Args:
        found: from `i2ikit.load`; of a run, weights must have been saved.
        device: where to compute, see `i2ikit.load`.

    Raises:
        I2IKitError: it cannot be opened.
    """

    def __init__(self, found: Run | Model, device: str | torch.device | None = None) -> None:
        self._device = device
        self._run = found if isinstance(found, Run) else None
        self.path = found.weights_file if isinstance(found, Run) and found.best else _path(found)
        self._file = found.weights_file if isinstance(found, Run) else found.path
        self._seen = _signature(self._file)
        self._model = found.model if isinstance(found, Run) else found

    def model(self) -> Model:
        """The newest model; while the file is missing or cannot be read, the one before."""
        if self._run is not None and (now := _signature(self._file)) not in (None, self._seen):
            with contextlib.suppress(I2IKitError, OSError):
                self._model = open_run(self._file, self._device).model
            self._seen = now
        return self._model

    def held_out(self, domain: str, most: int, seed: int) -> list[Tensor]:
        """Different held-out images (C, H, W) of a domain; [] if its images are gone."""
        if self._data is None or domain not in self._data.images.channels:
            return []
        try:
            chosen = distinct_test_indices(self._data, domain, most, seed)
            return [self._data.image("test", domain, index) for index in chosen]
        except (I2IKitError, OSError):
            return []

    @functools.cached_property
    def _data(self) -> Dataset | None:
        try:
            return self._run.dataset() if self._run else None
        except (I2IKitError, OSError):
            return None


def _path(found: Run | Model) -> Path:
    return found.folder if isinstance(found, Run) else found.path


def _signature(file: Path) -> tuple[int, ...] | None:
    """Different after each saving: files are replaced, not changed."""
    try:
        about = os.stat(file)
    except OSError:
        return None
    return about.st_ino, about.st_mtime_ns, about.st_size


def opened(given: Path | None, device: str | None, wait: float = 1.0) -> Iterator[str | LiveModel]:
    """Open a run or an exported file; wait for the first weights of a run that is training.

    Args:
        given: as for `i2ikit.load`.
        device: as for `i2ikit.load`.
        wait: seconds between two looks.

    Yields:
        A sentence if it has to wait; last, the model.

    Raises:
        I2IKitError: it cannot be opened.
    """
    found = load(given, device)
    if isinstance(found, Run) and not found.best and not found.weights_file.exists():
        yield f"{found.folder} has not saved any weights yet. Waiting for them; Ctrl-C stops."
        while not found.weights_file.exists():
            time.sleep(wait)
    yield LiveModel(found, device)

"""Training batches in a reproducible order, and the share of each process.

The order of the images and the augmentation of each depend only on (seed, domain, epoch, index) (see
`draws`), so the batches of a step can be made without those of earlier steps.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data._utils import signal_handling

from i2ikit.data.dataset import Dataset, Streamed
from i2ikit.draws import counted_generator
from i2ikit.errors import DataError

__all__ = ["shares", "training_batches"]

T = TypeVar("T")

KILLED = re.compile(r"DataLoader worker \(pid.*\) (exited unexpectedly|is killed by signal)")
"""torch's words about a worker that has ended without an error of its own."""


class _Positions(TorchDataset[dict[str, Tensor]]):
    """Training images by their position in the endless reproducible order."""

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        return {domain: self._image(domain, position) for domain in self.dataset.images.channels}

    def _image(self, domain: str, position: int) -> Tensor:
        # Unpaired domains are shuffled independently, so that an outline does not meet its own drawing.
        stream = "pair" if self.dataset.paired else domain
        epoch, place = divmod(position, self.dataset.count("train", domain))
        index = _order(self.seed, stream, epoch, self.dataset.count("train", domain))[place]
        rng = counted_generator(self.seed, "augmentation", stream, epoch, index)
        return self.dataset.image("train", domain, index, rng)


@functools.lru_cache(maxsize=8)
def _order(seed: int, stream: str, epoch: int, count: int) -> list[int]:
    """A permutation of range(count), for this epoch of this stream."""
    return counted_generator(seed, "order", stream, epoch).permutation(count).tolist()


def shares(batch_size: int, parts: int, accumulation: int, processes: int) -> list[list[list[int]]]:
    """Split the places of a batch: result[micro-batch][process] lists the places of that share.

    Each share gets the same number of places from each part of the batch, in order; shares may
    differ in size by one such set. The images of a micro-batch do not depend on the number of
    processes.

    Args:
        batch_size: a multiple of `parts`, and at least parts * accumulation * processes; a batch
            that is not split can have any size.
        parts: number of parts of the batch with different roles (`Translator.batch_parts`).

    Raises:
        DataError: a share would be empty, or the parts would be uneven.
    """
    if accumulation == processes == 1:
        return [[list(range(batch_size))]]
    if batch_size < parts * accumulation * processes or batch_size % parts:
        raise DataError(
            f"a batch of {batch_size} in {parts} part{'s' * (parts > 1)} cannot be split among {processes} "
            f"processes and {accumulation} micro-batches"
        )
    sets = np.arange(batch_size).reshape(parts, -1)
    micro_batches = np.array_split(sets, accumulation, axis=1)
    return [
        [share.ravel().tolist() for share in np.array_split(micro_batch, processes, axis=1)]
        for micro_batch in micro_batches
    ]


def training_batches(
    dataset: Dataset,
    seed: int,
    first_step: int,
    last_step: int,
    batch_size: int,
    places: Sequence[int],
    num_workers: int = 0,
) -> Iterator[dict[str, Tensor]]:
    """The batches of steps first_step to last_step (exclusive).

    Args:
        batch_size: the global batch size; step t starts at position t * batch_size.
        places: the places of each batch that this process reads.

    Yields:
        `{"a": (len(places), C, size, size), "b": ...}`, values in [-1, 1].
    """
    loader: DataLoader[dict[str, Tensor]]
    if isinstance(dataset, Streamed):
        num_workers = min(num_workers, len(places))
        source = _Streams(dataset, seed, first_step, last_step, batch_size, places)
        loader = DataLoader(
            source, None, num_workers=num_workers, worker_init_fn=_leave_signals_to_the_main_process
        )
        parts = _plainly(loader)  # each batch has one part from each worker, in turn
        for step_parts in zip(*[parts] * max(1, num_workers), strict=True):
            yield {d: torch.cat([part[d] for part in step_parts]) for d in step_parts[0]}
        return
    steps = ([t * batch_size + place for place in places] for t in range(first_step, last_step))
    loader = DataLoader(
        _Positions(dataset, seed),
        batch_sampler=steps,
        num_workers=num_workers,
        worker_init_fn=_leave_signals_to_the_main_process,
    )
    yield from _plainly(loader)


def _plainly(loader: Iterable[T]) -> Iterator[T]:
    """The items of a loader; removes the traceback that torch adds to the message of a worker's error.

    Raises:
        DataError: an image cannot be read, or a worker was killed.
    """
    try:
        with _deaths_surface_while_reading():
            items = iter(loader)
        yield from items
    except DataError as error:
        message = str(error).rpartition(f"{DataError.__name__}: ")[2].strip()
        raise DataError(message) from error
    except RuntimeError as error:
        if not KILLED.search(str(error)):
            raise
        raise DataError(
            "a process that reads images was killed, perhaps because the memory was full; "
            "training.workers sets their number, and 0 needs none"
        ) from error


@contextlib.contextmanager
def _deaths_surface_while_reading() -> Iterator[None]:
    """Take back the handler that torch sets when it starts workers.

    It would raise the death of a worker at any point of the main process, such as between two optimizers of
    one step. Without it, the next read notices within 5 seconds that the worker is gone.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not hasattr(signal, "SIGCHLD") or not is_main:  # torch then sets none
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        # torch sets its handler once per program, so an earlier loader may have done it.
        is_torchs = getattr(before, "__module__", None) == signal_handling.__name__
        signal.signal(signal.SIGCHLD, signal.SIG_DFL if is_torchs or before is None else before)


class _Streams(IterableDataset[dict[str, Tensor]]):
    """The images of the given places in each batch; each worker reads a part of these places."""

    def __init__(
        self, dataset: Streamed, seed: int, first: int, last: int, batch_size: int, places: Sequence[int]
    ) -> None:
        self.dataset = dataset
        self.seed = seed
        self.first, self.last = first, last
        self.batch_size = batch_size
        self.places = places

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker else (0, 1)
        mine = np.array_split(np.asarray(self.places), count)[number].tolist()
        streams = [self.dataset.stream(self.seed, place, self.batch_size, self.first) for place in mine]
        for _ in range(self.first, self.last):
            images = [next(stream) for stream in streams]
            yield {d: torch.stack([each[d] for each in images]) for d in images[0]}


def _leave_signals_to_the_main_process(worker: int) -> None:
    """Keep workers running after Ctrl-C or torchrun's SIGTERM, which reach the whole process group.

    The main process needs them until everything is saved. Workers do not ignore SIGTERM itself, because
    it is used to end them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        os.setpgrp()

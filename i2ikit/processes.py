"""The processes of one command: how many there are, what only the first does, how all end together.

torchrun (or `accelerate launch` on GPUs, mpirun on CPUs) starts them, Accelerate makes them a group. A
failure of one ends all with its message. Each also tells the others, from a thread of its own, that
it lives: one that dies, or whose machine does, is noticed within a minute, and one that is only slow
is waited for. All of this costs nothing where there is one process.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from i2ikit.errors import I2IKitError, ProcessError

__all__ = ["ALONE", "Processes", "leave", "processes"]

T = TypeVar("T")

TIMEOUT = timedelta(hours=2)
"""How long a process waits for another: the first one may count a bucket's images, or render some."""

LOOK_S = 0.5
STORE_TIMEOUT_S = 10.0
FAILED, HEARD = "failed", "heard"
"""Keys of the store: how many processes have failed, and how many know that one has."""

LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process exited")
"""What gloo and NCCL say when the process at the other end is gone."""

SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_NTASKS")
"""Where launchers say how many processes there should be."""


@dataclass(frozen=True)
class Processes:
    """The group that this process belongs to; collective calls are made by all or by none.

    Args:
        rank: the number of this process, from 0.
        count: how many there are.
        device: where it computes.
        backend: what carries their messages; None if there is one process.
    """

    rank: int
    count: int
    device: torch.device
    backend: str | None

    def __str__(self) -> str:
        through = f" ({self.backend})" if self.count > 1 else ""
        return f"{self.count} process{'es' * (self.count > 1)} on {self.device.type}{through}"

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def on_main(self, work: Callable[[], T]) -> T:
        """What `work` returns in the first process, in all of them. Collective."""
        results = [work() if self.is_main else None]
        if self.count > 1:
            broadcast_object_list(results)
        return results[0]  # type: ignore[return-value]

    @contextlib.contextmanager
    def first_on_each_machine(self) -> Iterator[None]:
        """Within: one process of each machine works (fetches, renders), then all others. Collective."""
        with PartialState().local_main_process_first():
            yield

    def gather(self, items: list[Any]) -> list[Any]:
        """The lists of all processes, joined in the order of their ranks. Collective."""
        return gather_object(items) if self.count > 1 else items

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes of a tensor of one shape. Collective."""
        if self.count == 1:
            return values
        summed = values.clone()
        dist.all_reduce(summed)
        return summed / self.count

    def most(self, number: int) -> int:
        """The largest of all processes' numbers. Collective."""
        if self.count == 1:
            return number
        largest = torch.tensor(number, device=self.device)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest.item())

    def remarks(self) -> list[str]:
        """What a person should know who started more processes than there are."""
        asked = {name: _number(name) for name in SIZES}
        found = [
            f"{name} = {number}, but this run has {self.count} process{'es' * (self.count > 1)}"
            for name, number in asked.items()
            if number > self.count
        ]
        launched = "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_PORT" in os.environ
        if self.count == 1 and launched and not found:
            found.append("`accelerate launch` was asked for several processes, and started one")
        if found:
            found.append("start several with `torchrun --standalone --nproc_per_node N -m i2ikit run ...`")
        return found


ALONE = Processes(0, 1, torch.device("cpu"), None)
"""One process, on the CPU."""


def _number(variable: str) -> int:
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() else 0


@contextlib.contextmanager
def processes() -> Iterator[Processes]:
    """The group of this process; one that is begun here also ends here, in all processes at once.

    Raises:
        ProcessError: another process failed, or died.
    """
    begun_here = not dist.is_initialized()
    # Accelerate takes several processes for one, unless it is told that they have no GPU.
    state = PartialState(cpu=not torch.accelerator.is_available(), timeout=TIMEOUT)
    group = Processes(state.process_index, state.num_processes, state.device, state.backend)
    if group.count == 1 or not begun_here:
        try:
            yield group
        finally:
            if begun_here and dist.is_initialized():  # torchrun with one process
                _end_group()
        return
    watch = _Watch(group)
    try:
        yield group
        dist.barrier()  # nobody leaves whom another waits for
    except BaseException as error:
        raise watch.verdict(error) from error
    watch.stop()
    _end_group()


def _end_group() -> None:
    # gloo aborts in some runs if what has used a group outlives it.
    gc.collect()
    dist.destroy_process_group()
    PartialState._reset_state()


def leave(code: int) -> None:
    """End this process; at once if its group still stands, which only a failure leaves behind.

    To destroy the group would wait for the others, and to exit without that aborts in some runs.
    """
    if dist.is_available() and dist.is_initialized():
        with contextlib.suppress(OSError, ValueError):  # nobody reads any more
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


class _Watch:
    """Makes the failure of one process the end of all, and its message the only one.

    A process that freezes is noticed by `TIMEOUT` only; one that dies, by its torchrun, or by the closed
    connections of those who wait for it.
    """

    def __init__(self, group: Processes) -> None:
        self.group = group
        self.over = threading.Event()  # this process has ended its work, or failed
        # A connection of its own: the group's is blocked while the main thread waits.
        connection = dist.TCPStore(  # type: ignore[attr-defined]
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            wait_for_workers=False,
            timeout=timedelta(seconds=STORE_TIMEOUT_S),
        )
        # torchrun's store outlives a group, and what was said in it.
        name = f"i2ikit-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '')}"
        self.store = dist.PrefixStore(name, connection)  # type: ignore[attr-defined]
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()

    def listen(self) -> None:
        """End this process, silently, when another has failed and said so."""
        with contextlib.suppress(RuntimeError):  # the store went with its process, which the group notices
            while not self.over.wait(LOOK_S):
                if self.store.check([FAILED]) and not self.over.is_set():
                    self.store.add(HEARD, 1)
                    leave(2)

    def stop(self) -> None:
        """Listen no longer."""
        self.over.set()
        self.thread.join(STORE_TIMEOUT_S)

    def verdict(self, error: BaseException) -> BaseException:
        """What this process should raise: its own error, unless another has failed before."""
        self.over.set()
        text = f"{type(error).__name__}: {error}"
        lost = isinstance(error, RuntimeError) and any(words in text for words in LOST)
        try:
            first = self.store.add(FAILED, 1) == 1
            self.store.add(HEARD, 1)
            if first and self.group.rank == 0 and "TORCHELASTIC_RUN_ID" not in os.environ:
                self.wait_until_heard()
        except RuntimeError:  # the store went with the process that held it
            first = True
        place = f"process {self.group.rank} of {self.group.count}"
        if lost:
            died = "was killed, its memory ran out, or its machine failed"
            said = f"{place} has lost another process, which said nothing: it {died} ({text.splitlines()[0]})"
            return ProcessError(said, silent=not first)
        if first and not isinstance(error, I2IKitError):
            return error  # a bug: its traceback is worth more than a sentence
        return ProcessError(f"{error} ({place})", silent=not first)

    def wait_until_heard(self) -> None:
        """For a process that holds the store: the others shall read it before it ends."""
        latest = time.monotonic() + STORE_TIMEOUT_S
        while self.store.add(HEARD, 0) < self.group.count and time.monotonic() < latest:
            time.sleep(LOOK_S)

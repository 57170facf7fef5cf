"""The processes of one command: their number, work for the main process only, and a common end.

torchrun (or `accelerate launch` on GPUs, mpirun on CPUs) starts the processes; Accelerate forms the
group. If one process fails, all end and only its message is printed: a thread of each process listens for
the failure of another. A process that is killed is detected by torchrun or by its closed connections, one
that hangs by the timeout of a collective call. A single process has no overhead.
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
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from i2ikit.errors import I2IKitError, ProcessError, of_the_system

__all__ = ["ALONE", "Processes", "leave", "processes"]

T = TypeVar("T")

TIMEOUT = timedelta(hours=2)
"""How long a process waits for another; the main one may take long to list a bucket or render images."""

LOOK_S = 0.5
STORE_TIMEOUT_S = 10.0
FAILED, HEARD = "failed", "heard"
"""Keys of the store: the number of processes that failed, and of those that have noticed a failure."""

LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process exited")
"""Parts of the error messages of gloo and NCCL when the remote process has died."""

SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_NTASKS")
"""Environment variables in which launchers give the number of processes."""


@dataclass(frozen=True)
class Processes:
    """The group that this process belongs to; collective calls must be made by all processes.

    Args:
        rank: the rank of this process, from 0.
        count: number of processes.
        device: device of this process.
        backend: communication backend; None if there is only one process.
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
        """Whether this is the main process (rank 0), which writes files and prints."""
        return self.rank == 0

    def on_main(self, work: Callable[[], T]) -> T:
        """Run `work` in the main process, and return its result in all processes. Collective."""
        results = [work() if self.is_main else None]
        if self.count > 1:
            broadcast_object_list(results)
        return results[0]  # type: ignore[return-value]

    @contextlib.contextmanager
    def first_on_each_machine(self) -> Iterator[None]:
        """Run the block first in one process of each machine (to download or render). Collective."""
        with PartialState().local_main_process_first():
            yield

    def gather(self, items: list[Any]) -> list[Any]:
        """The lists of all processes, joined in the order of their ranks. Collective."""
        return gather_object(items) if self.count > 1 else items

    def mean(self, values: Tensor) -> Tensor:
        """The mean of a tensor over all processes; its shape must be the same. Collective."""
        if self.count == 1:
            return values
        summed = values.clone()
        dist.all_reduce(summed)
        return summed / self.count

    def most(self, number: int) -> int:
        """The maximum of a number over all processes. Collective."""
        if self.count == 1:
            return number
        largest = torch.tensor(number, device=self.device)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest.item())

    def wait_for_the_end(self) -> NoReturn:
        """Wait until this process ends, because another one has failed and will report it."""
        dist.barrier()
        raise ProcessError("another process has failed", silent=True)

    def remarks(self) -> list[str]:
        """Warnings for a user who started more processes than there are in the group."""
        asked = {name: _number(name) for name in SIZES}
        found = [
            f"{name} = {number}, but this run has {self.count} process{'es' * (self.count > 1)}"
            for name, number in asked.items()
            if number > self.count
        ]
        launched = "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_PORT" in os.environ
        if self.count == 1 and launched and not found:
            found.append("`accelerate launch` was set to start several processes, but started one")
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
    """The group of this process; a group that starts here also ends here, in all processes together.

    Raises:
        ProcessError: another process failed or died.
    """
    begun_here = not dist.is_initialized()
    # Without cpu=True, Accelerate treats several processes without GPUs as single ones.
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
        dist.barrier()  # no process leaves while another waits for it
    except BaseException as error:
        raise watch.verdict(error) from error
    watch.stop()
    _end_group()


def _end_group() -> None:
    # gloo sometimes aborts if an object that has used the group outlives it.
    gc.collect()
    dist.destroy_process_group()
    PartialState._reset_state()


def leave(code: int) -> None:
    """End this process; at once if its group still exists, which only happens after a failure.

    Destroying the group would wait for the others, and a normal exit without that sometimes aborts.
    """
    if dist.is_available() and dist.is_initialized():
        with contextlib.suppress(OSError, ValueError):  # the reader is gone
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:  # closed before the command began
                    stream.flush()
        os._exit(code)
    sys.exit(code)


def _with_notes(error: ProcessError, source: BaseException) -> ProcessError:
    """The error with what the notes of another say about saved steps."""
    for note in getattr(source, "__notes__", ()):
        error.add_note(note)
    return error


class _Watch:
    """Ends all processes when one fails, so that only its message is printed.

    A process that hangs is detected only by `TIMEOUT`; one that dies, by torchrun or by the closed
    connections of the processes that wait for it.
    """

    def __init__(self, group: Processes) -> None:
        self.group = group
        self.over = threading.Event()  # this process has finished or failed
        # A separate connection: the group's is blocked while the main thread waits.
        connection = dist.TCPStore(  # type: ignore[attr-defined]
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            wait_for_workers=False,
            timeout=timedelta(seconds=STORE_TIMEOUT_S),
        )
        # torchrun's store keeps the keys of an earlier group, so each restart has its own prefix.
        name = f"i2ikit-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '')}"
        self.store = dist.PrefixStore(name, connection)  # type: ignore[attr-defined]
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()

    def listen(self) -> None:
        """End this process silently once another has reported its failure."""
        with contextlib.suppress(RuntimeError):  # the process with the store died; the group detects that
            while not self.over.wait(LOOK_S):
                if self.store.check([FAILED]) and not self.over.is_set():
                    self.store.add(HEARD, 1)
                    leave(2)

    def stop(self) -> None:
        """Stop listening."""
        self.over.set()
        self.thread.join(STORE_TIMEOUT_S)

    def verdict(self, error: BaseException) -> BaseException:
        """The error to raise in this process: its own, or a silent one if another process failed first."""
        self.over.set()
        text = f"{type(error).__name__}: {error}"
        lost = isinstance(error, RuntimeError) and any(words in text for words in LOST)
        try:
            first = self.store.add(FAILED, 1) == 1
            self.store.add(HEARD, 1)
            if first and self.group.rank == 0 and "TORCHELASTIC_RUN_ID" not in os.environ:
                self.wait_until_heard()
        except RuntimeError:  # the process with the store died
            first = True
        place = f"process {self.group.rank} of {self.group.count}"
        if lost:
            died = "it was killed, ran out of memory, or its machine failed"
            said = f"{place} has lost another process, which left no message: {died} ({text.splitlines()[0]})"
            return _with_notes(ProcessError(said, silent=not first), error)
        if first and not isinstance(error, I2IKitError | OSError):
            return error  # a bug: show its traceback
        said = of_the_system(error) if isinstance(error, OSError) else str(error)
        return _with_notes(ProcessError(f"{said} ({place})", silent=not first), error)

    def wait_until_heard(self) -> None:
        """Wait until all have noticed the failure; the process with the store must outlive their reads."""
        latest = time.monotonic() + STORE_TIMEOUT_S
        while self.store.add(HEARD, 0) < self.group.count and time.monotonic() < latest:
            time.sleep(LOOK_S)

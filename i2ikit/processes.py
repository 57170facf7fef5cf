"""The processes of one command: how many there are, what only the first does, how all end together.

torchrun (or `accelerate launch` on GPUs, mpirun on CPUs) starts them, Accelerate makes them a group. A
failure of one ends all with its message. Each also tells the others, from a thread of its own, that
it lives: one that dies, or whose machine does, is noticed within a minute, and one that is only slow
is waited for. All of this costs nothing where there is one process.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import socket
import sys
import threading
import time
import uuid
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

__all__ = ["Processes", "leave", "processes"]

T = TypeVar("T")

BEAT_S = 5.0
SILENCE_S = 30.0
"""Without a sign of life for this long, a process is taken for dead."""

STORE_TIMEOUT_S = 10.0

PATIENCE = timedelta(days=1)
"""How long one waits for another that lives: it may count a bucket's images, or render some."""

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
        local_rank: its number on its machine, from 0.
        device: where it computes.
        backend: what carries their messages; None if there is one process.
    """

    rank: int
    count: int
    local_rank: int
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
    state = PartialState(cpu=not torch.accelerator.is_available(), timeout=PATIENCE)
    group = Processes(
        state.process_index, state.num_processes, state.local_process_index, state.device, state.backend
    )
    if group.count == 1 or not begun_here:
        try:
            yield group
        finally:
            if begun_here and dist.is_initialized():  # torchrun with one process
                _end_group()
        return
    watch = _Watch(group)
    try:
        watch.start()
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
    """Tells the other processes that this one lives, and ends it when one of them does not."""

    def __init__(self, group: Processes) -> None:
        self.group = group
        self.machine = socket.gethostname()
        self.ended = threading.Event()
        self.failed = threading.Event()
        self.threads: list[threading.Thread] = []
        self.beats = 0
        self.seen: dict[int, tuple[bytes, float]] = {}

    def start(self) -> None:
        """Watch until `stop`. Collective."""
        # A connection of its own: the group's is blocked while the main thread waits.
        connection = dist.TCPStore(  # type: ignore[attr-defined]
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            wait_for_workers=False,
            timeout=timedelta(seconds=STORE_TIMEOUT_S),
        )
        # torchrun's store outlives a group, and what was said in it.
        name = self.group.on_main(lambda: uuid.uuid4().hex)
        self.store = dist.PrefixStore(name, connection)  # type: ignore[attr-defined]
        self.beat()
        dist.barrier()  # each has given its first sign of life
        self.reached = time.monotonic()
        for task in (self.look, self.check_reached):
            thread = threading.Thread(target=self.repeat, args=(task,), daemon=True)
            thread.start()
            self.threads.append(thread)

    def beat(self) -> None:
        """One sign of life."""
        self.beats += 1
        self.store.set(f"alive-{self.group.rank}", str(self.beats))

    def stop(self) -> None:
        """Watch no longer."""
        self.ended.set()
        for thread in self.threads:
            thread.join(STORE_TIMEOUT_S)

    def repeat(self, task: Callable[[], ProcessError | None]) -> None:
        """Every few seconds; what it finds ends this process."""
        while not self.ended.wait(BEAT_S):
            error = task()
            if error is not None and not self.ended.is_set():
                with contextlib.suppress(OSError, ValueError):
                    sys.stderr.write("" if error.told else f"error: {error}\n")
                leave(2)

    def look(self) -> ProcessError | None:
        """What is wrong with another process, if anything."""
        if self.failed.is_set():  # the main thread says why
            return None
        now = time.monotonic()
        try:
            self.beat()
            if failure := self.failure():
                return failure
            values = self.store.multi_get([f"alive-{rank}" for rank in range(self.group.count)])
            for rank, value in enumerate(values):
                if self.seen.get(rank, (b"",))[0] != value:
                    self.seen[rank] = (value, now)
            silent = [str(rank) for rank, (_, heard) in self.seen.items() if now - heard > SILENCE_S]
            if silent:
                return self.claim(
                    f"process {', '.join(silent)} of {self.group.count} has not been heard of for "
                    f"{SILENCE_S:.0f} s; its machine or its memory may have failed"
                )
        except RuntimeError:  # the store cannot be reached; perhaps for a moment only
            return None
        self.reached = now
        return None

    def check_reached(self) -> ProcessError | None:
        """What is wrong with the process that holds the store; asking it may wait without end."""
        if time.monotonic() - self.reached < SILENCE_S:
            return None
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        return ProcessError(f"the first machine ({where}) has not been heard of for {SILENCE_S:.0f} s")

    def failure(self) -> ProcessError | None:
        """What the first process that failed has said, if one has."""
        if not self.store.check(["failure"]):
            return None
        said = json.loads(self.store.get("failure"))
        told = said["machine"] == self.machine or self.group.local_rank != 0
        return ProcessError(said["text"], told=told)

    def claim(self, text: str) -> ProcessError:
        """Be the first to say what went wrong; the earlier word if another was."""
        if self.store.add("failures", 1) == 1:
            self.store.set("failure", json.dumps({"machine": self.machine, "text": text}))
            return ProcessError(text)
        with contextlib.suppress(RuntimeError):
            self.store.wait(["failure"], timedelta(seconds=STORE_TIMEOUT_S))
        return self.failure() or ProcessError(text)

    def verdict(self, error: BaseException) -> BaseException:
        """What this process should raise: its own error if it is the first that failed."""
        self.failed.set()
        ours = isinstance(error, I2IKitError)
        text = str(error) if ours else f"{type(error).__name__}: {error}"
        lost = isinstance(error, RuntimeError) and any(words in text for words in LOST)
        if lost:
            said = (
                f"process {self.group.rank} of {self.group.count} has lost another process, which said "
                f"nothing: it was killed, its memory ran out, or its machine failed ({text.splitlines()[0]})"
            )
        else:
            said = f"{text} (process {self.group.rank} of {self.group.count})"
        try:
            first = self.claim(said)
        except (AttributeError, RuntimeError):  # no store yet, or it went with the process that held it
            first = ProcessError(said)
        mine = str(first) == said and not first.told
        if mine and self.group.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
            time.sleep(2 * BEAT_S)  # this process holds the store: the others shall read it first
        if mine and not ours and not lost:
            return error  # a bug: its traceback is worth more than a sentence
        return first

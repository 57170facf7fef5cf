"""Trials: something happens to a run, it is continued, and it must be as one that nothing happened to."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import safe_open

from tests.reliability.commands import FULL, READ_ONLY, TOO_LARGE, Ended, Event, command
from tests.reliability.runs import Whole, copied, differences, ended, flipped, resumed

__all__ = ["TRIALS", "Trial", "flips"]

Trial = Callable[[Whole, Path, random.Random], str | None]
"""Makes a run in an empty place and does something to it; returns what is wrong, in words, or None."""

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
STOPPED = {0, *(128 + number for number in SIGNALS[1:]), -signal.SIGTERM, -signal.SIGHUP}
"""The last two before training begins and after all is saved, where a signal ends a command as usual."""


def _interrupted(whole: Whole, run: Path, rng: random.Random, numbers: tuple[signal.Signals, ...]) -> Ended:
    """A command that a signal reaches: before an operation on a file, or at any moment."""
    is_new = not (run / "resolved.toml").exists()
    if is_new:
        shutil.rmtree(run, ignore_errors=True)
    arguments = whole.run(run) if is_new else ["resume", str(run)]
    number = rng.choice(numbers)
    if rng.random() < 0.5:
        return ended(arguments, run, Event(rng.randint(1, whole.operations), number))
    with command(arguments, run) as started:
        time.sleep(rng.uniform(0.1, 4))
        started.send(number)
        return started.ended()


def _is_as_whole(whole: Whole, run: Path) -> str | None:
    done = resumed(whole, run)
    if done.code != 0:
        return f"resume ended with {done.code}: {done.said[-600:]}"
    return "; ".join(differences(whole, run)) or None


def kills(whole: Whole, run: Path, rng: random.Random) -> str | None:
    """SIGKILL, up to three times in one run."""
    for _ in range(rng.randint(1, 3)):
        done = _interrupted(whole, run, rng, (signal.SIGKILL,))
        if done.code not in (0, -signal.SIGKILL):
            return f"a killed command ended with {done.code}: {done.said[-600:]}"
    return _is_as_whole(whole, run)


def stops(whole: Whole, run: Path, rng: random.Random) -> str | None:
    """SIGTERM, SIGINT or SIGHUP, up to three times in one run: all is saved, and said."""
    for _ in range(rng.randint(1, 3)):
        done = _interrupted(whole, run, rng, SIGNALS[1:])
        if (run / "checkpoints").exists() and (done.code not in STOPPED or "Traceback" in done.said):
            return f"a stopped command ended with {done.code}: {done.said[-600:]}"
    return _is_as_whole(whole, run)


def disks(whole: Whole, run: Path, rng: random.Random) -> str | None:
    """The disk is full, or read-only, or files cannot grow, from some operation on."""
    what = rng.choice((FULL, READ_ONLY, TOO_LARGE))
    done = ended(whole.run(run), run, Event(rng.randint(1, whole.operations), what))
    if done.code != 0 and not done.is_an_error_of_ours():
        return f"with a {what} disk: {done.code}: {done.said[-1500:]}"
    return _is_as_whole(whole, run)


def workers(whole: Whole, run: Path, rng: random.Random) -> str | None:
    """A worker that reads images is killed."""
    arguments = [*whole.run(run), "--set", "training.workers=2"]
    until = time.monotonic() + rng.uniform(0, 3)
    with command(arguments, run) as started:
        while started.process.is_alive() and not (
            time.monotonic() > until and len(started.workers()) > 1 and (run / "checkpoints").exists()
        ):
            time.sleep(0.01)
        pids = started.workers()
        if pids:
            os.kill(rng.choice(pids), signal.SIGKILL)
        done = started.ended()
    if done.code != 0 and not done.is_an_error_of_ours():
        return f"after a worker was killed: {done.code}: {done.said[-1500:]}"
    return _is_as_whole(whole, run)


def pictures(whole: Whole, run: Path, rng: random.Random) -> str | None:
    """A picture is cut off while the run trains, and later restored."""
    data = copied(whole.data, run.with_name(f"{run.name}-data"))
    file = rng.choice(sorted(data.glob("train*/*.png")))
    content, times = file.read_bytes(), file.stat()
    with command([*whole.run(run), "--set", f'data.root="{data}"'], run) as started:
        while started.process.is_alive() and not (run / "samples").exists():
            time.sleep(0.01)
        file.write_bytes(content[: rng.randrange(len(content))])
        done = started.ended()
    if done.code != 0 and not (done.is_an_error_of_ours() and str(file) in done.said):
        return f"after {file.name} was cut off: {done.code}: {done.said[-1500:]}"
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    return _is_as_whole(whole, run)


def writers(whole: Whole, run: Path, rng: random.Random) -> str | None:
    """Two commands train in one folder: one of them does, the other is told so."""
    with ExitStack() as stack:
        arguments = whole.run(run)
        if rng.random() < 0.5:
            _interrupted(whole, run, rng, (signal.SIGKILL,))
            if (run / "resolved.toml").exists():
                arguments = ["resume", str(run)]
            else:
                shutil.rmtree(run, ignore_errors=True)
        both = [stack.enter_context(command(arguments, run)) for _ in range(2)]
        done = [started.ended() for started in both]
    if not any(one.code == 0 for one in done):
        return f"neither of two commands trained: {done[0].said[-600:]} {done[1].said[-600:]}"
    for one in done:
        if one.code != 0 and not one.is_an_error_of_ours():
            return f"one of two commands ended with {one.code}: {one.said[-600:]}"
    return _is_as_whole(whole, run)


def values(whole: Whole, run: Path, rng: random.Random) -> str | None:
    """A learning rate that no network stands: it is said, and nothing that is not finite is saved."""
    rate = 10.0 ** rng.uniform(2, 38)
    rates = ["--set", f"optimizer.lr={rate}"]
    done = ended([*whole.run(run), *rates], run)
    for file in run.rglob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            if not all(torch.isfinite(tensors.get_tensor(name)).all() for name in tensors.keys()):  # noqa: SIM118
                return f"learning rate {rate}: {file.name} holds values that are not finite"
    if done.code == 0 and "went wrong" not in done.said:
        return f"learning rate {rate}: nothing was said: {done.said[-600:]}"
    return (
        None if done.code == 0 or done.is_an_error_of_ours() else f"learning rate {rate}: {done.said[-1500:]}"
    )


TRIALS: dict[str, Trial] = {
    "kills": kills,
    "stops": stops,
    "disks": disks,
    "workers": workers,
    "pictures": pictures,
    "writers": writers,
    "values": values,
}


def flips(whole: Whole, folder: Path, rng: random.Random, count: int) -> Iterator[tuple[str, str | None]]:
    """Flip bits in the files of a run that was stopped, one at a time.

    Yields:
        The kind of file, and what is wrong, in words, or None.
    """
    stopped = folder / "stopped"
    while not list(stopped.glob("checkpoints/step-*")) or (stopped / "samples/step-000014.png").exists():
        shutil.rmtree(stopped, ignore_errors=True)
        ended(
            whole.run(stopped),
            stopped,
            Event(rng.randint(whole.operations // 2, whole.operations), signal.SIGTERM),
        )
    names = sorted(
        str(p.relative_to(stopped)) for p in stopped.rglob("*") if p.is_file() and p.stat().st_size
    )
    order: list[str] = []
    while len(order) < count:
        order += rng.sample(names, len(names))
    for n, name in enumerate(order[:count]):
        run = copied(stopped, folder / f"flip-{n}")
        place = flipped(run / name, rng)
        wrong = _after_flip(whole, run, run / name)
        yield Path(name).parts[0], wrong and f"byte {place} of {name}: {wrong}"
        shutil.rmtree(run)


def _after_flip(whole: Whole, run: Path, file: Path) -> str | None:
    picture = next(whole.data.glob("testA/*.png"))
    if file.name in ("weights.safetensors", "best.safetensors"):
        done = ended(["translate", str(file), str(picture), "--styles", "1"], run)
        return None if done.is_an_error_of_ours() else f"translate ended with {done.code}: {done.said[-900:]}"
    done = ended(["resume", str(run)], run)
    if done.is_an_error_of_ours():
        return None
    if done.code != 0:
        return f"resume ended with {done.code}: {done.said[-900:]}"
    # What only people read keeps its damage.
    is_kept = file.name == "resolved.toml" or "checkpoints" in file.parts
    return "; ".join(differences(whole, run, None if is_kept else file)) or None

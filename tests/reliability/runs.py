"""Small runs with everything that a run can have, and what of two runs differs."""

from __future__ import annotations

import json
import logging
import random
import re
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.image_files import make_folders
from tests.reliability.commands import Ended, Event, command
from tests.tiny import NARROW, TINY

__all__ = ["METHODS", "Whole", "differences", "ended", "resumed", "whole"]

STEPS, KEEP = 14, 2
SHORT = (
    "data.name=folders",
    f"training.steps={STEPS}",
    "training.batch_size=2",
    "training.precision=fp32",
    "training.log_every=2",  # divides no other interval
    "training.sample_every=5",
    "training.checkpoint_every=3",
    f"training.keep={KEEP}",
    "optimizer.decay=none",
    "validation={metrics=['l1-diversity'], every=4, best='l1-diversity/diversity'}",
)
METHODS = {
    "munit": (
        *TINY,
        "data.size=32",
        "translator.content_encoder.width=2",
        "translator.discriminator={name='multiscale-patch', width=4, num_layers=2, num_scales=1}",
    ),
    "cyclegan-noise": (*NARROW["cyclegan"], "data.size=64"),
}
"""Recipes and what makes them small: one has styles and a probe, one keeps a pool of earlier images."""

NOT_COMPARED = {
    "tensorboard",
    "resolved.toml",
    ".lock",
    "metrics.jsonl",
    "results.csv",
    "sessions.jsonl",
    "report.html",
}


@dataclass(frozen=True)
class Whole:
    """A run that nothing has happened to.

    Args:
        operations: how many operations changed its files.
    """

    folder: Path
    data: Path
    arguments: tuple[str, ...]
    operations: int

    def run(self, out: Path) -> list[str]:
        """The arguments of the command that makes another one."""
        return ["run", *self.arguments, "--out", str(out)]


def whole(method: str, folder: Path) -> Whole:
    """Train one, with images of its own."""
    data = make_folders(folder / f"{method}-data", (20, 18), held_out=6)
    given = [f'data.root="{data}"', *METHODS[method], *SHORT]
    arguments = (method, *(part for setting in given for part in ("--set", setting)))
    out = folder / f"{method}-whole"
    done = ended(["run", *arguments, "--out", str(out)], out)
    if done.code != 0:
        raise AssertionError(done.said)
    return Whole(out, data, arguments, done.operations)


def ended(arguments: list[str], folder: Path, event: Event | None = None) -> Ended:
    """Run a command to its end."""
    with command(arguments, folder, event) as started:
        return started.ended()


def resumed(one: Whole, run: Path) -> Ended:
    """Continue a run to its end, from nothing if it had not begun."""
    if (run / "resolved.toml").exists():
        return ended(["resume", str(run)], run)
    shutil.rmtree(run, ignore_errors=True)
    return ended(one.run(run), run)


def differences(one: Whole, run: Path, but: Path | None = None) -> list[str]:
    """What differs from the whole run: bytes of files, files, logged values, and curves; times aside.

    Args:
        but: a file that is not compared, below `run`.
    """
    mine, other = _files(one.folder), _files(run)
    found = [f"{name} is missing" for name in sorted(mine - other) if not _at_other_steps(name)]
    found += [f"{name} is left over" for name in sorted(other - mine) if not _at_other_steps(name)]
    found += [
        f"{name} differs"
        for name in sorted(mine & other)
        if run / name != but and (one.folder / name).read_bytes() != (run / name).read_bytes()
    ]
    if len(list((run / "checkpoints").iterdir())) > KEEP:
        found.append("older checkpoints are left over")
    if but != run / "metrics.jsonl" and _lines(one.folder) != _lines(run):
        found.append("metrics.jsonl differs")
    if (but is None or "tensorboard" not in but.parts) and _curves(one.folder) != _curves(run):
        found.append("the curves of TensorBoard differ")
    return found


def _at_other_steps(name: str) -> bool:
    """Whether a command that was stopped saves this file, of a step at which the whole run saves none."""
    made = re.fullmatch(
        r"checkpoints/step-(\d{9})/[a-z]+\.(safetensors|json)|samples/step-(\d{6})(-\w+)?\.png", name
    )
    return made is not None and int(made[1] or made[3]) != STEPS


def _files(run: Path) -> set[str]:
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    return {name for name in names if Path(name).parts[0] not in NOT_COMPARED}


def _lines(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("elapsed_s", "steps_per_s")} for line in lines]


_reading = threading.Lock()
logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns of steps that are logged again


def _curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by tag, as TensorBoard shows them."""
    with _reading:
        events = EventAccumulator(str(run / "tensorboard")).Reload()
        tags = events.Tags()["scalars"]
        return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def copied(run: Path, to: Path) -> Path:
    """A copy of a run."""
    return Path(shutil.copytree(run, to))


def flipped(file: Path, rng: random.Random) -> int:
    """Flip a bit of a file; returns the place of its byte."""
    content = bytearray(file.read_bytes())
    place = rng.randrange(len(content))
    content[place] ^= 1 << rng.randrange(8)
    file.write_bytes(content)
    return place

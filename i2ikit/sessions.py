"""sessions.jsonl: each command that trained a run, with the machine, the versions and the images it had."""

from __future__ import annotations

import datetime
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import psutil
import torch
from pydantic import BaseModel

from i2ikit.data.dataset import Dataset
from i2ikit.data.record import held_out_pixels
from i2ikit.paths import pasted
from i2ikit.processes import Processes
from i2ikit.writing import writing

__all__ = ["SESSIONS", "SeenImages", "Session", "add_session", "sessions"]

SESSIONS = "sessions.jsonl"


class SeenImages(BaseModel):
    """The images of a run.

    Args:
        size: in pixels.
        channels: of each domain.
        counts: training and held-out images of each domain.
        pixels: of each domain, see `held_out_pixels`.
        paired: whether the domains have the same pictures.
    """

    size: int
    channels: dict[str, int]
    counts: dict[str, tuple[int, int]]
    pixels: dict[str, str]
    paired: bool


class Session(BaseModel):
    """A command that trained a run.

    Args:
        step: number of steps done before it.
        began: when, in ISO 8601.
        command: the command line, to paste.
        machine: system, processor, memory and GPUs.
        processes: their number and the device.
        precision: of training.
        versions: of Python and the packages, by name.
        images: of the run.
    """

    step: int
    began: str
    command: str
    machine: str
    processes: str
    precision: str
    versions: dict[str, str]
    images: SeenImages


def add_session(folder: Path, step: int, precision: str, data: Dataset, group: Processes) -> None:
    """Append one line about this command.

    Args:
        step: number of steps done before it.

    Raises:
        RunError: it cannot be written.
    """
    session = Session(
        step=step,
        began=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        command=_command(),
        machine=_machine(group.device),
        processes=str(group),
        precision=precision,
        versions=_versions(),
        images=_images(data),
    )
    with writing(folder / SESSIONS), (folder / SESSIONS).open("a", encoding="utf-8") as file:
        file.write(session.model_dump_json() + "\n")


def sessions(folder: Path) -> list[Session]:
    """The lines of a run's sessions.jsonl, if it has one; those that cannot be read are left out."""
    path = folder / SESSIONS
    texts = path.read_bytes().splitlines() if path.is_file() else []
    return [line for line in map(_parsed, texts) if line is not None]


def _parsed(text: bytes) -> Session | None:
    try:
        return Session.model_validate_json(text, strict=True)
    except ValueError:
        return None


def _command() -> str:
    """The command line, to paste; the program's own path shortened to the name that one types."""
    program, *words = sys.argv or [""]
    name = Path(program).name
    if name == "__main__.py":
        name = f"python -m {Path(program).parent.name}"
    return f"{name} {pasted(*words)}".strip() or "Python"


def _machine(device: torch.device) -> str:
    """Such as "Linux 6.1 x86_64, Intel(R) Xeon(R) Processor (2 threads of 2), 24 GiB; cuda: NVIDIA H100"."""
    memory = psutil.virtual_memory().total / 2**30
    text = (
        f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}, {_processor()} "
        f"({torch.get_num_threads()} of {psutil.cpu_count()} threads), {memory:.0f} GiB"
    )
    if device.type == "cuda":
        text += f"; {torch.cuda.device_count()} x {torch.cuda.get_device_name(device)}"
    elif device.type != "cpu":
        text += f"; {device.type}"
    return text


def _processor() -> str:
    """The name of the processor; Python knows it on some systems only."""
    file = Path("/proc/cpuinfo")
    if file.is_file():
        for line in file.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or "unknown processor"


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("i2ikit", "torch", "torchvision", "accelerate")}
    return {"python": platform.python_version(), **packages}


def _images(data: Dataset) -> SeenImages:
    channels = data.images.channels
    counts = {domain: (data.count("train", domain), data.count("test", domain)) for domain in channels}
    return SeenImages(
        size=data.images.size,
        channels=dict(channels),
        counts=counts,
        pixels=held_out_pixels(data),
        paired=data.paired,
    )

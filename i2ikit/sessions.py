"""sessions.jsonl: each command that trained a run, with the machine, the versions and the images it had."""

from __future__ import annotations

import datetime
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

from i2ikit.data.dataset import SPLITS, Dataset
from i2ikit.paths import pasted
from i2ikit.processes import Processes
from i2ikit.writing import writing

__all__ = ["SESSIONS", "add_session", "sessions"]

SESSIONS = "sessions.jsonl"


def add_session(folder: Path, step: int, precision: str, data: Dataset, group: Processes) -> None:
    """Append one line about this command.

    Args:
        step: number of steps done before it.

    Raises:
        RunError: it cannot be written.
    """
    line = {
        "step": step,
        "began": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": _command(),
        "machine": _machine(group.device),
        "processes": str(group),
        "precision": precision,
        "versions": _versions(),
        "images": _images(data),
    }
    with writing(folder / SESSIONS), (folder / SESSIONS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def sessions(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's sessions.jsonl, if it has one; those that cannot be read are left out."""
    path = folder / SESSIONS
    texts = path.read_text("utf-8", errors="replace").splitlines() if path.is_file() else []
    return [line for line in map(_parsed, texts) if line is not None]


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) else None


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


def _images(data: Dataset) -> Mapping[str, Any]:
    channels: Mapping[str, int] = data.images.channels
    counts: dict[str, Sequence[int]] = {
        domain: [data.count(split, domain) for split in SPLITS] for domain in channels
    }
    return {"size": data.images.size, "channels": dict(channels), "counts": counts, "paired": data.paired}

"""Saving and loading of weights (for translation) and checkpoints (for resuming).

A checkpoint is a folder. It is written under a temporary name and synced, with its manifest (sha256 of
every file) last, and then renamed; older ones are removed only afterwards. If the process is killed at any
moment, the last complete checkpoint remains. All files are safetensors or JSON; there are no pickles.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

from i2ikit.errors import RunError
from i2ikit.processes import ALONE, Processes
from i2ikit.state import TrainingState, network_tensors
from i2ikit.translator import ImageSpec, Translator

__all__ = [
    "BEST_FILE",
    "WEIGHTS_FILE",
    "load_checkpoint",
    "newest_checkpoint",
    "save_checkpoint",
    "save_weights",
]

FORMAT = "1"
WEIGHTS_FILE = "weights.safetensors"
BEST_FILE = "best.safetensors"
MANIFEST = "manifest.json"
STATE = "state.json"


def save_weights(
    ema: Translator, images: ImageSpec, step: int, folder: Path, file: str = WEIGHTS_FILE
) -> None:
    """Write the EMA weights of the generative networks to weights.safetensors, replaced atomically.

    Args:
        file: another name for the file.
    """
    tensors = network_tensors({role: ema.networks[role] for role in ema.generative})
    metadata = {
        "format": FORMAT,
        "step": str(step),
        "images": json.dumps([dict(images.channels), images.size]),
    }
    staged = folder / f".{file}.tmp"
    save_file(tensors, staged, metadata)
    _sync(staged)
    os.replace(staged, folder / file)


def save_checkpoint(
    folder: Path, step: int, state: TrainingState, keep: int, group: Processes = ALONE
) -> Path:
    """Write checkpoints/step-N in the main process, then remove all but the newest `keep`. Collective."""
    checkpoints = folder / "checkpoints"
    final = checkpoints / f"step-{step:09d}"
    kept = state.gathered_kept(group)
    if not group.is_main:
        return final
    checkpoints.mkdir(exist_ok=True)
    for left_over in checkpoints.glob(".tmp-*"):
        shutil.rmtree(left_over)
    if final.exists():
        return final
    staged = checkpoints / f".tmp-{final.name}"
    staged.mkdir()
    groups, plain = state.save(kept)
    for name, tensors in groups.items():
        save_file(dict(tensors), staged / f"{name}.safetensors")
    (staged / STATE).write_text(json.dumps({"format": FORMAT, "step": step, **plain}))
    sums = {file.name: _sha256(file) for file in sorted(staged.iterdir())}
    for file in staged.iterdir():
        _sync(file)
    (staged / MANIFEST).write_text(json.dumps(sums, indent=1))
    _sync(staged / MANIFEST)
    os.replace(staged, final)
    _sync(checkpoints)
    for old in sorted(checkpoints.glob("step-*"))[:-keep]:
        shutil.rmtree(old)
    return final


def newest_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint whose files match its manifest; None if none has been saved.

    Raises:
        RunError: all are damaged.
    """
    damaged = []
    for path in sorted(run.glob("checkpoints/step-*"), reverse=True):
        if _verifies(path):
            return path
        damaged.append(path.name)
    if damaged:
        raise RunError(f"{run} has no checkpoint to resume from; damaged: {', '.join(damaged)}")
    return None


def load_checkpoint(path: Path, state: TrainingState) -> int:
    """Load a checkpoint into the state; returns its number of steps.

    Raises:
        RunError: it is from another recipe, or has another format.
    """
    plain = json.loads((path / STATE).read_text())
    if plain["format"] != FORMAT:
        raise RunError(f"{path} has format {plain['format']}; this i2ikit reads format {FORMAT}")
    try:
        state.load({file.stem: load_file(file) for file in path.glob("*.safetensors")}, plain)
    except (KeyError, RuntimeError) as error:
        raise RunError(f"{path} does not fit the recipe: {error}") from error
    step: int = plain["step"]
    return step


def _verifies(path: Path) -> bool:
    try:
        sums = json.loads((path / MANIFEST).read_text())
        return all(_sha256(path / name) == sha256 for name, sha256 in sums.items())
    except (OSError, ValueError, AttributeError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Flush a file or folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

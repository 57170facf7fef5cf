"""Saving and loading of weights (for translation) and checkpoints (for resuming).

A checkpoint is a folder. It is written under a temporary name and synced, with its manifest (sha256 of
every file) last, and then renamed; older ones are removed only afterwards. If the process is killed at any
moment, the last complete checkpoint remains. All files are safetensors or JSON; there are no pickles.

A checkpoint is good if its manifest names exactly the files that are there, they match it, and their content
can be read and is finite. Others are passed over when resuming, and never count when older ones are removed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from i2ikit.checkpoint_files import FORMAT, MANIFEST, STATE, read, sha256
from i2ikit.errors import RunError, TrainingError
from i2ikit.finite import names
from i2ikit.paths import pasted
from i2ikit.processes import ALONE, Processes
from i2ikit.resolved import RESOLVED
from i2ikit.state import TrainingState, network_tensors
from i2ikit.translator import ImageSpec, Tensors, Translator
from i2ikit.weights_file import write_weights
from i2ikit.writing import sync, writing

__all__ = [
    "BEST_FILE",
    "WEIGHTS_FILE",
    "Newest",
    "check_finite",
    "load_checkpoint",
    "newest_checkpoint",
    "prune",
    "read_networks",
    "save_checkpoint",
    "save_weights",
    "usable_checkpoint",
]

WEIGHTS_FILE = "weights.safetensors"
BEST_FILE = "best.safetensors"
NAME = re.compile(r"step-(\d{9,18})")

_good: dict[Path, list[tuple[str, int, int]]] = {}
"""Checkpoints that this process has written or read: the names, sizes and times of their files."""


def save_weights(
    ema: Translator, images: ImageSpec, step: int, folder: Path, file: str = WEIGHTS_FILE
) -> None:
    """Write the EMA weights of the generative networks to weights.safetensors, replaced atomically.

    Args:
        file: another name for the file.

    Raises:
        RunError: it cannot be written; the earlier file stays.
    """
    tensors = network_tensors({role: ema.networks[role] for role in ema.generative})
    write_weights(folder / file, tensors, images, step)


def save_checkpoint(
    folder: Path, step: int, state: TrainingState, keep: int, group: Processes = ALONE
) -> Path:
    """Write checkpoints/step-N in the main process, then remove all but the newest `keep`. Collective.

    One that is there is replaced, unless this process has written or read it.

    Raises:
        TrainingError: the state is not finite; see `check_finite`.
        RunError: it cannot be written; nothing of it is left, and the earlier ones stay.
    """
    check_finite(state, step, folder, group)
    checkpoints = folder / "checkpoints"
    final = checkpoints / f"step-{step:09d}"
    kept, losses = state.gathered_kept(group), state.losses.save(group)
    if not group.is_main:
        return final
    with writing(final):
        checkpoints.mkdir(exist_ok=True)
        _remove_parts(checkpoints)
        if not _is_known(final):
            _write(final, step, *state.save(kept, losses))
            _good[final.resolve()] = _stamp(final)
        prune(final, keep, state)
    return final


def _write(final: Path, step: int, groups: Mapping[str, Tensors], plain: Mapping[str, Any]) -> None:
    staged = final.parent / f".tmp-{final.name}"
    try:
        _fill(staged, step, groups, plain)
        if final.exists() or final.is_symlink():
            os.replace(final, final.parent / ".tmp-damaged")
        os.replace(staged, final)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    sync(final.parent)


def _fill(staged: Path, step: int, groups: Mapping[str, Tensors], plain: Mapping[str, Any]) -> None:
    """Write all files of a checkpoint, the manifest last."""
    staged.mkdir()
    for name, tensors in groups.items():
        try:
            save_file(dict(tensors), staged / f"{name}.safetensors")
        except SafetensorError as error:  # of the disk
            raise OSError(str(error)) from error
    (staged / STATE).write_text(json.dumps({"format": FORMAT, "step": step, **plain}))
    sums = {file.name: sha256(file) for file in sorted(staged.iterdir())}
    for file in staged.iterdir():
        sync(file)
    (staged / MANIFEST).write_text(json.dumps(sums, indent=1))
    sync(staged / MANIFEST)


def prune(newest: Path, keep: int, state: TrainingState) -> None:
    """Remove all checkpoints but the newest one, and the `keep` - 1 newest good ones before it; also parts.

    Later ones are removed too: training has passed them over, because they are damaged.
    """
    kept = 1
    for path in sorted(_checkpoints(newest.parent), reverse=True):
        if path == newest:
            continue
        if path < newest and kept < keep and _is_good(path, state):
            kept += 1
        else:
            _remove(path)
    _remove_parts(newest.parent)


def _remove_parts(checkpoints: Path) -> None:
    """Remove a checkpoint that was not finished, and one that was replaced."""
    for path in checkpoints.glob(".tmp-*"):
        _remove(path)


def _checkpoints(folder: Path) -> list[Path]:
    return [path for path in folder.glob("step-*") if NAME.fullmatch(path.name)]


def _remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink()
    else:
        shutil.rmtree(path)


@dataclass(frozen=True)
class Newest:
    """The newest good checkpoint of a run.

    Args:
        path: None if none has been saved.
        damaged: what is wrong with each newer one, by its name.
    """

    path: Path | None = None
    damaged: Mapping[str, str] = field(default_factory=dict)

    @property
    def step(self) -> int:
        """Its number of steps; 0 if there is none."""
        return 0 if self.path is None else int(self.path.name.removeprefix("step-"))

    @property
    def notes(self) -> Sequence[str]:
        """One for each newer checkpoint that is damaged."""
        used = f"step {self.step} is used; the steps since then are repeated" if self.path else ""
        return [f"checkpoint {name} is damaged ({why}): {used}" for name, why in self.damaged.items()]


def newest_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint that is good; None if none has been saved.

    Raises:
        RunError: all are damaged.
    """
    return usable_checkpoint(run).path


def usable_checkpoint(run: Path, state: TrainingState | None = None) -> Newest:
    """The newest checkpoint that is good, and what is wrong with newer ones.

    Args:
        state: the state that will be loaded; without it, values that are not finite are not looked for.

    Raises:
        RunError: all are damaged.
    """
    damaged: dict[str, str] = {}
    for path in sorted(_checkpoints(run / "checkpoints"), reverse=True):
        try:
            groups, _ = read(path)
            if state is not None:
                _check_finite(path, groups, state)
        except RunError as error:
            damaged[path.name] = str(error).removeprefix(f"{path}: ")
            continue
        return Newest(path, damaged)
    if damaged:
        again = pasted("i2ikit", "run", run / RESOLVED, "--weights-from", run)
        raise RunError(
            f"{run} has no checkpoint to resume from; damaged: {', '.join(damaged)} "
            f"({'; '.join(dict.fromkeys(damaged.values()))}). Restore one, or start again: `{again}` "
            f"begins with the weights of {WEIGHTS_FILE}"
        )
    return Newest()


def check_finite(state: TrainingState, step: int, folder: Path, group: Processes) -> None:
    """Check that everything that will be saved is finite. Collective.

    Raises:
        TrainingError: it is not, in one of the processes; raised in all.
    """
    found = group.gather(state.newly_not_finite())
    if not found:
        return
    newest = group.on_main(lambda: _newest_step(folder, state))
    saved = "nothing was saved before" if newest is None else f"the newest checkpoint is of step {newest}"
    again = f"{pasted('i2ikit', 'resume', folder)} --set optimizer.lr=..."
    does = "starts again" if newest is None else "continues"
    exact = (
        "" if state.accelerator.mixed_precision == "no" else "; or start again with training.precision=fp32"
    )
    raise TrainingError(
        f"step {step}: values are not finite (NaN or inf), in {names(dict.fromkeys(found))}; they are "
        f"not saved, and {saved}. Training has diverged: `{again}` {does} with a lower learning rate, and "
        f"`--set optimizer.max_grad_norm=1.0` clips gradients{exact}"
    )


def _newest_step(folder: Path, state: TrainingState) -> int | None:
    try:
        newest = usable_checkpoint(folder, state)
    except RunError:
        return None
    return None if newest.path is None else newest.step


def load_checkpoint(path: Path, state: TrainingState, group: Processes = ALONE) -> int:
    """Load a checkpoint into the state; returns its number of steps.

    Raises:
        RunError: it is damaged, from another recipe, or has another format.
    """
    groups, plain = read(path)
    _check_finite(path, groups, state)
    try:
        state.load(groups, plain, group)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise RunError(f"{path} does not fit the recipe: {error}") from error
    _good[path.resolve()] = _stamp(path)
    step: int = plain["step"]
    return step


def read_networks(path: Path) -> tuple[Tensors, int]:
    """The tensors of all networks in a checkpoint, by `role.name`, and its number of steps.

    Raises:
        RunError: it is damaged.
    """
    groups, plain = read(path)
    return groups["networks"], plain["step"]


def _check_finite(path: Path, groups: Mapping[str, Tensors], state: TrainingState) -> None:
    tensors = {f"{group}.{name}": x for group, own in groups.items() for name, x in own.items()}
    if bad := state.newly_not_finite(tensors):
        raise RunError(f"{path}: it holds values that are not finite (NaN or inf), in {names(bad)}")


def _is_good(path: Path, state: TrainingState) -> bool:
    if not _is_known(path):
        try:
            _check_finite(path, read(path)[0], state)
        except RunError:
            return False
        _good[path.resolve()] = _stamp(path)
    return True


def _is_known(path: Path) -> bool:
    """Whether this process has written or read this checkpoint, and its files have not changed since."""
    return path.resolve() in _good and _good[path.resolve()] == _stamp(path)


def _stamp(path: Path) -> list[tuple[str, int, int]]:
    if not path.is_dir() or path.is_symlink():
        return []
    facts = [(file.name, file.lstat()) for file in path.iterdir()]
    return sorted((name, found.st_size, found.st_mtime_ns) for name, found in facts)

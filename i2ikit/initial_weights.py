"""Starting a run with the weights of another one, for each network that has the same tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from i2ikit.checkpoints import BEST_FILE, WEIGHTS_FILE, read_networks, usable_checkpoint
from i2ikit.errors import RunError
from i2ikit.finite import names, not_finite
from i2ikit.run import find_run
from i2ikit.translator import Tensors
from i2ikit.weights_file import read_weights
from i2ikit.writing import check_name

__all__ = ["InitialWeights", "find_weights", "matching_weights"]


@dataclass(frozen=True)
class InitialWeights:
    """The weights with which a run starts, where they are not random.

    Args:
        source: the checkpoint or the file that they are from.
        step: number of training steps of `source`.
        tensors: of the networks that are taken, by `role.name`.
        taken: the roles of these networks.
        fresh: the roles of the others, each with the reason.
    """

    source: Path
    step: int
    tensors: Tensors
    taken: tuple[str, ...]
    fresh: Mapping[str, str]

    def __str__(self) -> str:
        fresh = ", ".join(f"{role} ({why})" for role, why in self.fresh.items())
        return (
            f"the weights of {self.source} (step {self.step}) are taken for: {', '.join(self.taken)}; "
            f"these start fresh: {fresh or 'none'}"
        )

    def record(self) -> dict[str, Any]:
        """The table [weights_from] of resolved.toml."""
        run = self.source.parent.parent if self.source.is_dir() else self.source.parent
        file = self.source.relative_to(run).as_posix()
        names = {"taken": list(self.taken), "fresh": list(self.fresh)}
        return {"run": str(run.resolve()), "file": file, "step": self.step, **names}


def find_weights(run: Path) -> Path:
    """The newest good checkpoint of a run, which has all networks; else its file of averaged weights.

    Args:
        run: its folder; or the file of weights in it that is wanted.

    Raises:
        RunError: there is no such run, or it has saved nothing.
    """
    check_name(run)
    if run.name in (WEIGHTS_FILE, BEST_FILE):
        find_run(run.parent)
        chosen = run
    else:
        folder = find_run(run)
        try:
            chosen = usable_checkpoint(folder).path or folder / WEIGHTS_FILE
        except RunError:  # all are damaged
            chosen = folder / WEIGHTS_FILE
    if not chosen.exists():
        raise RunError(f"{run} has no weights to start from: there is no {chosen.name}")
    return chosen


def matching_weights(source: Path, networks: Mapping[str, nn.Module]) -> InitialWeights:
    """The weights of each network whose tensors have the same names and shapes in `source`.

    Args:
        source: from `find_weights`.
        networks: those of the new run, by role.

    Raises:
        RunError: the source is damaged, no network fits, or one that fits has values that are not finite.
    """
    if source.is_dir():
        found, step = read_networks(source)
    else:
        file = read_weights(source)
        found, step = file.tensors, file.step
    own = {
        role: {f"{role}.{name}": x for name, x in network.state_dict().items()}
        for role, network in networks.items()
    }
    reasons = {role: _difference(role, mine, found) for role, mine in own.items()}
    fresh = {role: why for role, why in reasons.items() if why}
    taken = tuple(role for role in own if own[role] and role not in fresh)
    if not taken:
        why = "; ".join(f"{role}: {why}" for role, why in fresh.items())
        raise RunError(f"no network fits the weights of {source}: {why}. Start without --weights-from")
    tensors = {name: found[name] for role in taken for name in own[role]}
    unusual = {name for mine in own.values() for name in not_finite(mine)}
    if bad := [name for name in not_finite(tensors) if name not in unusual]:
        raise RunError(f"{source} holds values that are not finite (NaN or inf), in {names(bad)}")
    return InitialWeights(source, step, tensors, taken, fresh)


def _difference(role: str, own: Tensors, found: Tensors) -> str:
    """Why the tensors of a network do not fit; empty if they do."""
    there = {name for name in found if name.startswith(f"{role}.")}
    if own and not there:
        return "not in the file"
    if missing := sorted(own.keys() - there):
        return f"it has no {names(missing)}"
    if more := sorted(there - own.keys()):
        return f"it has also {names(more)}"
    for name, x in own.items():
        if x.shape != found[name].shape:
            return f"{name} has shape {tuple(found[name].shape)} there, and {tuple(x.shape)} here"
    return ""

"""The run folder: where it is, what is in it, which is the newest.

recipe.toml            the recipe as given
resolved.toml          every default and version; re-runs the run
weights.safetensors    EMA weights of the generative networks: with resolved.toml enough to translate
checkpoints/step-N/    all that `i2ikit resume` needs
samples/*.png          what fixed inputs look like, as training goes on
metrics.jsonl          one line per log interval
tensorboard/           the same for TensorBoard
eval/                  what `i2ikit eval` measured, and its pictures
"""

from __future__ import annotations

import datetime
from pathlib import Path

from i2ikit.errors import RunError, did_you_mean

__all__ = ["METRICS", "RESOLVED", "WEIGHTS", "create_run", "find_run", "is_run"]

RESOLVED = "resolved.toml"
WEIGHTS = "weights.safetensors"
METRICS = "metrics.jsonl"


def create_run(out: Path | None, recipe_name: str) -> Path:
    """A new run folder: `out`, or runs/<recipe>-<date>-<time>.

    Raises:
        RunError: `out` exists and is not an empty folder, or cannot be made.
    """
    if out is not None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise RunError(
                f"{out} is there already; give --out another folder, or continue it with "
                f"`i2ikit resume {out}`"
            )
        return _made(out)
    stem = f"{recipe_name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    for suffix in ("", *(f"-{n}" for n in range(2, 1000))):
        folder = Path("runs") / f"{stem}{suffix}"
        if not folder.exists():
            return _made(folder)
    raise RunError(f"runs/{stem}: too many runs in one second")


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the run folder {folder}: {error.strerror}") from error
    return folder


def is_run(path: Path) -> bool:
    """Whether the path is a run folder."""
    return (path / RESOLVED).is_file()


def find_run(path: Path | None) -> Path:
    """The run folder at `path`, or the newest below ./runs.

    Raises:
        RunError: there is none; says where it looked.
    """
    known = [p for p in Path("runs").glob("*") if is_run(p)]
    if path is None:
        if not known:
            raise RunError(
                f"no run found in {Path.cwd() / 'runs'}; name a run folder, or train one with "
                "`i2ikit run munit`"
            )
        return max(known, key=lambda p: (p / RESOLVED).stat().st_mtime)
    if not is_run(path):
        hint = did_you_mean(str(path), map(str, known))
        raise RunError(f"{path} is no run folder: it holds no {RESOLVED}{hint}")
    return path

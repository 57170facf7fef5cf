"""The files of a checkpoint, checked: nothing is read from one that is damaged or forged."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from safetensors import SafetensorError
from safetensors.torch import load_file

from i2ikit.errors import RunError
from i2ikit.finite import names
from i2ikit.translator import Tensors

__all__ = ["FORMAT", "MANIFEST", "STATE", "read", "sha256"]

FORMAT = "1"
MANIFEST = "manifest.json"
STATE = "state.json"
LEAST = {STATE, "ema.safetensors", "networks.safetensors", "optimizers.safetensors"}
MOST = LEAST | {"kept.safetensors"}


def read(path: Path) -> tuple[dict[str, Tensors], dict[str, Any]]:
    """The tensors of a checkpoint by group, and its JSON values, all checked.

    Raises:
        RunError: it is damaged.
    """
    files = _verified(path)
    plain = _state(path)
    groups: dict[str, Tensors] = {}
    for name in files:
        if name.endswith(".safetensors"):
            try:
                groups[name.removesuffix(".safetensors")] = load_file(path / name)
            except (SafetensorError, OSError, LookupError, RuntimeError, TypeError, ValueError) as error:
                raise RunError(f"{path}: {name} cannot be read: {error}") from error
    return groups, plain


def _verified(path: Path) -> list[str]:
    """The names of the files of a checkpoint, which match its manifest.

    Raises:
        RunError: they do not.
    """
    try:
        sums = json.loads((path / MANIFEST).read_text("utf-8"), parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: {MANIFEST} is missing or damaged") from error
    if not isinstance(sums, dict) or not LEAST <= sums.keys() <= MOST:
        raise RunError(f"{path}: {MANIFEST} does not name the files of a checkpoint")
    # Finder leaves .DS_Store in folders that it has shown.
    found = {file.name for file in path.iterdir() if not file.name.startswith(".")} - {MANIFEST}
    if found != sums.keys():
        different = sorted(str(name) for name in found ^ sums.keys())
        raise RunError(f"{path}: {MANIFEST} and the folder differ in {names(different)}")
    for name, digest in sums.items():
        file = path / name
        try:
            matches = file.is_file() and not file.is_symlink() and sha256(file) == digest
        except OSError as error:
            raise RunError(f"{path}: {name} cannot be read: {error.strerror}") from error
        if not matches:
            raise RunError(f"{path}: {name} does not match {MANIFEST}")
    return list(sums)


def _state(path: Path) -> dict[str, Any]:
    """The content of state.json, whose types are checked.

    Raises:
        RunError: it is damaged, or of another format.
    """
    try:
        plain = json.loads((path / STATE).read_text("utf-8"), parse_constant=_refuse)
        if plain["format"] != FORMAT:
            raise RunError(
                f"{path}: {STATE} has format {plain['format']!r}; this i2ikit reads format {FORMAT}"
            )
        sound = [
            type(plain["step"]) is int and path.name == f"step-{plain['step']:09d}",
            all(isinstance(name, str) for name in _of(list, plain.get("numbers", []))),
            all(map(_is_number, _of(dict, plain.get("scaler") or {}).values())),
            _is_best(_of(dict, plain.get("validation", {}))),
            all(type(plain.get(key, 0)) is int and plain.get(key, 0) >= 0 for key in ("skips", "validated")),
        ]
    except (OSError, LookupError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise RunError(f"{path}: {STATE} cannot be read: {error}") from error
    if not all(sound):
        raise RunError(f"{path}: {STATE} holds values that a checkpoint does not have")
    return plain


def _of(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"expected a {kind.__name__}, got {type(value).__name__}")
    return value


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _is_best(validation: Mapping[str, object]) -> bool:
    """Whether these are the values of `BestSoFar`; earlier checkpoints have none."""
    value = validation.get("value")
    counts = [validation.get(key, 0) for key in ("step", "since")]
    known = validation.keys() <= {"value", "step", "since"}
    return known and (value is None or _is_number(value)) and all(type(n) is int and n >= 0 for n in counts)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def sha256(path: Path) -> str:
    """The digest of a file, as the manifest has it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

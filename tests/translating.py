"""Translating files in random styles or in those of exemplars, in one call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from i2ikit.model import Model
from i2ikit.styles import chosen_styles
from i2ikit.translation import translate_files

__all__ = ["translated"]


def translated(
    model: Model,
    files: Sequence[Path],
    count: int,
    exemplars: Sequence[Path],
    source: str | None,
    to: str | None,
    seed: int,
    out: Path,
) -> Iterator[Any]:
    """`translate_files` in `count` random styles of a seed, or in the styles of exemplars."""
    random = {} if exemplars else {"count": count, "seed": seed}
    styles = chosen_styles(model, exemplars=exemplars, source=source, to=to, **random)
    return translate_files(model, files, styles, out)

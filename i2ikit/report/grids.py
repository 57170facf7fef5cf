"""The sample grids of a run for its report: as many steps as its size allows, each as WebP."""

from __future__ import annotations

import base64
import functools
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

__all__ = ["Grid", "grids"]

NAME = re.compile(r"step-(\d+)(?:-(.+))?\.png")
BYTES = 2_600_000
"""Of all grids together, before base64 makes four letters of three bytes."""
MOST_STEPS = 40
CACHED = 20 * MOST_STEPS  # for several directions in several widths
WIDE = 1600  # pixels; wider grids are shrunk
NARROWEST = 200
HIGHEST = 16_383  # no WebP is higher
QUALITY = 85


@dataclass(frozen=True)
class Grid:
    """The grid of one direction at several steps.

    Args:
        direction: such as "b2a".
        steps: of the pictures, rising.
        pictures: as data URIs.
        left_out: number of steps that are only in samples/.
        shrunk: whether the pictures are smaller than the files.
    """

    direction: str
    steps: Sequence[int]
    pictures: Sequence[str]
    left_out: int
    shrunk: bool


def grids(folder: Path, first: str) -> list[Grid]:
    """The grids of a run, the first direction first; files that cannot be read are left out.

    Args:
        first: the direction of files that name none.
    """
    found: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.glob("samples/step-*.png")):
        if name := NAME.fullmatch(path.name):
            found.setdefault(name[2] or "", {})[int(name[1])] = path
    return [
        grid
        for direction, files in sorted(found.items())
        if (grid := _within(direction or first, files, BYTES // len(found)))
    ]


def _within(direction: str, files: Mapping[int, Path], budget: int) -> Grid | None:
    """As many steps as fit; the last one, and if there is room the first, are always there."""
    steps, wide = sorted(files), WIDE
    while True:
        made = {step: found for step in _spread(steps, MOST_STEPS) if (found := _encoded(files[step], wide))}
        while sum(len(content) for content, _ in made.values()) > budget and len(made) > 1:
            fewer = len(made) // 2 + (len(made) > 2)  # every second, and the last
            made = {step: made[step] for step in _spread([*made], fewer)}
        if not made:
            return None
        if sum(len(content) for content, _ in made.values()) <= budget or wide <= NARROWEST:
            break
        wide //= 2
    pictures = [_data_uri(content) for content, _ in made.values()]
    shrunk = any(was_shrunk for _, was_shrunk in made.values())
    return Grid(direction, list(made), pictures, len(steps) - len(made), shrunk)


def _spread(steps: Sequence[int], most: int) -> list[int]:
    """At most so many of the steps, evenly spread, always with the last one.

    Each report of a growing run has the steps of the one before, or every second of them: those are encoded.
    """
    stride = 1
    while len(chosen := list(dict.fromkeys([*steps[::stride], *steps[-1:]]))) > max(most, 1):
        if stride >= len(steps):
            return [steps[-1]]
        stride *= 2
    return chosen


def _encoded(path: Path, wide: int) -> tuple[bytes, bool] | None:
    """A picture as WebP, and whether it was shrunk; None if the file is damaged."""
    if not path.is_file():  # reading a named pipe would wait
        return None
    try:
        with warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning):
            return _webp(path, wide, path.stat().st_mtime_ns)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None  # all that Pillow raises


@functools.lru_cache(maxsize=CACHED)
def _webp(path: Path, wide: int, changed: int) -> tuple[bytes, bool]:
    """The cache saves encoding all earlier grids whenever a report is written anew."""
    file = io.BytesIO()
    with Image.open(path, formats=("PNG",)) as picture:
        shown = picture.convert("RGB")
    shrunk = shown.width > wide or shown.height > HIGHEST
    if shrunk:
        shown.thumbnail((wide, HIGHEST))
    shown.save(file, "webp", quality=QUALITY, method=4)
    return file.getvalue(), shrunk


def _data_uri(content: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(content).decode()

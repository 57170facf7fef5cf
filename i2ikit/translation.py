"""Translate image files with a trained translator: one file in each style, or a path between styles."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from i2ikit.contact_sheet import MOST_ROWS, ContactSheet
from i2ikit.data.images import ImageFormat, file_content, load_image, to_picture
from i2ikit.data.reading import COLOURS
from i2ikit.errors import DataError, RunError, ShapeError
from i2ikit.inputs import Refused
from i2ikit.interpolation import animation, between, check_animated, strip
from i2ikit.memory import OutOfMemory, out_of_memory_named
from i2ikit.model import InferencePrecision, Model, Size
from i2ikit.output_folder import OutputFolder, Result, readable
from i2ikit.sampling import cell_size, png, sheet
from i2ikit.styles import Styles

__all__ = ["ContactPage", "Translated", "num_translations", "translate_files"]

PIXELS_AT_ONCE = 2**24
"""Pixels of translations that are held as floats: 200 MB. The others are held as files and as 8 bits."""


@dataclass(frozen=True)
class Translated:
    """The files that were made from one image: one in each style, and the sheet that shows all of them.

    With `interpolate`, they are the animation and the strip.
    """

    image: Path
    files: tuple[Path, ...]
    sheet: Path


@dataclass(frozen=True)
class ContactPage:
    """A page of the contact sheet that was written."""

    file: Path


@dataclass(frozen=True)
class _Task:
    """What is done with each image, see `translate_files`."""

    model: Model
    styles: Styles
    interpolate: int | None
    size: Size
    image_format: ImageFormat
    precision: InferencePrecision
    progress: Callable[[int], None]

    @property
    def count(self) -> int:
        """Translations of each image."""
        return num_translations(self.styles, self.interpolate)

    @property
    def label(self) -> str:
        """What all translations are called in the name of a file."""
        return self.styles.label + ("" if self.interpolate is None else f"-interpolated-{self.interpolate}")

    @property
    def origin(self) -> dict[str, Any]:
        """What the index says about all files, as far as it is not the default."""
        options = {"precision": self.precision, "size": self.size, "format": self.image_format}
        usual = {"precision": "fp32", "size": "trained", "format": "png"}
        changed = {key: value for key, value in options.items() if value != usual[key]}
        return {"run": os.path.abspath(self.model.path), **changed}

    @property
    def about(self) -> dict[str, Any]:
        """What the index also says."""
        return {"step": self.model.step, "weights_sha256": self.model.sha256}


def num_translations(styles: Styles, interpolate: int | None) -> int:
    """How many translations `translate_files` makes of each image."""
    return len(styles.codes) if interpolate is None else (len(styles.codes) - 1) * interpolate


def translate_files(
    model: Model,
    files: Sequence[Path],
    styles: Styles,
    out: Path,
    *,
    interpolate: int | None = None,
    size: Size = "trained",
    image_format: ImageFormat | None = None,
    contact_sheet: bool = False,
    precision: InferencePrecision = "fp32",
    progress: Callable[[int], None] = lambda count: None,
) -> Iterator[Translated | Refused | ContactPage]:
    """Translate each file in every style, one file after another; each is read when its turn comes.

    Args:
        files: see `input_files`.
        styles: see `chosen_styles`; the same for each file.
        out: folder for NAME-a2b-seed0-style-1-of-8.png, ... (or NAME-a2b-as-EXEMPLAR.png,
            NAME-a2b-CODES-code-1-of-8.png, NAME-a2b.png), the sheets NAME-a2b-seed0-sheet-of-8.png and the
            like, and an index; see `OutputFolder`. Names contain `best` if these are the best weights of a
            run. Images with other numbers of channels than 1 and 3 are written as .npy, as they are read:
            arrays (H, W, C) in [0, 1].
        interpolate: number of pictures from each style to the next, with both ends; 2 or more. They become a
            strip (PNG) and an animation (WebP), NAME-a2b-seed0-2-styles-interpolated-10.png and .webp, in
            place of single translations.
        size: see `Model.translate`.
        image_format: of the translations; PNG by default. Sheets are always PNG files.
        contact_sheet: whether pages with thumbnails of all images are written too,
            contact-sheet-a2b-seed0-8-styles-page-1.png.
        precision: see `Model.translate`.
        progress: called with the number of translations that have been made since the last call.

    Yields:
        The paths that were written for each file, or why it cannot be translated; and pages, when they are
        full and at the end.

    Raises:
        RunError: a file cannot be written, the size is not known, or the format cannot be chosen here.
    """
    model.side(size)
    channels = model.images.channels[styles.direction.to]
    if image_format is not None and interpolate is not None:
        raise RunError("--interpolate writes a strip as PNG and an animation as WebP; leave --format out")
    if image_format is not None and channels not in COLOURS:
        raise RunError(
            f"translations into {styles.direction.to} have {channels} channels and are written as .npy; "
            "leave --format out"
        )
    task = _Task(model, styles, interpolate, size, image_format or "png", precision, progress)
    folder = OutputFolder(out, [readable(path.stem) for path in files])
    pages = _Pages(task, files, folder) if contact_sheet else None
    return _translated(task, files, folder, pages)


def _translated(
    task: _Task, files: Sequence[Path], folder: OutputFolder, pages: _Pages | None
) -> Iterator[Translated | Refused | ContactPage]:
    """Translate and write, file by file."""
    for path in files:
        try:
            with out_of_memory_named():
                results, row = _results(task, path)
        except (DataError, ShapeError) as error:
            yield Refused(path, _named(path, str(error)))
        except OutOfMemory:
            reason = "there is not enough memory to translate it; choose a smaller --size"
            yield Refused(path, f"{path}: {reason}")
        else:
            *written, overview = folder.write(readable(path.stem), results, task.about)
            yield Translated(path, tuple(written), overview)
            if pages is not None:
                yield from pages.add(path, row)
    if pages is not None:
        yield from pages.rest()


def _results(task: _Task, path: Path) -> tuple[list[Result], list[Image.Image]]:
    """The files to write for one image, the overview last; the image and its translations, in 8 bits."""
    source = task.styles.direction.source
    x = load_image(path, task.model.images.channels[source], task.model.side(task.size))
    shown = _picture(task, x, source)
    origin = {"source": os.path.abspath(path), **task.origin}
    make = _single if task.interpolate is None else _interpolated
    return make(task, x, shown, origin)


def _single(
    task: _Task, x: Tensor, shown: Image.Image, origin: dict[str, Any]
) -> tuple[list[Result], list[Image.Image]]:
    """A translation in each style, and the sheet."""
    size = cell_size(shown.size, 1 + task.count)
    columns = [("input", [_shrunk(shown, size)])]
    results = []
    for style, y in zip(task.styles.each, _outputs(task, x, task.styles.codes), strict=True):
        content = file_content(y, task.image_format)
        results.append(Result(style.label, *content, {**origin, **style.origin}))
        columns.append((style.heading, [_shrunk(_picture(task, y, task.styles.direction.to), size)]))
    overview = task.styles.sheet
    results.append(Result(overview.label, ".png", png(sheet(columns)), {**origin, **overview.origin}))
    return results, [picture for _, (picture,) in columns]


def _interpolated(
    task: _Task, x: Tensor, shown: Image.Image, origin: dict[str, Any]
) -> tuple[list[Result], list[Image.Image]]:
    """The animation and the strip."""
    assert task.interpolate is not None
    check_animated(*shown.size, task.count)
    codes = between(task.styles.codes, task.interpolate).flatten(0, 1)
    frames = [_picture(task, y, task.styles.direction.to) for y in _outputs(task, x, codes)]
    rows = [frames[n : n + task.interpolate] for n in range(0, len(frames), task.interpolate)]
    label = task.label
    origin |= {**task.styles.sheet.origin, "interpolation": task.interpolate}
    contents = ((".webp", animation(rows)), (".png", png(strip(rows))))
    ends = [frames[0], *(row[-1] for row in rows)]
    return [Result(label, *content, origin) for content in contents], [shown, *ends]


def _outputs(task: _Task, x: Tensor, codes: Tensor) -> Iterator[Tensor]:
    """Translations (C, H, W) of one image (C, H, W) with each of the codes (K, style_dim)."""
    direction = task.styles.direction._asdict()
    for part in torch.split(codes, max(1, PIXELS_AT_ONCE // x[0].numel())):
        yield from task.model.translate(x, **direction, styles=part, precision=task.precision)
        task.progress(len(part))


def _picture(task: _Task, image: Tensor, domain: str) -> Image.Image:
    """An image (C, H, W) as its dataset shows it, in 8 bits."""
    return to_picture(task.model.pictures(image[None], domain)[0])


def _shrunk(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    return picture if picture.size == size else picture.resize(size, Image.Resampling.BILINEAR)


def _named(path: Path, reason: str) -> str:
    """A reason that names the file."""
    return reason if str(path) in reason else f"{path}: {reason}"


def _short_names(files: Sequence[Path]) -> dict[Path, str]:
    """The names of files; with their folders as far as these differ."""
    folders = {os.path.abspath(path.parent) for path in files}
    try:
        common = os.path.commonpath(folders)
    except ValueError:  # no files, or several drives of Windows
        return {path: path.name for path in files}
    return {path: os.path.relpath(path, common) for path in files}


class _Pages:
    """Writes the pages of the contact sheet, each when it is full."""

    def __init__(self, task: _Task, files: Sequence[Path], folder: OutputFolder) -> None:
        self._task = task
        self._folder = folder
        self._sheet = ContactSheet([style.heading for style in task.styles.each])
        self._shown: list[str] = []  # paths of the images on this page
        self._number = 0
        self._width = len(str(-(-len(files) // MOST_ROWS)))
        self._names = _short_names(files)
        paths = json.dumps([os.path.abspath(path) for path in files])
        self._origin = {
            **task.origin,
            **task.styles.sheet.origin,
            **({} if task.interpolate is None else {"interpolation": task.interpolate}),
            "images_sha256": hashlib.sha256(paths.encode()).hexdigest(),  # other images have another sheet
        }

    def add(self, path: Path, row: Sequence[Image.Image]) -> Iterator[ContactPage]:
        """Add an image; yields the page if it is full."""
        self._sheet.add(self._names[path], row)
        self._shown.append(os.path.abspath(path))
        if len(self._sheet) == MOST_ROWS:
            yield self._written()

    def rest(self) -> Iterator[ContactPage]:
        """The last page, unless it is empty."""
        if len(self._sheet):
            yield self._written()

    def _written(self) -> ContactPage:
        self._number += 1
        label = f"{self._task.label}-page-{self._number:0{self._width}}"
        origin = {**self._origin, "contact_sheet": self._number}
        about = {**self._task.about, "images": self._shown}
        self._shown = []
        page = Result(label, ".png", png(self._sheet.page()), origin)
        (file,) = self._folder.write("contact-sheet", [page], about)
        return ContactPage(file)

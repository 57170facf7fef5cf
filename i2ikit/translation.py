"""Translate image files with a trained translator, in random styles or in those of exemplars."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from i2ikit.data.arrays import check_array
from i2ikit.data.images import file_content, load_image
from i2ikit.data.reading import ARRAY_ENDING, COLOURS, IMAGE_ENDINGS, image_files, images_below, inspect
from i2ikit.errors import DataError, ShapeError
from i2ikit.model import InferencePrecision, Model
from i2ikit.output_folder import OutputFolder, Result, cut, folded, origins, readable
from i2ikit.run import is_run
from i2ikit.sampling import png, sheet
from i2ikit.translator import Direction

__all__ = ["Refused", "Translated", "input_files", "translate_files"]

EXEMPLAR_BYTES = 60  # of an exemplar's name in the name of a translation


@dataclass(frozen=True)
class Translated:
    """The files that were made from one image: one in each style, and the sheet that shows all of them."""

    image: Path
    files: tuple[Path, ...]
    sheet: Path


@dataclass(frozen=True)
class Refused:
    """An image that could not be translated, and why; `reason` names it."""

    image: Path
    reason: str


def input_files(
    model: Model, images: Sequence[Path], source: str | None, to: str | None, out: Path
) -> tuple[list[Path], list[Refused]]:
    """The images to translate: those given, and those in the folders given; and what cannot be translated.

    Of a folder, its images are taken, sorted by name; or its .npy files, if images of the source domain have
    other numbers of channels than 1 and 3. Hidden files, sub-folders and sheets that `translate_files` wrote
    are left out; so are its translations if the folder is `out`.

    Returns:
        The files; and those of the inputs given that are missing or not images, as far as their headers show,
        and folders without images. `translate_files` finds what is wrong in a folder.

    Raises:
        RunError: the translator does not translate in this direction.
    """
    channels = model.images.channels[model.direction(source, to).source]
    files: list[Path] = []
    refused: list[Refused] = []
    for path in images:
        if not os.path.isdir(path) or is_run(path):
            problem, found = _problem(path, channels), [path]
        else:
            try:
                found = _images_in(path, channels, out)
                problem = None if found else _without_images(path, channels)
            except (OSError, DataError) as error:
                problem = f"cannot read the folder {path}: {getattr(error, 'strerror', None) or error}"
        if problem:
            refused.append(Refused(path, problem))
        else:
            files += found
    return files, refused


def translate_files(
    model: Model,
    files: Sequence[Path],
    num_styles: int,
    exemplars: Sequence[Path],
    source: str | None,
    to: str | None,
    seed: int,
    out: Path,
    precision: InferencePrecision = "fp32",
) -> Iterator[Translated | Refused]:
    """Translate each file in every style, one file after another; each is read when its turn comes.

    The shorter side of an image is resized to the training size; the aspect ratio is kept.

    Args:
        files: see `input_files`.
        num_styles: number of random styles from `seed`, the same for each file; not used with exemplars, nor
            by a deterministic translator, which makes one translation of each file.
        exemplars: images of domain `to` whose styles are used instead.
        source, to: domains of the direction; if one or both are None, the translator's first that fits.
        out: folder for NAME-a2b-seed0-style-1-of-8.png, ... (or NAME-a2b-as-EXEMPLAR.png, or NAME-a2b.png),
            the sheets NAME-a2b-seed0-sheet-of-8.png and the like, and an index; see `OutputFolder`. Names
            contain `best` if these are the best weights of a run. Images with other numbers of channels
            than 1 and 3 are written as .npy, as they are read: arrays (H, W, C) in [0, 1].
        precision: see `Run.translate`.

    Yields:
        The paths that were written for each file, or why it cannot be translated.

    Raises:
        RunError: the translator cannot translate in this direction, or follow exemplars; or a file cannot
            be written.
        DataError: an exemplar cannot be read.
    """
    direction = model.direction(source, to)
    codes = model.codes(num_styles, exemplars, direction.to, seed)
    styles = _styles(model, direction, len(codes), exemplars, seed)
    folder = OutputFolder(out, [readable(path.stem) for path in files])
    return _translated(model, files, direction, codes, styles, folder, precision)


@dataclass(frozen=True)
class _Style:
    """How one file is named, what heads its column in the sheet, and what the index says about it."""

    label: str
    heading: str
    origin: Mapping[str, Any]


def _translated(
    model: Model,
    files: Sequence[Path],
    direction: Direction,
    codes: Tensor,
    styles: Sequence[_Style],
    folder: OutputFolder,
    precision: InferencePrecision,
) -> Iterator[Translated | Refused]:
    """Translate and write, file by file; `styles` are those of the codes, and the sheet's."""
    source, to = direction
    about = {"step": model.step, "weights_sha256": model.sha256}
    exactness = {} if precision == "fp32" else {"precision": precision}
    for path in files:
        try:
            x = load_image(path, model.images.channels[source], model.images.size)
            translated = model.translate(x, source=source, to=to, styles=codes, precision=precision)
        except DataError as error:
            yield Refused(path, str(error))
            continue
        except (ShapeError, MemoryError) as error:
            yield Refused(path, f"{path}: {str(error) or 'there is not enough memory to translate it'}")
            continue
        columns = [("input", model.pictures(x[None], source))]
        columns += [
            (style.heading, model.pictures(y[None], to))
            for style, y in zip(styles[:-1], translated, strict=True)
        ]
        contents = [file_content(y) for y in translated]
        contents.append((".png", png(sheet(columns))))
        origin = {"source": os.path.abspath(path), "run": os.path.abspath(model.path), **exactness}
        results = [
            Result(style.label, *content, {**origin, **style.origin})
            for style, content in zip(styles, contents, strict=True)
        ]
        *written, overview = folder.write(readable(path.stem), results, about)
        yield Translated(path, tuple(written), overview)


def _styles(
    model: Model, direction: Direction, count: int, exemplars: Sequence[Path], seed: int
) -> list[_Style]:
    """The style of each code, and, last, that of the sheet."""
    start = f"{direction}{'-best' if model.best else ''}"
    origin: dict[str, Any] = {"weights": "best" if model.best else "last", "direction": str(direction)}
    if exemplars:
        names = [cut(readable(path.stem), EXEMPLAR_BYTES) for path in exemplars]
        more = f"-and-{count - 1}-more" if count > 1 else ""
        *names, all_of_them = _distinct([*names, f"{names[0]}{more}-sheet"])
        paths = [os.path.abspath(path) for path in exemplars]
        styles = [
            _Style(f"{start}-as-{name}", f"as {name}", {**origin, "exemplar": path})
            for name, path in zip(names, paths, strict=True)
        ]
        overview = _Style(f"{start}-as-{all_of_them}", "", {**origin, "sheet": paths})
    elif model.translator.is_deterministic(direction.to):
        styles = [_Style(start, "translation", {**origin})]
        overview = _Style(f"{start}-sheet", "", {**origin, "sheet": 1})
    else:
        origin["seed"] = seed
        start += f"-seed{seed}"
        width = len(str(count))
        styles = [
            _Style(
                f"{start}-style-{n:0{width}}-of-{count}",
                f"style {n}",
                {**origin, "style": n, "styles": count},  # another number gives other styles
            )
            for n in range(1, count + 1)
        ]
        overview = _Style(f"{start}-sheet-of-{count}", "", {**origin, "sheet": count})
    return [*styles, overview]


def _distinct(names: Sequence[str]) -> list[str]:
    """The names; repeated ones are numbered."""
    found: list[str] = []
    taken = {folded(name) for name in names}
    used: set[str] = set()
    for name in names:
        chosen, number = name, 1
        while folded(chosen) in used or (number > 1 and folded(chosen) in taken):
            number += 1
            chosen = f"{name}-{number}"
        used.add(folded(chosen))
        found.append(chosen)
    return found


def _images_in(folder: Path, channels: int, out: Path) -> list[Path]:
    """The images in a folder that are to be translated."""
    made = origins(folder)
    same = os.path.realpath(folder) == os.path.realpath(out)
    return [
        path
        for path in image_files(folder, _endings(channels))
        if path.name not in made or not (same or "sheet" in made[path.name])
    ]


def _endings(channels: int) -> Sequence[str]:
    return IMAGE_ENDINGS if channels in COLOURS else (ARRAY_ENDING,)


def _without_images(folder: Path, channels: int) -> str:
    """What is wrong with a folder without images."""
    endings = _endings(channels)
    if image_files(folder, endings):
        return f"{folder}/ contains only translations; to translate them, give another folder with --out"
    text = f"{folder}/ contains no image ({', '.join(endings)})"
    below = images_below(folder, endings)
    return f"{text}, but {below}; give that folder" if below else text


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

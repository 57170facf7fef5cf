"""Opening picture files: which are read, what their headers say, and their pixels as 8 bits, upright."""

from __future__ import annotations

import contextlib
import itertools
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from i2ikit.data import headers
from i2ikit.errors import DataError, in_one_line

__all__ = [
    "ARRAY_ENDING",
    "COLOURS",
    "IMAGE_ENDINGS",
    "MOST_PIXELS",
    "check_colours",
    "check_file",
    "check_shape",
    "dim_16_bit",
    "image_files",
    "images_below",
    "inspect",
    "left_out",
    "plain",
    "read_image",
]

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
ARRAY_ENDING = ".npy"
COLOURS = (1, 3)
"""Numbers of channels that image files have for us: grey and RGB."""

MOST_PIXELS = 64_000_000
MOST_WEBP_PIXELS = 40_000_000  # its decoder holds several copies
MOST_BYTES = 400_000_000
MOST_ASPECT = 100
"""Longer side by shorter side: resizing the shorter side to `size` multiplies the longer one too."""

STRIP = 4_000_000
"""Pixels that are converted at a time, so that a large picture is not held several times."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By the orientation in the EXIF data; from 5 on, width and height are swapped."""

SAMPLED = 32
DIM = 65536 // 8

FOLDER = "folder"


def read_image(file: Path | BinaryIO, channels: int, name: str | None = None) -> Image.Image:
    """Read an image file: upright, without transparency, 8 bits, RGB or grey.

    PNG, JPEG, WebP, BMP and TIFF are read, by their content; a path must also end as one of them. Transparent
    pixels are blended with white; 16 bits are scaled to 8.

    Args:
        name: name of the file in error messages; the path if not given.

    Raises:
        DataError: no such file, another kind of file, damaged, several pages, more than 64 megapixels
            (40 for WebP), thinner than 100:1, floats or 32 bits (whose black and white are unknown), or a
            number of channels that image files do not have; names the file.
    """
    name = name or str(file)
    with _errors_named(name), _opened(file, channels, name) as opened:
        return plain(opened, channels, name)


def inspect(file: Path | BinaryIO, channels: int, name: str | None = None) -> tuple[int, int]:
    """Width and height of an image file as `read_image` returns it, from its header.

    Pixels are decoded only of a PNG with metadata after them, and to say which values are refused.

    Raises:
        DataError: as `read_image`, for everything that the header shows.
    """
    name = name or str(file)
    with _errors_named(name), _opened(file, channels, name) as opened:
        _check_header(opened, name)
        # Pillow turns TIFF files itself.
        turned = opened.format != "TIFF" and headers.orientation(opened) >= 5
        return (opened.height, opened.width) if turned else opened.size


def plain(picture: Image.Image, channels: int, name: str) -> Image.Image:
    """The same image upright, without transparency, 8 bits, RGB or grey; decodes a lazily opened image.

    Raises:
        DataError: it cannot be decoded or converted, or has too many pixels; names the image.
    """
    with _errors_named(name):
        _check_header(picture, name)
        stored = headers.stored(picture)
        picture.load()
        turn = TURNS.get(headers.orientation(picture))
        mode = "RGB" if channels == 3 else "L"
        if stored == headers.Stored() and not picture.has_transparency_data:
            done = picture if picture.mode == mode else picture.convert(mode)  # convert would copy it
        else:
            done = Image.new(mode, picture.size)
            height = max(1, STRIP // picture.width)
            for top in range(0, picture.height, height):
                strip = picture.crop((0, top, picture.width, min(top + height, picture.height)))
                done.paste(_opaque(strip, stored).convert(mode), (0, top))
        return done if turn is None else done.transpose(turn)


@contextlib.contextmanager
def _errors_named(name: str) -> Iterator[None]:
    """Turn all errors of Pillow into DataErrors that name the file, and let no warning through."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{name}: more pixels than the limit of {MOST_PIXELS // 1_000_000} megapixels"
        ) from error
    except Exception as error:  # Pillow's decoders raise many types of errors
        raise DataError(_unreadable(name, in_one_line(error))) from error


@contextlib.contextmanager
def _opened(file: Path | BinaryIO, channels: int, name: str) -> Iterator[Image.Image]:
    """The file, opened as one of our formats, with one page; its pixels are not decoded yet."""
    if isinstance(file, Path):
        check_file(file, IMAGE_ENDINGS)
    with file.open("rb") if isinstance(file, Path) else contextlib.nullcontext(file) as stream:
        if excess := headers.excessive_tags(stream):
            raise DataError(_unreadable(name, excess))
        try:
            opened = Image.open(stream, formats=headers.FORMATS)
        except UnidentifiedImageError as error:
            raise DataError(_unreadable(name, headers.kind_of(stream))) from error
        check_colours(channels, name)
        if getattr(opened, "is_animated", False):
            pages = headers.num_pages(Image.open(stream, formats=headers.FORMATS))
            if pages > 1:
                what = {"TIFF": "pages", "MPO": "views"}.get(opened.format or "", "frames")
                raise DataError(f"{name}: it has {pages} {what}; save each as a file of its own")
        yield opened


def check_file(path: Path, endings: Sequence[str], what: str = "image") -> None:
    """Check that a path is a file that may be opened: opening a named pipe would wait for ever.

    Raises:
        DataError: it is not there, not a regular file, too large, or has another ending.
    """
    reason = None
    try:
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        raise DataError(_unreadable(str(path), in_one_line(error), what)) from error
    if path.is_dir():
        reason = "it is a folder"
    elif not path.is_file():
        reason = "it is not a regular file"
    elif path.suffix.lower() not in endings:
        reason = f"the ending of its name is not {' or '.join(endings)}"
    elif size > MOST_BYTES:
        reason = f"{size} bytes are more than the limit of {MOST_BYTES // 10**6} MB"
    if reason:
        raise DataError(_unreadable(str(path), reason, what))


def check_shape(width: int, height: int, name: str, most: int = MOST_PIXELS) -> None:
    """Check that a picture has pixels, not too many of them, and is not too thin to be resized.

    Raises:
        DataError: it is not so; names the picture.
    """
    size = f"{name}: {width}x{height} px"
    if not (width > 0 and height > 0):
        raise DataError(_unreadable(name, "it has no pixels"))
    if width * height > most:
        raise DataError(f"{size} are more than the limit of {most // 1_000_000} megapixels")
    if max(width, height) > MOST_ASPECT * min(width, height):
        raise DataError(f"{size} are thinner than the limit of {MOST_ASPECT}:1; crop it")


def check_colours(channels: int, name: str) -> None:
    """Check that image files can have this number of channels.

    Raises:
        DataError: they cannot; says what to use instead.
    """
    if channels not in COLOURS:
        raise DataError(
            f"{name}: an image file is grey or RGB, but {channels} channels are needed; use an array "
            f"(H, W, {channels}) with values in [0, 1], in Python or as a {ARRAY_ENDING} file"
        )


def _check_header(picture: Image.Image, name: str) -> None:
    check_shape(*picture.size, name, MOST_WEBP_PIXELS if picture.format == "WEBP" else MOST_PIXELS)
    if problem := headers.problem(picture):
        raise DataError(_unreadable(name, problem))


def _opaque(strip: Image.Image, stored: headers.Stored) -> Image.Image:
    """A part of a picture with 8 bits, blended with white where it is transparent."""
    if stored.white is None and stored.clear is None:
        strip = strip.convert("LA") if strip.mode == "La" else strip
        strip = strip.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip)
    values = np.asarray(strip.convert("L") if stored.white is None else strip)
    grey = values if stored.white is None else _scaled(values, stored)
    if stored.clear is not None:
        grey = np.where(values == stored.clear, np.uint8(255), grey)
    return Image.fromarray(grey)


def _scaled(values: NDArray[Any], stored: headers.Stored) -> NDArray[np.uint8]:
    """8 bits of 12 or 16; convert("L") would clip them to white."""
    assert stored.white is not None
    grey = (values.astype(np.float32) / (stored.white / 255)).round().astype(np.uint8)
    return 255 - grey if stored.inverted else grey


def _unreadable(name: str, reason: str, what: str = "image") -> str:
    return f"{name}: not a readable {what} ({reason})"


def dim_16_bit(files: Sequence[Path]) -> str | None:
    """Say so if pictures of 16 bits use only a small part of their range, and will be nearly black.

    12 bits in a file of 16 cannot be seen from one file, so some of the files are decoded, always the same.

    Returns:
        A sentence if no 16-bit picture of the sample has a value above 1/8 of the range; else None.
    """
    chosen = [files[n * len(files) // SAMPLED] for n in range(SAMPLED)] if len(files) > SAMPLED else files
    highest = [value for file in chosen if (value := _highest_of_16_bits(file)) is not None]
    if not highest or max(highest) >= DIM:
        return None
    return (
        f"{chosen[0].parent}: the pictures have 16 bits, but no value is above {max(highest)} of 65535 in "
        f"{len(highest)} of them, so they are nearly black; if they hold fewer bits, scale the values to 16"
    )


def _highest_of_16_bits(file: Path) -> int | None:
    """The highest value in a picture of 16 bits; None for others, and for files that cannot be read."""
    with contextlib.suppress(DataError), _errors_named(str(file)), _opened(file, 3, str(file)) as opened:
        _check_header(opened, str(file))
        if headers.stored(opened).white == 65535:
            return int(opened.getextrema()[1])  # type: ignore[arg-type]
        if headers.has_16_bits(opened):
            colours = opened.convert("RGB").getextrema()  # Pillow keeps the higher 8 bits
            return max(int(high) for _, high in colours) * 257  # type: ignore[misc]
    return None


def image_files(folder: Path, endings: Sequence[str] = IMAGE_ENDINGS) -> list[Path]:
    """The images in a folder, sorted by name, without hidden files and sub-folders; [] if it is missing.

    Args:
        endings: of their names, in lower case.

    Raises:
        DataError: the folder cannot be listed.
    """
    if not folder.is_dir():
        return []
    return sorted(folder / name for name, kind in _listed(folder, endings) if kind is None)


def left_out(folder: Path, endings: Sequence[str] = IMAGE_ENDINGS, others: Sequence[str] = ()) -> str | None:
    """A sentence on what a folder contains besides files with these endings and `others`; None if nothing."""
    found = (kind for name, kind in _listed(folder, endings) if name not in others)
    kinds = Counter(kind for kind in found if kind not in (None, FOLDER))
    parts = []
    if kinds:
        listed = ", ".join(f"{kind}: {count}" for kind, count in kinds.most_common())
        number = kinds.total()
        parts.append(
            f"{number} file{'s' * (number > 1)} that {'are' if number > 1 else 'is'} not read ({listed})"
        )
    if below := images_below(folder):
        parts.append(below)
    return f"{folder}: left out {' and '.join(parts)}" if parts else None


def images_below(folder: Path, endings: Sequence[str] = IMAGE_ENDINGS) -> str | None:
    """How many images are in which sub-folders; None if there are none."""
    counts: dict[str, int] = {}
    for name, kind in _listed(folder, ()):
        if kind == FOLDER:
            files = itertools.chain.from_iterable(names for _, _, names in os.walk(folder / name))
            counts[name] = sum(_has_ending(file, endings) and file[0] != "." for file in files)
    names = sorted(name for name, count in counts.items() if count)
    if not names:
        return None
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    listed = ", ".join(f"{name}/" for name in names[:3])
    return f"{sum(counts.values())} in its sub-folder{'s' * (len(names) > 1)} {listed}{more}"


def _listed(folder: Path, endings: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """The names in a folder, each with the kind of what is left out; None if it has one of the endings."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                yield entry.name, _kind(entry, endings)
    except OSError as error:
        raise DataError(f"{folder}/ cannot be listed ({error.strerror})") from error


def _kind(entry: os.DirEntry[str], endings: Sequence[str]) -> str | None:
    if entry.name.startswith("."):
        return "hidden"
    try:
        is_folder, is_file = entry.is_dir(), entry.is_file()
    except OSError:  # a link to itself
        is_folder = is_file = False
    if is_folder:
        return FOLDER
    if not is_file:
        return "broken link" if entry.is_symlink() else "pipe or device"
    if _has_ending(entry.name, endings):
        return None
    return os.path.splitext(entry.name)[1].lower() or "without ending"


def _has_ending(name: str, endings: Sequence[str]) -> bool:
    return os.path.splitext(name)[1].lower() in endings

"""Opening picture files: which are read, what their headers say, and their pixels as 8 bits, upright."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from i2ikit.errors import DataError

__all__ = [
    "ARRAY_ENDING",
    "COLOURS",
    "IMAGE_ENDINGS",
    "check_colours",
    "dim_16_bit",
    "image_files",
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
ORIENTATION = 0x0112  # EXIF tag; from 5 on, width and height are swapped


def read_image(file: Path | BinaryIO, channels: int, name: str | None = None) -> Image.Image:
    """Read an image file: upright, without transparency, 8 bits, RGB or grey.

    Args:
        name: name of the file in error messages; the path if not given.

    Raises:
        DataError: no such file, not an image, more than 64 megapixels, or a number of channels that image
            files do not have; names the file.
    """
    name = name or str(file)
    try:
        with Image.open(file) as opened:
            check_colours(channels, name)
            if opened.width * opened.height > MOST_PIXELS:
                raise DataError(
                    f"{name}: {opened.width}x{opened.height} px are more than the limit of "
                    f"{MOST_PIXELS // 1_000_000} megapixels"
                )
            return plain(opened, channels, name)
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise many types of errors
        raise DataError(_unreadable(name, error)) from error


def plain(picture: Image.Image, channels: int, name: str) -> Image.Image:
    """The same image upright, without transparency, 8 bits, RGB or grey; reads a lazily opened image."""
    try:
        if not all(picture.size):
            raise ValueError("it has no pixels")
        return _plain(ImageOps.exif_transpose(picture), channels)
    except Exception as error:
        raise DataError(_unreadable(name, error)) from error


def _unreadable(name: str, error: Exception) -> str:
    return f"{name}: not a readable image ({type(error).__name__}: {error})"


def _plain(picture: Image.Image, channels: int) -> Image.Image:
    if picture.mode in ("I", "F"):
        raise ValueError("its pixels have 32 bits, with an unknown value for white; use 8 or 16 bits")
    if picture.mode.startswith("I;16"):  # 16-bit grey, which convert("L") would clip to white
        wide = np.asarray(picture, dtype=np.float32)
        picture = Image.fromarray((wide / 257).round().astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB" if channels == 3 else "L")


def inspect(file: Path | BinaryIO, channels: int, name: str | None = None) -> tuple[int, int]:
    """Width and height of an image file as `read_image` returns it, from its header; pixels are not decoded.

    Args:
        name: name of the file in error messages; the path if not given.

    Raises:
        DataError: everything that the header shows, as for `read_image`.
    """
    name = name or str(file)
    try:
        with Image.open(file) as opened:
            check_colours(channels, name)
            turned = opened.getexif().get(ORIENTATION, 1) >= 5
            return (opened.height, opened.width) if turned else opened.size
    except DataError:
        raise
    except Exception as error:
        raise DataError(_unreadable(name, error)) from error


def image_files(folder: Path) -> list[Path]:
    """The images in a folder (not in its subfolders), sorted by name; empty if the folder is missing."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_ENDINGS and p.is_file())


def left_out(folder: Path) -> str | None:
    """What a folder contains besides the images that are read, in one sentence; None if nothing."""
    return None


def dim_16_bit(files: Sequence[Path]) -> str | None:
    """A sentence if the 16-bit images among these use only a small part of their range; None if not."""
    return None


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

"""What the header of a picture file shows: kind, pages, orientation, and how values are stored."""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

__all__ = [
    "FORMATS",
    "Stored",
    "excessive_tags",
    "has_16_bits",
    "kind_of",
    "num_pages",
    "orientation",
    "problem",
    "stored",
]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
"""Pillow's names of the formats that are read. It knows many more, and starts Ghostscript for one of them."""

MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"}
"""Pillow's modes with 8 bits or fewer; those with 16 bits begin with I;16."""

ORIENTATION = 0x0112  # EXIF tag; from 5 on, width and height are swapped
SUBFILE, BITS, PHOTOMETRIC, SAMPLES, PLANES, SAMPLE_FORMAT = 254, 258, 262, 277, 284, 339  # TIFF tags
WHITE_IS_ZERO, SEPARATE_PLANES, UNSIGNED = 0, 2, 1
MOST_PAGES = 1000
MOST_VALUES = 300_000
"""Numbers in one tag of a TIFF, such as offsets of tiles, for each of which Pillow makes some objects."""
MOST_TAGS = 100_000
MOST_TAG_BYTES = 100_000_000
BYTE_TYPES = (1, 2, 6, 7)  # of TIFF tags: bytes, text; all others are numbers
ADVICE = "save it with 8 or 16 bits"

KINDS = (
    (b"GIF8", "a GIF"),
    (b"%!PS", "a PostScript file (EPS)"),
    (b"\xc5\xd0\xd3\xc6", "a PostScript file (EPS)"),
    (b"%PDF", "a PDF"),
    (b"8BPS", "a Photoshop file"),
    (b"\x93NUMPY", "an array (.npy)"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x00\x00\x01\x00", "an icon"),
    (b"\x00\x00\x00\x0cjP", "a JPEG 2000"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (b"\xff\x0a", "a JPEG XL"),
    (b"\x00\x00\x00\x0cJXL", "a JPEG XL"),
    (b"v/1\x01", "an OpenEXR file"),
    (b"#?RADIANCE", "a Radiance HDR"),
    (b"qoif", "a QOI"),
    (b"DDS ", "a DDS texture"),
    (b"\x00\x05\x16\x07", "a macOS resource file (AppleDouble) without pixels"),
    (b"version https://git-lfs", "a Git LFS pointer; fetch the file with `git lfs pull`"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML file (such as SVG)"),
    (b"<!DOCTYPE", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"P4", "a PBM"),
    (b"P5", "a PGM"),
    (b"P6", "a PPM"),
)
"""How files of other kinds begin."""

OURS = ((b"\x89PNG", "PNG"), (b"\xff\xd8", "JPEG"), (b"RIFF", "WebP"), (b"BM", "BMP"))
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class Stored:
    """How a picture's values are stored, as far as Pillow's mode does not say it.

    Attributes:
        white: the value of white if the picture has more than 8 bits.
        inverted: 0 is white.
        clear: the grey value whose pixels are transparent, as Pillow decodes it.
    """

    white: int | None = None
    inverted: bool = False
    clear: int | None = None


def stored(picture: Image.Image) -> Stored:
    """How the values of a picture are stored; must be called before its pixels are decoded."""
    layout = _layout(picture)
    tags = getattr(picture, "tag_v2", {})
    white = None
    if picture.mode.startswith("I;16"):
        white = 4095 if layout == "I;12" else 65535
    inverted = white is not None and tags.get(PHOTOMETRIC) == WHITE_IS_ZERO  # Pillow inverts 8 bits only
    clear = picture.info.get("transparency")
    if (picture.mode not in ("1", "L") and white is None) or not isinstance(clear, int):
        return Stored(white, inverted)
    bits = 1 if picture.mode == "1" else {"L;2": 2, "L;4": 4}.get(layout, 16 if white else 8)
    largest = 2**bits - 1
    clear &= largest  # the higher bits have no meaning
    return Stored(white, inverted, clear * 255 // largest if bits < 8 else clear)


def has_16_bits(picture: Image.Image) -> bool:
    """Whether a file has 16 bits per channel; must be called before its pixels are decoded."""
    return picture.mode.startswith("I;16") or ";16" in _layout(picture)


def problem(picture: Image.Image) -> str | None:
    """Why a picture's values cannot be read rightly, from its header; None if they can."""
    tags = getattr(picture, "tag_v2", {})
    if picture.mode in ("I", "F") or any(kind != UNSIGNED for kind in tags.get(SAMPLE_FORMAT, (UNSIGNED,))):
        what = _tiff_values(tags) if tags else {"I": "32-bit integers", "F": "32-bit floats"}[picture.mode]
        return f"its pixels are {what}{_range(picture)}, without a value for black and white; {ADVICE}"
    if picture.mode == "LAB":
        return "its colours are CIELAB; save it as RGB"
    if picture.mode not in MODES and not picture.mode.startswith("I;16"):
        return f"its colours ({picture.mode}) are not known; save it as RGB"
    if tags.get(PLANES) == SEPARATE_PLANES and tags.get(SAMPLES, 1) > 1 and max(tags.get(BITS, (1,))) > 8:
        return (
            f"its channels are separate planes of {max(tags[BITS])} bits; save it with interleaved channels"
        )
    if has_16_bits(picture) and picture.mode == "RGB" and "transparency" in picture.info:
        return "it has 16 bits and one transparent colour; save it with an alpha channel, or with 8 bits"
    return None


def _tiff_values(tags: Any) -> str:
    """What the values of a TIFF are, such as `32-bit floats`."""
    bits = tags.get(BITS, (1,))
    kind = tags.get(SAMPLE_FORMAT, (UNSIGNED,))[0]
    names = {
        1: "unsigned integers",
        2: "signed integers",
        3: "floats",
        5: "complex integers",
        6: "complex floats",
    }
    return f"{max(bits)}-bit {names.get(kind, 'values of an unknown kind')}"


def num_pages(picture: Image.Image) -> int:
    """Number of pages, frames or views; 1 for one picture with thumbnails or at several resolutions.

    Moves to another page: do not decode `picture` afterwards.
    """
    if picture.format == "TIFF":
        return _count(picture, MOST_PAGES, _is_full)
    frames = getattr(picture, "n_frames", 1)
    if picture.format != "MPO":
        return frames
    size = picture.size  # in a photo of one camera, the others are previews and gain maps, which are smaller
    return _count(picture, frames, lambda view: view.size == size)


def kind_of(file: BinaryIO) -> str:
    """What a file is that Pillow did not open as one of our formats."""
    file.seek(0)
    head = file.read(512)
    if not head:
        return "it is empty"
    if head[:4] in TIFF_STARTS:
        return _odd_tiff(file, head)
    for start, kind in OURS:
        if head.startswith(start):
            return f"it begins as a {kind}, but is damaged"
    if head[4:8] == b"ftyp":
        brand = (
            "AVIF" if head[8:11] == b"avi" else "HEIC" if head[8:11] in (b"hei", b"hev", b"mif") else "MP4"
        )
        return f"it is {'an' if brand != 'HEIC' else 'a'} {brand}"
    if head[128:132] == b"DICM":
        return "it is a DICOM file"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for start, kind in KINDS:
        if text.startswith(start.lower()):
            return f"it is {kind}"
    return f"its content is none of {', '.join(FORMATS)}"


def orientation(picture: Image.Image) -> int:
    """The orientation in the metadata, from 1 (upright) to 8; from 5 on, width and height are swapped.

    Pixels are decoded only if a PNG has metadata after them.
    """
    if picture.format == "PNG" and getattr(picture, "tile", None) and not _has_late_metadata(picture):
        found = Image.Image.getexif(picture).get(ORIENTATION, 1)  # PngImageFile.getexif decodes the pixels
    else:
        found = picture.getexif().get(ORIENTATION, 1)
    return found if found in range(1, 9) else 1


def excessive_tags(file: BinaryIO) -> str | None:
    """Why the tags of a TIFF would take too much memory, if they would; Pillow reads them at once."""
    file.seek(0)
    head = file.read(16)
    if head[:4] not in TIFF_STARTS:
        return None
    order = "<" if head[:1] == b"I" else ">"
    big = 43 in head[2:4]
    number_of_tags, entry, offset = ("Q", "HHQ8x", "Q") if big else ("H", "HHL4x", "L")
    (place,) = struct.unpack(order + offset, head[8:16] if big else head[4:8])
    seen: set[int] = set()
    tags = total = 0
    with contextlib.suppress(struct.error, OSError, ValueError):  # cut off: Pillow says so
        while place and place not in seen and len(seen) < MOST_PAGES:
            seen.add(place)
            file.seek(place)
            (number,) = _unpacked(file, order + number_of_tags)
            tags += number
            if tags > MOST_TAGS:
                return f"it has {tags} tags"
            for _ in range(number):
                tag, kind, count = _unpacked(file, order + entry)
                total += count if kind in BYTE_TYPES else 0
                if kind not in BYTE_TYPES and count > MOST_VALUES:
                    return f"its tag {tag} has {count} values"
            if total > MOST_TAG_BYTES:
                return f"its tags have {total} bytes"
            (place,) = _unpacked(file, order + offset)
    return None


def _unpacked(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))


def _has_late_metadata(picture: Any) -> bool:
    """Whether a PNG has text or EXIF data after its pixels."""
    file = picture.fp
    start = file.tell()
    file.seek(8)
    seen_pixels = False
    found = False
    while len(head := file.read(8)) == 8 and not found:
        seen_pixels = seen_pixels or head[4:] == b"IDAT"
        found = seen_pixels and head[4:] in (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
        file.seek(int.from_bytes(head[:4]) + 4, io.SEEK_CUR)
    file.seek(start)
    return found


def _layout(picture: Image.Image) -> str:
    """How the values are laid out in the file: Pillow's raw mode, such as `L;2`; empty if it is decoded."""
    tiles = getattr(picture, "tile", None)
    args = tiles[0].args if tiles else ""
    return str(args[0] if isinstance(args, tuple) and args else args)


def _range(picture: Image.Image) -> str:
    """` from LOWEST to HIGHEST`, if the pixels can be decoded."""
    try:
        lowest, highest = picture.getextrema()
        return f" from {lowest:g} to {highest:g}"
    except Exception:  # Pillow's decoders raise many types of errors
        return ""


def _is_full(page: Any) -> bool:
    """Whether a TIFF's page is neither a smaller version of another one nor a mask."""
    kind = page.tag_v2.get(SUBFILE, 0)
    return not (isinstance(kind, int) and kind & 5)


def _count(picture: Image.Image, most: int, counts: Callable[[Any], bool]) -> int:
    """1, and one more for each further page that counts."""
    number = 1
    for page in range(1, most):
        try:
            picture.seek(page)
        except EOFError:
            break
        except Exception:
            if picture.format != "TIFF":  # views that are missing from a photo that was edited
                continue
        number += counts(picture)
    return number


def _odd_tiff(file: BinaryIO, head: bytes) -> str:
    try:
        tags = ImageFileDirectory_v2(head[: 16 if 43 in head[2:4] else 8])
        file.seek(tags.next)
        tags.load(file)
        what = _tiff_values(tags)
        return f"it is a TIFF of a kind that is not read ({what}); save it as a PNG with 8 or 16 bits"
    except Exception:
        return "it begins as a TIFF, but is damaged"

"""Writers of PNG, BMP and TIFF files, from their specifications: independent of Pillow, and able to lie."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row, first column and steps of the passes of an interlaced PNG."""

COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""PNG colour type by number of channels; palettes are 3."""


def chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def exif(orientation: int) -> bytes:
    """EXIF data with an orientation only."""
    return b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)


def packed_rows(values: NDArray[Any], bits: int, order: str = ">") -> list[bytes]:
    """Rows of (H, W, C) values of 1 to 16 bits, each filled up to whole bytes."""
    rows = values.reshape(len(values), -1)
    if bits == 16:
        return [row.astype(f"{order}u2").tobytes() for row in rows]
    each = (rows[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return [np.packbits(row.reshape(-1).astype(np.uint8)).tobytes() for row in each]


def png(
    values: NDArray[Any],
    bits: int = 8,
    palette: bytes = b"",
    trns: bytes = b"",
    interlaced: bool = False,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A PNG of (H, W, C) values; `before` and `after` are chunks around the pixels."""
    height, width, channels = values.shape
    kind = 3 if palette else COLOUR_TYPES[channels]
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, interlaced)
    passes = (
        [values[top::down, left::across] for top, left, down, across in ADAM7] if interlaced else [values]
    )
    rows = [b"\0" + row for part in passes if part.size for row in packed_rows(part, bits)]
    chunks = [chunk(b"IHDR", header), chunk(b"PLTE", palette) if palette else b""]
    chunks += [chunk(b"tRNS", trns) if trns else b"", before]
    chunks += [chunk(b"IDAT", zlib.compress(b"".join(rows))), after, chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def empty_png(width: int, height: int, bits: int = 8, kind: int = 2, pixels: bytes = b"") -> bytes:
    """A PNG that claims a size."""
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels or zlib.compress(b"\0")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def bmp(
    values: NDArray[Any],
    bits: int = 24,
    palette: Sequence[tuple[int, int, int]] = (),
    compression: int = 0,
    body: bytes | None = None,
    upside_down: bool = True,
) -> bytes:
    """A BMP of (H, W, C) values, RGB or numbers of colours; rows go up unless `upside_down` is false."""
    height, width, _ = values.shape
    if body is None:
        rows = packed_rows(values[..., ::-1], min(bits, 8))
        rows = [row + bytes(-len(row) % 4) for row in rows]
        body = b"".join(rows[::-1] if upside_down else rows)
    colours = b"".join(bytes((*colour[::-1], 0)) for colour in palette)
    start = 54 + len(colours)
    signed = height if upside_down else -height
    head = b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start)
    info = struct.pack(
        "<IiiHHIIiiII", 40, width, signed, 1, bits, compression, len(body), 2835, 2835, len(palette), 0
    )
    return head + info + colours + body


def run_lengths(values: NDArray[Any], bits: int) -> bytes:
    """The body of a BMP with run lengths, bottom row first: each pixel is a run of its own."""
    rows = values[::-1, :, 0].tolist()
    shift = 0x11 if bits == 4 else 1
    return b"".join(bytes(b for v in row for b in (1, v * shift)) + b"\0\0" for row in rows) + b"\0\1"


def tiff(*pages: dict[int, Any] | tuple[NDArray[Any], dict[int, Any]], order: str = "<") -> bytes:
    """A TIFF with these pages: values (H, W, C), and tags that replace those that follow from them.

    Tags hold a number, a sequence of numbers (32 bits above 65535), or bytes. One strip, unless the tags
    say otherwise; compression 8 is zlib.
    """
    out = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 0)
    link = 4
    for page in pages:
        assert isinstance(page, tuple)
        values, given = page
        height, width, channels = values.shape
        bits = given.get(258, values.dtype.itemsize * 8)
        if values.dtype.kind == "u" and bits <= 16:
            body = b"".join(packed_rows(values, bits, order))
        else:
            body = values.astype(values.dtype.newbyteorder(order)).tobytes()
        body = zlib.compress(body) if given.get(259) == 8 else body
        tags = {
            256: width,
            257: height,
            258: [bits] * channels,
            259: 1,
            262: 2 if channels >= 3 else 1,
            273: len(out),
            277: channels,
            278: height,
            279: len(body),
            **{tag: value for tag, value in given.items() if tag != 258},
        }
        out += body + b"\0" * (len(body) % 2)
        out = out[:link] + struct.pack(f"{order}I", len(out)) + out[link + 4 :]
        extra_at = len(out) + 2 + 12 * len(tags) + 4
        entries, extra = b"", b""
        for tag, value in sorted(tags.items()):
            content = _field(value, order)
            kind = 7 if isinstance(value, bytes) else 4 if content[1] == 4 else 3
            stored = content[0]
            if len(stored) > 4:
                extra, stored = extra + stored, struct.pack(f"{order}I", extra_at + len(extra))
            entries += struct.pack(f"{order}HHI", tag, kind, content[2]) + stored.ljust(4, b"\0")
        link = len(out) + 2 + len(entries)
        out += struct.pack(f"{order}H", len(tags)) + entries + b"\0\0\0\0" + extra
    return out


def _field(value: Any, order: str) -> tuple[bytes, int, int]:
    """Content, bytes per number, and how many."""
    if isinstance(value, bytes):
        return value, 1, len(value)
    numbers = [value] if isinstance(value, int) else list(value)
    large = max(numbers) > 65535
    return (
        struct.pack(f"{order}{len(numbers)}{'I' if large else 'H'}", *numbers),
        4 if large else 2,
        len(numbers),
    )

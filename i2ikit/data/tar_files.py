"""The members of a tar file, one after another and within bounds, whoever made the file.

Python's tarfile believes what headers say: it reads headers of any size into memory, goes back for a negative
size, and takes a damaged header for the end. Here a file is read forwards only, and each read is bounded.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from i2ikit.data.reading import IMAGE_ENDINGS
from i2ikit.data.tar_names import Member, is_read
from i2ikit.errors import DataError, in_one_line, shown

__all__ = ["MOST_BYTES", "Place", "contents", "places", "read_at"]

MOST_BYTES = 100_000_000
"""Of a member; so few samples at a time are kept that they do not exceed it either."""

MOST_RATIO, FREE = 100, 100_000_000
"""A compressed file may unpack to this many times its size, and `FREE` bytes more."""

UNPACKERS: dict[bytes, Callable[..., Any]] = {
    rb"\x1f\x8b": gzip.open,
    rb"BZh[1-9]1AY&SY": bz2.open,  # a plain tar file begins with a name, which may be BZh1.png
    rb"\xfd7zXZ\x00|\x5d\x00\x00\x80": lzma.open,
}
"""By a pattern of the first bytes of a file."""

MOST_HEADERS = 32_768
"""Bytes of one member; a path has 4,096. In the time for them, and the memory, tarfile is not linear."""

MOST_LETTERS = 4096  # of a path, as systems have them
DIGITS = re.compile(rb"\d{201}")  # on a long number, tarfile spends time by its square (CVE-2024-6232)


@dataclass(frozen=True)
class Place:
    """Where the content of a member is in the (unpacked) file."""

    start: int
    size: int


def contents(tar: Path) -> Iterator[Member[bytes]]:
    """The members that form samples, each with its content if it is an image, else with nothing.

    Raises:
        DataError: the file is damaged, or a member is too large; names it.
    """
    with _errors_named(tar), _opened(tar) as file:
        for name, place in _members(file):
            is_image = name.lower().endswith(IMAGE_ENDINGS)
            content = _read(file, place, name) if is_image else b""
            yield Member(name, len(content), content)


def places(tar: Path) -> Iterator[Member[Place]]:
    """The members that form samples, each with its place, for `read_at`; reads nothing but headers.

    Raises:
        DataError: see `contents`.
    """
    with _errors_named(tar), _opened(tar) as file:
        for name, place in _members(file):
            is_image = name.lower().endswith(IMAGE_ENDINGS)
            yield Member(name, place.size if is_image else 0, place)


def read_at(tar: Path, place: Place, name: str) -> bytes:
    """The content of one member. Of a compressed file, everything before it is unpacked each time.

    Raises:
        DataError: see `contents`.
    """
    with _errors_named(tar), _opened(tar) as file:
        return _read(file, place, name)


@contextlib.contextmanager
def _errors_named(tar: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # tarfile and its decompressors raise many types of errors
        raise DataError(f"{tar}: not a readable tar file ({in_one_line(error)})") from error


@contextlib.contextmanager
def _opened(tar: Path) -> Iterator[_Bounded]:
    with tar.open("rb") as stored:
        first = stored.read(10)
        stored.seek(0)
        size = os.fstat(stored.fileno()).st_size
        unpack = next((unpack for start, unpack in UNPACKERS.items() if re.match(start, first)), None)
        if unpack is None:
            yield _Bounded(stored, size, is_packed=False)
        else:
            with unpack(stored) as unpacked:
                yield _Bounded(unpacked, MOST_RATIO * size + FREE, is_packed=True)


class _Bounded:
    """A file that limits what tarfile reads at a time and in all.

    Args:
        most: bytes in all.
        is_packed: it may have more than that.
        last: what tarfile has read last.
    """

    def __init__(self, file: IO[bytes], most: int, *, is_packed: bool) -> None:
        self.last = b""
        self.headers = 0  # bytes that tarfile has read since the last member
        self._file = file
        self._most = most
        self._is_packed = is_packed

    def read(self, size: int) -> bytes:
        """For tarfile, which reads only headers."""
        self.headers += size
        if size < 0 or self.headers > MOST_HEADERS:
            raise ValueError(f"the headers of a member have more than {MOST_HEADERS} bytes")
        self.last = self.content(size)
        if DIGITS.search(self.last):
            raise ValueError("a header has a number of more than 200 digits")
        return self.last

    def content(self, size: int) -> bytes:
        if self._is_packed:
            self._check(self.tell() + size)
        return self._file.read(max(0, min(size, self._most - self.tell())))

    def seek(self, place: int) -> int:
        self._check(place)
        return self._file.seek(place)

    def tell(self) -> int:
        return self._file.tell()

    def _check(self, place: int) -> None:
        if place > self._most:
            too_much = f"it unpacks to more than {MOST_RATIO} times its size"
            raise ValueError(too_much if self._is_packed else "it ends in the middle of a member")


def _members(file: _Bounded) -> Iterator[tuple[str, Place]]:
    """Names and places of the members that form samples."""
    with tarfile.open(fileobj=file, mode="r:") as opened:  # type: ignore[call-overload]
        before = -1
        for member in opened:
            opened.members = []  # tarfile would keep all headers
            file.headers = 0
            if opened.offset <= before or member.size < 0:
                raise ValueError(f"{shown(member.name)} has a negative size")
            if len(member.name) > MOST_LETTERS:
                raise ValueError(f"{shown(member.name)} is a name of {len(member.name)} letters")
            if sum(map(len, opened.pax_headers)) > MOST_HEADERS:  # tarfile copies them for every member
                raise ValueError(f"the headers of all members have more than {MOST_HEADERS} bytes")
            before = opened.offset
            if member.isreg() and is_read(member.name):
                if member.issparse():
                    raise ValueError(f"{shown(member.name)} is a sparse file")
                yield member.name, Place(member.offset_data, member.size)
        if file.last.strip(b"\0"):  # tarfile takes it for the end
            raise ValueError("a header is damaged or cut off")


def _read(file: _Bounded, place: Place, name: str) -> bytes:
    if place.size > MOST_BYTES:
        raise ValueError(
            f"{shown(name)}: {place.size} bytes are more than the {MOST_BYTES // 10**6} MB allowed"
        )
    file.seek(place.start)
    content = file.content(place.size)
    if len(content) < place.size:
        raise ValueError(f"it ends in the middle of {shown(name)}")
    return content

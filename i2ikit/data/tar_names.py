"""Which members of a tar file form a sample, by their names: as in webdataset, but names may contain dots."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from i2ikit.data.reading import IMAGE_ENDINGS

__all__ = ["Member", "grouped", "is_read"]

LOOK_AHEAD = 64
"""Members with the same name up to its first dot that are looked at before it is decided where keys end."""

META = re.compile(r"__[^/]*__($|/)")  # webdataset does not read these
AT_FIRST_DOT = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)
AT_LAST_DOT = re.compile(r"((?:.*/)?[^./].*)\.([^./]*)", re.DOTALL)
BEFORE_DOMAIN = re.compile(r"((?:.*/)?[^./].*)\.([ab]\.[^./]*)", re.DOTALL | re.IGNORECASE)

T = TypeVar("T")


@dataclass(frozen=True)
class Member(Generic[T]):
    """A member of a tar file.

    Args:
        size: bytes that its content takes in memory once it is read.
        content: its content, or what stands for it.
    """

    name: str
    size: int
    content: T


def is_read(name: str) -> bool:
    """Whether a member with this name belongs to a sample: it has an ending and is not hidden."""
    return AT_FIRST_DOT.fullmatch(name) is not None and not META.match(name)


def grouped(
    members: Iterable[Member[T]], paired: bool, most_bytes: int
) -> Iterator[tuple[str, dict[str, T]]]:
    """Samples of a tar file: a key, and the contents by ending, such as `png`, or `a.png` for pairs.

    webdataset ends the key at the first dot of a file's name. That is done where the sample then has an
    image: `0042.jpg`, `0042.mask.png`. Elsewhere the key ends at the last dot, or before `.a` and `.b`:
    `cat.v1.0001.png`, `cat.v1.0002.png`. The members of a sample are adjacent.

    Args:
        members: with names for all of which `is_read`.
        most_bytes: fewer than `LOOK_AHEAD` members are looked at, if these are as large as this.

    Raises:
        ValueError: a sample has the same ending twice, or is larger than `most_bytes`.
    """
    for _, group in itertools.groupby(members, lambda member: _split(member.name, AT_FIRST_DOT)[0]):
        head = list(_ahead(group, most_bytes))
        if any(_is_image(_split(member.name, AT_FIRST_DOT)[1], paired) for member in head):
            patterns = [AT_FIRST_DOT]
        else:
            patterns = [BEFORE_DOMAIN, AT_LAST_DOT] if paired else [AT_LAST_DOT]
        following = itertools.chain(head, group)  # noqa: B031 (what follows the head)
        yield from _samples(following, patterns, most_bytes)


def _ahead(members: Iterator[Member[T]], most_bytes: int) -> Iterator[Member[T]]:
    """The first members: `LOOK_AHEAD`, or fewer if they are large."""
    size = 0
    for member in itertools.islice(members, LOOK_AHEAD):
        yield member
        size += member.size
        if size >= most_bytes:
            return


def _samples(
    members: Iterable[Member[T]], patterns: Sequence[re.Pattern[str]], most_bytes: int
) -> Iterator[tuple[str, dict[str, T]]]:
    parts = ((member, *_split(member.name, *patterns)) for member in members)
    for key, sample in itertools.groupby(parts, lambda part: part[1]):
        files: dict[str, T] = {}
        size = 0
        for member, _, ending in sample:
            if ending.lower() in files:
                raise ValueError(f"{member.name}: sample {key!r} has the ending {ending!r} twice")
            files[ending.lower()] = member.content
            size += member.size
            if size > most_bytes:
                raise ValueError(f"sample {key!r} has more than {most_bytes // 10**6} MB")
        yield key, files


def _is_image(ending: str, paired: bool) -> bool:
    ending = ending.lower()
    if paired:
        return ending[:2] in ("a.", "b.") and ending[1:] in IMAGE_ENDINGS
    return f".{ending}" in IMAGE_ENDINGS


def _split(name: str, *patterns: re.Pattern[str]) -> tuple[str, str]:
    """The key and the ending of a name, by the first pattern that matches."""
    key, ending = next(found.groups() for pattern in patterns if (found := pattern.fullmatch(name)))
    return key, ending

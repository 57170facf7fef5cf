"""Which members of a tar file form a sample, by their names: as in webdataset, but names may contain dots."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from i2ikit.data.reading import IMAGE_ENDINGS

__all__ = ["grouped", "is_read"]

LOOK_AHEAD = 64
"""Members with the same name up to its first dot that are looked at before it is decided where keys end."""

META = re.compile(r"__[^/]*__($|/)")  # webdataset does not read these
AT_FIRST_DOT = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)
AT_LAST_DOT = re.compile(r"((?:.*/)?[^./].*)\.([^./]*)", re.DOTALL)
BEFORE_DOMAIN = re.compile(r"((?:.*/)?[^./].*)\.([ab]\.[^./]*)", re.DOTALL | re.IGNORECASE)

Member = tuple[str, bytes]


def is_read(name: str) -> bool:
    """Whether a member with this name belongs to a sample: it has an ending and is not hidden."""
    return AT_FIRST_DOT.fullmatch(name) is not None and not META.match(name)


def grouped(members: Iterable[Member], paired: bool) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Samples of a tar file: a key, and the contents by ending, such as `png`, or `a.png` for pairs.

    webdataset ends the key at the first dot of a file's name. That is done where the sample then has an
    image: `0042.jpg`, `0042.mask.png`. Elsewhere the key ends at the last dot, or before `.a` and `.b`:
    `cat.v1.0001.png`, `cat.v1.0002.png`. The members of a sample are adjacent.

    Args:
        members: names, for all of which `is_read`, and contents.

    Raises:
        ValueError: a sample has the same ending twice.
    """
    for _, group in itertools.groupby(members, lambda member: _split(member[0], AT_FIRST_DOT)[0]):
        head = list(itertools.islice(group, LOOK_AHEAD))
        if any(_is_image(_split(name, AT_FIRST_DOT)[1], paired) for name, _ in head):
            patterns = [AT_FIRST_DOT]
        else:
            patterns = [BEFORE_DOMAIN, AT_LAST_DOT] if paired else [AT_LAST_DOT]
        yield from _samples(itertools.chain(head, group), patterns)  # noqa: B031 (what follows the head)


def _samples(
    members: Iterable[Member], patterns: Sequence[re.Pattern[str]]
) -> Iterator[tuple[str, dict[str, bytes]]]:
    parts = ((name, *_split(name, *patterns), content) for name, content in members)
    for key, sample in itertools.groupby(parts, lambda part: part[1]):
        files: dict[str, bytes] = {}
        for name, _, ending, content in sample:
            if ending.lower() in files:
                raise ValueError(f"{name}: sample {key!r} has the ending {ending!r} twice")
            files[ending.lower()] = content
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

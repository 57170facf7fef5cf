"""Checking every image file before training starts, so that all bad ones are named at once."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from i2ikit.data.dataset import SPLITS, Dataset, Filed, Split
from i2ikit.data.reading import IMAGE_ENDINGS
from i2ikit.data.record import SPLIT_WORDS
from i2ikit.data.scan import damage, in_threads
from i2ikit.draws import counted_generator
from i2ikit.errors import CacheError, DataError
from i2ikit.pretrained.cache import cache_dir

__all__ = ["survey"]

MOST_HEADERS = 100_000
"""Images whose headers are looked at first; of more, a sample."""

MOST_LINES = 20
SAID_S = 5.0  # a survey that took longer says how long


@dataclass(frozen=True, order=True)
class _Place:
    """Where an image is in a dataset."""

    split: Split
    domain: str
    index: int


Flaws = dict[_Place, str]
"""What is wrong with each bad image; begins with the name of its file."""


def survey(
    data: Dataset,
    skip: bool,
    say: Callable[[str], None],
    splits: Sequence[Split] = SPLITS,
    domains: Iterable[str] | None = None,
) -> dict[str, dict[int, str]]:
    """Check every image: first the headers, then all pixels, by decoding each file once.

    Headers show another kind of file, too many pixels and pairs of different shapes; only decoding shows
    files that end too early. What decoding found is kept in the cache folder, so that the next run decodes
    only files that are new or have changed. A dataset without files, such as one that streams, is not
    checked.

    Args:
        skip: do not raise an error for damaged training images.
        say: prints a line.
        splits, domains: what to check; all of it if not given.

    Returns:
        By domain, the indices of the damaged training images, and what is wrong with each; empty without
        `skip`.

    Raises:
        DataError: images are damaged, with `skip` held-out images; lists all of them.
    """
    if not isinstance(data, Filed):
        return {}
    started = time.monotonic()
    places = [
        _Place(split, domain, index)
        for split, domain in itertools.product(splits, domains or data.images.channels)
        for index in range(len(data.files(split, domain)))
    ]
    first = _sample(places)
    sampled = len(first) < len(places)
    if sampled:
        say(f"{len(places):,} images: first the headers of a sample of {len(first):,}, then every file")
    flaws = _inspected(data, first)
    hopeless = sampled and bool(flaws) and not skip  # a look at the sample has saved a long scan
    if not hopeless:
        flaws |= _inspected(data, sorted({*places} - {*first})) if sampled else {}
        flaws |= _decoded(data, places, flaws)
    flaws = {place: flaws[place] for place in places if place in flaws}
    if (seconds := time.monotonic() - started) > SAID_S:
        say(f"Checked {len(places):,} images in {seconds:.0f} s.")
    fatal = {place: text for place, text in flaws.items() if not skip or place.split == "test"}
    if fatal:
        raise DataError(_report(fatal, hopeless))
    found: dict[str, dict[int, str]] = {}
    for place, text in flaws.items():
        found.setdefault(place.domain, {})[place.index] = text
    if flaws:
        lines = "\n".join(_lines(flaws))
        say(f"warning: {_count(flaws)}; the next good image takes the place of each:\n{lines}")
    return found


def _sample(places: Sequence[_Place]) -> Sequence[_Place]:
    """All places, or a sample that depends only on their number."""
    if len(places) <= MOST_HEADERS:
        return places
    chosen = counted_generator(0, "survey").choice(len(places), MOST_HEADERS, replace=False)
    return [places[number] for number in sorted(chosen.tolist())]


def _inspected(data: Filed, places: Sequence[_Place]) -> Flaws:
    """What the headers of these images show."""

    def flaw(place: _Place) -> str:
        try:
            data.inspect(place.split, place.domain, place.index)
        except DataError as error:
            return str(error)
        return ""

    return {place: text for place, text in in_threads(flaw, places, "Looking at every image") if text}


def _decoded(data: Filed, places: Sequence[_Place], known: Flaws) -> Flaws:
    """What only decoding shows, of images whose headers are good; each file is decoded once."""
    files = {place: data.files(place.split, place.domain)[place.index] for place in places}
    channels = data.images.channels
    bad = {files[place] for place in known}
    wanted: dict[Path, int] = {}
    for place, file in files.items():
        if file not in bad and file.suffix.lower() in IMAGE_ENDINGS:
            wanted.setdefault(file, channels[place.domain])
    found = damage(wanted)
    return {place: found[file] for place, file in files.items() if file in found}


def _report(flaws: Flaws, sampled: bool) -> str:
    """The message about bad images: the first ones, their number, and what to do."""
    lines = [f"{_count(flaws)}{' in a sample' * sampled}:", *_lines(flaws)]
    advice = "Repair or remove these files"
    if any(place.split == "train" for place in flaws):
        advice += ', or train without damaged training images: training.damaged_images = "skip"'
    if any(place.split == "test" for place in flaws):
        advice += "; held-out images cannot be replaced"
    lines.append(f"{advice}.")
    return "\n".join(lines)


def _count(flaws: Flaws) -> str:
    number = len(set(flaws.values()))
    return f"{number:,} damaged image{'s' * (number > 1)}"


def _lines(flaws: Mapping[_Place, str]) -> list[str]:
    """The bad images by split and domain, each once; of many, the first, and where all are listed."""
    groups: dict[str, list[str]] = {}
    texts = set()
    for place, text in flaws.items():
        if text not in texts:  # two domains may be in one file
            texts.add(text)
            groups.setdefault(f"{SPLIT_WORDS[place.split]} images of domain {place.domain}", []).append(text)
    lines = []
    for title, found in groups.items():
        lines += [f"  {title}:", *(f"    {text}" for text in found)]
    if len(texts) <= MOST_LINES:
        return lines
    shown = lines[: MOST_LINES + len(groups)]
    hidden = sum(line.startswith("    ") for line in lines[len(shown) :])
    if not hidden:
        return lines
    return [*shown, f"  and {hidden:,} more{_all_listed(lines)}"]


def _all_listed(lines: Sequence[str]) -> str:
    """Where the whole list is; empty if it cannot be written."""
    text = "\n".join(lines) + "\n"
    with contextlib.suppress(OSError, CacheError):
        path = cache_dir() / "scans" / f"damaged-{hashlib.sha256(text.encode()).hexdigest()[:8]}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return f"; all are listed in {path}"
    return ""

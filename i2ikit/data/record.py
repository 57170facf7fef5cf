"""What the images of a run were: counts, and checksums of the files' names and sizes.

A run keeps this as data.json. Changes of a file that keep its size are not seen.
"""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from i2ikit.data.dataset import SPLITS, Dataset, Filed, Split
from i2ikit.errors import DataError, RunError
from i2ikit.writing import replace_file

__all__ = [
    "DATA_FILE",
    "SPLIT_WORDS",
    "Listed",
    "Record",
    "changed_files",
    "differences",
    "held_out_pixels",
    "kept_record",
    "listed",
    "record_of",
    "write_record",
]

DATA_FILE = "data.json"
CHECKED = 20
"""Held-out images of each domain whose pixels tell whether two datasets are the same."""
SPLIT_WORDS = {"train": "training", "test": "held-out"}


@dataclass(frozen=True)
class Listed:
    """The files of one split and domain.

    Args:
        files: how many images there are.
        sha256: checksum of the sorted names and sizes in bytes; the folder does not matter.
    """

    files: int
    sha256: str


LISTED = TypeAdapter(Listed)


@dataclass(frozen=True)
class Record:
    """What the images of a run are.

    Args:
        train, test: the files of each domain.
        damaged: by domain, names of the training images that others replace, and why.
        changes: earlier records that `resume` replaced, each with its step; the oldest first.
    """

    train: Mapping[str, Listed]
    test: Mapping[str, Listed]
    damaged: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    changes: Sequence[Mapping[str, Any]] = ()


def listed(data: Dataset, split: Split, domains: Iterable[str]) -> dict[str, Listed]:
    """The files of a split in these domains; empty if the dataset has no files.

    Raises:
        DataError: a folder is missing or contains no image, or a file has just been removed.
    """
    return {d: _listed(data.files(split, d)) for d in domains} if isinstance(data, Filed) else {}


def _listed(files: Sequence[Path]) -> Listed:
    found = sorted((unicodedata.normalize("NFC", file.name), _size(file)) for file in files)
    checksum = hashlib.sha256()
    for name, size in found:
        checksum.update(os.fsencode(f"{name}\0{size}\0"))
    return Listed(len(files), checksum.hexdigest())


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from error


def held_out_pixels(data: Dataset) -> dict[str, str]:
    """By domain, a checksum of the number of held-out images, and of the pixels of the first 20.

    Equal ones show that the held-out images are the same, also of a dataset without files.
    """
    checksums = {}
    for domain in data.images.channels:
        count = data.count("test", domain)
        checksum = hashlib.sha256(str(count).encode())
        for index in range(min(CHECKED, count)):
            checksum.update(data.image("test", domain, index).numpy().tobytes())
        checksums[domain] = checksum.hexdigest()
    return checksums


def record_of(data: Dataset) -> Record | None:
    """The record of a dataset; None if it has no files, such as one that streams or renders its images."""
    if not isinstance(data, Filed):
        return None
    domains = data.images.channels
    return Record(listed(data, "train", domains), listed(data, "test", domains))


def differences(then: Record, now: Record) -> list[str]:
    """One sentence for each split and domain whose files differ, or whose damaged images do."""
    found = []
    for split in SPLITS:
        found += changed_files(split, getattr(then, split), getattr(now, split))
    for domain in {**then.damaged, **now.damaged}:
        old_names, new_names = (set(record.damaged.get(domain, ())) for record in (then, now))
        if old_names != new_names:
            found.append(
                f"Other training images of domain {domain} are damaged than {DATA_FILE} says: "
                f"{len(new_names)} now, {len(old_names)} then."
            )
    return found


def changed_files(split: Split, then: Mapping[str, Listed], now: Mapping[str, Listed]) -> list[str]:
    """One sentence for each domain whose files differ."""
    return [
        f"The {SPLIT_WORDS[split]} images of domain {domain} differ from those in {DATA_FILE}: "
        f"{_counted(then.get(domain), now.get(domain))}."
        for domain in {**then, **now}
        if then.get(domain) != now.get(domain)
    ]


def _counted(old: Listed | None, new: Listed | None) -> str:
    if old is None or new is None:
        return "there were none" if old is None else "there are none now"
    if old.files != new.files:
        return f"{new.files} files now, {old.files} then"
    return f"{new.files} files as then, but of other names or sizes"


def kept_record(run: Path) -> Record | None:
    """The record in a run folder; None if it has none.

    Raises:
        RunError: the file is damaged.
    """
    path = run / DATA_FILE
    try:
        table = json.loads(path.read_text("utf-8"))
        train, test = (
            {domain: LISTED.validate_python(values) for domain, values in table[split].items()}
            for split in SPLITS
        )
        damaged = {domain: dict(names) for domain, names in table["damaged"].items()}
        return Record(train, test, damaged, [*table["changes"]])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(
            f"{path} is damaged, so it is not known whether the images are still those of the run; "
            "if they are, delete it"
        ) from error


def write_record(run: Path, record: Record) -> None:
    """Write data.json, replaced atomically.

    Raises:
        RunError: it cannot be written.
    """
    replace_file(run / DATA_FILE, (json.dumps(asdict(record), indent=1) + "\n").encode())

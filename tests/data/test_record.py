"""The record of a run's images: what it sees, and what it does not."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from i2ikit.data.openmoji import OpenMoji
from i2ikit.data.record import (
    DATA_FILE,
    Record,
    differences,
    held_out_pixels,
    kept_record,
    record_of,
    write_record,
)
from i2ikit.data.shards import Shards
from i2ikit.errors import RunError
from tests.image_files import folders_at, make_folders, write_tars


def test_the_checksum_is_of_sorted_names_and_sizes_and_not_of_the_place(
    folders: Path, tmp_path: Path
) -> None:
    shutil.copytree(folders, tmp_path / "moved")
    record = record_of(folders_at(folders))
    assert record is not None
    assert record == record_of(folders_at(tmp_path / "moved"))
    files = sorted((folders / "trainA").iterdir())
    text = "".join(f"{file.name}\0{file.stat().st_size}\0" for file in files)
    assert record.train["a"].sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert {d: (record.train[d].files, record.test[d].files) for d in "ab"} == {"a": (6, 3), "b": (6, 3)}


def test_datasets_without_files_have_none(tmp_path: Path) -> None:
    assert record_of(Shards(root=str(write_tars(tmp_path)))) is None
    assert record_of(OpenMoji.__new__(OpenMoji)) is None


CHANGES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "one more": (
        lambda root: shutil.copy(root / "testB" / "0.png", root / "testB" / "9.png"),
        ["The held-out images of domain b differ from those in data.json: 4 files now, 3 then."],
    ),
    "fewer": (
        lambda root: (root / "trainA" / "0.png").unlink(),
        ["The training images of domain a differ from those in data.json: 5 files now, 6 then."],
    ),
    "renamed": (
        lambda root: (root / "trainB" / "0.png").rename(root / "trainB" / "ü x.png"),
        [
            "The training images of domain b differ from those in data.json: "
            "6 files as then, but of other names or sizes."
        ],
    ),
    "resized": (
        lambda root: (root / "testA" / "1.png").write_bytes(b"x"),
        [
            "The held-out images of domain a differ from those in data.json: "
            "3 files as then, but of other names or sizes."
        ],
    ),
    "touched": (lambda root: (root / "testA" / "1.png").touch(), []),
    "same size": (
        lambda root: (root / "testA" / "1.png").write_bytes(b"x" * (root / "testA" / "1.png").stat().st_size),
        [],
    ),
    "left out": (lambda root: (root / "testA" / "notes.txt").write_text("x"), []),
}


@pytest.mark.parametrize("change", CHANGES)
def test_differences_are_said_by_split_and_domain(folders: Path, change: str) -> None:
    """Other contents of the same size are not seen."""
    then = record_of(folders_at(folders))
    act, said = CHANGES[change]
    act(folders)
    now = record_of(folders_at(folders))
    assert then is not None
    assert now is not None
    assert differences(then, now) == said


def test_domains_and_damaged_images_that_come_or_go_are_differences(folders: Path) -> None:
    record = record_of(folders_at(folders))
    assert record is not None
    more = dataclasses.replace(record, train={**record.train, "c": record.train["a"]})
    start = "The training images of domain c differ from those in data.json"
    assert differences(record, more) == [f"{start}: there were none."]
    assert differences(more, record) == [f"{start}: there are none now."]
    damaged = dataclasses.replace(record, damaged={"a": {"1.png": "it is damaged"}})
    (said,) = differences(record, damaged)
    assert said == ("Other training images of domain a are damaged than data.json says: 1 now, 0 then.")


def test_accents_are_the_same_however_a_system_writes_them(folders: Path, tmp_path: Path) -> None:
    (folders / "testA" / "0.png").rename(folders / "testA" / "caf\u00e9.png")
    shutil.copytree(folders, tmp_path / "copy")
    (tmp_path / "copy" / "testA" / "caf\u00e9.png").rename(tmp_path / "copy" / "testA" / "cafe\u0301.png")
    assert record_of(folders_at(folders)) == record_of(folders_at(tmp_path / "copy"))


def test_it_is_read_as_it_was_written(folders: Path, tmp_path: Path) -> None:
    assert kept_record(tmp_path) is None
    record = record_of(folders_at(folders))
    assert record is not None
    full = dataclasses.replace(record, damaged={"b": {"ü.png": "why"}}, changes=[{"step": 3, "before": {}}])
    write_record(tmp_path, full)
    assert kept_record(tmp_path) == full
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == [DATA_FILE]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"train": 3}', "[" * 100_000, '{"train": {"a": {"f": 1}}}']
)
def test_a_damaged_one_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / DATA_FILE).write_text(content)
    with pytest.raises(RunError, match=r"data\.json is damaged, so it is not known whether"):
        kept_record(tmp_path)


def test_every_flip_is_found_or_changes_nothing(folders: Path, tmp_path: Path) -> None:
    """In the counts and checksums: as a damaged file, or as other images."""
    record = record_of(folders_at(folders))
    assert record is not None
    write_record(tmp_path, record)
    whole = (tmp_path / DATA_FILE).read_bytes()
    for place in range(0, len(whole), 7):
        flipped = bytearray(whole)
        flipped[place] ^= 1
        (tmp_path / DATA_FILE).write_bytes(flipped)
        try:
            found = kept_record(tmp_path)
        except RunError:
            continue
        assert found == record or differences(found or Record({}, {}), record)
    assert json.loads(whole)["test"]["b"]["files"] == 3


def test_pixels_tell_whether_held_out_images_are_the_same(tmp_path: Path) -> None:
    """Of each domain by itself; another number of images counts, too."""
    first, again = (folders_at(make_folders(tmp_path / name)) for name in ("first", "again"))
    assert held_out_pixels(first) == held_out_pixels(again)
    Image.new("RGB", (70, 66), "red").save(tmp_path / "again" / "testB" / "0.png")
    assert held_out_pixels(first)["a"] == held_out_pixels(again)["a"]
    assert held_out_pixels(first)["b"] != held_out_pixels(again)["b"]
    more = folders_at(make_folders(tmp_path / "more", held_out=4))
    assert held_out_pixels(first)["a"] != held_out_pixels(more)["a"]

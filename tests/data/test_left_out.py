"""What a folder holds besides pictures is counted and said; names of pairs match in both spellings."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from i2ikit.data.folders import Folders, SideBySide
from i2ikit.data.reading import dim_16_bit, image_files, left_out
from i2ikit.errors import DataError
from tests.image_files import folders_at, make_folders, png, side_by_side
from tests.picture_formats import png as encoded


def test_each_kind_that_is_left_out_is_counted(tmp_path: Path) -> None:
    for name in (
        "a.png",
        "b.JPG",
        "c.gif",
        "d.gif",
        "e.npy",
        "f.dcm",
        "g.heic",
        "h.jfif",
        "README",
        "._a.png",
    ):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "deep").mkdir()
    (tmp_path / "more" / "deep" / "i.png").write_bytes(b"x")
    (tmp_path / "empty.png").mkdir()
    assert [path.name for path in image_files(tmp_path)] == ["a.png", "b.JPG"]
    said = left_out(tmp_path)
    assert said is not None
    assert said.startswith(f"{tmp_path}: left out 8 files that are not read (.gif: 2, ")
    for part in (".npy: 1", ".dcm: 1", ".heic: 1", ".jfif: 1", "without ending: 1", "hidden: 1"):
        assert part in said
    assert said.endswith("and 1 in its sub-folder more/")


@pytest.mark.skipif(os.name == "nt", reason="needs links and pipes")
def test_broken_links_and_pipes_are_left_out_and_said(tmp_path: Path) -> None:
    (tmp_path / "real.png").write_bytes(b"x")
    (tmp_path / "link.png").symlink_to("real.png")
    (tmp_path / "dangling.png").symlink_to("nowhere")
    (tmp_path / "loop.png").symlink_to("loop.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert [path.name for path in image_files(tmp_path)] == ["link.png", "real.png"]
    said = left_out(tmp_path)
    assert said == f"{tmp_path}: left out 3 files that are not read (broken link: 2, pipe or device: 1)"


def test_nothing_is_said_of_a_folder_of_pictures(tmp_path: Path) -> None:
    data = folders_at(make_folders(tmp_path))
    assert list(data.remarks()) == []
    (tmp_path / "testB" / "notes.txt").write_text("x")
    assert list(data.remarks()) == [f"{tmp_path / 'testB'}: left out 1 file that is not read (.txt: 1)"]


def test_side_by_side_images_are_read_as_all_others(tmp_path: Path) -> None:
    side_by_side(tmp_path)
    (tmp_path / "train" / "._0.png").write_bytes(b"x")
    data = SideBySide(root=str(tmp_path), size=64)
    assert data.count("train", "a") == 2
    (said,) = data.remarks()
    assert "hidden: 1" in said


def test_pictures_in_sub_folders_only_are_hinted_at(tmp_path: Path) -> None:
    make_folders(tmp_path)
    (tmp_path / "trainA" / "class 1").mkdir()
    for path in image_files(tmp_path / "trainA"):
        path.rename(tmp_path / "trainA" / "class 1" / path.name)
    with pytest.raises(
        DataError, match=r"trainA/ contains no image itself, but 6 in its sub-folder class 1/"
    ):
        folders_at(tmp_path).count("train", "a")


@pytest.mark.parametrize("change", [str.lower, str.upper])
def test_both_spellings_of_an_accent_are_one_name(tmp_path: Path, change: Callable[[str], str]) -> None:
    """Linux and Windows write NFC, macOS NFD; the order of partners follows the names, not their bytes."""
    names = [change(name) for name in ("zürich", "zug", "ängström", "a")]
    for split in ("train", "test"):
        for domain, form in (("A", "NFC"), ("B", "NFD")):
            folder = tmp_path / f"{split}{domain}"
            folder.mkdir()
            for n, name in enumerate(names):
                written = unicodedata.normalize(form, name)  # type: ignore[arg-type]
                (folder / f"{written}.png").write_bytes(png(50 * n))
    data = Folders(root=str(tmp_path), paired=True, size=8)
    for n in range(4):
        a, b = (data.image("test", domain, n)[0, 0, 0] for domain in "ab")
        assert a == b
        first, second = (data.name("test", domain, n) for domain in "ab")
        assert unicodedata.normalize("NFC", first) == unicodedata.normalize("NFC", second)


def write_wide(folder: Path, highest: int, count: int = 3, channels: int = 1) -> list[Path]:
    paths = [folder / f"{n}.png" for n in range(count)]
    values = np.linspace(0, highest, 64 * channels).astype(np.uint16).reshape(8, 8, channels)
    for path in paths:
        path.write_bytes(encoded(values, 16))
    return paths


@pytest.mark.parametrize("channels", [1, 3])
def test_a_set_of_12_bits_in_16_is_noticed(tmp_path: Path, channels: int) -> None:
    """No single file shows it: one value above 1/8 of the range in any of them is enough."""
    said = dim_16_bit(write_wide(tmp_path, 4095, channels=channels))
    assert said is not None
    assert said.startswith(f"{tmp_path}: the pictures have 16 bits, but no value is above ")
    assert dim_16_bit(write_wide(tmp_path, 65535, channels=channels)) is None
    assert dim_16_bit(write_wide(tmp_path, 9000, channels=channels)) is None
    dim = write_wide(tmp_path, 4095, 5, channels)
    assert dim_16_bit([*dim, *write_wide(tmp_path, 9000, 1, channels)]) is None
    assert dim_16_bit([]) is None


def test_pictures_of_8_bits_may_be_dark(tmp_path: Path) -> None:
    Image.new("L", (8, 8), 3).save(tmp_path / "x.png")
    (tmp_path / "broken.png").write_bytes(b"x")
    assert dim_16_bit(image_files(tmp_path)) is None


def test_a_dim_set_is_said_before_training(tmp_path: Path) -> None:
    for folder in ("trainA", "trainB", "testA", "testB"):
        (tmp_path / folder).mkdir()
        write_wide(tmp_path / folder, 4095 if folder == "trainA" else 65535)
    (said,) = folders_at(tmp_path, size=8).remarks()
    assert said.startswith(f"{tmp_path / 'trainA'}: the pictures have 16 bits")

"""Checking every image before training: all bad ones are named at once."""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from i2ikit.data import scan, survey
from i2ikit.data.folders import Folders, SideBySide
from i2ikit.data.shards import Shards
from i2ikit.errors import DataError
from tests.image_files import folders_at, make_folders, save, side_by_side, write_tars


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder in which also the shortest scan is kept."""
    monkeypatch.setenv("I2IKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(scan, "LEAST_S", 0)
    return tmp_path / "cache" / "scans"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of all files that are decoded."""
    names: list[str] = []
    real = scan.read_image
    monkeypatch.setattr(
        scan, "read_image", lambda file, channels: [names.append(file.name), real(file, channels)][1]
    )
    return names


def surveyed(data: Folders | SideBySide | Shards, skip: bool = False) -> dict[str, dict[int, str]]:
    return survey.survey(data, skip, lambda text: None)


def encoded(kind: str, **options: object) -> bytes:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (80, 90, 3), dtype=np.uint8))
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


BAD: dict[str, Callable[[Path], object]] = {
    "empty.png": lambda file: file.write_bytes(b""),
    "text.jpg": lambda file: file.write_text("This is no picture."),
    "short.png": lambda file: file.write_bytes(encoded("png")[:-2000]),
    "short.jpg": lambda file: file.write_bytes(encoded("jpeg")[:-2000]),
    "progressive.jpg": lambda file: file.write_bytes(encoded("jpeg", progressive=True)[:-2000]),
    "short.webp": lambda file: file.write_bytes(encoded("webp")[:-2000]),
    "large.png": lambda file: save(file, Image.new("1", (9000, 9000))),
    "wide.tif": lambda file: save(file, Image.new("I", (70, 66))),
}
"""Files that cannot be read, each in another way; without a partner of the same name."""


def test_all_bad_files_are_named_at_once(folders: Path) -> None:
    """Whatever is wrong, in which split and domain, and however late it shows."""
    for number, (name, make) in enumerate(BAD.items()):
        make(folders / ("trainA", "trainB", "testB")[number % 3] / name)
    with pytest.raises(DataError) as caught:
        surveyed(folders_at(folders))
    text = str(caught.value)
    assert text.startswith("8 damaged images:\n  training images of domain a:\n    ")
    assert all(f"{name}: " in text for name in BAD)
    assert [line for line in text.splitlines() if line.startswith("  ") and line[2] != " "] == [
        "  training images of domain a:",
        "  training images of domain b:",
        "  held-out images of domain b:",
    ]
    assert text.endswith('training.damaged_images = "skip"; held-out images cannot be replaced.')


def test_good_images_of_every_kind_are_passed(folders: Path) -> None:
    """The bad kinds above, whole."""
    for kind in ("png", "jpeg", "webp", "bmp", "tiff"):
        (folders / "trainA" / f"good.{kind}").write_bytes(encoded(kind))
    (folders / "trainA" / "progressive.jpg").write_bytes(encoded("jpeg", progressive=True))
    assert surveyed(folders_at(folders)) == {}


def test_pairs_of_different_shapes_and_odd_widths_are_named(folders: Path, tmp_path: Path) -> None:
    """Each once, although it concerns two images; one that cannot be read is not also of a wrong shape."""
    save(folders / "trainB" / "1.png", Image.new("RGB", (66, 70)))
    (folders / "trainA" / "2.png").write_text("no image")
    (folders / "trainB" / "3.png").write_text("no image")
    with pytest.raises(DataError) as caught:
        surveyed(folders_at(folders, paired=True))
    text = str(caught.value)
    assert text.startswith("3 damaged images:")
    assert "1.png (66x70 px) and its partner " in text
    halves = side_by_side(tmp_path / "halves")
    save(halves / "train" / "1.png", Image.new("RGB", (161, 70)))
    (halves / "test" / "0.png").write_bytes(encoded("png")[:-2000])
    with pytest.raises(DataError, match=r"2 damaged images:[^!]*1\.png is 161 px wide[^!]*test/0\.png"):
        surveyed(SideBySide(root=str(halves), size=64))


def test_damaged_training_images_can_be_skipped_and_held_out_ones_not(folders: Path) -> None:
    (folders / "trainA" / "2.png").write_text("no image")
    (folders / "trainB" / "5.png").write_bytes((folders / "trainB" / "5.png").read_bytes()[:-80])
    said: list[str] = []
    found = survey.survey(folders_at(folders), True, said.append)
    assert {domain: [*indices] for domain, indices in found.items()} == {"a": [2], "b": [5]}
    assert said[0].startswith("warning: 2 damaged images; the next good image takes the place of each:\n")
    assert "trainA/2.png: " in said[0]
    assert "trainB/5.png: " in said[0]
    (folders / "testA" / "0.png").write_text("no image")
    with pytest.raises(DataError, match=r"^1 damaged image:[^!]*testA/0.png[^!]*cannot be replaced\.$"):
        surveyed(folders_at(folders), skip=True)


def test_a_second_survey_decodes_only_what_is_new_or_has_changed(folders: Path, decoded: list[str]) -> None:
    """What was damaged is still damaged; a file of one folder is not taken for one of another."""
    (folders / "trainA" / "2.png").unlink()
    (folders / "trainA" / "2.jpg").write_bytes(encoded("jpeg")[:-2000])
    first = surveyed(folders_at(folders), skip=True)
    assert len(decoded) == 18
    assert surveyed(folders_at(folders), skip=True) == first
    assert len(decoded) == 18
    (folders / "trainB" / "7.png").write_bytes((folders / "trainB" / "0.png").read_bytes())
    os.utime(folders / "testA" / "1.png", ns=(1, 1))
    make_folders(folders / "beside")
    surveyed(folders_at(folders), skip=True)
    assert sorted(decoded[18:]) == ["1.png", "7.png"]
    surveyed(folders_at(folders / "beside"))
    assert len(decoded) == 38


def test_what_is_kept_is_said_of_the_path_that_is_given_now(
    folders: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same file, from another directory."""
    file = folders / "trainA" / "2.png"
    file.write_bytes(file.read_bytes()[:-80])
    monkeypatch.chdir(folders.parent)
    for root in (Path(folders.name), folders):
        with pytest.raises(DataError, match=f"\n    {root}/trainA/2.png: not a readable image"):
            surveyed(folders_at(root))
    assert len(decoded) == 18


@pytest.mark.parametrize("content", ["", "[]", '{"0.png": 3, "1.png": [1, 2], "2.png": null}', "[" * 100_000])
def test_a_damaged_cache_is_not_believed(
    folders: Path, cache: Path, decoded: list[str], content: str
) -> None:
    surveyed(folders_at(folders))
    for file in cache.iterdir():
        file.write_text(content)
    surveyed(folders_at(folders))
    assert len(decoded) == 36


def test_a_cache_that_cannot_be_written_is_no_error(folders: Path, cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("a file in place of the folder")
    assert surveyed(folders_at(folders)) == {}


def test_after_an_interruption_the_next_survey_goes_on(
    folders: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = scan._flaw

    def interrupted(item: tuple[Path, int]) -> str:
        if item[0].parent.name == "trainB":
            raise KeyboardInterrupt
        return real(item)

    monkeypatch.setattr(scan, "AT_ONCE", 1)
    monkeypatch.setattr(scan, "_flaw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        surveyed(folders_at(folders))
    monkeypatch.setattr(scan, "_flaw", real)
    assert len(decoded) == 6
    surveyed(folders_at(folders))
    assert len(decoded) == 18


def test_of_many_bad_images_the_first_are_shown_and_all_are_kept(folders: Path, cache: Path) -> None:
    for number in range(30):
        (folders / "trainA" / f"bad-{number}.png").write_text("no image")
    with pytest.raises(DataError) as caught:
        surveyed(folders_at(folders))
    text = str(caught.value)
    assert text.startswith("30 damaged images:")
    assert text.count("bad-") == 2 * survey.MOST_LINES or text.count("trainA/bad-") >= survey.MOST_LINES
    assert "  and 10 more; all are listed in " in text
    (file,) = cache.glob("damaged-*.txt")
    assert str(file) in text
    assert all(f"bad-{number}.png: " in file.read_text() for number in range(30))


def test_of_very_many_images_a_sample_of_headers_comes_first(
    folders: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad one in it is an error at once; without, every file is decoded."""
    monkeypatch.setattr(survey, "MOST_HEADERS", 9)
    said: list[str] = []
    survey.survey(folders_at(folders), False, said.append)
    assert said == ["18 images: first the headers of a sample of 9, then every file"]
    assert len(decoded) == 18
    for file in (folders / "trainA").iterdir():
        file.write_text("no image")
    with pytest.raises(DataError, match=r"^\d damaged images in a sample:"):
        surveyed(folders_at(folders))
    assert len(decoded) == 18


def test_bad_images_outside_the_sample_are_found_too(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those whose headers are bad, in pairs too; with `skip` the sample ends nothing."""
    monkeypatch.setattr(survey, "_sample", lambda places: places[:2])
    save(folders / "trainB" / "5.png", Image.new("RGB", (66, 70)))
    with pytest.raises(DataError, match=r"5\.png \(66x70 px\) and its partner"):
        surveyed(folders_at(folders, paired=True))
    (folders / "trainA" / "0.png").write_text("no image")
    found = surveyed(folders_at(folders, paired=True), skip=True)
    assert {domain: [*indices] for domain, indices in found.items()} == {"a": [0], "b": [0, 5]}


def test_what_has_no_files_is_not_surveyed(tmp_path: Path) -> None:
    data = Shards(root=str(write_tars(tmp_path / "tars")))
    for tar in (tmp_path / "tars" / "trainA").iterdir():
        tar.write_text("no tar")
    assert surveyed(data) == {}


def test_threads_leave_the_filters_of_warnings_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """Although `catch_warnings`, which the reader uses, overlaps in them."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    steps = [threading.Event() for _ in range(3)]

    def first_in_first_out(number: int) -> None:
        if number == 1:
            assert steps[0].wait(10)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            steps[number].set()
            assert steps[number + 1].wait(10)
        steps[2].set()

    before = list(warnings.filters)
    assert len(list(scan.in_threads(first_in_first_out, [0, 1], "Working"))) == 2
    assert warnings.filters == before

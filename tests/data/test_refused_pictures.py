"""Files that are no picture, damaged, hostile, or of a kind that cannot be read rightly: all are named."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from i2ikit.data.folders import Folders
from i2ikit.data.images import load_image
from i2ikit.data.reading import inspect, read_image
from i2ikit.errors import DataError
from tests.data.test_reading import CASES, H, W, saved, smooth, values
from tests.picture_formats import empty_png, png, tiff


def refusal(path: Path) -> str:
    """The message of the error, which is the same whoever reads the file."""
    messages = set()
    reads: list[Callable[[], Any]] = [
        lambda: read_image(path, 3),
        lambda: read_image(path, 1),
        lambda: load_image(path, 3, 8),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for read in reads:
            with pytest.raises(DataError) as error:
                read()
            messages.add(str(error.value))
    (message,) = messages
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def read_or_named(path: Path) -> Image.Image | None:
    """The picture, or None after an error that names the file."""
    try:
        return read_image(path, 3)
    except DataError as error:
        message = str(error)
    assert message.startswith(f"{path}: ")
    return None


def animated(kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    first, *rest = (Image.fromarray(smooth(3) + n) for n in range(3))
    first.save(buffer, kind, save_all=True, append_images=rest, **options)
    return buffer.getvalue()


def floats(kind: str) -> np.ndarray:
    return (values(1) / 255).astype(kind)


MANY = {
    "two-pages.tif": (tiff((values(3), {}), (values(3), {})), "it has 2 pages"),
    "three-frames.webp": (animated("WEBP", lossless=True, duration=100), "it has 3 frames"),
    "three-frames.png": (animated("PNG"), "it has 3 frames"),
    "three-views.jpg": (animated("MPO"), "it has 3 views"),
}
RANGES = {
    "float32": (tiff((floats("f4"), {339: 3})), r"32-bit floats from 0 to 1, without a value for black"),
    "float32-big": (tiff((floats("f4"), {339: 3}), order=">"), "32-bit floats"),
    "float64": (tiff((floats("f8"), {339: 3})), "64-bit floats"),
    "float16": (tiff((floats("f2"), {339: 3})), "16-bit floats"),
    "rgb-floats": (tiff(((values(3) / 255).astype("f4"), {339: [3, 3, 3]})), "32-bit floats"),
    "int32": (tiff((values(1).astype("i4"), {339: 2})), "32-bit signed integers"),
    "uint32": (tiff((values(1).astype("u4"), {})), "32-bit unsigned integers"),
    "int16": (tiff((values(1).astype("i2") - 1000, {339: 2})), "16-bit signed integers"),
    "int16-big": (tiff((values(1).astype("i2"), {339: 2}), order=">"), "16-bit signed integers"),
    "int8": (tiff((values(1).astype("i1"), {339: 2})), "8-bit signed integers"),
    "inverted16-big": (
        tiff((values(1, 16), {262: 0}), order=">"),
        "16-bit unsigned integers.*save it as a PNG",
    ),
    "lab": (tiff((values(3), {262: 8})), "CIELAB"),
}


@pytest.mark.parametrize("name", MANY)
def test_of_several_pages_or_frames_none_is_picked(tmp_path: Path, name: str) -> None:
    content, what = MANY[name]
    (tmp_path / name).write_bytes(content)
    assert what in refusal(tmp_path / name)
    with pytest.raises(DataError, match=what):
        inspect(tmp_path / name, 3)


@pytest.mark.parametrize("ending", [".tif", ".png"])
@pytest.mark.parametrize("name", RANGES)
def test_values_without_a_known_white_are_said(tmp_path: Path, name: str, ending: str) -> None:
    content, what = RANGES[name]
    (tmp_path / f"{name}{ending}").write_bytes(content)
    refusal(tmp_path / f"{name}{ending}")
    for read in (inspect, read_image):
        with pytest.raises(DataError, match=what):
            read(tmp_path / f"{name}{ending}", 3)


FOREIGN = ("GIF", "EPS", "PDF", "PPM", "TGA", "ICO", "PCX", "SGI", "DDS", "JPEG2000", "ICNS", "SPIDER", "MSP",
           "XBM", "AVIF", "QOI", "BLP", "DIB")  # fmt: skip


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_other_formats_are_refused_by_content_and_no_program_is_started(
    tmp_path: Path, kind: str, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch '{tmp_path}/started'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    mode = {"MSP": "1", "XBM": "1", "SPIDER": "F", "BLP": "P"}.get(kind, "RGB")
    path, content = tmp_path / f"x{ending}", io.BytesIO()
    try:
        # Not to the path: saving SPIDER would make Pillow save every later file with this ending as SPIDER.
        Image.new("RGB", (32, 32), "red").convert(mode).save(content, kind)
    except (KeyError, OSError) as error:
        pytest.skip(f"Pillow cannot write {kind} here: {error}")
    path.write_bytes(content.getvalue())
    refusal(path)
    with pytest.raises(DataError):
        inspect(path, 3)
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("name", ["x.gif", "x.jfif", "x.heic", "x", "x.png.txt", "png", "x.eps", "x.npy.bak"])
def test_names_with_other_endings_are_refused_whatever_they_contain(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(saved(smooth(3), "PNG"))
    assert "the ending of its name is not .png or .jpg" in refusal(tmp_path / name)


WHOLE = {
    case.name: case
    for case in CASES
    if case.name
    in {
        "png3x8.png",
        "png4x16-interlaced.png",
        "palette4-trns.png",
        "plain.jpg",
        "('progressive', True).jpg",
        "cmyk.jpg",
        "lossy.webp",
        "alpha.webp",
        "rgb-True.bmp",
        "rle8.bmp",
        "3x8-little-1.tif",
        "1x16-big-8.tif",
        "tiff_lzw-tiled.tif",
    }
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_that_is_cut_off_is_named_or_has_all_its_pixels(tmp_path: Path, name: str) -> None:
    case = WHOLE[name]
    assert len(WHOLE) == 13
    path = tmp_path / name
    length = len(case.content)
    for end in sorted(
        {0, 1, 2, 4, 8, 12, 20, *range(24, length, max(1, length // 60)), length - 2, length - 1}
    ):
        path.write_bytes(case.content[:end])
        if picture := read_or_named(path):
            assert np.abs(np.asarray(picture, float) - case.expected).max() <= case.tolerance, end
    path.write_bytes(b"")
    assert "it is empty" in refusal(path)


@pytest.mark.parametrize("name", WHOLE)
def test_a_flipped_byte_is_an_error_that_names_the_file_or_leaves_a_picture(
    tmp_path: Path, name: str
) -> None:
    """PNG has checksums: there the picture is right or refused. Nothing else than DataError, and no warning."""
    case = WHOLE[name]
    path = tmp_path / name
    rng = np.random.default_rng(0)
    places = [*range(60), *rng.integers(0, len(case.content), 60)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for place in places:
            content = bytearray(case.content)
            content[place] ^= int(rng.integers(1, 256))
            path.write_bytes(content)
            picture = read_or_named(path)
            if picture is None:
                continue
            assert picture.mode == "RGB"
            assert picture.size == inspect(path, 3)
            if name.endswith(".png"):
                assert np.abs(np.asarray(picture, float) - case.expected).max() <= case.tolerance, place


def test_what_is_no_regular_file_is_named_and_never_waited_for(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    assert "it is a folder" in refusal(tmp_path / "folder.png")
    assert "FileNotFoundError" in refusal(tmp_path / "missing.png")
    refusal(tmp_path / "nul\0.png")
    refusal(tmp_path / ("long" * 100 + ".png"))


@pytest.mark.skipif(os.name == "nt", reason="needs links and pipes")
def test_links_and_pipes_are_named_or_followed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert "not a regular file" in refusal(tmp_path / "pipe.png")
    (tmp_path / "dangling.png").symlink_to("nowhere.png")
    assert "FileNotFoundError" in refusal(tmp_path / "dangling.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    refusal(tmp_path / "loop.png")
    (tmp_path / "to-pipe.png").symlink_to("pipe.png")
    refusal(tmp_path / "to-pipe.png")
    (tmp_path / "real.png").write_bytes(png(values(3)))
    (tmp_path / "good.png").symlink_to("real.png")
    assert read_image(tmp_path / "good.png", 3).size == (W, H)


def folders_with(root: Path, name: str, content: bytes) -> Folders:
    for folder in ("trainA", "trainB", "testA", "testB"):
        (root / folder).mkdir()
        (root / folder / name).write_bytes(content)
    return Folders(root=str(root), size=8)


@pytest.mark.parametrize("name", MANY)
def test_a_dataset_names_the_file_as_well(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"{name}: {MANY[name][1]}"):
        folders_with(tmp_path, name, MANY[name][0]).image("test", "a", 0)


@pytest.mark.parametrize(
    ("width", "height", "what"),
    [
        (50_000, 50_000, "more pixels than the limit of 64 megapixels"),
        (2**31 - 1, 2**31 - 1, "more"),
        (1, 50_000, "thinner than the limit of 100:1"),
        (1_000_000, 1, "thinner than the limit of 100:1"),
        (0, 5, ""),
        (5, 0, ""),
        (8001, 8001, "more than the limit of 64 megapixels"),
    ],
)
def test_sizes_are_checked_before_anything_is_decoded(
    tmp_path: Path, width: int, height: int, what: str
) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(empty_png(width, height))
    assert what in refusal(path)
    with pytest.raises(DataError):
        inspect(path, 3)

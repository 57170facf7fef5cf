"""Pictures: whatever is in a file becomes 8 bits, upright, RGB or grey."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from i2ikit.data.images import (
    bands_shown,
    file_content,
    load_image,
    loaded,
    made_like,
    to_picture,
)
from i2ikit.data.reading import read_image
from i2ikit.errors import DataError
from tests.image_files import save


def test_transparency_is_put_on_white(tmp_path: Path) -> None:
    """The colours below transparent pixels are whatever a drawing program left there."""
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert read_image(save(tmp_path / "x.png", clear), 3).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([255, 0, 0] * 256)
    assert read_image(save(tmp_path / "p.png", palette, transparency=0), 3).getpixel((0, 0)) == (
        255,
        255,
        255,
    )


def test_rotation_in_the_metadata_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_image(save(tmp_path / "x.jpg", Image.new("RGB", (8, 4)), exif=exif), 3).size == (4, 8)


def test_16_bit_grey_keeps_its_range(tmp_path: Path) -> None:
    """Pillow's own conversion clips everything above 255 to white."""
    values = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    picture = read_image(save(tmp_path / "x.png", Image.fromarray(values)), 1)
    assert [picture.getpixel((n, 0)) for n in range(3)] == [0, 100, 255]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_mode_can_be_read(tmp_path: Path, mode: str) -> None:
    path = save(tmp_path / ("x.tif" if mode == "CMYK" else "x.png"), Image.new(mode, (6, 4)))
    assert read_image(path, 3).mode == "RGB"
    assert read_image(path, 1).mode == "L"


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(DataError, match=r"broken\.png: not a readable image"):
        read_image(tmp_path / "broken.png", 3)
    with pytest.raises(DataError, match=r"none\.png: not a readable image"):
        read_image(tmp_path / "none.png", 3)
    with pytest.raises(DataError, match=r"none\.png: not a readable image"):
        read_image(tmp_path / "none.png", 5)


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    path = save(tmp_path / "bomb.png", Image.new("1", (10_000, 8_000)))
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match=r"10000x8000 px are more than the limit of 64 megapixels"):
        read_image(path, 3)


def test_a_picture_survives_the_way_to_a_tensor_and_back(tmp_path: Path) -> None:
    pixels = np.arange(256 * 3, dtype=np.uint16).reshape(16, 16, 3).astype(np.uint8)
    path = save(tmp_path / "x.png", Image.fromarray(pixels))
    assert np.array_equal(np.asarray(to_picture(load_image(path, 3, 16))), pixels)


def test_an_image_to_translate_keeps_its_shape(tmp_path: Path) -> None:
    path = save(tmp_path / "x.png", Image.new("RGB", (300, 100)))
    assert load_image(path, 3, 64).shape == (3, 64, 192)


CHANNELS = (1, 3, 4, 5, 13)


def bands(channels: int, height: int = 12, width: int = 10) -> np.ndarray:
    """(H, W, C) in [0, 1]; every band differs."""
    return np.random.default_rng(channels).random((height, width, channels), dtype=np.float32)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ">f4", np.uint8])
def test_an_array_of_any_number_of_channels_is_loaded(channels: int, dtype: Any) -> None:
    """(H, W, C) in [0, 1], or uint8, becomes (1, C, H, W) in [-1, 1]."""
    array = bands(channels)
    given = (array * 255).round().astype(dtype) if dtype == np.uint8 else array.astype(dtype)
    x = loaded(given, channels, 10)
    assert (x.shape, x.dtype) == ((1, channels, 12, 10), torch.float32)
    expected = torch.from_numpy(array).permute(2, 0, 1) * 2 - 1
    assert (x[0] - expected).abs().max() <= (1 / 255 + 1e-6 if dtype == np.uint8 else 1e-3)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16])
def test_a_tensor_of_any_number_of_channels_goes_there_and_back(channels: int, dtype: torch.dtype) -> None:
    """`made_like` gives its dtype and range back."""
    array = torch.from_numpy(bands(channels)).permute(2, 0, 1)
    given = (array * 255).round().byte() if dtype == torch.uint8 else (array * 2 - 1).to(dtype)
    x = loaded(given, channels, 64)
    assert x.shape == (1, channels, 12, 10)  # a tensor is not resized
    again = made_like(x, given)
    assert again.dtype == dtype
    assert torch.equal(again[0], given)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_an_array_of_any_number_of_channels_comes_back_as_it_was(channels: int, dtype: Any) -> None:
    """(N, H, W, C); (N, H, W) for one that has no channel axis."""
    array = bands(channels)
    given = (array * 255).round().astype(dtype) if dtype == np.uint8 else array.astype(dtype)
    again = made_like(loaded(given, channels, 10), given)
    assert (again.shape, again.dtype) == ((1, 12, 10, channels), dtype)
    assert np.abs(again[0].astype(float) - given).max() <= (0 if dtype == np.uint8 else 1e-6)
    if channels == 1:
        flat = given[..., 0]
        assert made_like(loaded(flat, 1, 10), flat).shape == (1, 12, 10)
        assert made_like(torch.zeros(2, 5, 12, 10), flat).shape == (2, 12, 10, 5)


@pytest.mark.parametrize("channels", CHANNELS)
def test_what_is_written_is_read_again(tmp_path: Path, channels: int) -> None:
    """Grey and RGB as PNG, to 8 bits; others as an array in [0, 1], exactly; values outside are clipped."""
    image = torch.from_numpy(bands(channels)).permute(2, 0, 1) * 2 - 1
    image[0, 0, 0], image[-1, 1, 1] = -1.5, 1.5
    ending, content = file_content(image)
    assert ending == (".png" if channels in (1, 3) else ".npy")
    path = tmp_path / f"x{ending}"
    path.write_bytes(content)
    again = load_image(path, channels, 10)
    assert again.shape == (channels, 12, 10)
    assert (again - image.clamp(-1, 1)).abs().max() <= (1 / 255 + 1e-6 if channels in (1, 3) else 1e-6)
    if channels not in (1, 3):
        array = np.load(path)
        assert (array.shape, array.dtype, array.min(), array.max()) == ((12, 10, channels), np.float32, 0, 1)
        assert torch.equal(again, loaded(array, channels, 10)[0])
        assert torch.equal(again, loaded(str(path), channels, 10)[0])


@pytest.mark.parametrize("channels", CHANNELS)
def test_arrays_of_any_number_of_channels_are_resized_by_their_shorter_side(channels: int) -> None:
    """As images are: constant bands stay constant."""
    array = np.ones((20, 40, channels), np.float32) * np.linspace(0, 1, channels, dtype=np.float32)
    x = loaded(array, channels, 10)
    assert x.shape == (1, channels, 10, 20)
    expected = torch.linspace(0, 1, channels) * 2 - 1
    assert (x - expected[:, None, None]).abs().max() < 1e-5


@pytest.mark.parametrize("channels", CHANNELS)
def test_a_picture_shows_grey_rgb_or_the_first_three_bands(channels: int) -> None:
    """Of two bands, the first."""
    image = torch.from_numpy(bands(channels)).permute(2, 0, 1) * 2 - 1
    pixels = np.asarray(to_picture(image))
    shown = 1 if channels == 1 else 3
    expected = np.round(bands(channels)[..., :shown] * 255)
    assert np.abs(pixels.reshape(12, 10, shown) - expected).max() <= 1
    assert bands_shown(torch.zeros(2, 2, 4, 4)).shape == (2, 1, 4, 4)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda a: a.astype(np.int64), "an array of uint8, or of floats in [0, 1], got int64 (12, 10, {c})"),
        (lambda a: a > 0.5, "an array of uint8, or of floats in [0, 1], got bool (12, 10, {c})"),
        (lambda a: a.astype(complex), "an array of uint8, or of floats in [0, 1], got complex128"),
        (lambda a: a.astype(object), "an array of uint8, or of floats in [0, 1], got object"),
        (lambda a: np.concatenate([a, a], 2), "channels, got float32 (12, 10, {d})"),
        (lambda a: a[None], "channels, got float32 (1, 12, 10, {c})"),
        (lambda a: a[:0], "channels, got float32 (0, 10, {c})"),
        (
            lambda a: np.where(a == a.max(), np.nan, a),
            "the array's values are from nan to nan; expected [0, 1]",
        ),
        (lambda a: a * 255, "expected [0, 1]"),
        (lambda a: a * 2 - 1, "expected [0, 1]"),
    ],
)
def test_an_array_that_cannot_be_an_image_is_refused(
    tmp_path: Path, channels: int, wrong: Callable[[np.ndarray], np.ndarray], message: str
) -> None:
    """The message has the type and the shape found; for a file, its name too."""
    array = wrong(bands(channels))
    said = re.escape(message.format(c=channels, d=2 * channels))
    with pytest.raises(DataError, match=said):
        loaded(array, channels, 10)
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match=r"x\.npy: "):
        load_image(tmp_path / "x.npy", channels, 10)


@pytest.mark.parametrize("channels", CHANNELS)
def test_a_tensor_that_cannot_be_an_image_is_refused(channels: int) -> None:
    """By type, shape and values."""
    x = torch.from_numpy(bands(channels)).permute(2, 0, 1)
    nan = x.clone()
    nan[0, 0, 0] = torch.nan
    for wrong, message in (
        (x.long(), r"expected a tensor of uint8, or of floats in \[-1, 1\], got int64"),
        (x[:, 0], rf"with {channels} channels, got float32 \({channels}, 10\)"),
        (torch.cat([x, x]), rf"with {channels} channels, got float32 \({2 * channels}, 12, 10\)"),
        (x[:, :0], rf"with {channels} channels, got float32 \({channels}, 0, 10\)"),
        (nan, "the tensor's values are from nan to nan"),
        (x * 255, r"expected \[-1, 1\]"),
    ):
        with pytest.raises(DataError, match=message):
            loaded(wrong, channels, 10)


@pytest.mark.parametrize("channels", [4, 5, 13])
def test_an_image_file_or_a_pil_image_cannot_have_other_channels(tmp_path: Path, channels: int) -> None:
    """The message says what to give instead."""
    path = save(tmp_path / "x.png", Image.new("RGBA", (8, 8)))
    for given, name in ((path, r"x\.png"), (Image.new("RGB", (8, 8)), "the PIL image")):
        said = rf"{name}: an image file is grey or RGB, but {channels} channels are needed; use an array \(H, W, {channels}\)"
        with pytest.raises(DataError, match=said):
            loaded(given, channels, 8)


@pytest.mark.parametrize("channels", CHANNELS)
def test_a_damaged_array_file_is_named(tmp_path: Path, channels: int) -> None:
    """Cut anywhere; empty, missing, a pickle, or another format under this name."""
    path = tmp_path / "x.npy"
    np.save(path, bands(channels))
    whole = path.read_bytes()
    archive = io.BytesIO()
    np.savez(archive, x=bands(channels))
    pickle = io.BytesIO()
    np.save(pickle, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    zipped = archive.getvalue()
    damaged = [whole[:n] for n in (0, 3, 9, 60, 128, len(whole) - 1)]
    damaged += [
        pickle.getvalue(),
        zipped,
        zipped[:100],
        b"\x89PNG and more",
        whole.replace(b"12,", b"9" * 12 + b",", 1),
    ]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"x\.npy: not a readable array"):
            load_image(path, channels, 10)
    path.unlink()
    with pytest.raises(DataError, match=r"x\.npy: not a readable array \(FileNotFoundError"):
        load_image(path, channels, 10)


@pytest.mark.parametrize("channels", [2, 4, 5, 13])
@pytest.mark.parametrize("found", [1, 3, 6])
def test_only_grey_and_rgb_are_converted_into_each_other(channels: int, found: int) -> None:
    """For any other number, the array must have it; one without a channel axis has one."""
    said = re.escape(f"with {channels} channels, got float32 (12, 10, {found})")
    with pytest.raises(DataError, match=said):
        loaded(bands(found), channels, 10)
    with pytest.raises(DataError, match=re.escape(f"with {channels} channels, got float32 (12, 10)")):
        loaded(bands(1)[..., 0], channels, 10)
    grey, colour = bands(1), bands(3)
    assert torch.equal(loaded(grey, 3, 10), loaded(grey, 1, 10).expand(-1, 3, -1, -1))
    luma = (colour * np.array([0.299, 0.587, 0.114], np.float32)).sum(-1)
    assert np.abs(loaded(colour, 1, 10)[0, 0].numpy() - (luma * 2 - 1)).max() < 1e-6


@pytest.mark.parametrize(("image_format", "kind"), [("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP")])
def test_a_picture_is_written_in_each_format(image_format: Any, kind: str) -> None:
    for channels in (1, 3):
        ending, content = file_content(torch.zeros(channels, 9, 17), image_format)
        assert ending == f".{image_format}"
        with Image.open(io.BytesIO(content)) as opened:
            assert (opened.format, opened.size) == (kind, (17, 9))
            assert max(abs(value - 128) for value in opened.convert("L").getextrema()) <= 1  # type: ignore[operator]
    assert file_content(torch.zeros(5, 9, 17), image_format)[0] == ".npy"

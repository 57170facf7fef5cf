"""Pictures: whatever is in a file becomes 8 bits, upright, RGB or grey."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from i2ikit.data.images import load_image, read_image, to_picture
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

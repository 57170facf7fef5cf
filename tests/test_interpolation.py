"""Going from one style to another: `between`, `strip` and `animation`."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from i2ikit.errors import DataError
from i2ikit.interpolation import animation, between, check_animated, strip


def test_codes_begin_and_end_at_the_styles_and_are_evenly_spaced() -> None:
    codes = torch.tensor([[0.0, 0.0], [1.0, -2.0], [1.0, 2.0]], dtype=torch.float64)
    found = between(codes, 5)
    assert found.shape == (2, 5, 2)
    assert torch.equal(found[:, 0], codes[:-1])
    assert torch.equal(found[:, -1], codes[1:])
    assert torch.equal(found[0, :, 1], torch.tensor([0, -0.5, -1, -1.5, -2], dtype=torch.float64))


def test_a_strip_has_a_row_for_each_transition() -> None:
    """Its pictures are in order: grey values rise from left to right, and the second row is inverted."""
    greys = [Image.new("L", (64, 64), level) for level in (0, 64, 128, 191, 255)]
    pixels = np.asarray(strip([greys, greys[::-1]]).convert("L"))
    assert pixels.shape == (16 + 2 * 66 + 2, 5 * 66 + 2)
    middles = [2 + 66 * n + 32 for n in range(5)]
    assert pixels[16 + 2 + 32, middles].tolist() == [0, 64, 128, 191, 255]
    assert pixels[16 + 66 + 2 + 32, middles].tolist() == [255, 191, 128, 64, 0]


def test_an_animation_goes_there_and_back() -> None:
    greys = [Image.new("RGB", (64, 32), (level,) * 3) for level in (0, 85, 170, 255)]
    with Image.open(io.BytesIO(animation([greys]))) as opened:
        assert (opened.format, opened.n_frames, opened.info["loop"]) == ("WEBP", 6, 0)
        assert opened.size == (256, 128)
        found = []
        for n in range(6):
            opened.seek(n)
            found.append(int(np.asarray(opened.convert("L"))[64, 128]))
    np.testing.assert_allclose(found, [0, 85, 170, 255, 170, 85], atol=3)


def test_an_animation_of_two_pictures_alternates() -> None:
    with Image.open(io.BytesIO(animation([[Image.new("L", (8, 8), level) for level in (0, 255)]]))) as x:
        assert x.n_frames == 2


def test_an_animation_pauses_at_each_style_and_shows_it_once() -> None:
    rows = [
        [Image.new("L", (64, 64), level) for level in levels] for levels in ((0, 60, 120), (120, 180, 240))
    ]
    with Image.open(io.BytesIO(animation(rows))) as opened:
        assert opened.n_frames == 5 + 3
        durations = []
        for n in range(8):
            opened.seek(n)
            opened.load()
            durations.append(opened.info["duration"])
    assert durations == [600, 80, 600, 80, 600, 80, 600, 80]


def test_pictures_of_a_large_strip_are_shrunk() -> None:
    picture = strip([[Image.new("RGB", (2000, 1000), "red")] * 60])
    assert 60e6 < picture.width * picture.height < 70e6
    assert max(picture.getcolors(10**8))[1] == (255, 0, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((16384, 200, 2), "has at most 16383 px on a side, not 16384x200; choose a smaller --size"),
        ((1000, 1000, 251), "an animation of 251 pictures with 1000x1000 px has 251 megapixels, more than"),
        ((64, 64, 4000), "an animation of 4000 pictures with 256x256 px has 262 megapixels, more than"),
    ],
)
def test_an_animation_that_is_too_large_is_an_error(given: tuple[int, int, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_animated(*given)


def test_an_animation_may_be_large() -> None:
    check_animated(16383, 200, 2)
    check_animated(1000, 1000, 250)
    check_animated(64, 64, 1000)

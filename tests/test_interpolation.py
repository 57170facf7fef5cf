"""Going from one style to another: `between`, `strip` and `animation`."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from i2ikit.interpolation import animation, between, strip


def test_codes_begin_and_end_at_the_styles_and_are_evenly_spaced() -> None:
    codes = torch.tensor([[0.0, 0.0], [1.0, -2.0], [1.0, 2.0]], dtype=torch.float64)
    found = between(codes, 5)
    assert found.shape == (2, 5, 2)
    assert torch.equal(found[:, 0], codes[:-1])
    assert torch.equal(found[:, -1], codes[1:])
    assert torch.equal(found[0, :, 1], torch.tensor([0, -0.5, -1, -1.5, -2], dtype=torch.float64))


def test_a_strip_has_a_row_for_each_transition() -> None:
    """Its pictures are in order: grey values rise from left to right, and the second row is inverted."""
    greys = torch.linspace(-1, 1, 5)[:, None, None, None].expand(5, 1, 64, 64)
    pixels = np.asarray(strip([greys, -greys]).convert("L"))
    assert pixels.shape == (16 + 2 * 66 + 2, 5 * 66 + 2)
    middles = [2 + 66 * n + 32 for n in range(5)]
    assert pixels[16 + 2 + 32, middles].tolist() == [0, 64, 128, 191, 255]
    assert pixels[16 + 66 + 2 + 32, middles].tolist() == [255, 191, 128, 64, 0]


def test_an_animation_goes_there_and_back() -> None:
    greys = torch.linspace(-1, 1, 4)[:, None, None, None].expand(4, 3, 32, 64)
    with Image.open(io.BytesIO(animation(greys))) as opened:
        assert (opened.format, opened.n_frames, opened.info["loop"]) == ("WEBP", 6, 0)
        assert opened.size == (256, 128)
        found = []
        for n in range(6):
            opened.seek(n)
            found.append(int(np.asarray(opened.convert("L"))[64, 128]))
    np.testing.assert_allclose(found, [0, 85, 170, 255, 170, 85], atol=3)


def test_an_animation_of_two_pictures_alternates() -> None:
    with Image.open(
        io.BytesIO(animation(torch.tensor([-1.0, 1.0])[:, None, None, None].expand(2, 1, 8, 8)))
    ) as x:
        assert x.n_frames == 2

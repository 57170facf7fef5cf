"""Colour outside the lines, and within the regions that they enclose, on pictures with known numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from i2ikit.data.folders import Folders
from i2ikit.errors import DataError
from i2ikit.metrics.regions import RegionColour, regions_of
from i2ikit.metrics.subject import Subject
from i2ikit.translator import Direction
from tests.metrics.conftest import Painter

A2B = Direction("a", "b")

SIDE = 32
LEFT, RIGHT = (slice(6, 18), slice(5, 13)), (slice(6, 18), slice(14, 26))  # within the lines of two boxes


def two_boxes() -> np.ndarray:
    """White, with the black lines of two boxes side by side."""
    pixels = np.full((SIDE, SIDE, 3), 255, dtype=np.uint8)
    pixels[5:19, 4:27] = 0
    pixels[LEFT] = pixels[RIGHT] = 255
    return pixels


def coloured() -> np.ndarray:
    """The boxes in two greys: 0.2 below white on the left, 0.6 on the right."""
    pixels = two_boxes()
    pixels[LEFT], pixels[RIGHT] = 204, 102
    return pixels


@pytest.fixture
def boxes(tmp_path: Path) -> Folders:
    """Three times the two boxes, shifted so that they are distinct, and their colourings."""
    for split in ("train", "test"):
        for domain, picture in (("A", two_boxes()), ("B", coloured())):
            folder = tmp_path / f"{split}{domain}"
            folder.mkdir()
            for n in range(3):
                Image.fromarray(np.roll(picture, n, axis=0)).save(folder / f"{n}.png")
    return Folders(root=str(tmp_path), size=SIDE, paired=True)


class Colourist(Painter):
    """Gives the real answer, but for a stain outside and a blotch in each box."""

    def translate(self, x: Tensor, style: Tensor, *, source: str, to: str) -> Tensor:
        shift = int((x[0, 0] < 0).any(1).nonzero()[0]) - 5
        y = torch.from_numpy(coloured()).permute(2, 0, 1) / 127.5 - 1
        y[0, 0, :] = 0  # red of the first row: 0.5 below white
        y[:, 6:12, 5:13] += 0.2  # half of the left box: 0.1 brighter, on the 0..1 scale
        return torch.roll(y, shift, dims=1).expand(len(x), -1, -1, -1)


def test_the_outside_is_what_can_be_reached_from_the_border() -> None:
    x = torch.from_numpy(two_boxes()).permute(2, 0, 1) / 127.5 - 1
    regions = regions_of(x, 12)
    assert regions.outside.sum() == SIDE**2 - 14 * 23
    assert [int(mask.sum()) for mask in regions.inside] == [10 * 6, 10 * 10]  # without what touches a line
    assert len(regions_of(x, 61).inside) == 1


def test_a_diagonal_line_encloses_and_a_gap_does_not() -> None:
    y, x = torch.meshgrid(torch.arange(21), torch.arange(21), indexing="ij")
    diamond = ((y - 10).abs() + (x - 10).abs() == 9)[None] * -2.0 + 1
    assert len(regions_of(diamond, 12).inside) == 1
    diamond[0, 10, 1] = 1
    assert len(regions_of(diamond, 12).inside) == 0


def test_numbers_of_known_pictures(boxes) -> None:
    found = RegionColour(num_styles=2).measure(Subject(Colourist().eval(), boxes, A2B, 0))
    values = found.values
    outside = SIDE**2 - 14 * 23
    assert values["halo/real"] == pytest.approx(0, abs=1e-6)
    assert values["halo/translations"] == pytest.approx(0.5 * SIDE / outside, rel=1e-4)
    assert values["blotches/real"] == pytest.approx(0, abs=1e-6)
    # Of the left box's 60 pixels, five rows are 0.05 above the mean and five below it; the right one is even.
    assert values["blotches/translations"] == pytest.approx((0.05**2 * 60 / 160) ** 0.5, rel=1e-4)
    assert values["blotches/excess"] == pytest.approx(values["blotches/translations"], abs=1e-6)
    assert values["fill/real"] == pytest.approx((0.2 * 60 + 0.6 * 100) / 160, rel=1e-4)
    assert values["variety/real"] == pytest.approx(0.2, rel=1e-4)
    assert values["variety/excess"] == pytest.approx(0.025, rel=1e-3)
    assert values["halo/excess_se"] == pytest.approx(0, abs=1e-6)


def test_grey_translations_of_coloured_outlines_are_measured_too(boxes) -> None:
    class Grey(Colourist):
        def translate(self, x: Tensor, style: Tensor, *, source: str, to: str) -> Tensor:
            return super().translate(x, style, source=source, to=to)[:, 1:2]

    values = RegionColour().measure(Subject(Grey().eval(), boxes, A2B, 0)).values
    assert values["halo/translations"] == pytest.approx(0, abs=1e-6)
    assert values["variety/translations"] > 0.1


def test_without_pairs_nothing_is_said_of_real_targets(boxes, tmp_path) -> None:
    data = Folders(root=str(tmp_path), size=SIDE)
    values = RegionColour().measure(Subject(Painter().eval(), data, A2B, 0)).values
    names = ("halo", "blotches", "fill", "variety")
    assert set(values) == {f"{name}/translations{end}" for name in names for end in ("", "_se")}


def test_outlines_without_a_region_are_refused(outlines, subject) -> None:
    with pytest.raises(DataError, match="no held-out input has a region"):
        RegionColour().measure(subject(outlines))

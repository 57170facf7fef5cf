"""Sample grids and sheets of pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from i2ikit.checking import check
from i2ikit.data.folders import Folders
from i2ikit.sampling import sample_grid, sheet
from i2ikit.translator import TRANSLATOR_SLOT, Direction
from tests.metrics.conftest import Painter, outline_folders

A2B = Direction("a", "b")


def test_a_sheet_has_a_column_for_each_heading_and_a_row_for_each_image() -> None:
    columns = [("input", torch.zeros(3, 1, 64, 96)), ("style 1", torch.ones(3, 3, 64, 96))]
    picture = sheet(columns)
    assert picture.size == (2 * 98 + 2, 3 * 66 + 2 + 16)
    assert picture.getpixel((2 + 48, 16 + 2 + 32)) == (128, 128, 128)


def test_headings_of_rows_stand_in_a_margin_of_their_own() -> None:
    columns = [("input", -torch.ones(2, 1, 64, 64))]
    picture = sheet(columns, ("v0.1", ["0.123", "0.045"]))
    assert picture.size == (36 + 66, 2 * 66 + 2 + 16)
    margin = picture.crop((0, 16, 36, picture.height)).convert("L")
    assert margin.getextrema()[0] < 128
    assert picture.getpixel((36, 18)) == (0, 0, 0)


def test_the_grid_is_the_same_for_the_same_seed(tmp_path) -> None:
    outlines = outline_folders(tmp_path, 16)
    grids = [sample_grid(Painter().eval(), outlines, seed, A2B).tobytes() for seed in (0, 0, 1)]
    assert grids[0] == grids[1] != grids[2]


def test_neighbours_of_one_heading_share_it() -> None:
    two = [("munit", torch.ones(1, 3, 64, 64)), ("munit", torch.ones(1, 3, 64, 64))]
    header = sheet(two).crop((0, 0, 134, 16)).convert("L")
    dark = [x for x in range(134) if min(header.getpixel((x, y)) for y in range(16)) < 128]
    assert abs((dark[0] + dark[-1]) / 2 - 67) < 3


@pytest.mark.slow
def test_the_grid_shows_what_the_method_can(folders: Path) -> None:
    """Input, six styles, and then exemplars, answers and reconstructions as far as there are any."""

    def columns(name: str, paired: bool) -> int:
        spec, _ = check(name, "translator", TRANSLATOR_SLOT)
        data = Folders(root=str(folders), size=64, paired=paired)
        return (sample_grid(spec(data.images).eval(), data, 0, A2B).width - 2) // 66

    assert columns("munit", False) == 7 + 3
    assert columns("bicyclegan", True) == 7 + 4
    assert columns("unit", False) == 7 + 1
    assert columns("cyclegan", False) == 7

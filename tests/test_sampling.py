"""Sample grids and sheets of pictures."""

from __future__ import annotations

import torch

from i2ikit.sampling import sample_grid, sheet
from tests.metrics.conftest import Painter, outline_folders


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
    grids = [sample_grid(Painter().eval(), outlines, seed, "b").tobytes() for seed in (0, 0, 1)]
    assert grids[0] == grids[1] != grids[2]

"""Contact sheets: what a page shows, and that names stay in their column."""

from __future__ import annotations

import numpy as np
from PIL import Image

from i2ikit.contact_sheet import MOST_COLUMNS, ContactSheet


def test_pictures_are_in_order_and_not_distorted() -> None:
    sheet = ContactSheet(["style 1", "style 2"])
    for size in ((200, 100), (30, 80)):
        sheet.add("x", [Image.new("RGB", size, colour) for colour in ("red", "lime", "blue")])
    page = sheet.page()
    assert len(sheet) == 0
    margin = page.width - 3 * 132
    for column, colour in enumerate(([255, 0, 0], [0, 255, 0], [0, 0, 255])):
        for top, size in ((22, (128, 64)), (22 + 84, (30, 80))):
            left = margin + column * 132
            cell = np.asarray(page.crop((left, top, left + 128, top + 80)))
            rows, columns = np.nonzero((cell == colour).all(2))
            assert (np.ptp(columns) + 1, np.ptp(rows) + 1) == size
            assert columns.min() + columns.max() == 127
            assert rows.min() + rows.max() == 79


def test_long_names_are_wrapped_and_cut() -> None:
    """Nothing is written into the first picture."""
    for name in ("a-rather_long name.of/a picture", "x" * 255, "\u4e2d" * 80, "i" * 40 + " j"):
        sheet = ContactSheet(["style 1"])
        sheet.add(name, [Image.new("L", (64, 64), 255)] * 2)
        page = sheet.page()
        margin = page.width - 2 * 68
        assert margin <= 168
        assert page.crop((margin, 22, page.width, page.height)).convert("L").getextrema() == (255, 255)
        assert page.crop((0, 22, margin, page.height)).convert("L").getextrema()[0] < 100


def test_only_so_many_styles_are_shown() -> None:
    sheet = ContactSheet([f"style {n}" for n in range(1, 1001)])
    sheet.add("x", [Image.new("L", (64, 64))] * 1001)
    assert sheet.page().width < 168 + 68 * (MOST_COLUMNS + 1) + 1

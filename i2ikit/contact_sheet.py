"""Contact sheets: pages of thumbnails, with an image and its translations in each row."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

__all__ = ["MOST_COLUMNS", "MOST_ROWS", "ContactSheet"]

MOST_ROWS = 32
MOST_COLUMNS = 32
"""Styles that are shown."""
THUMBNAIL = 128
"""Longest side of a thumbnail in pixels."""
LEAST = 64
GAP = 4
NAMES = 160  # pixels for the name of an image
LINE = 14
HEADER = 18
FONT_SIZE = 11
BREAKS = " -_./\\"
"""A name is continued in a new line after one of these, if possible."""


class ContactSheet:
    """Collects the rows of a page; holds thumbnails only.

    Args:
        headings: of the styles.
    """

    def __init__(self, headings: Sequence[str]) -> None:
        shown = list(headings[:MOST_COLUMNS])
        if len(headings) > MOST_COLUMNS:
            shown[-1] += f" of {len(headings)}"
        self._headings = ["input", *shown]
        self._rows: list[tuple[str, list[Image.Image]]] = []

    def __len__(self) -> int:
        """The number of rows so far."""
        return len(self._rows)

    def add(self, name: str, pictures: Sequence[Image.Image]) -> None:
        """Add a row: an image's name, the image, and its translations."""
        self._rows.append((name, [_thumbnail(x) for x in pictures[: MOST_COLUMNS + 1]]))

    def page(self) -> Image.Image:
        """The page with the rows so far, which the next page does not have."""
        rows, self._rows = self._rows, []
        thumbnails = [x for _, pictures in rows for x in pictures]
        width, height = (max(LEAST, *(x.size[n] for x in thumbnails)) + GAP for n in (0, 1))
        columns = len(rows[0][1])
        font = ImageFont.load_default(FONT_SIZE)
        margin = min(NAMES, int(max(font.getlength(name) for name, _ in rows)) + 1) + 2 * GAP
        page = Image.new("RGB", (margin + width * columns, HEADER + height * len(rows) + GAP), "white")
        draw = ImageDraw.Draw(page)
        for column, heading in enumerate(self._headings[:columns]):
            (text,) = _wrapped(heading, width - GAP, 1, font)
            middle = margin + column * width + (width - GAP) / 2
            draw.text((middle, HEADER / 2 + GAP / 2), text, "black", font, anchor="mm")
        for row, (name, pictures) in enumerate(rows):
            top = HEADER + GAP + row * height
            lines = _wrapped(name, margin - 2 * GAP, height // LINE, font)
            first = top + (height - GAP - LINE * (len(lines) - 1)) / 2
            for line, text in enumerate(lines):
                draw.text((GAP, first + line * LINE), text, "black", font, anchor="lm")
            for column, picture in enumerate(pictures):
                left = margin + column * width
                place = left + (width - GAP - picture.width) // 2, top + (height - GAP - picture.height) // 2
                page.paste(picture, place)
        return page


def _thumbnail(picture: Image.Image) -> Image.Image:
    scale = min(1.0, THUMBNAIL / max(picture.size))
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2)


def _wrapped(
    text: str, width: int, most: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> list[str]:
    """The text in lines of at most so many pixels; `...` ends the last one if some are left out."""
    lines = [""]
    for letter in text:
        if font.getlength(lines[-1] + letter) > width and lines[-1]:
            place = max(map(lines[-1].rfind, BREAKS)) + 1
            place = place if place > len(lines[-1]) // 2 else len(lines[-1])
            lines[-1:] = lines[-1][:place], lines[-1][place:]
        lines[-1] += letter
    if len(lines) <= most:
        return lines
    return [*lines[: most - 1], f"{lines[most - 1][:-2]}..."]

"""Translations of fixed inputs: the sample grids that training writes to samples/."""

from __future__ import annotations

import hashlib
import io
import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from i2ikit.data.dataset import Dataset, Picturing
from i2ikit.data.images import bands_shown, to_picture
from i2ikit.draws import counted_generator
from i2ikit.translator import Direction, Reconstructing, StyleEncoding, Translator, one_per_target
from i2ikit.writing import replace_file, writing

__all__ = [
    "cell_size",
    "distinct_test_indices",
    "pictures",
    "png",
    "random_styles",
    "sample_files",
    "sample_grid",
    "save_samples",
    "sheet",
]

MOST_ROWS = 8
STYLES = 6
HEIGHT = 1024  # of a grid, in pixels; grids of large images have fewer rows
GAP = 2
HEADER = 16
MARGIN = 36  # for row headings
MOST_SHEET_PIXELS = 2**26
"""Pixels of all pictures of a sheet, 200 MB; larger ones are shrunk."""


def save_samples(
    translator: Translator, data: Dataset, seed: int, step: int, folder: Path
) -> dict[Direction, Image.Image]:
    """Write samples/step-N.png, and samples/step-N-b2a.png and the like for the other target domains.

    Returns:
        What the files show.
    """
    samples = folder / "samples"
    with writing(samples):
        samples.mkdir(exist_ok=True)
    grids = {}
    for direction, path in sample_files(translator, step, folder).items():
        grids[direction] = sample_grid(translator, data, seed, direction)
        replace_file(path, png(grids[direction]))
    return grids


def png(picture: Image.Image) -> bytes:
    """A picture as the content of a PNG file."""
    file = io.BytesIO()
    picture.save(file, "png")
    return file.getvalue()


def sample_files(translator: Translator, step: int, folder: Path) -> dict[Direction, Path]:
    """The files that `save_samples` writes."""
    first = Direction(*translator.domains[:2])
    return {
        direction: folder / "samples" / f"step-{step:06d}{'' if direction == first else f'-{direction}'}.png"
        for direction in one_per_target(translator)
    }


@torch.no_grad()
def sample_grid(translator: Translator, data: Dataset, seed: int, direction: Direction) -> Image.Image:
    """Held-out inputs in rows; columns: input, six random styles (the same in each row), an
    exemplar and the input in its style, and the exemplar's reconstruction.

    A deterministic translator has one column of translations. Exemplar columns need a translator with
    `encode_style`; with paired data, the real target and the input in its style follow. Inputs, styles and
    exemplars depend only on the seed. The translator must be in eval mode.
    """
    source, to = direction
    device = next(translator.parameters()).device
    most = max(2, min(MOST_ROWS, HEIGHT // data.images.size))
    rows = distinct_test_indices(data, source, most, seed)
    exemplars = distinct_test_indices(data, to, most, seed + 1)
    x = torch.stack([data.image("test", source, index) for index in rows]).to(device)
    y = torch.stack([data.image("test", to, index) for index in exemplars]).to(device)
    count = min(len(x), len(y))
    x, y = x[:count], y[:count]
    answers = torch.stack([data.image("test", to, n) for n in rows[:count]]) if data.paired else None

    def translated(styles: Tensor) -> Tensor:
        return translator.translate(x, styles, source=source, to=to)

    columns: list[tuple[str, Tensor]] = []
    if translator.is_deterministic(to):
        columns.append(("translation", translated(x.new_empty(count, 0))))
        columns += [("target", answers.to(device))] if answers is not None else []
    else:
        styles = random_styles(translator, STYLES, to, seed).to(device)
        columns += [(f"style {n}", translated(s.expand(count, -1))) for n, s in enumerate(styles, 1)]
    if isinstance(translator, StyleEncoding):
        columns += [("exemplar", y), ("guided", translated(translator.encode_style(y, to)))]
        if answers is not None:
            own = translator.encode_style(answers.to(device), to)
            columns += [("target", answers.to(device)), ("its style", translated(own))]
    if isinstance(translator, Reconstructing):
        columns.append(("recon", translator.reconstruct(y, to)))
    shown = [(heading, pictures(data, images, to)) for heading, images in columns]
    return sheet([("input", pictures(data, x, source)), *shown])


def pictures(data: object, images: Tensor, domain: str) -> Tensor:
    """Images (N, C, H, W) of a domain as pictures (N, 1 or 3, H, W).

    Args:
        data: the dataset, or its class; it may say how its images are shown (`Picturing`).
    """
    return data.picture(images, domain) if isinstance(data, Picturing) else bands_shown(images)


def random_styles(translator: Translator, n: int, to: str, seed: int) -> Tensor:
    """n style codes from the prior for domain `to`, (n, style_dim); they depend only on the seed."""
    generator = torch.Generator().manual_seed(int(counted_generator(seed, "styles").integers(2**62)))
    return translator.sample_style(n, to, generator)


def distinct_test_indices(data: Dataset, domain: str, most: int, seed: int) -> list[int]:
    """Indices of up to `most` held-out images of a domain, all with different pixels, in random order."""
    order = counted_generator(seed, "test", domain).permutation(data.count("test", domain))
    seen: set[bytes] = set()
    chosen: list[int] = []
    for index in order.tolist():
        pixels = hashlib.sha256(data.image("test", domain, index).numpy().tobytes()).digest()
        if pixels not in seen:
            seen.add(pixels)
            chosen.append(index)
        if len(chosen) == most:
            break
    return chosen


def cell_size(size: tuple[int, int], count: int) -> tuple[int, int]:
    """Width and height of each of `count` pictures in a sheet: their own, or less in a large sheet."""
    width, height = size
    scale = min(1.0, math.sqrt(MOST_SHEET_PIXELS / (width * height * count)))
    return max(1, int(width * scale)), max(1, int(height * scale))


def sheet(
    columns: Sequence[tuple[str, Tensor | Sequence[Image.Image]]],
    rows: tuple[str, Sequence[str]] | None = None,
) -> Image.Image:
    """A picture of images in columns, with a heading over each column and optionally left of each row.

    Args:
        columns: heading and N pictures of one size, as a tensor (N, 1 or 3, H, W) in [-1, 1] or as PIL
            images; adjacent columns with one heading share it.
        rows: a heading for the row labels, and N row labels.
    """
    first = columns[0][1][0]
    width, height = first.size if isinstance(first, Image.Image) else (first.shape[2], first.shape[1])
    scale = max(1, 64 // width)  # enlarge tiny images, so that headings fit
    cell = width * scale + GAP, height * scale + GAP
    margin = MARGIN if rows else GAP
    count = len(columns[0][1])
    picture = Image.new("RGB", (margin + cell[0] * len(columns), cell[1] * count + GAP + HEADER), "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(11)
    if rows:
        draw.text((margin / 2, HEADER / 2), rows[0], "black", font, anchor="mm")
        for row, heading in enumerate(rows[1]):
            middle = HEADER + row * cell[1] + GAP + height * scale / 2
            draw.text((margin / 2, middle), heading, "black", font, anchor="mm")
    column = 0
    for heading, group in itertools.groupby(columns, key=lambda named: named[0]):
        count_in_group = len(list(group))
        middle = margin + (column + count_in_group / 2) * cell[0]
        draw.text((middle, HEADER / 2), heading, "black", font, anchor="mm")
        column += count_in_group
    for column, (_, images) in enumerate(columns):
        left = margin + column * cell[0]
        for row, image in enumerate(images):
            shown = image if isinstance(image, Image.Image) else to_picture(image)
            shown = shown.convert("RGB").resize((width * scale, height * scale), Image.Resampling.NEAREST)
            picture.paste(shown, (left, HEADER + row * cell[1] + GAP))
    return picture

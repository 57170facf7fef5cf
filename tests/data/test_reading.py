"""Picture files of every kind that is read: pixels as the numbers that were written say."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from i2ikit.data.folders import Folders
from i2ikit.data.images import load_image
from i2ikit.data.reading import inspect, read_image
from tests.picture_formats import bmp, chunk, exif, png, run_lengths, tiff

H, W = 16, 21

Array = NDArray[Any]


@dataclass(frozen=True)
class Case:
    """A file, and the RGB values (H, W, 3) that it must be read as."""

    name: str
    content: bytes
    expected: Array
    tolerance: int = 1


def values(channels: int, bits: int = 8, sides: tuple[int, int] = (H, W)) -> Array:
    """Random values; the first two are the lowest and the highest."""
    drawn = np.random.default_rng(channels + bits).integers(0, 2**bits, (*sides, channels))
    drawn[0, 0], drawn[-1, -1] = 0, 2**bits - 1
    return drawn.astype(np.uint16 if bits > 8 else np.uint8)


def smooth(channels: int) -> Array:
    """Slow gradients, which lossy formats change little."""
    down, across = np.mgrid[0:H, 0:W]
    planes = (down * 6 + 40, across * 5 + 60, 200 - down * 4, 90 + across * 3 + down)
    return np.stack(planes[:channels], -1).astype(np.uint8)


def seen(shown: Array, bits: int = 8, alpha: Array | None = None) -> Array:
    """8-bit RGB of grey or RGB values, on white where they are transparent."""
    white = 2**bits - 1
    rgb = np.broadcast_to(shown, (*shown.shape[:2], 3)) / white
    if alpha is not None:
        part = alpha / white
        rgb = rgb * part + 1 - part
    return np.rint(rgb * 255)


def turned(upright: Array, orientation: int) -> Array:
    """What the viewer shows of pixels that are stored with this orientation."""
    turns: dict[int, Callable[[Array], Array]] = {
        1: lambda x: x,
        2: np.fliplr,
        3: lambda x: np.rot90(x, 2),
        4: np.flipud,
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: np.rot90(x, -1),
        7: lambda x: np.rot90(x, 2).transpose(1, 0, 2),
        8: np.rot90,
    }
    return turns[orientation](upright)


def saved(array: Array, kind: str, mode: str | None = None, **options: Any) -> bytes:
    """A file by Pillow."""
    buffer = io.BytesIO()
    picture = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
    if mode is not None:
        picture = Image.frombytes(mode, picture.size, picture.tobytes())
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def cut(channels: int, bits: int) -> int:
    """The tolerance: Pillow cuts colours of 16 bits to the higher 8, without rounding."""
    return 2 if channels > 1 and bits == 16 else 1


def png_cases() -> Iterator[Case]:
    for interlaced in (False, True):
        mark = "-interlaced" if interlaced else ""
        for channels, depths in ((1, (1, 2, 4, 8, 16)), (2, (8, 16)), (3, (8, 16)), (4, (8, 16))):
            for bits in depths:
                x = values(channels, bits)
                alpha = x[..., -1:] if channels in (2, 4) else None
                rgb = seen(x if alpha is None else x[..., :-1], bits, alpha)
                name = f"png{channels}x{bits}{mark}.png"
                yield Case(name, png(x, bits, interlaced=interlaced), rgb, cut(channels, bits))
        for bits in (1, 2, 4, 8, 16):  # one grey value is transparent
            x = values(1, bits)
            clear = int(x[3, 4, 0])
            rgb = np.where(x == clear, 255, seen(x, bits))
            trns = clear.to_bytes(2, "big")
            yield Case(f"grey{bits}-trns{mark}.png", png(x, bits, trns=trns, interlaced=interlaced), rgb)
        x = values(3)
        trns = b"".join(bytes((0, v)) for v in x[2, 5])
        rgb = np.where((x == x[2, 5]).all(-1, keepdims=True), 255, x)
        yield Case(f"rgb8-trns{mark}.png", png(x, trns=trns, interlaced=interlaced), rgb)
        for bits in (1, 2, 4, 8):
            x = values(1, bits)
            colours = np.random.default_rng(bits).integers(0, 256, (2**bits, 3), dtype=np.uint8)
            rgb = colours[x[..., 0]].astype(float)
            content = png(x, bits, palette=colours.tobytes(), interlaced=interlaced)
            yield Case(f"palette{bits}{mark}.png", content, rgb)
            alpha = np.random.default_rng(9).integers(0, 256, max(1, 2**bits // 2), dtype=np.uint8)
            all_alpha = np.r_[alpha, np.full(2**bits - len(alpha), 255)]
            content = png(x, bits, colours.tobytes(), alpha.tobytes(), interlaced)
            on_white = seen(rgb, alpha=all_alpha[x])
            yield Case(f"palette{bits}-trns{mark}.png", content, on_white)


def orientation_cases() -> Iterator[Case]:
    x, gradual = values(3), smooth(3)
    for turn in range(1, 9):
        data = exif(turn)
        rgb, rough = turned(x, turn), turned(gradual, turn)
        yield Case(f"turned{turn}-before.png", png(x, before=chunk(b"eXIf", data)), rgb)
        yield Case(f"turned{turn}-after.png", png(x, after=chunk(b"eXIf", data)), rgb)
        yield Case(f"turned{turn}-wide.png", png(values(1, 16), 16, before=chunk(b"eXIf", data)),
                   turned(seen(values(1, 16), 16), turn))  # fmt: skip
        yield Case(
            f"turned{turn}.jpg", saved(gradual, "JPEG", exif=b"Exif\0\0" + data, quality=95), rough, 12
        )
        yield Case(f"turned{turn}.webp", saved(x, "WEBP", exif=data, lossless=True), rgb)
        yield Case(f"turned{turn}.tif", tiff((x, {274: turn})), rgb)
    for turn in (0, 9, 255):  # not defined
        yield Case(f"turned{turn}.png", png(x, before=chunk(b"eXIf", exif(turn))), x)
        yield Case(f"turned{turn}.tif", tiff((x, {274: turn})), x)


def bmp_cases() -> Iterator[Case]:
    x = values(3)
    for upside_down in (True, False):
        yield Case(f"rgb-{upside_down}.bmp", bmp(x, upside_down=upside_down), x)
        for bits in (1, 4, 8):
            index = values(1, bits)
            colours = np.random.default_rng(bits).integers(0, 256, (2**bits, 3), dtype=np.uint8)
            rgb = colours[index[..., 0]]
            palette = [tuple(colour) for colour in colours.tolist()]
            yield Case(
                f"palette{bits}-{upside_down}.bmp", bmp(index, bits, palette, upside_down=upside_down), rgb
            )
    for bits, kind in ((8, 1), (4, 2)):
        index = values(1, bits)
        colours = np.random.default_rng(bits).integers(0, 256, (2**bits, 3), dtype=np.uint8)
        palette = [tuple(colour) for colour in colours.tolist()]
        body = run_lengths(index, bits)
        yield Case(f"rle{bits}.bmp", bmp(index, bits, palette, kind, body), colours[index[..., 0]])
    five = values(3, 5).astype(np.uint16)
    words = (five[..., 0] << 10 | five[..., 1] << 5 | five[..., 2]).astype("<u2")
    rows = np.pad(words, ((0, 0), (0, W % 2)))[::-1]
    yield Case("rgb555.bmp", bmp(five, 16, body=rows.tobytes()), np.rint(five * 255 / 31), 8)
    padded = np.concatenate([x[::-1, :, ::-1], np.zeros((H, W, 1), np.uint8)], -1)
    yield Case("rgb32.bmp", bmp(x, 32, body=padded.tobytes()), x)


def tiff_cases() -> Iterator[Case]:
    for order, letter in (("<", "little"), (">", "big")):
        for compression in (1, 8):
            mark = f"{letter}-{compression}"
            for channels, depths in ((1, (1, 2, 4, 8, 16)), (3, (8, 16))):
                for bits in depths:
                    x = values(channels, bits)
                    tags = {258: bits, 259: compression}
                    content, rgb = tiff((x, tags), order=order), seen(x, bits)
                    yield Case(f"{channels}x{bits}-{mark}.tif", content, rgb, cut(channels, bits))
                    if channels == 1 and (bits, order) != (16, ">"):  # which Pillow does not know
                        inverted = tiff((x, {**tags, 262: 0}), order=order)
                        yield Case(f"{bits}-inverted-{mark}.tif", inverted, 255 - rgb)
            x = values(4)
            straight = tiff((x, {259: compression, 338: 2}), order=order)
            yield Case(f"alpha-{mark}.tif", straight, seen(x[..., :3], alpha=x[..., 3:]))
            wide = values(4, 16)
            straight = tiff((wide, {259: compression, 338: 2}), order=order)
            yield Case(f"alpha16-{mark}.tiff", straight, seen(wide[..., :3], 16, wide[..., 3:]), 2)
            cmyk = tiff((x, {259: compression, 262: 5}), order=order)
            ink = x.astype(float)
            yield Case(f"cmyk-{mark}.tif", cmyk, (255 - ink[..., :3]) * (255 - ink[..., 3:]) / 255)
            colours = np.random.default_rng(1).integers(0, 256, (256, 3), dtype=np.uint8)
            table = (colours.astype(int) * 257).T.reshape(-1).tolist()
            index = values(1)
            palette = tiff((index, {259: compression, 262: 3, 320: table}), order=order)
            yield Case(f"palette-{mark}.tif", palette, colours[index[..., 0]])
    for kind in ("tiff_lzw", "packbits", "tiff_adobe_deflate", "tiff_deflate"):
        x = values(3)
        yield Case(f"{kind}.tif", saved(x, "TIFF", compression=kind), x)
        tiled = saved(x, "TIFF", compression=kind, tiffinfo={322: 16, 323: 16})
        yield Case(f"{kind}-tiled.tif", tiled, x)
    thumbnail = (values(3, sides=(4, 5)), {254: 1})
    yield Case("thumbnail.tif", tiff((values(3), {}), thumbnail), values(3))
    both = values(2)
    on_white = seen(both[..., :1], alpha=both[..., 1:])
    yield Case("grey-alpha.tif", tiff((both, {338: 2})), on_white)


def lossy_cases() -> Iterator[Case]:
    grey, rgb, four = smooth(1), smooth(3), smooth(4)
    for options in ({}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 2}, {"optimize": True}):
        name = "-".join(map(str, options.items())) or "plain"
        yield Case(f"{name}.jpg", saved(rgb, "JPEG", quality=95, **options), rgb, 12)
        yield Case(f"{name}-grey.jpeg", saved(grey, "JPEG", quality=95, **options), seen(grey), 6)
    ink = four.astype(float)
    shown = (255 - ink[..., :3]) * (255 - ink[..., 3:]) / 255
    yield Case("cmyk.jpg", saved(four, "JPEG", "CMYK", quality=98, subsampling=0), shown, 12)
    yield Case("lossy.webp", saved(rgb, "WEBP", quality=95), rgb, 14)
    x = values(4)
    lossless = saved(x, "WEBP", lossless=True, exact=True)
    yield Case("alpha.webp", lossless, seen(x[..., :3], alpha=x[..., 3:]))
    yield Case("lossless.webp", saved(values(3), "WEBP", lossless=True), values(3))


def named_cases() -> Iterator[Case]:
    """Only the content decides between the kinds that are read; names may be anything that ends as one."""
    x = values(3)
    kinds = {"PNG": saved(x, "PNG"), "BMP": saved(x, "BMP"), "TIFF": saved(x, "TIFF")}
    kinds["WEBP"] = saved(x, "WEBP", lossless=True)
    for kind, content in kinds.items():
        for ending in (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".PNG", ".Tiff"):
            yield Case(f"{kind} as a.b ü[1]{ending}", content, x)


CASES = [
    *png_cases(),
    *orientation_cases(),
    *bmp_cases(),
    *tiff_cases(),
    *lossy_cases(),
    *named_cases(),
    *(Case(f"{h}x{w}.png", png(values(3, sides=(h, w))), values(3, sides=(h, w)))
      for h, w in ((1, 1), (1, 10), (10, 1), (2, 2), (1, 2), (7, 70)))
]  # fmt: skip


def same(picture: Any, expected: Array, tolerance: int) -> None:
    difference = np.abs(np.asarray(picture, float) - expected).max()
    assert difference <= tolerance + 0.001, difference  # float32


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_picture_is_read_as_it_was_written(tmp_path: Path, case: Case) -> None:
    """As RGB and as grey, from a path and from memory, and through what `translate` and datasets read with."""
    path = tmp_path / case.name
    path.write_bytes(case.content)
    height, width, _ = case.expected.shape
    luma = case.expected @ [0.299, 0.587, 0.114]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert inspect(path, 3) == (width, height)
        same(read_image(path, 3), case.expected, case.tolerance)
        same(read_image(path, 1), luma, case.tolerance + 1)
        same(read_image(io.BytesIO(case.content), 3, "x"), case.expected, case.tolerance)
        side = min(height, width)
        tensor = load_image(path, 3, side)
        same((tensor.permute(1, 2, 0) + 1) * 127.5, case.expected, case.tolerance)
        if side < 8:
            return
        for folder in ("trainA", "trainB", "testA", "testB"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / case.name).write_bytes(case.content)
        held_out = Folders(root=str(tmp_path), size=side).image("test", "a", 0).permute(1, 2, 0)
        top, left = (height - side) // 2, (width - side) // 2
        same((held_out + 1) * 127.5, case.expected[top : top + side, left : left + side], case.tolerance)


def test_the_matrix_is_large() -> None:
    """So that a generator that stops early is noticed; names are file names and must differ."""
    assert len(CASES) > 240
    assert len({case.name for case in CASES}) == len(CASES)

"""Image files in every layout that a dataset reads."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import webdataset
from PIL import Image

from i2ikit.data.folders import Folders


def make_folders(root: Path, side: tuple[int, int] = (70, 66), held_out: int = 3) -> Path:
    """Gradients (a) and blobs of one colour (b), as PNG files."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", held_out)):
        for domain in "AB":
            folder = root / f"{split}{domain}"
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
                picture = Image.fromarray(pixels).resize(side, Image.Resampling.BICUBIC)
                picture.save(folder / f"{index}.png")
    return root


def folders_at(root: Path, **options: object) -> Folders:
    return Folders(root=str(root), **{"size": 64, **options})


def side_by_side(root: Path, held_out: str = "test") -> Path:
    for split in ("train", held_out):
        (root / split).mkdir(parents=True)
        for n in range(2):
            both = Image.new("RGB", (160, 70), "black")
            both.paste("white", (80, 0, 160, 70))
            both.putpixel((10, 10), (255, 255, 255))
            both.putpixel((90, 10), (0, 0, 0))
            both.save(root / split / f"{n}.png")
    return root


def save(path: Path, picture: Image.Image, **options: object) -> Path:
    picture.save(path, **options)
    return path


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (70, 66), (value, 0, 255 - value)).save(buffer, "png")
    return buffer.getvalue()


def write_tars(root: Path, *, paired: bool = False, tars: int = 4, samples: int = 3) -> Path:
    """Pictures of one red value each: tar number * 10 + sample number, in b plus 100."""
    for split in ("train", "test"):
        for domain in "A" if paired else "AB":
            folder = root / (split if paired else f"{split}{domain}")
            folder.mkdir(parents=True)
            for tar in range(tars):
                with webdataset.TarWriter(str(folder / f"{tar:04d}.tar")) as writer:
                    for n in range(samples + tar % 2):  # tar files differ in length
                        value = 10 * tar + n
                        files = {"a.png": png(value), "b.png": png(value + 100)}
                        single = {"png": png(value + 100 * (domain == "B"))}
                        writer.write({"__key__": f"{tar}-{n}", **(files if paired else single)})
    return root

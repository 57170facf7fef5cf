"""Pictures and tensors: read a file, crop it, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps
from pydantic import Field
from torch import Tensor

from i2ikit.errors import DataError

__all__ = [
    "IMAGE_ENDINGS",
    "LoadSide",
    "Side",
    "load_image",
    "prepared",
    "read_image",
    "to_picture",
    "to_tensor",
    "too_large_a_crop",
]

Side = Annotated[int, Field(ge=8, le=4096)]
LoadSide = Annotated[int, Field(ge=8, le=8192)]
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
MOST_PIXELS = 64_000_000


def prepared(
    picture: Image.Image, size: int, load_size: int, flip: bool, rng: np.random.Generator | None
) -> Tensor:
    """(C, size, size) in [-1, 1]: for training a random crop and flip, the centre without `rng`.

    The same `rng` cuts the same part out of pictures of the same shape, whatever their resolution.
    """
    picture = resize_shorter(picture, size if rng is None else load_size)
    room = [extent - size for extent in picture.size]
    if rng is None:
        left, top = (extra // 2 for extra in room)
    else:
        left, top = (int(part * (extra + 1)) for part, extra in zip(rng.random(2), room, strict=True))
    picture = picture.crop((left, top, left + size, top + size))
    if rng is not None and flip and rng.random() < 0.5:
        picture = ImageOps.mirror(picture)
    return to_tensor(picture)


def too_large_a_crop(options: Mapping[str, Any]) -> Iterable[str]:
    """A problem if a crop cannot be cut out of what `load_size` leaves."""
    if (options["load_size"] or options["size"]) < options["size"]:
        yield f"load_size = {options['load_size']} is smaller than size = {options['size']}"


def read_image(file: Path | BinaryIO, channels: int, name: str | None = None) -> Image.Image:
    """A picture from a file: upright, without transparency, 8 bits, RGB or grey.

    Args:
        name: what errors call it; the path if not given.

    Raises:
        DataError: no such file, not an image, or more than 64 megapixels; the file is named.
    """
    name = name or str(file)
    try:
        with Image.open(file) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise DataError(
                    f"{name}: {opened.width}x{opened.height} px are more than "
                    f"{MOST_PIXELS // 1_000_000} megapixels"
                )
            picture = ImageOps.exif_transpose(opened)
            if picture.mode.startswith("I;16"):  # 16-bit grey, which convert("L") would clip to white
                wide = np.asarray(picture, dtype=np.float32)
                picture = Image.fromarray((wide / 257).round().astype(np.uint8))
            if picture.has_transparency_data:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            return picture.convert("RGB" if channels == 3 else "L")
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds
        raise DataError(f"{name}: not a readable image ({type(error).__name__}: {error})") from error


def resize_shorter(picture: Image.Image, side: int) -> Image.Image:
    """The picture with its shorter side `side` pixels long (bilinear, antialiased)."""
    if min(picture.size) == side:
        return picture
    scale = side / min(picture.size)
    width, height = (max(side, round(extent * scale)) for extent in picture.size)
    return picture.resize((width, height), Image.Resampling.BILINEAR)


def to_tensor(picture: Image.Image) -> Tensor:
    """(C, H, W) in [-1, 1] from an 8-bit RGB or grey picture."""
    pixels = np.array(picture)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 127.5 - 1


def to_picture(image: Tensor) -> Image.Image:
    """An 8-bit picture from (C, H, W) in [-1, 1]; values outside are clipped."""
    pixels = ((image.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    array = pixels.permute(1, 2, 0).numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def load_image(path: Path, channels: int, size: int) -> Tensor:
    """(C, H, W) in [-1, 1] from a file, its shorter side `size` pixels, its shape kept."""
    return to_tensor(resize_shorter(read_image(path, channels), size))

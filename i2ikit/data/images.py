"""Conversion between image files, PIL images, arrays and tensors; resizing and cropping."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from i2ikit.data.arrays import check_extent, read_array
from i2ikit.data.reading import ARRAY_ENDING, COLOURS, MOST_PIXELS, check_colours, plain, read_image
from i2ikit.errors import DataError

__all__ = [
    "COLOURS",
    "ImageFormat",
    "LoadSide",
    "Picture",
    "Side",
    "as_floats",
    "bands_shown",
    "cropped_to_square",
    "file_content",
    "floats_from",
    "load_image",
    "loaded",
    "made_like",
    "to_picture",
    "to_tensor",
    "too_large_a_crop",
]

Side = Annotated[int, Field(ge=8, le=4096)]
LoadSide = Annotated[int, Field(ge=8, le=8192)]
MOST_RESIZED = 32_000_000
"""Pixels of a resized image that is not cropped."""
QUALITY = 95  # of JPEG and WebP
LONGEST = {"jpg": 65500, "webp": 16383}
"""Longest side in pixels that these formats have."""

ImageFormat = Literal["png", "jpg", "webp"]
"""Format of a picture that is written: its ending."""

LUMA = torch.tensor([0.299, 0.587, 0.114])  # ITU-R 601


def cropped_to_square(
    picture: Image.Image, size: int, load_size: int, flip: bool, rng: np.random.Generator | None
) -> Tensor:
    """(C, size, size) in [-1, 1]: a random crop and flip with `rng`, a centre crop without it.

    Equal `rng` states crop the same part of images with the same aspect ratio, at any resolution.
    """
    sides = _resized(picture.size, size if rng is None else load_size)
    room = [extent - size for extent in sides]
    if rng is None:
        left, top = (extra // 2 for extra in room)
    else:
        left, top = (int(part * (extra + 1)) for part, extra in zip(rng.random(2), room, strict=True))
    box = (left, top, left + size, top + size)
    if sides[0] * sides[1] > MOST_PIXELS:  # only the part that is needed; its rounding may differ
        across, down = (old / new for old, new in zip(picture.size, sides, strict=True))
        part = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
        picture = picture.resize((size, size), Image.Resampling.BILINEAR, part)
    else:
        picture = _resize(picture, sides).crop(box)
    if rng is not None and flip and rng.random() < 0.5:
        picture = ImageOps.mirror(picture)
    return to_tensor(picture)


def too_large_a_crop(options: Mapping[str, Any]) -> Iterable[str]:
    """Report a problem if `load_size` is smaller than the crop."""
    if (options["load_size"] or options["size"]) < options["size"]:
        yield f"load_size = {options['load_size']} is smaller than size = {options['size']}"


def _resized(sides: Sequence[int], shorter: int | None) -> tuple[int, int]:
    """Both sides after resizing the shorter one, unless it is None; the aspect ratio is kept."""
    if shorter is None or min(sides) == shorter:
        return sides[0], sides[1]
    scale = shorter / min(sides)
    first, second = (max(shorter, round(side * scale)) for side in sides)
    return first, second


def _limited(sides: Sequence[int], size: int | None, name: str) -> tuple[int, int]:
    """`_resized`, for an image that is not cropped.

    Raises:
        DataError: the resized image would have too many pixels.
    """
    first, second = _resized(sides, size)
    if size is not None and first * second > MOST_RESIZED:
        raise DataError(
            f"{name}: with a shorter side of {size} px it has {first}x{second} px, more than the limit of "
            f"{MOST_RESIZED // 1_000_000} megapixels; crop it, or choose a smaller size"
        )
    return first, second


def _resize(picture: Image.Image, sides: tuple[int, int]) -> Image.Image:
    """Bilinear, antialiased."""
    return picture if picture.size == sides else picture.resize(sides, Image.Resampling.BILINEAR)


def to_tensor(picture: Image.Image) -> Tensor:
    """(C, H, W) in [-1, 1] from an 8-bit RGB or grey image."""
    pixels = np.array(picture)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return torch.from_numpy(pixels).permute(2, 0, 1).float().div_(127.5).sub_(1)


def bands_shown(images: Tensor) -> Tensor:
    """The channels of images (N, C, H, W) to show: grey, RGB, or else bands 1 to 3 (of two, the first)."""
    count = images.shape[1]
    return images if count in COLOURS else images[:, : 3 if count > 3 else 1]


def to_picture(image: Tensor) -> Image.Image:
    """An 8-bit PIL image from (C, H, W) in [-1, 1]; values outside are clipped."""
    array = _to_bytes(bands_shown(image[None])[0].detach().cpu()).permute(1, 2, 0).numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


Picture = Image.Image | NDArray[Any] | Tensor | str | Path
"""An image in any supported form: PIL image, array, tensor or path."""


def loaded(image: Picture, channels: int, size: int | None) -> Tensor:
    """(1, C, H, W) in [-1, 1] from an image in any form.

    Args:
        image: a path, a PIL image, or an array (H, W) or (H, W, C), uint8 or floats in [0, 1], whose
            shorter side is resized to `size` (the aspect ratio is kept), or not at all if that is None. Or a
            tensor (C, H, W), uint8 or floats in [-1, 1], which is not resized.
        channels: images and arrays are converted to grey (1) or RGB (3); with other numbers, arrays and
            tensors must have them, and a path must be that of an array (.npy).

    Raises:
        DataError: unsupported type, shape or values.
    """
    match image:
        case str() | Path():
            return load_image(Path(image), channels, size)[None]
        case Image.Image():
            check_colours(channels, "the PIL image")
            return _fitted(plain(image, channels, "the PIL image"), size, "the PIL image")[None]
        case np.ndarray():
            return _from_array(image, channels, size)
        case Tensor():
            return _from_tensor(image, channels)[None]
    raise DataError(
        f"expected an image as a path, a PIL image, an array or a tensor, got {type(image).__name__}"
    )


def _fitted(picture: Image.Image, size: int | None, name: str) -> Tensor:
    return to_tensor(_resize(picture, _limited(picture.size, size, name)))


def made_like(images: Tensor, given: Picture) -> Any:
    """Convert images (N, C, H, W) in [-1, 1] to the form of the image that they were made from.

    Returns:
        PIL images for a PIL image or a path; an array (N, H, W, C) for an array, or (N, H, W) if `given` has
        no channel axis and `images` are grey; a CPU tensor for a tensor. Dtype and range match `given`.
    """
    if isinstance(given, Tensor):
        images = images.detach().cpu()
        return _to_bytes(images) if given.dtype == torch.uint8 else images.to(given.dtype)
    if isinstance(given, np.ndarray):
        last = images.detach().float().cpu().permute(0, 2, 3, 1)
        last = last[..., 0] if given.ndim == 2 and last.shape[-1] == 1 else last
        if given.dtype == np.uint8:
            return _to_bytes(last).numpy()
        return ((last + 1) / 2).numpy().astype(given.dtype)
    return [to_picture(image) for image in images]


def _from_array(array: NDArray[Any], channels: int, size: int | None) -> Tensor:
    shape = f"{array.dtype} {array.shape}"
    accepted = (1, 3, 4) if channels in COLOURS else (channels,)
    found = array.shape[2] if array.ndim == 3 else int(array.ndim == 2)
    if found not in accepted or not array.size:
        numbers = ", ".join(map(str, accepted[:-1])) + " or " * (len(accepted) > 1) + str(accepted[-1])
        raise DataError(f"expected an array (H, W) or (H, W, C) with {numbers} channels, got {shape}")
    check_extent(array.shape, channels in COLOURS and array.dtype == np.uint8, "the array")
    array = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if array.dtype == np.uint8:
        if channels in COLOURS:
            return loaded(Image.fromarray(array), channels, size)
        array = array / np.float32(255)
    if not np.issubdtype(array.dtype, np.floating):
        raise DataError(f"expected an array of uint8, or of floats in [0, 1], got {shape}")
    _check_range(array.min(), array.max(), 0, "array")
    x = floats_from(array)
    x = x[None] if x.ndim == 2 else x.permute(2, 0, 1)
    if len(x) == 4 and channels in COLOURS:
        x = x[:3] * x[3] + 1 - x[3]  # blend with white
    if len(x) != channels:
        x = x.expand(3, -1, -1) if channels == 3 else (x * LUMA[:, None, None]).sum(0, keepdim=True)
    sides = _limited(x.shape[1:], size, "the array")
    if sides == tuple(x.shape[1:]):
        return x[None] * 2 - 1
    return F.interpolate(x[None], sides, mode="bilinear", antialias=True) * 2 - 1


def _from_tensor(image: Tensor, channels: int) -> Tensor:
    shape = f"{str(image.dtype).removeprefix('torch.')} {tuple(image.shape)}"
    if image.ndim != 3 or image.shape[0] != channels or not image.numel():
        raise DataError(f"expected a tensor (C, H, W) with {channels} channels, got {shape}")
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise DataError(f"expected a tensor of uint8, or of floats in [-1, 1], got {shape}")
    x = as_floats(image)
    if image.dtype == torch.uint8:
        return x / 127.5 - 1
    _check_range(x.min().item(), x.max().item(), -1, "tensor")
    return x


def as_floats(tensor: Tensor) -> Tensor:
    """The same values in float32, detached.

    Raises:
        DataError: the tensor is complex, sparse, or a meta tensor without values.
    """
    if tensor.is_complex() or tensor.layout != torch.strided or tensor.is_meta:
        raise DataError(
            f"expected a dense tensor of real numbers, got {tensor.dtype}, {tensor.layout}, {tensor.device}"
        )
    return tensor.detach().float()


def floats_from(array: NDArray[Any]) -> Tensor:
    """A float32 copy of the values; accepts any strides and byte order.

    Raises:
        DataError: the array does not contain real numbers.
    """
    if array.dtype.kind not in "iuf":
        raise DataError(f"expected an array of real numbers, got {array.dtype}")
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))


def _check_range(lowest: float, highest: float, least: int, what: str) -> None:
    if not (lowest >= least - 0.01 and highest <= 1.01):  # NaN too
        raise DataError(f"the {what}'s values are from {lowest:g} to {highest:g}; expected [{least}, 1]")


def _to_bytes(images: Tensor) -> Tensor:
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def load_image(path: Path, channels: int, size: int | None) -> Tensor:
    """(C, H, W) in [-1, 1] from a file; the shorter side is resized to `size`, the aspect ratio kept.
    It keeps its size if `size` is None.

    The file is an image, or an array (.npy) as `loaded` takes it.
    """
    if path.suffix.lower() != ARRAY_ENDING:
        return _fitted(read_image(path, channels), size, str(path))
    array = read_array(path)
    try:
        return _from_array(array, channels, size)[0]
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def file_content(image: Tensor, image_format: ImageFormat = "png") -> tuple[str, bytes]:
    """The ending and the bytes of a file with an image (C, H, W) in [-1, 1].

    A picture; or an array (H, W, C) in [0, 1] if a picture cannot hold it.

    Raises:
        DataError: the format has no pictures of this size.
    """
    file = io.BytesIO()
    if len(image) in COLOURS:
        longest = LONGEST.get(image_format)
        if longest is not None and max(image.shape[1:]) > longest:
            raise DataError(
                f"a file of the format {image_format} has at most {longest} px on a side, not "
                f"{image.shape[2]}x{image.shape[1]}; choose png or a smaller size"
            )
        to_picture(image).save(file, image_format.replace("jpg", "jpeg"), quality=QUALITY)
        return f".{image_format}", file.getvalue()
    np.save(file, ((image.detach().float().cpu().permute(1, 2, 0) + 1) / 2).clamp(0, 1).numpy())
    return ARRAY_ENDING, file.getvalue()

"""What the page asks of several models at once: the same input, in the same styles, from each of them."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from i2ikit.data.images import load_image, loaded, to_picture
from i2ikit.demo.live import LiveModel
from i2ikit.errors import DataError, I2IKitError
from i2ikit.interpolation import animation, between, strip
from i2ikit.model import Model
from i2ikit.sampling import png, random_styles
from i2ikit.translator import Direction, StyleEncoding

__all__ = ["MOST_SLIDERS", "Problem", "Shown", "Studio", "archive", "mixed"]

T = TypeVar("T")

MOST_PIXELS = 2**20
"""Of an input after resizing: a translation needs several kilobytes for each pixel."""
MOST_SLIDERS = 32
SAMPLES = 1000  # styles, whose largest number is the range of the sliders
NORMAL = 4.0  # about the largest of a thousand normal codes


class Problem(str):
    """Why a model has no answer, in a sentence; takes the place of the answer."""


@dataclass(frozen=True)
class Shown:
    """A strip of pictures between two styles, and an animation of the same as WebP."""

    strip: Image.Image
    animation: bytes


class Studio:
    """Models side by side; each method has one answer for each model, in order.

    Args:
        models: one or more.
    """

    def __init__(self, models: Sequence[LiveModel]) -> None:
        self.models = list(models)
        directions = (each.model().translator.directions for each in self.models)
        self.directions = list(dict.fromkeys(direction for own in directions for direction in own))
        """Of all models, those of the first model first."""

    def weights(self) -> list[str]:
        """Checksums of the weights; another one after training has saved new ones."""
        return [each.model().sha256 for each in self.models]

    def style_length(self, direction: Direction) -> int:
        """The most numbers that a style code has in any of the models; 0 if all are deterministic."""
        return max((_style_length(each.model(), direction) for each in self.models), default=0)

    def range(self) -> float:
        """The largest number in many random styles, rounded up: 4 for normal distributions.

        An exported file may not say how its styles are distributed; then 4.
        """
        drawn = []
        for each in self.models:
            for direction in self.directions:
                if _style_length(each.model(), direction):
                    try:
                        codes = random_styles(each.model().translator, SAMPLES, direction.to, 0)
                        drawn.append(codes.abs().max().item())
                    except I2IKitError:
                        drawn.append(NORMAL)
        return float(math.ceil(max(drawn, default=1.0)))

    def follows_exemplars(self, direction: Direction) -> bool:
        """Whether any of the models can."""
        return any(
            direction in translator.directions and isinstance(translator, StyleEncoding)
            for translator in (each.model().translator for each in self.models)
        )

    def held_out(self, domain: str, most: int, seed: int) -> list[tuple[Image.Image, NDArray[np.float32]]]:
        """Held-out images of a domain as pictures and as arrays (H, W, C) in [0, 1].

        They are those of the first model that still has its images.
        """
        for each in self.models:
            if found := each.held_out(domain, most, seed):
                shown = [each.model().pictures(x[None], domain)[0] for x in found]
                return [
                    (to_picture(picture), ((x.permute(1, 2, 0) + 1) / 2).numpy())
                    for picture, x in zip(shown, found, strict=True)
                ]
        return []

    def inputs(self, image: Path | NDArray[np.float32], domain: str) -> list[Tensor | Problem]:
        """An image as each model's networks see it, (1, C, H, W): a file, or an array of `held_out`."""

        def read(model: Model) -> Tensor:
            if domain not in model.images.channels:
                raise DataError(f"it has no domain '{domain}'")
            x = _read(image, model.images.channels[domain], model.images.size)
            if x[0, 0].numel() > MOST_PIXELS:
                height, width = x.shape[2:]
                raise DataError(f"{width}x{height} px after resizing is too large for this page; crop it")
            return x

        return self._each(read)

    def random_styles(self, direction: Direction, count: int, seed: int) -> list[Tensor | Problem]:
        """Random style codes, (count, style_dim); (1, 0) if there is only one translation."""
        return self._each(lambda model: model.codes(count, None, model.direction(*direction).to, seed).cpu())

    def or_zeros(self, codes: Sequence[Tensor | Problem], direction: Direction) -> list[Tensor | Problem]:
        """Style codes, with zeros (1, style_dim) for models that cannot draw random ones."""
        lengths = [_style_length(each.model(), direction) for each in self.models]
        return [
            torch.zeros(1, length) if isinstance(code, Problem) and length else code
            for code, length in zip(codes, lengths, strict=True)
        ]

    def styles_of(self, exemplar: Path | NDArray[np.float32], direction: Direction) -> list[Tensor | Problem]:
        """The style code of an image of the target domain, (1, style_dim); (1, 0) if deterministic."""

        def encoded(model: Model, x: Tensor) -> Tensor:
            if not _style_length(model, direction):
                return torch.empty(1, 0)
            return model.encode_style(x[0], model.direction(*direction).to).cpu()

        return self._each(encoded, self.inputs(exemplar, direction.to))

    def translations(
        self, inputs: Sequence[Tensor | Problem], codes: Sequence[Tensor | Problem], direction: Direction
    ) -> list[list[Image.Image] | Problem]:
        """The input in each of the styles."""

        def translated(model: Model, x: Tensor, styles: Tensor) -> list[Image.Image]:
            return [to_picture(y) for y in _translated(model, x, styles, direction)]

        return self._each(translated, inputs, codes)

    def transitions(
        self,
        inputs: Sequence[Tensor | Problem],
        start: Sequence[Tensor | Problem],
        end: Sequence[Tensor | Problem],
        count: int,
        direction: Direction,
    ) -> list[Shown | Problem]:
        """The input in `count` styles from one to another."""

        def shown(model: Model, x: Tensor, a: Tensor, b: Tensor) -> Shown:
            codes = torch.cat([a, b])
            if not codes.shape[1]:
                raise DataError("it has only one translation of each image")
            rows = [[to_picture(y) for y in _translated(model, x, between(codes, count)[0], direction)]]
            return Shown(strip(rows), animation(rows))

        return self._each(shown, inputs, start, end)

    def _each(self, answer: Callable[..., T], *given: Sequence[object]) -> list[T | Problem]:
        """The answer of each model to its part of what is given; a problem there is its answer."""
        found: list[T | Problem] = []
        for each, *parts in zip(self.models, *given, strict=True):
            if problems := [part for part in parts if isinstance(part, Problem)]:
                found.append(problems[0])
                continue
            try:
                found.append(answer(each.model(), *parts))
            except I2IKitError as error:
                found.append(Problem(error))
            except (MemoryError, torch.OutOfMemoryError):
                found.append(Problem("there is not enough memory for this picture; use a smaller one"))
        return found


def _style_length(model: Model, direction: Direction) -> int:
    own = direction in model.translator.directions
    return model.translator.style_length(direction.to) if own else 0


def _translated(model: Model, x: Tensor, styles: Tensor, direction: Direction) -> Tensor:
    """Pictures (N, 1 or 3, H, W) of an input in N styles."""
    source, to = model.direction(*direction)
    images = model.translate(x[0], source=source, to=to, styles=styles)
    return model.pictures(images, to)


def _read(image: Path | NDArray[np.float32], channels: int, size: int) -> Tensor:
    """(1, C, H, W) in [-1, 1]; errors name a file without its folder, which is not the user's."""
    if isinstance(image, np.ndarray):
        return loaded(image, channels, size)
    try:
        return load_image(image, channels, size)[None]
    except DataError as error:
        raise DataError(str(error).replace(str(image), image.name)) from error


def mixed(
    new: Sequence[Tensor | Problem], old: Sequence[Tensor | Problem], locked: Sequence[int]
) -> list[Tensor | Problem]:
    """New style codes (N, style_dim), with the locked numbers of the old ones (1, style_dim)."""
    found = list(new)
    for place, (ours, theirs) in enumerate(zip(new, old, strict=True)):
        if isinstance(ours, Tensor) and isinstance(theirs, Tensor):
            kept = [n for n in locked if n < ours.shape[1]]
            codes = ours.clone()
            codes[:, kept] = theirs[:, kept]
            found[place] = codes
    return found


def archive(
    names: Sequence[str],
    pictures: Sequence[Sequence[Image.Image] | Problem],
    codes: Sequence[Tensor | Problem],
) -> bytes:
    """A ZIP file: each model's translations as PNG files, and its style codes (N, style_dim) as .npy."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archived:
        for name, made, styles in zip(names, pictures, codes, strict=True):
            if isinstance(made, Problem) or isinstance(styles, Problem):
                continue
            for number, picture in enumerate(made, 1):
                archived.writestr(f"{name}/style-{number}.png", png(picture))
            content = io.BytesIO()
            np.save(content, styles.cpu().numpy())
            archived.writestr(f"{name}/styles.npy", content.getvalue())
    return file.getvalue()

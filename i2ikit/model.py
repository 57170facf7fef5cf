"""A trained translator with what it needs to translate pictures, from a run folder or an exported file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from i2ikit.data.images import Picture, Side, as_floats, floats_from, loaded, made_like
from i2ikit.errors import DataError, I2IKitError, RunError
from i2ikit.memory import OutOfMemory, available_memory, memory_taken, out_of_memory_named
from i2ikit.registry import registries
from i2ikit.sampling import pictures, random_styles
from i2ikit.translator import Direction, ImageSpec, StyleEncoding, Translator, chosen_direction

__all__ = ["InferencePrecision", "Model", "Size"]


InferencePrecision = Literal["fp32", "bf16"]
"""Number format of the convolutions in translation."""

Size = Literal["trained", "original"] | Side
"""The size at which an image is translated: its shorter side becomes that of training, or so many pixels, or
it keeps its own size."""

PROBE = 512
"""Side in pixels of the image by which the memory of larger ones is estimated."""
MARGIN = 1.2
"""Factor for what is not in proportion to the number of pixels, and for what other processes take."""
SMALL = 2**20
"""Pixels of images for which memory is not estimated."""


@dataclass(frozen=True, eq=False)
class Model:
    """A trained translator, ready to translate pictures. `i2ikit.load` gives one for an exported file.

    Args:
        path: the run folder or the file.
        translator: in eval mode, on the device.
        images: channels of its domains, and the size that it was trained with.
        device: where it computes.
        step: number of training steps of its weights.
        sha256: of the file of averaged weights.
        best: whether these are the run's best weights, not its last.
        dataset: name of the dataset, which may say how images of other numbers of channels are shown.
        precisions: number formats in which it can compute.
    """

    path: Path
    translator: Translator
    images: ImageSpec
    device: torch.device
    step: int
    sha256: str
    best: bool
    dataset: str
    precisions: Sequence[InferencePrecision] = ("fp32", "bf16")
    _bytes_per_pixel: dict[tuple[Direction, InferencePrecision], float] = field(
        default_factory=dict, init=False, repr=False
    )

    def __repr__(self) -> str:
        return f"Model({self.path}: step {self.step}, {self.images.size} px)"

    @torch.no_grad()
    def translate(
        self,
        image: Picture,
        *,
        to: str | None = None,
        source: str | None = None,
        styles: int | Tensor | NDArray[Any] = 8,
        exemplars: Picture | Sequence[Picture] | None = None,
        seed: int = 0,
        size: Size = "trained",
        precision: InferencePrecision = "fp32",
    ) -> Any:
        """Translate an image; the results have its form: PIL images (also for a path), an array, or a tensor.

        Args:
            image: a path, a PIL image, or an array (H, W, C) with uint8 or floats in [0, 1], which is resized
                as `size` says; or a tensor (C, H, W) with uint8 or floats in [-1, 1], which keeps its size.
            to: the domain to translate into.
            source: the domain of the image. If one or both are not given, the translator's first direction
                that fits is used.
            styles: number of random styles; or style codes, (N, style_dim), as from `encode_style`.
            exemplars: one or several images of domain `to`, whose styles are used instead.
            seed: seed for the random styles.
            size: "trained": the shorter side is resized to the training size, and the aspect ratio is kept; a
                number of pixels, from 8 to 4096: to that; "original": the image keeps its size. Exemplars
                always have the training size.
            precision: "bf16" computes with 8 significant bits, which is faster where the processor has
                instructions for it; colours differ by a few of 255 levels.

        Returns:
            One translation for each style, or a single one if the translator is deterministic: a list of
            PIL images, an array (N, H, W, C), or a tensor (N, C, H, W).

        Raises:
            RunError: it cannot translate into `to`, from `source`, with these styles or in this precision; or
                the translation is not finite.
            DataError: an image cannot be read, an argument is not an image, or the image is too large for the
                memory.
        """
        if precision not in self.precisions:
            raise RunError(f"{self.path} computes in {' or '.join(self.precisions)}, not in {precision}")
        direction = self.direction(source, to)
        side = self.side(size)
        if isinstance(image, Tensor) and not isinstance(size, str):
            raise RunError(f"size = {size}, but a tensor keeps its size; resize it first")
        x = loaded(image, self.images.channels[direction.source], side).to(self.device)
        codes = self.codes(styles, exemplars, direction.to, seed)
        self._check_memory(x, direction, precision)
        try:
            with out_of_memory_named():
                images = self._translated(x, codes, direction, precision)
        except OutOfMemory as error:
            raise DataError(_too_large(x, "there is not enough memory to translate it")) from error
        if not images.isfinite().all():
            raise RunError(
                f"{self.path}: the translation is not finite (NaN or inf), because training went wrong: "
                "train again with a lower learning rate"
            )
        return made_like(images, image)

    def _translated(
        self, x: Tensor, codes: Tensor, direction: Direction, precision: InferencePrecision
    ) -> Tensor:
        """x (1, C, H, W) with each of the codes (K, style_dim): (K, C, H, W)."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16"):
            return self.translator.translate_with_each(x, codes, **direction._asdict()).to(x.dtype)

    def side(self, size: Size) -> int | None:
        """The shorter side of images in pixels at a size; None if images keep theirs.

        Raises:
            RunError: there is no such size.
        """
        try:
            TypeAdapter(Size).validate_python(size, strict=True)
        except ValidationError as error:
            raise RunError(
                f"size = {size!r}; should be 'trained', 'original' or a number of pixels from 8 to 4096"
            ) from error
        if isinstance(size, str):
            return self.images.size if size == "trained" else None
        return size

    def _check_memory(self, x: Tensor, direction: Direction, precision: InferencePrecision) -> None:
        """Refuse an image (1, C, H, W) that is too large for the memory, on CPUs.

        Systems often grant more memory than there is, and end the process when it is used. What a smaller
        image takes is measured once; what is taken is proportional to the number of pixels.

        Raises:
            DataError: there is not enough memory.
        """
        pixels = x[0, 0].numel()
        if x.device.type != "cpu" or pixels <= SMALL:
            return
        if (direction, precision) not in self._bytes_per_pixel:
            small = x.new_zeros(1, x.shape[1], PROBE, PROBE)
            code = x.new_zeros(1, self.translator.style_length(direction.to))
            taken = memory_taken(lambda: self._translated(small, code, direction, precision))
            self._bytes_per_pixel[direction, precision] = taken / PROBE**2
        needed = self._bytes_per_pixel[direction, precision] * pixels * MARGIN
        free = available_memory()
        if needed > free:
            reason = (
                f"to translate it takes about {needed / 1e9:.1f} GB of memory; {free / 1e9:.1f} GB are free"
            )
            raise DataError(_too_large(x, reason))

    @torch.no_grad()
    def encode_style(self, image: Picture, domain: str | None = None) -> Tensor:
        """The style code of an image, (1, style_dim).

        Args:
            image: as `translate` takes it.
            domain: the domain of the image; the default domain to translate into if not given.

        Raises:
            RunError: the translator has no style encoder, or none for this domain.
            DataError: the image cannot be read.
        """
        domain = self.direction(None, domain).to
        if not isinstance(self.translator, StyleEncoding):
            raise RunError(f"{self.path}: its translator has no style encoder and cannot follow exemplars")
        x = loaded(image, self.images.channels[domain], self.images.size)
        return self.translator.encode_style(x.to(self.device), domain)

    def direction(self, source: str | None = None, to: str | None = None) -> Direction:
        """The translator's first direction with this source and target, if they are given.

        Raises:
            RunError: there is none.
        """
        return chosen_direction(self.translator, source, to)

    def codes(
        self,
        styles: int | Tensor | NDArray[Any],
        exemplars: Picture | Sequence[Picture] | None,
        to: str,
        seed: int,
    ) -> Tensor:
        """Style codes, (N, style_dim): encoded from exemplars, as given, or random; (1, 0) if deterministic.

        Raises:
            RunError: there are none, or they have the wrong length.
        """
        if several := _several(exemplars):
            return torch.cat([self.encode_style(exemplar, to) for exemplar in several])
        length = self.translator.style_length(to)
        if not length:
            return torch.empty(1, 0, device=self.device)
        if isinstance(styles, int | np.integer) and not isinstance(styles, bool):
            if styles < 1:
                raise RunError(f"styles = {styles}; 1 or more are needed")
            return random_styles(self.translator, int(styles), to, seed).to(self.device)
        if not isinstance(styles, Tensor | np.ndarray):
            raise RunError(f"styles should be a number, or codes (N, {length}), got {styles!r}")
        codes = as_floats(styles) if isinstance(styles, Tensor) else floats_from(styles)
        if codes.ndim != 2 or codes.shape[1] != length or not len(codes):
            raise RunError(f"style codes should be (N, {length}), got {tuple(codes.shape)}")
        if not codes.isfinite().all():
            raise RunError("style codes should be finite numbers")
        return codes.to(self.device)

    def pictures(self, images: Tensor, domain: str) -> Tensor:
        """Images (N, C, H, W) of a domain as pictures (N, 1 or 3, H, W), as its dataset shows them."""
        try:
            dataset = registries["datasets"].load(self.dataset)
        except I2IKitError:  # it is not installed here
            dataset = None
        return pictures(dataset, images, domain)


def _too_large(x: Tensor, reason: str) -> str:
    height, width = x.shape[2:]
    return f"the image has {width}x{height} px, and {reason}; choose a smaller size"


def _several(exemplars: Picture | Sequence[Picture] | None) -> list[Picture]:
    """Exemplars as a list, also if only one is given.

    Raises:
        RunError: an array or a tensor is empty.
    """
    if exemplars is None:
        return []
    if isinstance(exemplars, Tensor | np.ndarray) and not len(exemplars):
        raise RunError("exemplars is empty; give one image or more")
    one = isinstance(exemplars, Tensor | np.ndarray) and exemplars.ndim < 4
    if one or isinstance(exemplars, str | Path | Image.Image):
        return [exemplars]  # type: ignore[list-item]
    return list(exemplars)

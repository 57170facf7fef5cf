"""What an exported file says about itself: one JSON object in the metadata of each format."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from i2ikit.model import Model
from i2ikit.translator import Direction

__all__ = ["KEY", "About", "Domain", "Precision", "Style"]

KEY = "i2ikit"
"""Name of the JSON object in the metadata of ONNX and safetensors; in .pt2, the extra file is i2ikit.json."""

NORMALISATION = "value = 2 * level / 255 - 1, for levels from 0 to 255"
SIZES = "any height and width: the program repeats the right and lower edges as needed, and crops its result"

Precision = Literal["fp32", "fp16"]
"""How weights are stored; programs compute in fp32."""

FILE_NAME = r"^[^/\\\x00-\x1f]*[^/\\\x00-\x1f.][^/\\\x00-\x1f]*$"
"""A name beside the file: not a path, and not only dots."""

Name = Annotated[str, Field(pattern=r"^[\w-]{1,64}$")]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class Domain(_Part):
    """A domain, as `ImageSpec` has it."""

    name: Name
    channels: Annotated[int, Field(ge=1, le=65536)]


class Style(_Part):
    """The style codes of translations.

    Args:
        length: style_dim; 0 for a deterministic translator, whose program has no input `style`.
        distribution: of random codes; None if it is not the standard normal one.
        encoder: name of the file of the style encoder, beside that of the translation; None if there is none.
        encoder_sha256: of that file.
    """

    length: Annotated[int, Field(ge=0, le=2**20)]
    distribution: Literal["standard normal"] | None = None
    encoder: Annotated[str, Field(max_length=255, pattern=FILE_NAME)] | None = None
    encoder_sha256: Digest | None = None


class About(_Part):
    """The metadata of an exported file.

    Args:
        graph: what the file computes; "weights" for a file of tensors.
        source, to: the direction of translation; None in a file of tensors, which holds all of them.
        domains: all domains of the translator, in its order.
        size: side of the images that it was trained with, in pixels.
        minimum, multiple_of: sides that the networks accept. Programs pad other sizes, and crop.
        values: range of the values of images, in and out.
        step, weights_sha256, best: of the weights, see `Model`.
        dataset: name of the dataset.
        licence: of the weights, as their owner has stated it.
        versions: of the packages that made the file.
    """

    format: Literal[1] = 1
    graph: Literal["translation", "style encoder", "weights"]
    translator: str
    source: Name | None
    to: Name | None
    domains: Annotated[list[Domain], Field(min_length=1, max_length=1000)]
    style: Style
    size: Annotated[int, Field(ge=1, le=65536)]
    minimum: Annotated[int, Field(ge=1, le=2**20)]
    multiple_of: Annotated[int, Field(ge=1, le=2**20)]
    sizes: str = SIZES
    values: list[float] = [-1.0, 1.0]
    normalisation: str = NORMALISATION
    layout: str = "NCHW, float32"
    precision: Precision
    step: Annotated[int, Field(ge=0, le=2**62)]
    weights_sha256: Digest
    best: bool
    dataset: str
    licence: str
    versions: dict[str, str]

    def json_text(self) -> str:
        """As JSON; `model_validate_json` reads it."""
        return self.model_dump_json(indent=1)


def about_model(
    model: Model,
    translator: str,
    direction: Direction,
    style: Style,
    precision: Precision,
    licence: str | None,
) -> About:
    """What is said about the translation in this direction."""
    sides = model.translator.size_required_by()
    return About(
        graph="translation",
        translator=translator,
        source=direction.source,
        to=direction.to,
        domains=[Domain(name=d, channels=c) for d, c in model.images.channels.items()],
        style=style,
        size=model.images.size,
        minimum=sides.minimum,
        multiple_of=sides.multiple_of,
        precision=precision,
        step=model.step,
        weights_sha256=model.sha256,
        best=model.best,
        dataset=model.dataset,
        licence=licence or "not stated",
        versions={
            "i2ikit": version("i2ikit"),
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
    )

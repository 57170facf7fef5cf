"""The file of averaged weights: equal bytes for equal weights, and a checksum that finds every damage.

A safetensors file whose metadata has one key with sorted JSON, because safetensors writes several keys in
random order. The JSON holds the format, the step, the images and a sha256 of the whole file, with zeros in
the place of its own digits. One file, so that it is replaced in one moment while others read it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from i2ikit.errors import DataError, RunError
from i2ikit.finite import names, not_finite
from i2ikit.translator import ImageSpec
from i2ikit.writing import replace_file

__all__ = ["WeightsFile", "read_weights", "step_of", "write_weights"]

KEY = "i2ikit"
FORMAT = 2
UNSUMMED = "1"
"""The format before there was a checksum; its metadata has several keys."""
ZEROS = "0" * 64
MALFORMED = (DataError, AttributeError, LookupError, OverflowError, RuntimeError, TypeError, ValueError)
"""What reading values of unexpected types raises."""


@dataclass(frozen=True)
class WeightsFile:
    """The content of weights.safetensors or best.safetensors.

    Args:
        tensors: by `role.name`.
        step: number of training steps.
        sha256: of the file, as `sha256sum` prints it; the same for equal weights.
        has_checksum: False if it was written by an earlier version.
    """

    tensors: Mapping[str, Tensor]
    images: ImageSpec
    step: int
    sha256: str
    has_checksum: bool


def write_weights(file: Path, tensors: Mapping[str, Tensor], images: ImageSpec, step: int) -> None:
    """Write a file of weights, replaced atomically.

    Args:
        tensors: on the CPU. Those that are not finite are listed in the file, because a buffer may begin
            with inf, such as a running minimum.

    Raises:
        RunError: it cannot be written; the earlier file stays.
    """
    facts = {
        "format": FORMAT,
        "images": [dict(images.channels), images.size],
        "not_finite": not_finite(tensors),
        "sha256": ZEROS,
        "step": step,
    }
    content = safetensors.torch.save(dict(tensors), {KEY: json.dumps(facts, sort_keys=True)})
    place = content.index(ZEROS.encode())  # the metadata comes before all names and tensors
    digest = hashlib.sha256(content).hexdigest().encode()
    replace_file(file, content[:place], digest, memoryview(content)[place + len(digest) :])


def read_weights(file: Path) -> WeightsFile:
    """Read a file of weights in one go, because a running training may replace it.

    Raises:
        RunError: it is damaged, was not written by i2ikit, or holds values that are not finite.
        OSError: it cannot be read.
    """
    content = file.read_bytes()
    try:
        metadata = _metadata(content)
        facts = _facts(content, metadata)
        channels, size = facts["images"]
        images, step = ImageSpec(dict(channels), int(size)), int(facts["step"])
        usual = set(facts["not_finite"])
        tensors = safetensors.torch.load(content)
    except (SafetensorError, *MALFORMED) as error:
        raise RunError(
            f"{file} is damaged, or was not written by i2ikit: {error}. Restore it from a "
            "copy; `i2ikit resume` writes weights.safetensors again from the newest checkpoint"
        ) from error
    if bad := [name for name in not_finite(tensors) if name not in usual]:
        raise RunError(
            f"{file} holds values that are not finite (NaN or inf), in {names(bad)}: training "
            "went wrong before it was saved. Train again with a lower learning rate"
        )
    return WeightsFile(tensors, images, step, hashlib.sha256(content).hexdigest(), KEY in metadata)


def step_of(file: Path) -> int | None:
    """The number of training steps of a file of weights; None without one, or if it is damaged.

    Reads its metadata only, without the checksum.
    """
    try:
        with safetensors.safe_open(file, "pt") as opened:
            metadata = opened.metadata()
            return int(json.loads(metadata[KEY])["step"] if KEY in metadata else metadata["step"])
    except (SafetensorError, OSError, *MALFORMED):
        return None


def _metadata(content: bytes) -> Mapping[str, str]:
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return header["__metadata__"]


def _facts(content: bytes, metadata: Mapping[str, str]) -> dict[str, Any]:
    """What the file says about itself, after checking its checksum if it has one."""
    if KEY not in metadata:
        if metadata["format"] != UNSUMMED:
            raise ValueError(f"its format is {metadata['format']!r}")
        return {"images": json.loads(metadata["images"]), "step": metadata["step"], "not_finite": []}
    facts = json.loads(metadata[KEY])
    if facts["format"] != FORMAT:
        raise ValueError(f"its format is {facts['format']!r}")
    digest = str(facts["sha256"])
    place = content.index(digest.encode())
    zeros = ZEROS.encode()
    sums = hashlib.sha256(content[:place])
    sums.update(zeros)
    sums.update(memoryview(content)[place + len(zeros) :])
    if sums.hexdigest() != digest:
        raise ValueError("its content does not match its checksum")
    return facts

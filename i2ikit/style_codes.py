"""Files of style codes: `.safetensors`, which says what they are for, or `.npy`, which holds them alone."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from i2ikit.errors import DataError, RunError, in_one_line
from i2ikit.writing import check_writable, replace_file, writing

__all__ = ["MOST_CODES", "AboutCodes", "CodesFile", "check_codes_file", "read_codes", "write_codes"]

TENSOR = "styles"
KEY = "i2ikit"
"""Name of the JSON object in the metadata of a .safetensors file."""
ENDINGS = (".safetensors", ".npy")
MOST_BYTES = 100_000_000
MOST_CODES = 1000


class AboutCodes(BaseModel):
    """What a .safetensors file says about its codes.

    Args:
        domain: the domain that translations with them are in.
        weights_sha256, step: of the weights of the translator, see `Model`.
        seed: of random styles.
        exemplars: names of the images that they are encoded from.
        codes_sha256: of the file that they were read from.
    """

    model_config = ConfigDict(strict=True, frozen=True)

    domain: Annotated[str, Field(max_length=100)]
    weights_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    step: Annotated[int, Field(ge=0, le=2**62)]
    seed: int | None = None
    exemplars: list[str] | None = None
    codes_sha256: str | None = None


@dataclass(frozen=True)
class CodesFile:
    """The content of a file of style codes.

    Args:
        codes: (K, style_dim), finite, float32.
        sha256: of the file.
        about: what it says about them, if it does.
    """

    codes: Tensor
    sha256: str
    about: AboutCodes | None


def read_codes(path: str | Path) -> CodesFile:
    """Read style codes, (K, style_dim) or (style_dim,), of floating-point numbers; nothing is unpickled.

    A .safetensors file has them as its tensor "styles", or as its only tensor.

    Raises:
        DataError: no such file, not a file of style codes, damaged, too large, or not finite; names the file.
    """
    path = Path(path)
    _check_file(path)
    try:
        content = path.read_bytes()
        found, about = (
            _in_safetensors(content) if path.suffix.lower() == ENDINGS[0] else (_in_npy(content), None)
        )
        codes = found[None] if found.ndim == 1 else found
        _check(codes, tuple(found.shape))
    except Exception as error:  # numpy and safetensors raise many types of errors
        reason = str(error) if isinstance(error, DataError) else in_one_line(error)
        raise DataError(f"{path}: not a readable file of style codes ({reason})") from error
    return CodesFile(codes, hashlib.sha256(content).hexdigest(), about)


def _check_file(path: Path) -> None:
    """Raise DataError unless the path is a file that may be opened."""
    reason = None
    if path.suffix.lower() not in ENDINGS:
        reason = f"the ending of its name is not {' or '.join(ENDINGS)}"
    elif not os.path.lexists(path):
        reason = "there is no such file"
    elif not path.is_file():
        reason = "it is not a regular file"
    elif path.stat().st_size > MOST_BYTES:
        reason = f"it has more bytes than the limit of {MOST_BYTES // 10**6} MB"
    if reason:
        raise DataError(f"{path}: not a readable file of style codes ({reason})")


def _in_npy(content: bytes) -> Tensor:
    file = io.BytesIO(content)
    formats = np.lib.format
    major, _ = formats.read_magic(file)
    shape, _, dtype = (formats.read_array_header_1_0 if major == 1 else formats.read_array_header_2_0)(file)
    if dtype.kind != "f":
        raise DataError(f"its values are {dtype}, not floating-point numbers")
    if math.prod(shape) * dtype.itemsize > len(content) - file.tell():
        raise DataError(f"it ends before its {dtype} values of shape {shape}")
    file.seek(0)
    array = formats.read_array(file, allow_pickle=False)
    with np.errstate(over="ignore"):  # inf is refused later
        return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))


def _in_safetensors(content: bytes) -> tuple[Tensor, AboutCodes | None]:
    tensors = safetensors.torch.load(content)
    if TENSOR not in tensors and len(tensors) != 1:
        raise DataError(f"it has {len(tensors)} tensors, and none of them is '{TENSOR}'")
    found = tensors.get(TENSOR, next(iter(tensors.values())))
    if not found.is_floating_point():
        raise DataError(
            f"its values are {str(found.dtype).removeprefix('torch.')}, not floating-point numbers"
        )
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return found.float(), _about(header.get("__metadata__", {}))


def _about(metadata: Mapping[str, str]) -> AboutCodes | None:
    if KEY not in metadata:
        return None
    try:
        return AboutCodes.model_validate_json(metadata[KEY])
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise DataError(f"its metadata '{KEY}' cannot be used: {where or 'it'}: {problem['msg']}") from error


def _check(codes: Tensor, shape: tuple[int, ...]) -> None:
    """Raise DataError unless the codes, from a tensor of this shape, are (K, style_dim) and finite."""
    if codes.ndim != 2 or not codes.numel():
        raise DataError(f"its shape is {shape}, not (K, style_dim) or (style_dim,)")
    if len(codes) > MOST_CODES:
        raise DataError(f"its {len(codes)} codes are more than the limit of {MOST_CODES}")
    if not codes.isfinite().all():
        raise DataError("a value is NaN, inf, or too large for float32")


def check_codes_file(path: Path, length: int) -> None:
    """Check that style codes can be written to a path; a file of other content is not replaced.

    Args:
        length: style_dim; a .npy file is taken for style codes if its codes have this length.

    Raises:
        RunError: they cannot.
    """
    if path.suffix.lower() not in ENDINGS:
        raise RunError(f"{path}: the name of a file of style codes should end in {' or '.join(ENDINGS)}")
    if os.path.lexists(path):
        try:
            found = read_codes(path)
        except DataError:
            found = None
        ours = found is not None and (found.about is not None or path.suffix.lower() == ENDINGS[1])
        if found is None or not ours or found.codes.shape[1] != length:
            raise RunError(
                f"{path} exists and is not a file of {length}-dimensional style codes, so it is not "
                "replaced; give another name"
            )
    check_writable(path.parent)


def write_codes(path: Path, codes: Tensor, about: AboutCodes) -> None:
    """Write style codes (K, style_dim) to a path that passes `check_codes_file`; an earlier file is replaced.

    Raises:
        RunError: it cannot be written; an earlier file stays.
    """
    codes = codes.detach().float().cpu().contiguous()
    if path.suffix.lower() == ENDINGS[0]:
        metadata: dict[str, Any] = {KEY: about.model_dump_json(exclude_none=True)}
        content = safetensors.torch.save({TENSOR: codes}, metadata)
    else:
        file = io.BytesIO()
        np.save(file, codes.numpy())
        content = file.getvalue()
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, content)

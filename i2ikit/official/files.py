"""Reading the files in which official repositories keep weights; none of them runs code."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from i2ikit.errors import WeightsError, in_one_line, shortened

__all__ = ["read_weights_file"]

MOST_LEVELS = 2
"""MUNIT's files hold one state dict for each domain."""


def read_weights_file(path: Path) -> dict[str, Any]:
    """The state dict in a .pth or .pt file, or a dict of state dicts; tensors are on the CPU, floats in fp32.

    Raises:
        WeightsError: it cannot be read, holds other things than tensors, or values that are not finite.
    """
    try:
        # torch writes archives without compression; a compressed one could unpack to any size.
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                    raise WeightsError(f"{path} is compressed, which files of torch.save are not")
        found = torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # torch.load raises many types of errors
        reason = shortened(in_one_line(error), 200)
        raise WeightsError(
            f"{path} is not a file of weights that torch can load safely ({reason})"
        ) from error
    return _checked(found, path, "", MOST_LEVELS)


def _checked(found: Any, path: Path, where: str, levels: int) -> dict[str, Any]:
    """A dict of tensors, or of such dicts."""
    place = f" at '{shortened(where)}'" if where else ""
    if not isinstance(found, Mapping) or not found or levels == 0:
        raise WeightsError(f"{path} holds {type(found).__name__}{place}, not a state dict")
    made: dict[str, Any] = {}
    for name, value in found.items():
        if not isinstance(name, str):
            raise WeightsError(f"{path} has the key {name!r}{place}, which is not a name")
        full = f"{where}.{name}" if where else name
        made[name] = (
            _tensor(value, path, full)
            if isinstance(value, Tensor)
            else _checked(value, path, full, levels - 1)
        )
    return made


def _tensor(x: Tensor, path: Path, name: str) -> Tensor:
    plain = x.layout == torch.strided and not x.is_quantized and not x.is_complex() and x.device.type == "cpu"
    if not plain:
        raise WeightsError(f"{path}: '{shortened(name)}' is not a plain tensor")
    if not x.isfinite().all():
        raise WeightsError(f"{path}: '{shortened(name)}' holds values that are not finite (NaN or inf)")
    return (x.float() if x.is_floating_point() else x).detach().clone().contiguous()

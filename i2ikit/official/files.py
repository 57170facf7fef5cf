"""Reading the files in which official repositories keep weights; none of them runs code."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from i2ikit.errors import WeightsError, in_one_line, printable, shortened

__all__ = ["read_weights_file"]

KINDS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8)
LONGEST_NAME = 1000
MOST_LEVELS = 2
"""MUNIT's files hold one state dict for each domain."""


def read_weights_file(path: Path) -> dict[str, Any]:
    """The state dict in a .pth or .pt file, or a dict of state dicts; tensors are on the CPU, floats in fp32.

    Raises:
        WeightsError: it cannot be read, holds other things than tensors, or values that are not finite.
    """
    try:
        size = path.stat().st_size
        _check_archive(path, size)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about kinds of tensors that are refused below
            found = torch.load(path, map_location="cpu", weights_only=True)
            return _Reader(path, size).read(found, "", MOST_LEVELS)
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # torch.load and its tensors raise many types of errors
        reason = shortened(in_one_line(error), 200)
        raise WeightsError(
            f"{path} is not a file of weights that torch can load safely ({reason})"
        ) from error


def _check_archive(path: Path, size: int) -> None:
    """Refuse an archive that unpacks to more than it has: torch writes each member once, uncompressed."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise WeightsError(f"{path} is compressed, which files of torch.save are not")
    if sum(member.file_size for member in members) > size:
        raise WeightsError(f"{path} unpacks to more bytes than it has, which files of torch.save do not")


@dataclass
class _Reader:
    """Copies the tensors of a file, which may not need more memory than the file has bytes.

    Args:
        left: bytes that are left for tensors. Views may repeat the numbers of a small file without end.
    """

    path: Path
    left: int

    def read(self, found: Any, where: str, levels: int) -> dict[str, Any]:
        """A dict of tensors, or of such dicts.

        Raises:
            WeightsError: it holds something else.
        """
        place = f" at '{printable(where)}'" if where else ""
        if not isinstance(found, Mapping) or not found or levels == 0:
            raise WeightsError(f"{self.path} holds {type(found).__name__}{place}, not a state dict")
        made: dict[str, Any] = {}
        for name, value in found.items():
            if not isinstance(name, str) or len(name) > LONGEST_NAME:
                what = f"of type {type(name).__name__}" if not isinstance(name, str) else "that is too long"
                raise WeightsError(f"{self.path} has a key {what}{place}, which is not the name of a tensor")
            full = f"{where}.{name}" if where else name
            nested = not isinstance(value, Tensor)
            made[name] = self.read(value, full, levels - 1) if nested else self._copy(value, full)
        return made

    def _copy(self, x: Tensor, name: str) -> Tensor:
        place = f"{self.path}: '{printable(name)}'"
        plain = x.layout == torch.strided and not x.is_nested and not x.is_quantized
        if not plain or x.dtype not in KINDS or x.device.type != "cpu":
            raise WeightsError(f"{place} is not a plain tensor of numbers")
        self.left -= x.numel() * x.element_size()
        if self.left < 0:
            raise WeightsError(f"{place}: the tensors are larger than the file")
        made = (x.float() if x.is_floating_point() else x).detach().clone().contiguous()
        if not made.isfinite().all():
            raise WeightsError(f"{place} holds values that are not finite (NaN or inf) in fp32")
        return made

"""Array files (.npy), whose headers are checked before memory is allocated."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from i2ikit.data.reading import ARRAY_ENDING, check_file, check_shape
from i2ikit.errors import DataError, in_one_line

__all__ = ["check_array", "check_extent", "read_array"]

MOST_VALUES = 32_000_000
"""Values of an array that becomes float32."""


def read_array(path: Path) -> NDArray[Any]:
    """The array in a .npy file.

    Raises:
        DataError: no such file, not an array, cut off, or too large; names the file.
    """
    with _opened(path) as file:
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)  # np.load also reads other formats


def check_array(path: Path) -> None:
    """Check an .npy file as `read_array` does, as far as its header and its size show it.

    Raises:
        DataError: as `read_array`.
    """
    with _opened(path):
        pass


def check_extent(shape: Sequence[int], is_picture: bool, name: str) -> None:
    """Check the size of an array (H, W) or (H, W, C).

    Args:
        is_picture: it is treated as a PIL image; others become float32.

    Raises:
        DataError: too many values or pixels, or too thin.
    """
    if not is_picture and math.prod(shape) > MOST_VALUES:
        raise DataError(f"{name}: its {math.prod(shape)} values are more than the limit of {MOST_VALUES}")
    if len(shape) >= 2 and all(shape):
        check_shape(shape[1], shape[0], name)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file, whose header is checked."""
    check_file(path, (ARRAY_ENDING,), "array")
    try:
        with path.open("rb") as file:
            _check_header(file, path)
            yield file
    except DataError:
        raise
    except Exception as error:  # numpy raises many types of errors
        raise DataError(f"{path}: not a readable array ({in_one_line(error)})") from error


def _check_header(file: BinaryIO, path: Path) -> None:
    formats = np.lib.format
    major, _ = formats.read_magic(file)
    shape, _, dtype = (formats.read_array_header_1_0 if major == 1 else formats.read_array_header_2_0)(file)
    if math.prod(shape) * dtype.itemsize > path.stat().st_size - file.tell():
        raise ValueError(f"it ends before its {dtype} values of shape {shape}")
    check_extent(shape, dtype == np.uint8, str(path))

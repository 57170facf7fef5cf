"""ONNX models, run by onnxruntime; loading one runs no code of the file."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from i2ikit.errors import WeightsError, in_one_line
from i2ikit.optional import optional_package

__all__ = ["open_session"]


def open_session(
    model: Path | bytes, purpose: str, providers: Sequence[str] = ("CPUExecutionProvider",)
) -> Any:
    """An ONNX model, ready to run on as many threads as torch uses.

    Args:
        model: a file, or its content.
        purpose: see `optional_package`.
        providers: names of onnxruntime's implementations, in order of preference.

    Raises:
        WeightsError: onnxruntime is not installed, or the file is not an ONNX model.
    """
    onnxruntime = optional_package("onnxruntime", purpose)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised, and need not be printed as well
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        # From bytes, so that the model cannot name other files to be read.
        content = model if isinstance(model, bytes) else model.read_bytes()
        with contextlib.redirect_stdout(io.StringIO()):  # what it raises, it also prints
            return onnxruntime.InferenceSession(content, options, providers=list(providers))
    except Exception as error:  # of the system, of protobuf, of onnxruntime
        name = "the content" if isinstance(model, bytes) else model
        raise WeightsError(
            f"{name} is not an ONNX model with its weights ({in_one_line(error)}); save it with "
            "torch.onnx.export(..., external_data=False). Programs of torch.export (.pt2) are not read: "
            "they can run code"
        ) from error

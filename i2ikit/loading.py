"""Opening what can translate pictures, whatever it is: a run folder, its weights, or an exported file."""

from __future__ import annotations

from pathlib import Path

import torch

from i2ikit.exchange.hub import address_of, pull
from i2ikit.exchange.onnx_model import open_onnx
from i2ikit.model import Model
from i2ikit.run import Run, open_run

__all__ = ["load"]


def load(run: Run | str | Path | None = None, device: str | torch.device | None = None) -> Run | Model:
    """Open a run or an exported file, to translate with it; a run also to evaluate it.

    Args:
        run: the folder of a run, or the weights.safetensors or best.safetensors in it, whose weights are then
            used; or an .onnx file from `i2ikit export`; or hf://ORG/NAME, a run on the Hugging Face Hub. The
            newest run below ./runs if not given. A `Run` is returned unchanged, unless `device` is given.
        device: where to compute, such as "cpu" or "cuda:1"; by default an accelerator if there is one.

    Returns:
        A `Run`; for an .onnx file a `Model`, which has the same `translate`, `encode_style`, `direction`,
        `images` and `step`.

    Raises:
        RunError: there is no such run, file or device; the message lists what is available.
        ExportError: the file was not exported by i2ikit.
        FetchError: the run cannot be downloaded.
    """
    if isinstance(run, str | Path):
        if (address := address_of(run)) is not None:
            return open_run(pull(address), device)
        if Path(run).suffix.lower() == ".onnx":
            return open_onnx(Path(run), device)
    return open_run(run, device)

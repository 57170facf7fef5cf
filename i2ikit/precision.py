"""Number formats of training, and which of them this machine computes quickly."""

from __future__ import annotations

from typing import Literal

import torch

__all__ = ["Precision", "has_bf16", "precision_here", "remark_on"]

Precision = Literal["auto", "fp32", "bf16", "fp16"]
"""Of the networks in training; "auto" is bf16 where the device has instructions for it, else fp32."""

BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
"""Names in `torch.cpu.get_capabilities`: of x86 processors, then of ARM."""


def has_bf16() -> bool:
    """Whether the device that trains here has instructions for bf16.

    On a processor without them, torch takes about ten times as long as in fp32.
    """
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if device is not None:
        return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in BF16_INSTRUCTIONS)


def precision_here(wanted: Precision) -> Precision:
    """The precision to train in: `wanted`, or what "auto" means on this machine."""
    if wanted != "auto":
        return wanted
    return "bf16" if has_bf16() else "fp32"


def remark_on(wanted: Precision) -> str | None:
    """What to tell about a precision that is slow here, or that was chosen because of this; else None."""
    if wanted not in ("auto", "bf16") or has_bf16():
        return None
    why = "this machine has no instructions for bf16"
    if wanted == "auto":
        return f"training in fp32, because {why}"
    return (
        f"{why}, and takes about ten times as long with it as in fp32; training.precision = 'auto' avoids it"
    )

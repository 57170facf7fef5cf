"""Which tensors hold a value that is not finite (NaN or inf)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["names", "not_finite"]

SHOWN = 3
MOST_DIMS = 64  # of torch's operations


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of the tensors that hold NaN or inf, sorted; one CPU-GPU sync in all."""
    floats = {name: x.detach() for name, x in tensors.items() if x.is_floating_point() or x.is_complex()}
    flags = [_all_finite(x) for x in floats.values()]
    if not flags:
        return []
    device = flags[-1].device
    found = torch.stack([flag.to(device) for flag in flags]).tolist()
    return sorted(name for name, is_finite in zip(floats, found, strict=True) if not is_finite)


def _all_finite(x: Tensor) -> Tensor:
    x = x.flatten() if x.dim() > MOST_DIMS else x  # of a forged file
    # torch has no isfinite for floats of 8 bits.
    return (x.float() if x.element_size() == 1 else x).isfinite().all()


def names(found: Iterable[str]) -> str:
    """Some of these names, and the number of the others, for a message."""
    listed: Sequence[str] = list(found)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more

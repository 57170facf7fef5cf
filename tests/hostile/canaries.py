"""Payloads that would create a folder, the canary, if anything ran them."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

__all__ = ["PAYLOADS", "is_alive"]


class _Call:
    """Unpickling it creates the canary."""

    def __init__(self, canary: Path) -> None:
        self.canary = str(canary)

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.canary,)


def is_alive(canary: Path) -> bool:
    """Whether nothing has run the payload."""
    return not canary.exists()


def _pickle(canary: Path) -> bytes:
    return pickle.dumps({"features.0.weight": _Call(canary)})


def _protocol_0(canary: Path) -> bytes:
    return pickle.dumps(_Call(canary), protocol=0)


def _torch(canary: Path) -> bytes:
    file = io.BytesIO()
    torch.save({"features.0.weight": _Call(canary)}, file)
    return file.getvalue()


def _old_torch(canary: Path) -> bytes:
    file = io.BytesIO()
    torch.save({"x": _Call(canary)}, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def _numpy(canary: Path) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([_Call(canary)], dtype=object), allow_pickle=True)
    return file.getvalue()


def _code(canary: Path) -> bytes:
    return f"import os; os.mkdir({str(canary)!r})\n".encode()


def _zip(canary: Path) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("__main__.py", _code(canary))
        archive.writestr("archive/data.pkl", _pickle(canary))
        archive.writestr("archive/version", "3")
        archive.writestr("data/sample_inputs/model.pt", _torch(canary))
        archive.writestr("models/model.json", json.dumps({"graph_module": {"sym_ints": _words(canary)}}))
    return file.getvalue()


def _words(canary: Path) -> str:
    return f"__import__('os').mkdir('{canary}')"


def _expressions(canary: Path) -> bytes:
    words = _words(canary)
    return f'seed = "{words}"\nextends = "{words}"\n[data]\nname = "{words}"\n[translator]\nname = "os:system"\n'.encode()


def _json(canary: Path) -> bytes:
    words = _words(canary)
    return f'{{"py/object": "{words}", "format": "{words}", "step": 2, "__reduce__": ["{words}"]}}\n'.encode()


def _tar(canary: Path) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in (f"{'../' * 20}{str(canary)[1:]}", f"{'../' * 20}{str(canary)[1:]}.png", str(canary)):
            made = tarfile.TarInfo(name)
            made.size = 1
            archive.addfile(made, io.BytesIO(b"x"))
    return file.getvalue()


PAYLOADS: dict[str, Callable[[Path], bytes]] = {
    "pickle": _pickle,
    "torch.save": _torch,
    "pickle of protocol 0": _protocol_0,
    "torch.save of 2019": _old_torch,
    "npy with objects": _numpy,
    "Python": _code,
    "zip": _zip,
    "TOML with expressions": _expressions,
    "JSON with expressions": _json,
    "tar with paths upwards": _tar,
}

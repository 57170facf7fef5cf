"""Files that commands read, damaged, or forged with checksums that are right."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

__all__ = [
    "damaged_bytes",
    "damaged_json",
    "damaged_lines",
    "damaged_safetensors",
    "signed_checkpoint",
    "signed_weights",
]

ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    10**400,
    2**63,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x" * 1000,
    "../../../../etc/passwd",
    "\ud800",
    "\x1b[31m[red]",
    [],
    {},
    [[]],
    [None],
    {"a": {"b": [1, {"c": None}]}},
    [1] * 1000,
)


@st.composite
def damaged_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """The content, cut off, or with some bytes changed, or other content."""
    rng = draw(st.randoms(use_true_random=False))
    match draw(st.sampled_from(("cut", "byte", "byte", "zeros", "noise", "empty", "deep", "twice", "head"))):
        case "cut":
            return content[: rng.randrange(len(content) + 1)]
        case "byte" if content:
            changed = bytearray(content)
            for _ in range(rng.randint(1, 4)):
                changed[rng.randrange(len(content))] = rng.randrange(256)
            return bytes(changed)
        case "zeros":
            return bytes(len(content))
        case "noise":
            return rng.randbytes(300)
        case "deep":
            return b"[" * 100_000
        case "twice":
            return content + content
        case "head":
            return rng.choice((b"\xff" * 8, b"\x00" * 8, (2**62).to_bytes(8, "little"))) + content[8:]
    return b""


@st.composite
def damaged_json(draw: st.DrawFn, content: bytes) -> bytes:
    """JSON with one to three other values, keys or places."""
    rng = draw(st.randoms(use_true_random=False))
    value = json.loads(content)
    for _ in range(draw(st.integers(1, 3))):
        value = _changed(value, rng, draw(st.sampled_from(ODD)))
    return json.dumps(value).encode("utf-8", "surrogatepass")


def _changed(value: Any, rng: random.Random, odd: Any) -> Any:
    """The value with one part replaced by `odd`, or left out, or under another key."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return odd
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = rng.choice(keys)
    changed = value.copy()
    match rng.choice(("inner", "inner", "inner", "drop", "key")):
        case "drop":
            del changed[key]
        case "key" if isinstance(changed, dict):
            changed[rng.choice(("x", "", "../x", *keys))] = changed.pop(key)
        case _:
            changed[key] = _changed(value[key], rng, odd)
    return changed


@st.composite
def damaged_lines(draw: st.DrawFn, content: bytes) -> bytes:
    """JSON lines of which one is damaged."""
    lines = content.splitlines()
    place = draw(st.integers(0, len(lines) - 1))
    lines[place] = draw(st.one_of(damaged_json(lines[place]), damaged_bytes(lines[place])))
    return b"\n".join(lines) + b"\n"


@st.composite
def damaged_safetensors(draw: st.DrawFn, content: bytes) -> bytes:
    """A safetensors file with another header: types, shapes, places, names; or with other bytes."""
    if draw(st.integers(0, 3)) == 0:
        return draw(damaged_bytes(content))
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    rng = draw(st.randoms(use_true_random=False))
    names = [name for name in header if name != "__metadata__"]
    name = rng.choice(names)
    entry = header[name]
    match draw(st.sampled_from(("dtype", "shape", "offsets", "name", "drop", "any", "values", "reshape"))):
        case "dtype":
            entry["dtype"] = rng.choice(("F64", "I64", "I32", "BOOL", "F16", "BF16", "U8", "X", 3, None))
        case "shape":
            entry["shape"] = rng.choice(([2**62], [-1], [], [0], [1] * 100, "x", [1.5]))
        case "reshape":
            entry["shape"] = [*reversed(entry["shape"])] if len(entry["shape"]) > 1 else [1, *entry["shape"]]
        case "offsets":
            entry["data_offsets"] = rng.choice(([0, 2**62], [5, 3], [-4, 0], [0, 0], "x", []))
        case "name":
            header[rng.choice(("x", "", "generator.x", name + ".y", "__metadata__"))] = header.pop(name)
        case "drop":
            del header[name]
        case "any":
            header = _changed(header, rng, draw(st.sampled_from(ODD)))
        case "values":
            body = bytearray(content)
            for _ in range(40):
                place = 8 + size + 4 * rng.randrange((len(content) - 8 - size) // 4)
                body[place : place + 4] = rng.choice(
                    (b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\xff\xff\x7f\x7f")
                )
            return bytes(body)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def signed_weights(content: bytes) -> bytes:
    """A file of weights with the checksum of its present content, if it still has a place for one."""
    at = content.find(b'\\"sha256\\": \\"')
    if at < 0:
        return content
    place = at + len(b'\\"sha256\\": \\"')
    zeroed = content[:place] + b"0" * 64 + content[place + 64 :]
    return content[:place] + hashlib.sha256(zeroed).hexdigest().encode() + content[place + 64 :]


def signed_checkpoint(folder: Path) -> None:
    """Write the manifest again."""
    files = sorted(file for file in folder.iterdir() if file.name != "manifest.json")
    sums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    (folder / "manifest.json").write_text(json.dumps(sums))

"""Tar files that are damaged, or made to cost memory and time."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import tarfile
from collections.abc import Callable

from hypothesis import strategies as st

from tests.image_files import png

__all__ = ["BOMBS", "QUICK", "damaged_tars"]

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gz": lambda content: gzip.compress(content, 1),
    "bz2": lambda content: bz2.compress(content, 1),
    "xz": lambda content: lzma.compress(content, preset=0),
}
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def tar(members: list[tuple[tarfile.TarInfo, bytes]], form: str = "pax") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=FORMATS[form]) as opened:
        for member, content in members:
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    return file.getvalue()


def member(name: str, **facts: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for key, value in facts.items():
        setattr(made, key, value)
    return made


ODD_NAMES = (
    "1.png",
    "1.PNG",
    "../../../../tmp/1.png",
    "/etc/passwd.png",
    "n" * 300 + ".png",
    "d/" * 200 + "1.png",
    "\udcff\udcfe.png",
    "a\nb.png",
    "a\x1b[31m.png",
    ".png",
    "..png",
    "1.",
    "1.a.b.c.d.png",
    "größe.jpg",
    "__meta__/1.png",
    "x" * 100_000 + ".png",
)
TYPES = b"012345678SLKxgVMN\x00\xff"


@st.composite
def damaged_tars(draw: st.DrawFn) -> bytes:
    """A tar file with some of its members, headers or bytes changed."""
    rng = draw(st.randoms(use_true_random=False))
    made = []
    for n in range(draw(st.integers(0, 4))):
        name = draw(st.sampled_from((f"{n}.png", f"{n}.png", *ODD_NAMES)))
        content = draw(st.sampled_from((png(n), png(n)[:100], b"", b"\0" * 2000, b"P6 9999 9999 255 ")))
        facts = {
            "type": draw(st.sampled_from((b"0", b"0", b"0", b"2", b"1", b"5", b"6", b"7"))),
            "linkname": "1.png",
        }
        if draw(st.booleans()):
            odd = {"comment": "x" * 1000, "GNU.sparse.realsize": "99999999999", "GNU.sparse.map": "0,1"}
            facts["pax_headers"] = draw(
                st.sampled_from(({}, {"comment": "x"}, odd, {"size": "-1"}, {"path": "p.png"}))
            )
        made.append((member(name, **facts), content))
    try:
        content = tar(made, draw(st.sampled_from(("pax", "pax", "gnu", "ustar"))))
    except (ValueError, UnicodeEncodeError):  # ustar has no long names
        content = tar(made)
    for _ in range(draw(st.integers(0, 3))):
        content = _damaged(draw, content, rng)
    packed = PACKERS[draw(st.sampled_from(("plain", "plain", "plain", "gz", "bz2", "xz")))](content)
    match draw(st.sampled_from(("whole", "whole", "cut", "byte", "more"))):
        case "cut":
            return packed[: rng.randrange(len(packed) + 1)]
        case "byte" if packed:
            place = rng.randrange(len(packed))
            return packed[:place] + rng.randbytes(1) + packed[place + 1 :]
        case "more":
            return packed + rng.randbytes(700)
    return packed


def _damaged(draw: st.DrawFn, content: bytes, rng: random.Random) -> bytes:
    """The file with one header changed, its checksum set right again."""
    blocks = [
        place for place in range(0, len(content) - 511, 512) if content[place + 257 : place + 262] == b"ustar"
    ]
    if not blocks:
        return content
    place = rng.choice(blocks)
    header = bytearray(content[place : place + 512])
    match draw(st.sampled_from(("size", "type", "name", "any", "checksum"))):
        case "size":
            odd = (
                b"77777777777\0",
                b"-0000000001\0",
                b"00000000000\0",
                b"x" * 12,
                b"\x80" + b"\xff" * 11,
                b"\xff" * 12,
                b"\xff" * 10 + b"\xfe\0",
            )
            header[124:136] = draw(st.sampled_from(odd))
        case "type":
            header[156] = rng.choice(TYPES)
        case "name":
            header[:100] = rng.randbytes(100)
        case "any":
            header[rng.randrange(512)] = rng.randrange(256)
        case "checksum":
            header[148:156] = b"0000000\0"
            return content[:place] + bytes(header) + content[place + 512 :]
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return content[:place] + bytes(header) + content[place + 512 :]


def _zeros(name: str, size: int, pack: Callable[[bytes], bytes], **facts: object) -> bytes:
    """A packed tar file whose one member says that it has `size` zeros, and has them."""
    made = member(name, size=size, **facts)
    header = made.tobuf(tarfile.GNU_FORMAT)
    return pack(header + b"\0" * (size + -size % 512 + 1024))


def _record(key: str, value: str) -> bytes:
    """A record of a pax header: its own length, a key and a value."""
    text = f" {key}={value}\n".encode()
    length = len(text) + 1
    while len(str(length)) + len(text) != length:
        length = len(str(length)) + len(text)
    return str(length).encode() + text


def _pax(body: bytes, form: bytes = b"x") -> bytes:
    """A tar file with an image that such a header comes before."""
    header = member("p", size=len(body), type=form).tobuf(tarfile.GNU_FORMAT)
    return header + body + bytes(-len(body) % 512) + tar([(member("1.png"), b"no picture")])


def _sparse(count: int) -> bytes:
    """A tar file with a sparse member of the newest form, whose map has so many numbers."""
    numbers = str(count // 2).encode() + b"\n" + b"1\n" * count
    records = _record("GNU.sparse.major", "1") + _record("GNU.sparse.minor", "0")
    body = member("1.png", size=len(numbers)).tobuf(tarfile.GNU_FORMAT) + numbers
    header = member("p", size=len(records), type=b"x").tobuf(tarfile.GNU_FORMAT)
    return header + records + bytes(-len(records) % 512) + body + bytes(-len(body) % 512 + 1024)


BOMBS: dict[str, Callable[[], bytes]] = {
    "an image of 1.2 GB in 5 MB": lambda: _zeros("1.png", 1_200_000_000, PACKERS["gz"]),
    "a text of 1.2 GB before the image": lambda: _zeros("1.txt", 1_200_000_000, PACKERS["gz"]),
    "a header of 1.2 GB": lambda: _zeros("x", 1_200_000_000, PACKERS["gz"], type=b"x"),
    "a long name of 1.2 GB": lambda: _zeros("x", 1_200_000_000, PACKERS["gz"], type=b"L"),
    "images of 1.2 GB together, in bz2": lambda: bz2.compress(
        b"".join(_zeros(f"{n}.png", 60_000_000, bytes)[:-1024] for n in range(20)), 9
    ),
    "an image of 99 MB": lambda: _zeros("1.png", 99_000_000, bytes),
    "images of 500 MB in one sample": lambda: b"".join(
        _zeros(f"1.{n}.png", 50_000_000, bytes)[:-1024] for n in range(10)
    ),
    "images of 1.5 GB that are looked at together": lambda: b"".join(
        _zeros(f"a.{n}.x.png", 50_000_000, bytes)[:-1024] for n in range(30)
    ),
    "a sparse image of 8 GB": lambda: _zeros("1.png", 0, bytes, type=b"S"),
    "a header of 300,000 digits": lambda: _pax(b"1" * 300_000),
    "headers of 5,000 digits": lambda: b"".join(_pax(b"1" * 5000)[:-1024] for _ in range(200)),
    "a header of 5 million records": lambda: gzip.compress(
        _pax(b"".join(_record(f"{n:x}", "") for n in range(5_000_000))), 1
    ),
    "a sparse map of 20 million numbers": lambda: gzip.compress(_sparse(20_000_000), 1),
    "long names in long names": lambda: gzip.compress(
        _zeros("L", 50_000_000, lambda x: x[:-1024], type=b"L") * 20, 1
    ),
    "a header for all of 100,000 records": lambda: _pax(
        b"".join(_record(f"{n:x}", "") for n in range(100_000)), b"g"
    ),
}
"""Files that unpack to gigabytes, and files of hundreds of MB, by what is in them."""

QUICK = (
    "a header of 300,000 digits",
    "an image of 1.2 GB in 5 MB",
    "an image of 99 MB",
    "a sparse image of 8 GB",
)
"""Those that take a few seconds."""

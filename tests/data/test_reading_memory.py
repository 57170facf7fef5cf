"""The memory that hostile and the largest allowed files take, measured in a child process."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.picture_formats import chunk, empty_png, exif, png, tiff

GIB = 2**20  # in KiB, the unit of /proc

CHILD = """
import json, re, sys
from pathlib import Path
import numpy as np
from i2ikit.data.images import cropped_to_square, load_image
from i2ikit.data.reading import inspect, read_image
from i2ikit.errors import DataError

def held(name):
    return int(re.search(rf"{name}:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

def as_data(path):
    cropped_to_square(read_image(path, 3), 256, 8192, True, np.random.default_rng(0))

idle = held("VmRSS")
found = {}
for path in map(Path, sys.argv[1:]):
    reads = [lambda: load_image(path, 3, 256), lambda: load_image(path, 3, 4096)]
    if path.suffix != ".npy":
        reads += [lambda: inspect(path, 3), lambda: as_data(path)]
    refused = 0
    for read in reads:
        try:
            read()
        except DataError:
            refused += 1
    found[path.name] = [len(reads) - refused, held("VmHWM") - idle]
print(json.dumps(found))
"""


def measured(paths: list[Path]) -> dict[str, tuple[int, int]]:
    """Of each file, how many ways to read it succeed, and the highest growth of memory so far, in KiB."""
    done = subprocess.run([sys.executable, "-c", CHILD, *paths], capture_output=True, text=True, check=True)
    return {name: (read, grown) for name, (read, grown) in json.loads(done.stdout).items()}


def zeros(count: int) -> bytes:
    """`count` zeros, compressed without holding them."""
    packer = zlib.compressobj(1)
    block = bytes(2**20)
    parts = [packer.compress(block[: min(2**20, count - start)]) for start in range(0, count, 2**20)]
    return b"".join(parts) + packer.flush()


def black_png(width: int, height: int, channels: int = 3, bits: int = 8, after: bytes = b"") -> bytes:
    row = 1 + width * channels * bits // 8
    kind = {1: 0, 3: 2, 4: 6}[channels]
    content = empty_png(width, height, bits, kind, zeros(row * height))
    end = chunk(b"IEND", b"")
    return content.removesuffix(end) + after + end


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures with /proc")
def test_hostile_files_take_less_than_a_tenth_of_a_gibibyte(tmp_path: Path) -> None:
    """Files of a few kilobytes that claim to be large, and those whose metadata expand without end."""
    small = np.zeros((8, 8, 3), np.uint8)
    bomb = zeros(2**30)
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (100000, 100000, 3), }"
    files = {
        "1x50000.png": black_png(1, 50_000),
        "1x1000000.png": black_png(1, 1_000_000),
        "1000000x1.png": black_png(1_000_000, 1),
        "huge.png": empty_png(2**31 - 1, 2**31 - 1),
        "8001.png": empty_png(8001, 8001),
        "text.png": png(small, before=chunk(b"zTXt", b"a\0\0" + bomb)),
        "text2.png": png(small, before=chunk(b"iTXt", b"a\0\1\0\0\0" + bomb)),
        "profile.png": png(small, before=chunk(b"iCCP", b"a\0\0" + bomb)),
        "huge.bmp": b"BM" + struct.pack("<IHHIIiiHHII16x", 54, 0, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0),
        "huge.tif": tiff((small, {256: 2**30, 257: 2**30, 278: 2**30})),
        "tags.tif": tiff((small, {50000: [70_000] * 2_000_000})),
        "claims.npy": b"\x93NUMPY\1\0\x76\0" + header.ljust(117) + b"\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    np.save(tmp_path / "thin.npy", np.zeros((1, 1_000_000), np.float32))
    found = measured(sorted(tmp_path.iterdir()))
    assert len(found) == 13
    assert {name for name, (read, _) in found.items() if read} == set()
    assert max(grown for _, grown in found.values()) < GIB / 10


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures with /proc")
def test_the_largest_files_that_are_read_take_less_than_a_gibibyte(tmp_path: Path) -> None:
    """64 megapixels in the layouts that decoders hold twice, turned, blended, and resized to both extremes."""
    side = 8000
    (tmp_path / "turned.png").write_bytes(black_png(side, side, after=chunk(b"eXIf", exif(6))))
    (tmp_path / "alpha16.png").write_bytes(black_png(side, side, 4, 16))
    (tmp_path / "grey16.png").write_bytes(black_png(side, side, 1, 16))
    Image.new("RGB", (side, side)).save(
        tmp_path / "turned.jpg", progressive=True, subsampling=0, exif=b"Exif\0\0" + exif(6)
    )
    Image.new("RGBA", (side, 5000)).save(tmp_path / "alpha.webp", lossless=True, method=0)
    np.save(tmp_path / "bytes.npy", np.zeros((side, side, 3), np.uint8))
    np.save(tmp_path / "doubles.npy", np.zeros((3200, 3200, 3)))
    found = measured(sorted(tmp_path.iterdir()))
    assert {name: read for name, (read, _) in found.items()} == {
        "turned.png": 4,
        "alpha16.png": 4,
        "grey16.png": 4,
        "turned.jpg": 4,
        "alpha.webp": 4,
        "bytes.npy": 2,
        "doubles.npy": 2,
    }
    assert max(grown for _, grown in found.values()) < GIB, found

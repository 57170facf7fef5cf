"""A tar file is read, or named with what is wrong with it; no file takes a gigabyte, or minutes."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given

from i2ikit.data import shards
from i2ikit.data.shards import Shards
from tests.hostile.tally import Kind, kinds, tried
from tests.hostile.tars import BOMBS, QUICK, damaged_tars
from tests.image_files import write_tars

FOLDERS = ("trainA", "trainB", "testA", "testB")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tars(tmp_path_factory.mktemp("tars"), tars=1)


def read(root: Path) -> None:
    """Everything that training and evaluation read."""
    data = Shards(root=str(root), size=64)
    for split, domain in itertools.product(("train", "test"), "ab"):
        data.count(split, domain)
    for index in range(data.count("test", "a")):
        data.name("test", "a", index).encode(errors="surrogateescape")
        data.image("test", "a", index)
    for images in itertools.islice(data.stream(0, 0, 1, 0), data.count("train", "a") + 1):
        assert images["a"].shape == (3, 64, 64)


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@given(content=damaged_tars())
def test_a_damaged_tar_file(root: Path, content: bytes) -> None:
    for folder in FOLDERS:
        (root / folder / "0000.tar").write_bytes(content)
    shards._size.cache_clear()
    with tried("tar files"):
        read(root)


MEASURED = """
import sys, time
from pathlib import Path
from tests.hostile.test_tars import read
from i2ikit.errors import DataError
def peak():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) * 1024
idle, began = peak(), time.process_time()
said = ""
try:
    read(Path(sys.argv[1]))
except DataError as error:
    said = str(error)
print(peak() - idle, time.process_time() - began, said)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
@pytest.mark.parametrize(
    "bomb", [bomb if bomb in QUICK else pytest.param(bomb, marks=pytest.mark.long) for bomb in BOMBS]
)
def test_a_tar_file_that_unpacks_to_gigabytes_takes_less_than_one(bomb: str, tmp_path: Path) -> None:
    """Of memory beyond that of the idle process."""
    for folder in FOLDERS:
        (tmp_path / folder).mkdir()
    file = tmp_path / "trainA" / "0000.tar"
    file.write_bytes(BOMBS[bomb]())
    for folder in FOLDERS[1:]:
        os.link(file, tmp_path / folder / "0000.tar")
    command = [sys.executable, "-c", MEASURED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    more, seconds, said = done.stdout.split(" ", 2)
    kind = kinds.setdefault("tar files that unpack to gigabytes", Kind())
    kind.count += 1
    kind.refused += 1
    kind.slowest = max(kind.slowest, float(seconds))
    kind.note = (
        f"at most {max(int(more) // 10**6, int(kind.note.split()[2] if kind.note else 0))} MB of memory"
    )
    assert int(more) < 2**30
    assert float(seconds) < 30
    assert "0000.tar" in said

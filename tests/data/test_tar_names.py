"""Which members of a tar file form a sample."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from webdataset.tariterators import group_by_keys, tar_file_expander

from i2ikit.data.shards import Shards
from i2ikit.data.tar_names import Member, grouped
from i2ikit.errors import DataError
from tests.image_files import png


def write_tar(path: Path, names: Sequence[str]) -> Path:
    """Members with these names: pictures if they end as one, else some bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as opened:
        for n, name in enumerate(names):
            content = png(n) if name.endswith(".png") and "._" not in name else b"no picture"
            member = tarfile.TarInfo(name)
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (["cat.v1.0001.png", "cat.v1.0002.png"], ["cat.v1.0001", "cat.v1.0002"]),
        (["2024.05.01 Zürich.png"], ["2024.05.01 Zürich"]),
        (["train/1.png", "./train.v2/2.png"], ["train/1", "./train.v2/2"]),
        (["1.png", "1.mask.png", "1.json", "2.png"], ["1", "2"]),
        (["._1.png", "1.png", ".DS_Store", "x/._2.png", "x/2.png"], ["1", "x/2"]),
        (["__meta__/x.png", "README", "1.png"], ["1"]),
        ([f"f.{n}.png" for n in range(200)], [f"f.{n}" for n in range(200)]),
    ],
)
def test_names_with_dots_folders_and_hidden_files(tmp_path: Path, names: list[str], keys: list[str]) -> None:
    """Counting from the headers, reading and streaming agree on the samples."""
    for folder in ("trainA", "trainB", "testA", "testB"):
        write_tar(tmp_path / folder / "0.tar", names)
    data = Shards(root=str(tmp_path), size=64)
    assert data.count("train", "a") == data.count("test", "b") == len(keys)
    assert [data.name("test", "a", n) for n in range(len(keys))] == keys
    first_red = (data.image("test", "a", 0)[0, 0, 0] + 1) * 127.5
    assert round(float(first_red)) == next(
        n for n, name in enumerate(names) if name.startswith(keys[0] + ".")
    )
    stream = data.stream(0, 0, 1, 0)
    for _ in range(len(keys) + 1):  # an epoch, and the start of the next
        next(stream)


def members(names: Sequence[str], size: int = 1) -> Iterator[Member[None]]:
    return (Member(name, size, None) for name in names)


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (["1.a.png", "1.b.png", "2.a.png", "2.b.png"], ["1", "2"]),
        (["cat.v1.1.a.png", "cat.v1.1.b.PNG", "cat.v1.2.a.png"], ["cat.v1.1", "cat.v1.2"]),
        (["x.y/1.a.png", "x.y/1.b.png", "x.y/1.txt"], ["x.y/1"]),
    ],
)
def test_names_of_pairs(names: list[str], keys: list[str]) -> None:
    assert [key for key, _ in grouped(members(names), paired=True, most_bytes=10)] == keys


def test_plain_names_are_grouped_as_webdataset_does(tmp_path: Path) -> None:
    names = ["1.png", "1.mask.png", "d/2.json", "d/2.png", "3.JPG", "3.cls"]
    path = write_tar(tmp_path / "0.tar", names)
    with path.open("rb") as stream:
        theirs = list(group_by_keys(tar_file_expander([{"url": "", "stream": stream}])))
    expected = [(s["__key__"], {e for e in s if not e.startswith("__")}) for s in theirs]
    assert [
        (key, set(files)) for key, files in grouped(members(names), paired=False, most_bytes=10)
    ] == expected


def test_few_large_members_are_held_at_a_time() -> None:
    """Of 64 that would be looked at, only as many as have the limit together; a sample may not have more."""
    held: list[int] = []
    given = (held.append(n) or Member(f"a.{n}.png", 4, None) for n in range(20))
    assert next(grouped(given, paired=False, most_bytes=10))[0] == "a.0"
    assert held == [0, 1, 2]
    large = ["1.png", "1.mask.png", "1.depth.png"]
    with pytest.raises(ValueError, match="sample '1' has more than 5 MB"):
        list(grouped(members(large, 2_000_000), paired=False, most_bytes=5_000_000))


def test_a_name_that_comes_twice_is_an_error_that_names_it(tmp_path: Path) -> None:
    for folder in ("trainA", "trainB", "testA", "testB"):
        write_tar(tmp_path / folder / "0.tar", ["7.png", "7.PNG"])
    with pytest.raises(DataError, match=r"0\.tar: .*7\.PNG: sample '7' has the ending 'PNG' twice"):
        Shards(root=str(tmp_path), size=64).name("test", "a", 0)


def test_hidden_tar_files_are_left_out_and_said(tmp_path: Path) -> None:
    """macOS writes `._0.tar` next to `0.tar` on foreign disks."""
    for folder in ("trainA", "trainB", "testA", "testB"):
        write_tar(tmp_path / folder / "0.tar", ["1.png"])
    (tmp_path / "trainA" / "._0.tar").write_bytes(b"\0\5\x16\7")
    (tmp_path / "trainA" / "sizes.json").write_text('{"0.tar": 1}')
    (tmp_path / "trainA" / "notes.txt").write_text("x")
    data = Shards(root=str(tmp_path), size=64)
    assert data.count("train", "a") == 1
    (remark,) = data.remarks()
    assert remark.startswith(f"{tmp_path / 'trainA'}: left out 2 files that are not read (")
    assert "hidden: 1" in remark
    assert ".txt: 1" in remark

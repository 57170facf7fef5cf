"""A file is written as a whole or not at all, and an error names it."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from i2ikit import writing
from i2ikit.errors import RunError
from i2ikit.writing import check_name, check_writable, replace_file


def test_a_file_is_replaced_by_the_parts_in_order(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")
    replace_file(tmp_path / "x", b"new ", memoryview(b"parts"))
    assert (tmp_path / "x").read_bytes() == b"new parts"
    assert os.listdir(tmp_path) == ["x"]


def test_a_link_stays_a_link_and_the_mode_is_kept(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")
    (tmp_path / "x").chmod(0o640)
    (tmp_path / "link").symlink_to("x")
    replace_file(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "x").read_bytes() == b"new"
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    replace_file(tmp_path / ("ä" * 127), b"x")
    assert len(os.listdir(tmp_path)) == 1


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    contents = [bytes([n]) * 300_000 for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: [replace_file(tmp_path / "x", content) for _ in range(10)], contents))
    assert (tmp_path / "x").read_bytes() in contents
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise error

    (tmp_path / "x").write_bytes(b"old")
    monkeypatch.setattr(writing, "sync", fail)
    with pytest.raises((RunError, KeyboardInterrupt)) as raised:
        replace_file(tmp_path / "x", b"new")
    if isinstance(error, OSError):
        assert str(raised.value) == f"cannot write {tmp_path / 'x'}: No space left on device"
    assert os.listdir(tmp_path) == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


def test_a_folder_that_can_be_written_is_left_as_it_is(tmp_path: Path) -> None:
    check_writable(tmp_path)
    check_writable(tmp_path / "a" / "b")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("folder", ["file", "file/inner", "file/inner/most"])
def test_a_file_in_the_place_of_a_folder_is_named(folder: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"cannot write .*file.*: there is a file where a folder should be"):
        check_writable(tmp_path / folder)


def test_a_folder_that_may_not_be_written_is_named() -> None:
    with pytest.raises(RunError, match="cannot write /proc/i2ikit: "):
        check_writable(Path("/proc/i2ikit"))


def test_a_name_that_is_not_utf8_is_refused() -> None:
    check_name(Path("größe"))
    with pytest.raises(RunError, match=r"this name is not UTF-8; give the folder another one"):
        check_name(Path(os.fsdecode(b"gr\xf6\xdfe")))

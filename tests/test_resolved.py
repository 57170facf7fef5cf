"""resolved.toml: a change or damage is found, or changes nothing."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import i2ikit
from i2ikit.errors import I2IKitError, RunError
from i2ikit.resolved import RESOLVED, read_resolved, sealed
from i2ikit.run import create_run
from tests.tiny import tiny_recipe


@pytest.fixture
def run(folders: Path, tmp_path: Path) -> Path:
    return create_run(tmp_path / "run", tiny_recipe(folders, "seed=7"))


def test_every_flipped_bit_is_found_or_harmless(run: Path) -> None:
    content = (run / RESOLVED).read_bytes()
    table, has_checksum = read_resolved(run)
    assert has_checksum
    found = 0
    for place in range(len(content)):
        for bit in range(8):
            flipped = content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]
            (run / RESOLVED).write_bytes(flipped)
            try:
                assert read_resolved(run)[0] == table
            except I2IKitError:
                found += 1
    assert found >= 8 * len(content) - 8


def test_a_change_is_refused_with_what_to_do(run: Path) -> None:
    file = run / RESOLVED
    file.write_text(file.read_text().replace("seed = 7", "seed = 8"))
    with pytest.raises(RunError, match=r"(?s)was changed.*resume .*--set KEY=VALUE.*eval --data"):
        i2ikit.resume(run)
    with pytest.raises(RunError, match="does not match its checksum"):
        _ = i2ikit.load(run).recipe
    recipe = i2ikit.load_recipe(file)  # for a new run
    assert recipe.seed == 8
    assert any("was changed after the run with it had begun" in note for note in recipe.notes)


def test_other_line_ends_and_a_byte_order_mark_change_nothing(run: Path) -> None:
    file = run / RESOLVED
    table = read_resolved(run)[0]
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert read_resolved(run) == (table, True)


def test_a_file_of_an_earlier_version_has_a_note(run: Path) -> None:
    file = run / RESOLVED
    text = file.read_text().partition("\n")[2]
    assert i2ikit.load(run).notes == []
    file.write_text(text)
    assert read_resolved(run) == (tomllib.loads(text), False)
    (note,) = i2ikit.load(run).notes
    assert "resolved.toml was written by an earlier version, without a checksum" in note
    assert sealed(text).decode().partition("\n")[2] == text

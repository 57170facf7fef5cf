"""The sample grids of a report: which steps it shows, in which size, whatever there is."""

from __future__ import annotations

import base64
import io
import itertools
import os
from pathlib import Path

import pytest
from PIL import Image

from i2ikit.report.grids import MOST_STEPS, WIDE, _webp, grids
from tests.report.made_up import write_samples


def opened(uri: str) -> Image.Image:
    kind, _, content = uri.partition(",")
    assert kind == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_all_steps_and_directions_are_shown_if_they_fit(tmp_path: Path) -> None:
    """The pictures are those of the files, but for the loss of WebP."""
    write_samples(tmp_path, (0, 10, 20), (132, 82))
    write_samples(tmp_path, (0, 20), (132, 82), "-b2a")
    write_samples(tmp_path, (20,), (132, 82), "-dog-to-cat")
    first, back, third = grids(tmp_path, "a2b")
    assert [grid.direction for grid in (first, back, third)] == ["a2b", "b2a", "dog-to-cat"]
    assert (first.steps, back.steps, third.steps) == ([0, 10, 20], [0, 20], [20])
    assert not any(grid.left_out or grid.shrunk for grid in (first, back, third))
    shown = opened(first.pictures[1]).convert("L").resize((1, 1))
    file = Image.open(tmp_path / "samples/step-000010.png").convert("L").resize((1, 1))
    assert abs(shown.getpixel((0, 0)) - file.getpixel((0, 0))) <= 2  # type: ignore[operator]


def test_many_steps_are_spread_evenly_from_the_first_to_the_last(tmp_path: Path) -> None:
    write_samples(tmp_path, range(0, 1000, 10), (64, 40))
    (grid,) = grids(tmp_path, "a2b")
    assert MOST_STEPS / 2 < len(grid.steps) <= MOST_STEPS
    assert grid.left_out == 100 - len(grid.steps)
    assert (grid.steps[0], grid.steps[-1]) == (0, 990)
    between = {after - before for before, after in itertools.pairwise(grid.steps[:-1])}
    assert between == {40}


def test_reports_of_a_growing_run_encode_each_picture_once(tmp_path: Path) -> None:
    """Training waits for them: 120 reports of three directions."""
    _webp.cache_clear()
    for step in range(0, 1200, 10):
        for suffix in ("", "-b2a", "-c2a"):
            write_samples(tmp_path, (step,), (8, 8), suffix)
        grids(tmp_path, "a2b")
    assert _webp.cache_info().misses == 3 * 120


def test_large_pictures_are_fewer_and_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise of 8 steps in two directions stays within the bytes of all grids, here a few."""
    monkeypatch.setattr("i2ikit.report.grids.BYTES", 100_000)
    for suffix in ("", "-b2a"):
        write_samples(tmp_path, range(0, 80, 10), (1700, 200), suffix)
    found = grids(tmp_path, "a2b")
    contents = [base64.b64decode(uri.partition(",")[2]) for grid in found for uri in grid.pictures]
    assert sum(map(len, contents)) <= 100_000
    for grid in found:
        assert grid.shrunk
        assert grid.steps[-1] == 70
        assert grid.left_out == 8 - len(grid.steps) > 0
        assert opened(grid.pictures[0]).width <= WIDE


def test_a_grid_of_very_many_rows_is_shrunk(tmp_path: Path) -> None:
    """No WebP is higher than 16,383 px."""
    write_samples(tmp_path, (10,), (4, 16_400))
    (grid,) = grids(tmp_path, "a2b")
    assert grid.shrunk
    assert opened(grid.pictures[0]).height == 16_383


def test_files_that_are_damaged_or_no_grids_are_left_out(tmp_path: Path) -> None:
    assert grids(tmp_path, "a2b") == []
    write_samples(tmp_path, (10, 20), (64, 40))
    samples = tmp_path / "samples"
    (samples / "step-000020.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (samples / "step-000030.png").write_bytes(b"")
    (samples / "step-000040.png").mkdir()
    (samples / "mine.png").write_bytes(b"x")
    os.mkfifo(samples / "step-000050.png")
    Image.new("1", (11_000, 11_000)).save(samples / "step-000060.png")  # Pillow warns of its size
    half = (samples / "step-000010.png").read_bytes()
    (samples / "step-000005.png").write_bytes(half[: len(half) // 2])
    (grid,) = grids(tmp_path, "a2b")
    assert grid.steps == [10]


def test_a_grid_that_is_written_anew_is_read_anew(tmp_path: Path) -> None:
    write_samples(tmp_path, (10,), (64, 40))
    (before,) = grids(tmp_path, "a2b")
    Image.new("RGB", (64, 40), "red").save(tmp_path / "samples/step-000010.png")
    (after,) = grids(tmp_path, "a2b")
    assert before.pictures != after.pictures

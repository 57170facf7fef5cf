"""metrics.jsonl over interruptions: each step once, and the time of all commands together."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from rich.console import Console

from i2ikit.runlog import METRICS, RunLog, logged
from tests.tiny import QUIET


def written(folder: Path, *texts: str | bytes) -> Path:
    file = folder / METRICS
    file.write_bytes(b"".join((t.encode() if isinstance(t, str) else t) + b"\n" for t in texts))
    return file


def line(step: int, **values: float) -> str:
    return json.dumps({"step": step, **values})


def test_damaged_lines_are_removed_and_counted(tmp_path: Path) -> None:
    """Bytes that are not UTF-8, other JSON, a line without a step, a part of a line."""
    bad = (b"\xff\xfe", "[1]", '{"elapsed_s": 1.0}', '{"step": "2"}', "", '{"step"')
    file = written(tmp_path, line(1), *bad, line(2), line(3), line(4))
    console = Console(record=True, width=200)
    RunLog(tmp_path, 3, 9, console)
    assert file.read_text() == f"{line(1)}\n{line(2)}\n{line(3)}\n"
    assert "metrics.jsonl was damaged: 6 of its lines could not be read" in console.export_text()


def test_the_part_of_a_line_that_a_kill_leaves_is_no_damage(tmp_path: Path) -> None:
    file = written(tmp_path, line(1), '{"step": 2, "gen')
    console = Console(record=True)
    RunLog(tmp_path, 2, 9, console)
    assert file.read_text() == f"{line(1)}\n"
    assert console.export_text() == ""


def test_a_failure_to_rewrite_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, line(1), line(2))
    before = file.read_bytes()

    def killed(*paths: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        RunLog(tmp_path, 1, 9, QUIET)
    assert file.read_bytes() == before


def test_the_time_goes_on_when_a_run_is_resumed(tmp_path: Path) -> None:
    written(tmp_path, line(1, elapsed_s=100.5), line(2, elapsed_s=200.5), line(3, elapsed_s=300.5))
    log = RunLog(tmp_path, 2, 9, QUIET)
    assert 200.5 <= log.losses(3, {}, {})["elapsed_s"] < 260


def test_what_training_does_not_write_is_left_out(tmp_path: Path) -> None:
    """Such as a damaged or edited file has; every reader can then rely on the kinds of values."""
    large = "1" + 400 * "0"
    written(
        tmp_path,
        '{"step": 1, "a/x": "0.5", "a/y": [1], "a/z": true, "a/n": 2, "remark": 7, "steps_per_s": {}}',
        '{"step": 2, "a/x": NaN, "a/y": -Infinity, "a/z": 1e308, "a/n": ' + large + ', "remark": "said"}',
        *(f'{{"step": {step}, "a/x": 1.0}}' for step in ("true", "-1", large, "2.0", "1e400")),
        '{"step": ' + 5000 * "9" + "}",
        10_000 * "[",
    )
    assert logged(tmp_path) == [
        {"step": 1, "a/n": 2.0},
        {"step": 2, "a/x": None, "a/y": None, "a/z": None, "a/n": None, "remark": "said"},
    ]

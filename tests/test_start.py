"""Two commands at once: one run folder has one writer, and two runs have two folders."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import i2ikit
from i2ikit.errors import RunError
from i2ikit.run import create_run
from tests.tiny import QUIET, stopped_at, tiny_recipe

HOLD = """
import sys
from pathlib import Path
from i2ikit.processes import processes
from i2ikit.start import _reserved
with processes() as group, _reserved(Path(sys.argv[1]), group):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_that_another_command_trains_is_left_alone(folders: Path, tmp_path: Path) -> None:
    """Until that one ends, even by SIGKILL; then it is resumed as usual."""
    options = ("training.checkpoint_every=1", "training.keep=9")
    whole = i2ikit.train(tiny_recipe(folders, *options), tmp_path / "whole", console=QUIET).folder
    run = stopped_at(whole, 1, tmp_path / "run")
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    try:
        with pytest.raises(RunError, match=r"another command is training .*run; wait for it, or stop it"):
            i2ikit.resume(run, console=QUIET)
        assert all(file.read_bytes() == content for file, content in before.items())
    finally:
        holder.kill()
        holder.communicate()
    assert i2ikit.resume(run, console=QUIET).step == 2
    assert i2ikit.resume(run, console=QUIET).step == 2  # it has been released


def test_runs_that_start_in_the_same_second_have_folders_of_their_own(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = tiny_recipe(folders)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: create_run(None, recipe), range(24)))
    assert len(set(made)) == 24
    assert all((folder / "recipe.toml").is_file() for folder in made)


def test_one_folder_goes_to_one_of_the_runs_that_want_it(folders: Path, tmp_path: Path) -> None:
    def attempt(_: int) -> str:
        try:
            return str(create_run(tmp_path / "run", recipe))
        except RunError as error:
            return str(error)

    recipe = tiny_recipe(folders)
    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(attempt, range(24)))
    assert said.count(str(tmp_path / "run")) == 1
    assert sum("already exists" in text for text in said) == 23

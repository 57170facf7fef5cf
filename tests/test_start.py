"""Starting and resuming: images that are damaged or have changed, and two commands at once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rich.console import Console

import i2ikit
from i2ikit.checkpoints import newest_checkpoint
from i2ikit.data.record import DATA_FILE
from i2ikit.errors import DataError, RunError
from i2ikit.run import create_run
from tests.tiny import QUIET, assert_same_training, stopped_at, tiny_recipe

pytestmark = pytest.mark.slow

HOLD = """
import sys
from pathlib import Path
from i2ikit.processes import processes
from i2ikit.run_lock import reserved
with processes() as group, reserved(Path(sys.argv[1]), group):
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


def cut(file: Path) -> None:
    """Leave out the end of a file."""
    file.write_bytes(file.read_bytes()[:-80])


@pytest.mark.parametrize("mode", ["error", "skip"])
def test_damaged_images_are_all_named_before_there_is_a_run(folders: Path, tmp_path: Path, mode: str) -> None:
    """Held-out ones also if damaged images are skipped."""
    cut(folders / "testA" / "2.png")
    (folders / "testB" / "0.png").write_text("no image")
    recipe = tiny_recipe(folders, f"training.damaged_images={mode}")
    with pytest.raises(DataError, match=r"2 damaged images:[^!]*testA/2\.png: [^!]*testB/0\.png: "):
        i2ikit.train(recipe, tmp_path / "run", console=QUIET)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("paired", ["true", "false"])
def test_training_that_skips_damaged_images_resumes_bit_for_bit(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], paired: str
) -> None:
    """They are named on the console and in data.json."""
    cut(folders / "trainA" / "2.png")
    cut(folders / "trainB" / "3.png")
    options = ("training.checkpoint_every=1", "training.keep=9", "training.steps=4", f"data.paired={paired}")
    recipe = tiny_recipe(folders, *options, "training.damaged_images=skip")
    whole = i2ikit.train(recipe, tmp_path / "whole", console=Console(width=500)).folder
    said = capsys.readouterr().out
    assert "warning: 2 damaged images; the next good image takes the place of each:" in said
    assert f"{folders / 'trainB' / '3.png'}: " in said
    kept = json.loads((whole / DATA_FILE).read_text())["damaged"]
    assert "2.png" in kept["a"]
    assert "3.png" in kept["b"]
    run = stopped_at(whole, 2, tmp_path / "run")
    assert i2ikit.resume(run, console=QUIET).step == 4
    assert_same_training(whole, run)
    with pytest.raises(DataError, match="2 damaged images"):
        i2ikit.train(tiny_recipe(folders, *options), tmp_path / "other", console=QUIET)


def change(folders: Path) -> None:
    (folders / "trainB" / "1.png").unlink()


def test_a_run_goes_on_with_other_images_only_if_it_is_told_so(folders: Path, tmp_path: Path) -> None:
    """The run then keeps what they were before, and at which step they changed."""
    options = ("training.checkpoint_every=1", "training.keep=9")
    whole = i2ikit.train(tiny_recipe(folders, *options), tmp_path / "whole", console=QUIET).folder
    run = stopped_at(whole, 1, tmp_path / "a run")
    before = json.loads((run / DATA_FILE).read_text())
    change(folders)
    files = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    with pytest.raises(RunError) as caught:
        i2ikit.resume(run, console=QUIET)
    assert str(caught.value) == (
        f"{run}: its images have changed.\n"
        "  The training images of domain b differ from those in data.json: 5 files now, 6 then.\n"
        "Restore them, or continue with the ones that are there now: "
        f"i2ikit resume '{run}' --data-changed"
    )
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == files
    assert i2ikit.resume(run, data_changed=True, console=QUIET).step == 2
    after = json.loads((run / DATA_FILE).read_text())
    assert after["train"]["b"]["files"] == 5
    del before["changes"]
    assert after["changes"] == [{"step": 1, "before": before}]
    assert i2ikit.resume(run, console=QUIET).step == 2  # nothing has changed since
    assert json.loads((run / DATA_FILE).read_text()) == after


def test_a_run_that_was_made_before_there_were_records_gets_one(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = i2ikit.train(tiny_recipe(folders), tmp_path / "run", console=QUIET).folder
    record = (run / DATA_FILE).read_bytes()
    (run / DATA_FILE).unlink()
    assert i2ikit.resume(run, console=Console(width=500)).step == 2
    assert "note: this run had no data.json; the images that are there now are" in capsys.readouterr().out
    assert (run / DATA_FILE).read_bytes() == record


def test_a_damaged_record_is_named_and_made_anew_only_if_told_so(folders: Path, tmp_path: Path) -> None:
    run = i2ikit.train(tiny_recipe(folders), tmp_path / "run", console=QUIET).folder
    record = (run / DATA_FILE).read_bytes()
    (run / DATA_FILE).write_text("{")
    with pytest.raises(RunError, match=r"data\.json is damaged, so it is not known"):
        i2ikit.resume(run, console=QUIET)
    assert newest_checkpoint(i2ikit.resume(run, data_changed=True, console=QUIET).folder) is not None
    assert (run / DATA_FILE).read_bytes() == record


def test_an_image_damaged_between_two_commands_is_not_replaced_in_silence(
    folders: Path, tmp_path: Path
) -> None:
    """Its size is the same, but decoding shows it."""
    recipe = tiny_recipe(folders, "training.damaged_images=skip", "training.checkpoint_every=1")
    run = i2ikit.train(recipe, tmp_path / "run", console=QUIET).folder
    shutil.rmtree(run / "checkpoints")
    file = folders / "trainA" / "1.png"
    file.write_bytes(b"x" * file.stat().st_size)  # names and sizes are the same
    with pytest.raises(
        RunError, match=r"Other training images of domain a are damaged than data\.json says: 1 now, 0 then"
    ):
        i2ikit.resume(run, console=QUIET)
    assert i2ikit.resume(run, data_changed=True, console=QUIET).step == 2

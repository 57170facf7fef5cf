"""How a run is going, seen from another terminal."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

import i2ikit
from i2ikit.errors import RunError
from i2ikit.processes import ALONE
from i2ikit.run_lock import is_trained_now, reserved
from i2ikit.status import status
from tests.image_files import make_folders
from tests.tiny import QUIET, tiny_recipe

HOLD = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("status")
    recipe = tiny_recipe(make_folders(place / "data"), "training.steps=4", "training.checkpoint_every=2")
    return i2ikit.train(recipe, place / "run", console=QUIET).folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def cut(run: Path, step: int) -> None:
    """As after a kill at a step."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = [json.dumps(line) for line in lines if line["step"] <= step]
    (run / "metrics.jsonl").write_text("\n".join(kept) + "\n")
    shutil.rmtree(run / "checkpoints" / "step-000000004")


def test_a_finished_run_is_done(run: Path) -> None:
    found = status(run)
    assert found.state == "done: 4 steps"
    assert found.checkpoint == 4
    assert "styles differ by" in str(found)


def test_a_run_whose_last_weights_could_not_be_saved_is_not_done(run: Path) -> None:
    """As on a full disk."""
    (run / "weights.safetensors").unlink()
    assert status(run).state.startswith("not training: step 4 of 4 (100%)")


def test_an_earlier_run_is_done() -> None:
    """Its weights have no checksum, and their metadata another form."""
    assert status(Path(__file__).parent / "earlier_run" / "run").weights == 2


def test_a_run_that_was_killed_is_not_training(run: Path) -> None:
    cut(run, 3)
    found = status(run)
    assert found.state.startswith("not training: step 3 of 4 (75%), last logged ")
    assert found.checkpoint == 2


def test_a_run_that_validation_has_ended_is_done(run: Path) -> None:
    cut(run, 3)
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 3, "remark": "stopping early: x was best at step 1"}) + "\n")
    assert status(run).state == "done: 3 steps"


def test_looking_at_a_run_stops_no_command_that_begins_to_train_it(run: Path) -> None:
    """To look, `status` holds the lock for a moment."""
    with ThreadPoolExecutor(1) as pool, FileLock(run / ".lock") as lock:
        waiting = pool.submit(_trains, run)
        time.sleep(0.2)
        lock.release()
        assert waiting.result() is True


def _trains(run: Path) -> bool:
    with reserved(run, ALONE):
        return True


def test_what_a_terminal_would_obey_is_shown_as_text(run: Path) -> None:
    """A remark of a plugin, or of a damaged log, may hold escape sequences."""
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 3, "remark": "\x1b[2J[bold]x"}) + "\n")
    command = [sys.executable, "-m", "i2ikit", "status", str(run)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "step 3: \\x1b[2J[bold]x" in said


def test_a_run_that_another_command_trains_is_seen(run: Path) -> None:
    """Looking does not disturb it, and leaves no file."""
    cut(run, 3)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    try:
        assert status(run).state.startswith("training: step 3 of 4")
    finally:
        holder.kill()
        holder.communicate()
    assert status(run).state.startswith("not training")
    with FileLock(run / ".lock", timeout=0):
        pass
    (run / ".lock").unlink()
    assert is_trained_now(run) is False
    assert not (run / ".lock").exists()


def test_a_run_without_a_log_has_nothing_to_say(run: Path) -> None:
    (run / "metrics.jsonl").unlink()
    found = status(run)
    assert found.state == "not training: step 0 of 4 (0%), nothing logged yet"
    assert str(found) == found.state


def test_remarks_of_training_are_kept(run: Path) -> None:
    """In metrics.jsonl, with their step."""
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 3, "remark": "the update was skipped"}) + "\n")
        file.write(json.dumps({"step": 3, "remark": 7}) + "\n")
    assert status(run).remarks == [(3, "the update was skipped")]


def test_a_fault_that_the_verdict_has_kept_is_said_once(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 4, "diversity/a2b": 0.0}) + "\n")
    (fault,) = status(run).health.faults
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 4, "remark": str(fault)}) + "\n")
    assert status(run).remarks == []


def test_a_folder_that_is_no_checkpoint_is_none(run: Path) -> None:
    for name in ("step-9-copy", "step-000-5", "step-"):
        (run / "checkpoints" / name).mkdir()
    assert status(run).checkpoint == 4


@pytest.mark.parametrize("training", ["", "training = 3", "[training]\nsteps = 0", "[training]\nsteps = inf"])
def test_a_recipe_without_a_number_of_steps_is_named(run: Path, training: str) -> None:
    """Such as an earlier version's, which has no checksum, and was edited."""
    (run / "resolved.toml").write_text(training)
    with pytest.raises(RunError, match=r"resolved\.toml has no number of steps \(training\.steps\)"):
        status(run)

"""What ends training: whatever it is, nothing that can be kept is lost, and the message says what is saved."""

from __future__ import annotations

import errno
import io
import json
import multiprocessing
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import i2ikit
from i2ikit import checkpoints, interruptions, loop, training_run, writing
from i2ikit.cli import main as cli
from i2ikit.errors import DataError, I2IKitError, RunError
from i2ikit.interruptions import STOPPING, Interruptions, how_to_go_on
from i2ikit.recipe import Recipe
from i2ikit.runlog import RunLog
from i2ikit.trackers import Trackers
from tests.image_files import make_folders
from tests.tiny import QUIET, assert_same_training, tiny_recipe

pytestmark = pytest.mark.slow

SHORT = (
    *("training.steps=6", "training.checkpoint_every=3", "training.log_every=2", "training.sample_every=2"),
)
STOP = 4
"""The last step that is done before the error: neither one of a checkpoint, nor the last one."""


def small(folders: Path, *overrides: str) -> Recipe:
    return tiny_recipe(folders, *SHORT, *overrides)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folders(tmp_path_factory.mktemp("images") / "data")


@pytest.fixture(scope="module")
def whole(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never interrupted."""
    return i2ikit.train(small(folders), tmp_path_factory.mktemp("whole") / "run", console=QUIET).folder


def breaks(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, error: BaseException, at: int) -> None:
    """Let the call number `at` (from 1) of a function fail, once."""
    real: Callable[..., object] = getattr(owner, name)
    calls = iter(range(1, 1000))

    def broken(*args: object, **options: object) -> object:
        if next(calls) == at:
            raise error
        return real(*args, **options)

    monkeypatch.setattr(owner, name, broken)


def notes(error: BaseException) -> str:
    return "\n".join(error.__notes__)


def steps_of(run: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*"))


def is_tidy(run: Path) -> bool:
    return not [path for path in run.rglob("*") if ".tmp" in path.name]


FAILURES = {
    "reading": (loop, "training_batches", DataError("trainA/7.png: not a readable image"), 4),
    "logging": (RunLog, "losses", RunError("cannot write metrics.jsonl: No space left on device"), 2),
    "a line of the probe": (RunLog, "write", RunError("cannot write metrics.jsonl"), 5),
    "sampling": (training_run, "save_samples", ZeroDivisionError("a bug"), 3),
    "a second Ctrl-C": (training_run, "save_samples", KeyboardInterrupt(), 3),
    "tensorboard": (Trackers, "write", RunError("cannot write tensorboard"), 4),
}


@pytest.mark.parametrize("place", FAILURES)
def test_an_error_between_two_steps_loses_nothing(
    place: str, whole: Path, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last finished step is saved, the note says so, and resuming gives the uninterrupted run."""
    owner, name, error, at = FAILURES[place]
    run = tmp_path / "my run"
    with monkeypatch.context() as patched:
        if place == "reading":
            real = loop.training_batches

            def batches(*arguments: object) -> Iterator[object]:
                for number, batch in enumerate(real(*arguments)):
                    if number == at:
                        raise error
                    yield batch

            patched.setattr(owner, name, batches)
        else:
            breaks(patched, owner, name, error, at)
        with pytest.raises(type(error)) as raised:
            i2ikit.train(small(folders), run, console=QUIET)
    assert raised.value is error
    assert notes(error) == f"Step {STOP} is saved. To continue: `i2ikit resume '{run}'`"
    del error.__notes__
    assert steps_of(run) == [3, STOP]
    assert i2ikit.load(run).step == STOP
    assert is_tidy(run)
    i2ikit.resume(run, console=QUIET)
    assert_same_training(whole, run)
    pictures = {file.name: file.read_bytes() for file in (whole / "samples").iterdir()}
    assert {file.name: file.read_bytes() for file in (run / "samples").iterdir()} == pictures


@pytest.mark.parametrize("part", ["train_step", "update_ema"])
def test_an_error_inside_a_step_goes_back_to_the_newest_checkpoint_and_says_what_is_lost(
    part: str, whole: Path, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        breaks(patched, loop, part, ZeroDivisionError("a bug"), 6)
        with pytest.raises(ZeroDivisionError) as raised:
            i2ikit.train(small(folders), run, console=QUIET)
    assert "Steps 4 to 5 are lost; the newest checkpoint is that of step 3." in notes(raised.value)
    assert steps_of(run) == [3]
    i2ikit.resume(run, console=QUIET)
    assert_same_training(whole, run)


def test_what_the_sentence_says() -> None:
    said = {
        (n, s): how_to_go_on(Path("r"), n, s).split(".")[0]
        for n, s in ((0, 0), (2, 0), (5, 5), (5, 4), (9, 4))
    }
    assert said == {
        (0, 0): "No step was finished",
        (2, 0): "Steps 1 to 2 are lost; there is no checkpoint yet",
        (5, 5): "Step 5 is saved",
        (5, 4): "Step 5 is lost; the newest checkpoint is that of step 4",
        (9, 4): "Steps 5 to 9 are lost; the newest checkpoint is that of step 4",
    }


@pytest.mark.parametrize("place", ["weights", "checkpoint"])
def test_a_disk_that_is_full_while_saving_leaves_the_earlier_checkpoint_and_no_parts(
    place: str, whole: Path, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    real = checkpoints.sync

    def full(path: Path) -> None:
        late = {"checkpoint": "checkpoints/.tmp-step-000000006" in str(path), "weights": steps_of(run) == [3]}
        if late[place] and (place == "checkpoint" or "weights" in path.name):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "sync", full)
        patched.setattr(writing, "sync", full)
        with pytest.raises(RunError, match=r"cannot write .*: No space left on device") as raised:
            i2ikit.train(small(folders), run, console=QUIET)
    assert is_tidy(run)
    if place == "checkpoint":
        assert "Steps 4 to 6 are lost; the newest checkpoint is that of step 3." in notes(raised.value)
        assert steps_of(run) == [3]
    else:
        assert "Step 6 is saved." in notes(raised.value)
    i2ikit.resume(run, console=QUIET)
    assert_same_training(whole, run)


LIMITED = """
import resource, sys
from i2ikit.cli.main import main
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_file_that_may_not_grow_is_named(folders: Path, tmp_path: Path) -> None:
    """By a limit of the system: real errors of safetensors and of Python's files."""
    recipe = tmp_path / "r.toml"
    recipe.write_text(small(folders, "training.sample_every=0").to_toml())
    command = [sys.executable, "-c", LIMITED, "100000", "run", str(recipe), "--out", "run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "error: cannot write run/" in done.stderr.replace(str(tmp_path) + "/", "")
    assert "are lost; there is no checkpoint yet. To continue: `i2ikit resume" in done.stderr
    assert is_tidy(tmp_path / "run")


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has none")
def test_a_hangup_saves_and_stops_but_not_where_it_is_ignored(
    whole: Path, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `nohup` ignores it."""
    before = signal.getsignal(signal.SIGHUP)
    real = loop.train_step
    for handler, steps, name in ((signal.SIG_DFL, 3, "stopped"), (signal.SIG_IGN, 6, "ignoring")):
        with monkeypatch.context() as patched:
            hangups = iter([0, 0, signal.SIGHUP, *[0] * 9])

            def step(*arguments: object, hangups: Iterator[int] = hangups) -> object:
                if number := next(hangups):
                    os.kill(os.getpid(), number)
                return real(*arguments)

            patched.setattr(loop, "train_step", step)
            signal.signal(signal.SIGHUP, handler)
            try:
                run = tmp_path / name
                (tmp_path / name).mkdir()
                recipe = small(folders)
                (run / "resolved.toml").write_text(recipe.to_toml())
                stopped = loop.train(recipe, recipe.data(), run, console=QUIET)
            finally:
                signal.signal(signal.SIGHUP, before)
        assert (stopped.step, stopped.signal) == (steps, signal.SIGHUP if steps == 3 else None)
        assert steps_of(run)[-1] == steps


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("place", ["save_samples", "save_checkpoint"])
def test_a_run_that_was_stopped_has_the_lines_of_one_that_was_not(
    place: str,
    number: signal.Signals,
    whole: Path,
    folders: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A signal while saving or sampling is honoured afterwards; the stop itself adds no line."""
    real = getattr(training_run, place)
    calls = iter(range(9))

    def signalled(*arguments: object, **options: object) -> object:
        if next(calls) == (1 if place == "save_samples" else 0):
            os.kill(os.getpid(), number)
        return real(*arguments, **options)

    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(training_run, place, signalled)
        i2ikit.train(small(folders), run, console=QUIET)
    assert steps_of(run) == [{"save_samples": 2, "save_checkpoint": 3}[place]]
    i2ikit.resume(run, console=QUIET)
    assert_same_training(whole, run)


def test_an_error_is_printed_with_what_is_saved(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text(small(folders).to_toml())
    breaks(monkeypatch, training_run, "save_samples", DataError("testA/1.png: not a readable image"), 3)
    monkeypatch.setattr(sys, "argv", ["i2ikit", "run", str(recipe), "--out", "run"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exited:
        cli.main()
    assert exited.value.code == 2
    said = capsys.readouterr().err
    assert said == (
        f"error: testA/1.png: not a readable image\nStep {STOP} is saved. To continue: `i2ikit resume run`\n"
    )


class Gone(io.StringIO):
    """A terminal that goes away after some writes."""

    def __init__(self, error: Exception, writes: int, terminal: bool) -> None:
        super().__init__()
        self.error, self.left, self.terminal = error, writes, terminal

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return len(text)


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "gone"), BrokenPipeError(), ValueError("closed file")])
def test_a_terminal_that_goes_away_does_not_end_training(
    error: Exception, terminal: bool, whole: Path, folders: Path, tmp_path: Path
) -> None:
    """Whether it is the console's own or stdout."""
    console = Console(file=Gone(error, 3, terminal), force_terminal=terminal)
    run = i2ikit.train(small(folders), tmp_path / "own", console=console)
    assert run.step == 6
    assert_same_training(whole, run.folder)


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal")
@pytest.mark.parametrize("way", ["pipe", "terminal"])
def test_the_command_finishes_when_its_reader_has_gone(way: str, folders: Path, tmp_path: Path) -> None:
    """`i2ikit run ... | head -1`, and a window that is closed (without SIGHUP)."""
    recipe = tmp_path / "r.toml"
    recipe.write_text(small(folders, "training.steps=12").to_toml())
    ours, theirs = os.pipe() if way == "pipe" else pty.openpty()
    command = [sys.executable, "-m", "i2ikit", "run", str(recipe), "--out", str(tmp_path / "run")]
    running = subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL)
    os.close(theirs)
    os.read(ours, 1)
    os.close(ours)
    assert running.wait(120) == 0
    assert steps_of(tmp_path / "run")[-1] == 12
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 12


def test_ctrl_c_is_answered_at_once_and_a_second_press_within_a_second_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A launcher may pass on what the terminal has sent already; a later one acts at once."""
    told: list[str] = []
    stops = Interruptions(told.append)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores it
    with stops.listening():
        signal.raise_signal(signal.SIGINT)
        assert told == [STOPPING]
        signal.raise_signal(signal.SIGINT)
        monkeypatch.setattr(interruptions, "REPEATED_S", -1.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)
    assert stops.signals == [signal.SIGINT]
    assert told == [STOPPING]


def test_signals_are_noted_in_order_and_an_error_counts_more() -> None:
    stops = Interruptions()
    assert stops.code == 0
    with stops.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
    assert stops.signals == [signal.SIGTERM, signal.SIGINT]
    assert stops.code == signal.SIGTERM
    for error in (I2IKitError("first"), I2IKitError("second")):
        with stops.noted():
            raise error
    assert stops.code > 64
    assert str(stops.error) == "first"


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process")
def test_a_killed_reading_process_loses_no_step(
    whole: Path, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its death is noticed by the next read, never inside a step."""
    run = tmp_path / "run"
    real = loop.train_step
    done = iter(range(9))

    def step(*arguments: object) -> object:
        if next(done) == 1:
            (worker,) = multiprocessing.active_children()
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
            worker.join()  # SIGCHLD has come
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "train_step", step)
        with pytest.raises(DataError, match="a process that reads images was killed") as raised:
            i2ikit.train(small(folders, "training.workers=1"), run, console=QUIET)
    saved = steps_of(run)[-1]
    assert saved >= 2
    assert notes(raised.value) == f"Step {saved} is saved. To continue: `i2ikit resume {run}`"
    i2ikit.resume(run, console=QUIET)
    assert_same_training(whole, run)


KILLED = """
import os, sys
from i2ikit import training_run
from i2ikit.cli.main import main
def killed(translator, data, seed, step, folder):
    if step == 4:
        (folder / "samples" / ".step-000004.png.tmp").write_bytes(b"half")
        (folder / ".metrics.jsonl.tmp").write_bytes(b"half")
        os.kill(os.getpid(), 9)
    return real(translator, data, seed, step, folder)
real, training_run.save_samples = training_run.save_samples, killed
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process")
@pytest.mark.parametrize("every", [3, 4], ids=["after-a-checkpoint", "at-a-checkpoint"])
def test_a_kill_while_sampling_leaves_a_run_that_resumes_as_if_it_had_not_been(
    every: int, folders: Path, tmp_path: Path
) -> None:
    """Metrics, pictures and TensorBoard have each step once; parts of files are removed."""
    recipe = small(folders, f"training.checkpoint_every={every}")
    (tmp_path / "r.toml").write_text(recipe.to_toml())
    run = tmp_path / "run"
    command = [sys.executable, "-c", KILLED, "run", str(tmp_path / "r.toml"), "--out", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert steps_of(run) == [every]
    said = io.StringIO()
    i2ikit.resume(run, console=Console(file=said))
    lost = "continuing after step 3; steps up to 4 were done, but not saved"
    assert (lost in said.getvalue()) == (every == 3)
    uninterrupted = i2ikit.train(recipe, tmp_path / "whole", console=QUIET).folder
    assert_same_training(uninterrupted, run)
    assert is_tidy(run)
    pictures = {file.name: file.read_bytes() for file in (uninterrupted / "samples").iterdir()}
    assert {file.name: file.read_bytes() for file in (run / "samples").iterdir()} == pictures
    assert curve_steps(run) == curve_steps(uninterrupted)


def curve_steps(run: Path) -> dict[str, list[int]]:
    """The steps of each curve, as TensorBoard shows them."""
    shown = EventAccumulator(str(run / "tensorboard"))
    shown.Reload()
    return {tag: [event.step for event in shown.Scalars(tag)] for tag in shown.Tags()["scalars"]}

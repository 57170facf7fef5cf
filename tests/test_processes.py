"""Several processes: they compute what one does, speak with one voice, and end together.

The whole count of runs, and other random numbers, are options:
    python -m pytest tests/test_processes.py --process-runs 20 --sharing-seed 7
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from trackio.sqlite_storage import SQLiteStorage

from i2ikit import processes
from i2ikit.processes import ALONE
from i2ikit.recipe import load_recipe
from i2ikit.translator import ImageSpec
from tests import sharing
from tests.image_files import make_folders
from tests.tiny import TINY

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m")
MINUTE = 60


def started(command: Sequence[str], **environment: str) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*command], env={**ENVIRONMENT, **environment}, **pipes)


def ended(*running: subprocess.Popen[str]) -> list[tuple[int, str, str]]:
    """Code, output and errors of each; none may hang."""
    results = []
    for process in running:
        try:
            out, errors = process.communicate(timeout=5 * MINUTE)
        finally:
            process.kill()
        results.append((process.returncode, out, errors))
    return results


def run_command(data: Path, folder: Path, *overrides: str) -> list[str]:
    """`run` with a small MUNIT."""
    on_folders = ("data.name=folders", f'data.root="{data}"', "training.precision=fp32")
    short = ("training.steps=4", "training.batch_size=4", "training.log_every=1", "training.sample_every=0")
    words = [word for o in (*on_folders, *TINY, *short, *overrides) for word in ("--set", o)]
    return ["run", "munit", "--out", str(folder), *words]


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folders(tmp_path_factory.mktemp("images") / "data")


@pytest.fixture(scope="module")
def computed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], dict[str, Any]]:
    """What one and what two processes computed of the cases in tests/sharing.py that are selected."""
    folder = tmp_path_factory.mktemp("computed")
    seed = str(request.config.getoption("--sharing-seed"))
    long = any(item.get_closest_marker("long") for item in request.session.items)
    launches = {1: (sys.executable, "-m"), 2: TORCHRUN}
    running = [
        started([*launch, "tests.sharing", str(folder / f"{n}.pt"), seed, "long" if long else "short"])
        for n, launch in launches.items()
    ]
    for code, _, errors in ended(*running):
        assert code == 0, errors
    found = {n: torch.load(folder / f"{n}.pt") for n in launches}
    return lambda processes: found[processes]


CASES = [pytest.param(str(case), marks=pytest.mark.long if case.is_long else ()) for case in sharing.cases()]


def distances(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> dict[str, float]:
    """L2 of the difference, relative, for each network."""
    return {role: ((one[role] - two[role]).norm() / one[role].norm().clamp(min=1e-30)).item() for role in one}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_processes_compute_what_one_does(computed: Callable[[int], dict[str, Any]], case: str) -> None:
    """Every gradient of the first step, and in float64 six steps' losses; ranks are bitwise equal."""
    one, two = computed(1)[case], computed(2)[case]
    assert (one["processes"], two["processes"]) == (1, 2)
    gradients = distances(one["gradients"], two["gradients"])
    assert max(gradients.values()) < (1e-9 if "float64" in case else 1e-5), gradients
    assert sum(g.norm() for g in one["gradients"].values()) > 0.01
    if "float64" in case:
        assert len(one["losses"]) == sharing.STEPS
        for of_one, of_two in zip(one["losses"], two["losses"], strict=True):
            assert of_two == pytest.approx(of_one, rel=1e-8, abs=1e-12)
    first, second = two["fingerprints"]
    assert first == second
    assert one["counts"] == two["counts"]


@pytest.mark.slow
def test_all_networks_take_one_step_for_each_step(computed: Callable[[int], dict[str, Any]]) -> None:
    for number in (1, 2):
        for case, found in computed(number).items():
            if case == "batch norm":
                continue
            for role, counts in found["counts"].items():
                silent = role == "style_encoders" and "image_recon=0" in case
                assert counts == ([] if silent else [found["steps"]]), (case, role)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("micro_batches", [3, pytest.param(4, marks=pytest.mark.long)])
def test_accumulation_changes_nothing(
    computed: Callable[[int], dict[str, Any]], micro_batches: int, processes: int
) -> None:
    """But for batch norm, whose statistics are of a micro-batch."""
    found = computed(processes)
    whole = {case for case in found if "norm=bn" not in case and "accumulation=1 float64" in case}
    assert len(whole) >= 2
    for case in whole:
        cut = found[case.replace("accumulation=1", f"accumulation={micro_batches}")]
        assert max(distances(found[case]["gradients"], cut["gradients"]).values()) < 1e-9
        assert cut["losses"][-1] == pytest.approx(found[case]["losses"][-1], rel=1e-8, abs=1e-12)


@pytest.mark.slow
def test_batch_norm_is_that_of_all_samples_or_local(computed: Callable[[int], dict[str, Any]]) -> None:
    """Against nn.BatchNorm2d on the whole batch, and on each part; uneven parts."""
    x, (first, second) = sharing.normalised(), sharing.SHARES
    reference = nn.BatchNorm2d(x.shape[1]).double().train()
    y = reference(x)
    found = computed(2)["batch norm"]
    for rank, share in enumerate((first, second)):
        torch.testing.assert_close(found["whole"][rank]["y"], y[share], rtol=0, atol=1e-12)
        alone = nn.BatchNorm2d(x.shape[1]).double().train()(x[share])
        torch.testing.assert_close(found["local"][rank]["y"], alone, rtol=0, atol=1e-12)
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            torch.testing.assert_close(
                found["whole"][rank][name], reference.get_buffer(name), rtol=0, atol=1e-12
            )


@pytest.mark.slow
def test_two_process_runs_end_with_0_and_do_what_one_process_does(
    data: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    command = (sys.executable, "-m", "i2ikit", *run_command(data, tmp_path / "alone"))
    (alone,) = ended(started(command))
    assert alone[0] == 0, alone[2]
    assert "1 process on cpu" in alone[1]
    for n in range(request.config.getoption("--process-runs")):
        folder = tmp_path / f"run-{n}"
        both = 'training.trackers=["tensorboard", "trackio"]'
        ((code, out, errors),) = ended(started([*TORCHRUN, "i2ikit", *run_command(data, folder, both)]))
        assert code == 0, f"run {n}: {errors}"
        assert errors == ""
        assert "2 processes on cpu (gloo)" in out
        assert out.count("Done: 4 steps") == out.count("Run folder") == 1
        assert [p.name for p in (folder / "checkpoints").iterdir()] == ["step-000000004"]
        assert len(list((folder / "tensorboard").rglob("events*"))) == 1
        run_id = (folder / "tracking-id").read_text()
        in_trackio = SQLiteStorage.get_logs("i2ikit", folder.name, run_id=run_id)
        assert [line["step"] for line in in_trackio if "generator/adversarial/a" in line] == [1, 2, 3, 4]
        for of_one, of_two in zip(metrics(tmp_path / "alone"), metrics(folder), strict=True):
            losses = {k: v for k, v in of_one.items() if "/" in k and of_one["step"] == 1}
            assert {k: of_two[k] for k in losses} == pytest.approx(losses, rel=1e-5)


@pytest.mark.slow
def test_resuming_with_two_processes_is_bit_exact(data: Path, tmp_path: Path) -> None:
    """Weights, moments and averaged weights."""
    folder = tmp_path / "run"
    command = run_command(data, folder, "training.checkpoint_every=2", "training.accumulation=2")
    ((code, _, errors),) = ended(started([*TORCHRUN, "i2ikit", *command]))
    assert code == 0, errors
    last = folder / "checkpoints" / "step-000000004"
    whole = {path.name: path.read_bytes() for path in last.iterdir()}
    shutil.rmtree(last)
    ((code, out, errors),) = ended(started([*TORCHRUN, "i2ikit", "resume", str(folder)]))
    assert code == 0, errors
    assert "Done: 4 steps" in out
    assert {path.name: path.read_bytes() for path in last.iterdir()} == whole


def launched(how: str, rank: int, command: Sequence[str]) -> list[tuple[int, str, str]]:
    """Two processes without torchrun, which would end one when the other fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    words = [sys.executable, "-m", "tests.failing", how, str(rank), *command]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    running = [started(words, **group, RANK=str(n), LOCAL_RANK=str(n)) for n in range(2)]
    return ended(*running)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("error", "error: trainA/7.png: not a readable image (process {rank} of 2)"),
        ("bug", "ZeroDivisionError: a bug"),
        ("kill", "has lost another process, which left no message"),
    ],
)
def test_when_one_process_fails_all_end_and_say_why_once(
    data: Path, tmp_path: Path, how: str, rank: int, message: str
) -> None:
    results = launched(how, rank, run_command(data, tmp_path / "run", "training.steps=1000"))
    codes = [code for code, _, _ in results]
    assert codes[1 - rank] == 2
    assert codes[rank] == {"error": 2, "bug": 1, "kill": -signal.SIGKILL}[how]
    said = "".join(errors for _, _, errors in results)
    assert said.count(message.format(rank=rank)) == 1
    assert said.count("error:") == (how != "bug")
    assert ("has lost" in said) == (how == "kill")
    assert "Done" not in "".join(out for _, out, _ in results)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_when_one_process_cannot_read_all_save_the_last_finished_step(
    data: Path, tmp_path: Path, rank: int
) -> None:
    folder = tmp_path / "run"
    results = launched("reading", rank, run_command(data, folder))
    assert [code for code, _, _ in results] == [2, 2]
    assert results[1 - rank][2] == ""
    assert results[rank][2].splitlines() == [
        f"error: trainA/7.png: not a readable image (process {rank} of 2)",
        f"Step 2 is saved. To continue: `i2ikit resume {folder}`",
    ]
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-000000002"]


@pytest.mark.slow
@pytest.mark.parametrize("launch", [(sys.executable, "-m"), TORCHRUN], ids=["alone", "torchrun"])
def test_an_image_that_a_reading_process_cannot_read_ends_the_run(
    tmp_path: Path, launch: tuple[str, ...]
) -> None:
    """In one line; the processes that read images end too. The images were good when the run began."""
    root = make_folders(tmp_path / "data")
    often = ("training.workers=1", "training.steps=1000000")
    process = started([*launch, "i2ikit", *run_command(root, tmp_path / "run", *often)])
    while process.poll() is None and not (tmp_path / "run" / "metrics.jsonl").exists():
        time.sleep(0.1)
    for file in (root / "trainB").iterdir():
        file.write_text("no image")
    ((code, _, errors),) = ended(process)
    assert code == (2 if launch is not TORCHRUN else 1), errors
    said = [line for line in errors.splitlines() if line.startswith("error:")]
    assert len(said) == 1
    assert re.search(r"trainB/\d\.png: not a readable image", said[0])


@pytest.mark.slow
def test_under_torchrun_too_the_message_is_there(data: Path, tmp_path: Path) -> None:
    command = [*TORCHRUN, "tests.failing", "error", "1", *run_command(data, tmp_path / "run")]
    ((code, _, errors),) = ended(started(command))
    assert code == 1
    assert errors.count("error: trainA/7.png: not a readable image (process 1 of 2)") == 1
    assert errors.count("error:") == 1


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_under_torchrun_a_killed_process_ends_all_within_a_minute(
    data: Path, tmp_path: Path, rank: int
) -> None:
    command = run_command(data, tmp_path / "run", "training.steps=1000000")
    began = time.monotonic()
    ((code, _, errors),) = ended(started([*TORCHRUN, "tests.failing", "kill", str(rank), *command]))
    assert code == 1
    assert time.monotonic() - began < MINUTE
    assert "SIGKILL" in errors


@pytest.mark.slow
def test_a_wrong_recipe_is_answered_once_and_leaves_nothing(data: Path, tmp_path: Path) -> None:
    command = run_command(data, tmp_path / "run", "training.batch_size=3", "training.accumulation=2")
    ((code, out, errors),) = ended(started([*TORCHRUN, "i2ikit", *command]))
    assert code == 1
    said = "3 cannot be split over 2 processes with training.accumulation = 2; 'munit' needs 4 or more"
    assert errors.count(said) == 1
    assert out == ""
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_signal_makes_all_save_the_same_step_and_resuming_goes_on(data: Path, tmp_path: Path) -> None:
    """With processes that read images, to which torchrun's signal goes too."""
    folder = tmp_path / "run"
    long = ("training.steps=300", "training.workers=1")
    running = started([*TORCHRUN, "i2ikit", *run_command(data, folder, *long)])
    while not ((folder / "metrics.jsonl").is_file() and metrics(folder)[1:]):
        assert running.poll() is None, running.communicate()
        time.sleep(0.1)
    running.send_signal(signal.SIGTERM)
    ((code, out, _),) = ended(running)
    assert code == 1  # torchrun's own
    assert "everything is saved" in out
    (checkpoint,) = (folder / "checkpoints").iterdir()
    assert checkpoint.name == f"step-{metrics(folder)[-1]['step']:09d}"


@pytest.mark.slow
def test_accelerate_launch_starts_one_process_and_is_told_on(data: Path, tmp_path: Path) -> None:
    launch = (
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes=2",
        "-m",
        "i2ikit",
    )
    command = run_command(data, tmp_path / "run", "training.steps=1")
    ((code, out, errors),) = ended(started([*launch, *command]))
    assert code == 0, errors
    assert "warning: `accelerate launch` was set to start several processes, but started one" in out
    assert "torchrun --standalone --nproc_per_node N" in out
    assert "1 process on cpu" in out


@pytest.mark.parametrize("name", ["WORLD_SIZE", "SLURM_NTASKS"])
def test_fewer_processes_than_asked_for_are_remarked_on(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for other in (*processes.SIZES, "MASTER_PORT"):
        monkeypatch.delenv(other, raising=False)
    assert ALONE.remarks() == []
    monkeypatch.setenv(name, "4")
    assert f"{name} = 4, but this run has 1 process" in ALONE.remarks()[0]
    assert dataclasses.replace(ALONE, count=4).remarks() == []


def test_the_documented_traffic_is_what_the_networks_hold() -> None:
    """docs/scale.md: parameters of each network that a phase trains, and their bytes."""
    text = Path("docs/scale.md").read_text()
    for name in ("munit", "munit-paper", "bicyclegan", "bicyclegan-paper"):
        recipe = load_recipe(name)
        size = recipe.data.options["size"]
        with torch.device("meta"):
            translator = recipe.translator(ImageSpec({"a": 3, "b": 3}, size))
        for phase in translator.phases():
            counts = {
                role: sum(p.numel() for p in network.parameters() if p.requires_grad)
                for role, network in translator.networks.items()
                if role in phase.trains
            }
            networks = " · ".join(f"{role} {count:,}" for role, count in counts.items())
            total = sum(counts.values())
            row = f"| {name} | {phase.name} | {networks} | {total:,} | {4 * total / 1e6:.1f} MB |"
            assert row in text, row

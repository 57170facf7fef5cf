"""Checkpoints: what is damaged is found, replaced, and never counts."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

import i2ikit
from i2ikit.checkpoints import newest_checkpoint, usable_checkpoint
from i2ikit.errors import I2IKitError, RunError
from tests.tiny import QUIET, assert_same_training, tiny_recipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps, with a checkpoint after each one."""
    from tests.image_files import make_folders

    root = tmp_path_factory.mktemp("checkpoints")
    options = ("training.steps=4", "training.checkpoint_every=1", "training.keep=9")
    return i2ikit.train(
        tiny_recipe(make_folders(root / "data"), *options), root / "run", console=QUIET
    ).folder


def sign(path: Path) -> None:
    """A manifest that fits what is there."""
    files = [file for file in path.iterdir() if file.is_file() and file.name != "manifest.json"]
    sums = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    (path / "manifest.json").write_text(json.dumps(sums))


def manifest(content: str) -> Callable[[Path], None]:
    return lambda path: (path / "manifest.json").write_text(content) and None


def state(content: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        text = (path / "state.json").read_text()
        (path / "state.json").write_text(content.replace("SAME", text[1:-1]))
        sign(path)

    return write


def others(path: Path) -> None:
    """A manifest of another checkpoint's files, all of which match it."""
    sums = json.loads((path / "manifest.json").read_text())
    other = {f"../step-000000001/{name}": digest for name, digest in sums.items()}
    (path / "manifest.json").write_text(json.dumps({**sums, **other}))


def named_extra(path: Path) -> None:
    extra(path)
    sign(path)


def extra(path: Path) -> None:
    (path / "extra.safetensors").write_bytes(b"x")


def link(path: Path) -> None:
    file = path / "ema.safetensors"
    file.rename(path.parent / "ema")
    file.symlink_to(path.parent / "ema")


def subfolder(path: Path) -> None:
    (path / "more").mkdir()


def garbage(path: Path) -> None:
    (path / "ema.safetensors").write_bytes(b"garbage")
    sign(path)


def nan(path: Path) -> None:
    tensors = load_file(path / "networks.safetensors")
    first = min(name for name, x in tensors.items() if x.is_floating_point())
    save_file({**tensors, first: tensors[first] * torch.nan}, path / "networks.safetensors")
    sign(path)


def missing(path: Path) -> None:
    (path / "optimizers.safetensors").unlink()


DAMAGES = {
    **{
        f"manifest {text[:9]}": manifest(text)
        for text in ("{}", "[]", "3", "null", "", "[" * 9999, '{"a": 1}')
    },
    **{
        f"state {text[:12]}": state(text)
        for text in (
            "{}",
            "[]",
            "x",
            "",
            '{SAME, "step": 3}',
            '{SAME, "step": 1e999}',
            '{SAME, "step": "4"}',
            '{SAME, "step": ' + "9" * 5000 + "}",
            '{SAME, "numbers": 3}',
            '{SAME, "scaler": [1]}',
            '{SAME, "validation": {"x": 1}}',
            '{SAME, "validation": {"value": NaN}}',
            '{SAME, "format": "7"}',
        )
    },
    **{f.__name__: f for f in (others, extra, named_extra, link, subfolder, garbage, nan, missing)},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_checkpoint_is_named_passed_over_and_replaced(
    trained: Path, tmp_path: Path, damage: str
) -> None:
    """The run then equals one without the damage; a good checkpoint remains even with keep = 1."""
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / "weights.safetensors").unlink()
    for step in (1, 2):
        shutil.rmtree(run / f"checkpoints/step-00000000{step}")
    DAMAGES[damage](run / "checkpoints/step-000000004")
    said = io.StringIO()
    i2ikit.resume(run, "training.keep=1", console=Console(file=said, width=400))
    assert "step-000000004 is damaged (" in said.getvalue()
    assert "step 3 is used" in said.getvalue()
    assert newest_checkpoint(run).name == "step-000000004"
    assert [path.name for path in (run / "checkpoints").glob("step-*")] == ["step-000000004"]
    assert_same_training(trained, run)


@pytest.mark.parametrize("keep", [1, 2])
def test_pruning_counts_only_good_checkpoints(trained: Path, tmp_path: Path, keep: int) -> None:
    """Damaged after they were written: older ones, which resuming does not read."""
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    for step in (2, 4):
        file = run / f"checkpoints/step-00000000{step}/ema.safetensors"
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    i2ikit.resume(run, f"training.keep={keep}", console=QUIET)
    left = sorted((run / "checkpoints").iterdir())
    assert [path.name for path in left] == ["step-000000003", "step-000000004"][-keep:]
    for path in left:
        shutil.rmtree(tmp_path / "alone", ignore_errors=True)
        shutil.copytree(path, tmp_path / "alone/checkpoints" / path.name)
        assert usable_checkpoint(tmp_path / "alone").damaged == {}


def test_what_a_kill_kept_from_being_removed_is_removed_when_the_run_is_resumed(
    trained: Path, tmp_path: Path
) -> None:
    """As after the rename of the last checkpoint: nothing is left to save then."""
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / "checkpoints/.tmp-damaged").mkdir()
    i2ikit.resume(run, "training.keep=2", console=QUIET)
    left = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert left == ["step-000000003", "step-000000004"]


def test_a_checkpoint_of_another_recipe_is_no_damage(trained: Path, tmp_path: Path) -> None:
    """All its files are sound: an older one would not fit either."""
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    for path in (run / "checkpoints").iterdir():
        tensors = load_file(path / "networks.safetensors")
        name = min(tensors)
        save_file({**tensors, name: torch.zeros(2, 9)}, path / "networks.safetensors")
        sign(path)
    with pytest.raises(
        RunError, match=r"(?s)step-000000004 does not fit the recipe: .* is 2x9 and should be "
    ):
        i2ikit.resume(run, console=QUIET)


def test_without_a_good_checkpoint_it_says_what_is_left(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    for path in (run / "checkpoints").iterdir():
        (path / "state.json").write_text("x")
    with pytest.raises(I2IKitError, match=r"damaged: .*state.json does not match.*--weights-from"):
        i2ikit.resume(run, console=QUIET)


@pytest.mark.parametrize("damage", ["damaged", "missing"])
def test_the_weights_of_a_finished_run_are_written_again(trained: Path, tmp_path: Path, damage: str) -> None:
    """From its last checkpoint, also if its log is lost."""
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    file = run / "weights.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"x")
    if damage == "missing":
        file.unlink()
        (run / "metrics.jsonl").unlink()
    said = io.StringIO()
    i2ikit.resume(run, console=Console(file=said, width=400))
    assert "weights.safetensors was missing or damaged, and is written again" in said.getvalue()
    assert file.read_bytes() == whole

"""What a run may change when it is resumed, and what is refused."""

from __future__ import annotations

import io
import shutil
import tomllib
from pathlib import Path

import pytest
import torch
from rich.console import Console

import i2ikit
from i2ikit.errors import I2IKitError, RecipeError, RunError
from i2ikit.resolved import RESOLVED, read_resolved
from tests.image_files import make_folders
from tests.tiny import QUIET, stopped_at, tiny_recipe

pytestmark = pytest.mark.slow

OPTIONS = ("training.steps=4", "training.checkpoint_every=1", "training.keep=9", "training.sample_every=0")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("changes")
    return i2ikit.train(
        tiny_recipe(make_folders(root / "data"), *OPTIONS), root / "run", console=QUIET
    ).folder


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """Stopped after two of its steps."""
    return stopped_at(whole, 2, tmp_path / "a run")


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The learning rate of each update of Adam."""
    found: list[float] = []
    steps = torch.optim.Adam.step

    def step(self: torch.optim.Adam, *rest: object) -> object:
        found.append(self.param_groups[0]["lr"])
        return steps(self, *rest)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    return found


def options(run: Path) -> dict[str, dict[str, object]]:
    return read_resolved(run)[0]


def test_a_change_of_what_is_logged_leaves_the_weights_bit_equal_and_is_recorded(
    whole: Path, run: Path
) -> None:
    versions = options(run)["versions"]
    said = io.StringIO()
    i2ikit.resume(run, ["training.log_every=2", "training.workers=0"], console=Console(file=said, width=300))
    assert "from now on, training.log_every: 1 -> 2" in said.getvalue()
    assert (run / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    table, has_checksum = read_resolved(run)
    assert has_checksum
    assert table["training"]["log_every"] == 2
    assert table["versions"] == versions
    (change,) = table["changes"]  # workers were 0 before
    assert (change["step"], change["key"], change["before"], change["after"]) == (
        2,
        "training.log_every",
        1,
        2,
    )
    i2ikit.resume(run, "training.steps=5", console=QUIET)
    assert [change["step"] for change in options(run)["changes"]] == [2, 4]
    assert options(run)["training"]["log_every"] == 2
    assert tomllib.loads(i2ikit.load_recipe(run / RESOLVED).to_toml())["training"]["steps"] == 5


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["optimizer.lr=0.5"], {"discriminators": 0.5, "decoders": 0.5}),
        (["optimizer.lr=0.5", "optimizer.discriminators.lr=0.25"], {"discriminators": 0.25, "decoders": 0.5}),
        (["optimizer.discriminators.lr=0.25"], {"discriminators": 0.25, "decoders": 8e-4}),
    ],
)
def test_a_learning_rate_is_that_of_every_network_or_of_one(
    run: Path, given: list[str], expected: dict[str, float], rates: list[float]
) -> None:
    """It holds in the next update, whatever the checkpoint was trained with."""
    i2ikit.resume(run, [*given, "training.steps=3"], console=QUIET)
    found = {role: table["lr"] for role, table in options(run)["optimizer"].items()}
    assert {role: found[role] for role in expected} == expected
    assert set(rates) == set(found.values())
    rates.clear()
    i2ikit.resume(run, "training.steps=4", console=QUIET)
    assert set(rates) == set(found.values())


def test_a_schedule_without_steps_follows_the_new_number_of_steps(run: Path, rates: list[float]) -> None:
    """Step 2 of 8 is before the decay, which takes the second half: 1, 1, 1, 0.75, 0.5 and 0.25 times lr."""
    i2ikit.resume(run, ["training.steps=8", "optimizer.decay=linear", "optimizer.lr=0.001"], console=QUIET)
    expected = [0.001 * factor for factor in (1, 1, 1, 0.75, 0.5, 0.25)]
    per_step = len(rates) // len(expected)
    assert rates == pytest.approx([rate for rate in expected for _ in range(per_step)])
    assert not any("decay_steps" in table for table in options(run)["optimizer"].values())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("seed=3", "seed: may not change .*order of the images"),
        ("data.size=32", "data.size: may not change .*other images"),
        ("translator.style_dim=3", "translator.style_dim: may not change .*other networks"),
        ("translator.weights.generator.image_recon=3.0", "image_recon: may not change .*losses"),
        ("training.batch_size=1", "training.batch_size: may not change .*another number of images"),
        ("training.precision=bf16", "training.precision: may not change .*rounded"),
        ("training.ema=0.5", "training.ema: may not change .*averages"),
        ("optimizer.betas=[0.1, 0.2]", "betas: may not change .*kept"),
        ("optimizer.name=sgd", "name: may not change .*kept"),
        ("validation={every=2, metrics=['l1-diversity']}", "validation.every: may not change .*best value"),
        ("training.log_evry=3", "did you mean 'log_every'"),
        ("optimizer.discriminator.lr=3", "did you mean 'discriminators'"),
        ("training.steps=1", "has done 2 steps; training.steps = 1 is less"),
        ("data.root=nowhere", "nowhere"),
        ("training.steps=x", "training.steps"),
    ],
)
def test_what_is_refused_has_a_reason_and_changes_nothing(run: Path, given: str, message: str) -> None:
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    with pytest.raises(I2IKitError, match=f"(?s){message}") as error:
        i2ikit.resume(run, given, console=QUIET)
    if "may not change" in message:
        assert f"i2ikit run '{run / RESOLVED}' --weights-from '{run}'" in str(error.value)
    left_over = {run / ".lock"}
    assert {
        file: file.read_bytes() for file in run.rglob("*") if file.is_file() and file not in left_over
    } == {file: content for file, content in before.items() if file not in left_over}


def test_images_that_have_moved_are_found_at_their_new_place(whole: Path, run: Path, tmp_path: Path) -> None:
    shutil.copytree(whole.parent / "data", tmp_path / "moved")
    i2ikit.resume(run, f"data.root={tmp_path / 'moved'}", console=QUIET)
    assert (run / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    assert i2ikit.load(run).data.options["root"] == str(tmp_path / "moved")


def test_a_relative_data_root_means_the_current_directory_and_is_recorded_as_absolute(
    whole: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole.parent / "data", tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    i2ikit.resume(run, "data.root=moved", console=QUIET)
    (change,) = options(run)["changes"]
    assert (change["key"], change["after"]) == ("data.root", str(tmp_path / "moved"))
    monkeypatch.chdir(run)
    assert i2ikit.resume(run, "training.steps=5", console=QUIET).step == 5


def test_a_finished_run_with_more_steps_goes_on(whole: Path, tmp_path: Path) -> None:
    """It then equals one that was as long from the start, but for the count of its checkpoints."""
    root = whole.parent / "data"
    longer = i2ikit.train(
        tiny_recipe(root, *OPTIONS, "training.steps=6"), tmp_path / "longer", console=QUIET
    ).folder
    shutil.copytree(whole, tmp_path / "run")
    assert i2ikit.resume(tmp_path / "run", "training.steps=6", console=QUIET).step == 6
    weights = [folder / "weights.safetensors" for folder in (longer, tmp_path / "run")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_several_refusals_come_at_once(run: Path) -> None:
    with pytest.raises(RecipeError) as error:
        i2ikit.resume(
            run, ["seed=3", "training.batch_size=1", "training.keep=3", "optimizer.name=sgd"], console=QUIET
        )
    refused = ["seed", "training.batch_size", "optimizer.name"]
    assert [problem.path for problem in error.value.problems] == [*refused, ""]


def test_values_that_are_not_finite_are_not_saved(run: Path) -> None:
    """The weights and the checkpoint before stay, and the change of the rate is recorded."""
    with pytest.raises(RunError, match="has no weights"):
        _ = i2ikit.load(run).step
    with pytest.raises(
        I2IKitError, match=r"(?s)step 3: values are not finite.*of step 2.*optimizer\.lr="
    ) as error:
        i2ikit.resume(run, "optimizer.lr=1e38", console=QUIET)
    assert "max_grad_norm" in str(error.value)
    assert max(path.name for path in (run / "checkpoints").iterdir()) == "step-000000002"
    assert i2ikit.resume(run, "optimizer.lr=1e-4", console=QUIET).step == 4

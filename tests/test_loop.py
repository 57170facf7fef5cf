"""The training loop: what it logs of losses that come and go, and resuming with what phases keep."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import i2ikit
from i2ikit.cli.main import app
from i2ikit.errors import RunError
from i2ikit.recipe import Recipe, load_recipe
from i2ikit.registry import LossWeights, translators
from i2ikit.translator import Given, ImageSpec, Kept, Phase, Result, Translator
from tests.tiny import QUIET, assert_same_training, metrics, run, tiny_recipe
from tests.toy import Numbers

FIRST = {"one": 1.0, "falls": 1.0, "rises": 1.0}


class Counting(Translator):
    """Its losses are 1, the step, and 10 times the step; it keeps the sum of what it has seen."""

    generative = ("n",)
    adversarial = ("m",)

    def __init__(
        self,
        images: ImageSpec,
        *,
        weights: LossWeights = {"first": FIRST, "second": {"parts": 1.0}, "last": {"off": 1.0}},  # noqa: B006
    ) -> None:
        super().__init__(images, {"n": Numbers(x=1.0), "m": Numbers(x=1.0)}, weights)

    def phases(self) -> tuple[Phase, ...]:
        keeps = {"seen": Kept((2,)), "steps": Kept((), torch.int64)}
        return (
            Phase("first", self.first, ("n",)),
            Phase("second", self.second, ("m",), keeps=keeps),
            Phase("last", self.last, ("n",)),
        )

    def first(self, given: Given) -> Result:
        x, step = self.networks["n"].x, given.step
        values = {"one": 1.0, "falls": step, "rises": 10.0 * step}
        losses = {name: value + 0 * x for name, value in values.items() if given.weights[name]}
        return Result(losses, notes={"note": torch.tensor(100.0 + step)})

    def second(self, given: Given) -> Result:
        x, seen = self.networks["m"].x, given.kept["seen"]
        seen = seen + given.images["a"].mean((1, 2, 3))[:, None]
        parts = {d: (seen.mean() + (d == "b")) * x for d in self.domains if given.weights[f"parts/{d}"]}
        losses = {f"parts/{d}": loss for d, loss in parts.items()}
        return Result(losses, kept={"seen": seen, "steps": given.kept["steps"] + 1})

    def last(self, given: Given) -> Result:
        return Result(
            {"off": self.networks["n"].x * 2.0} if given.weights["off"] else {},
            notes={"runs": torch.ones(())},
        )

    def translate(self, x: Tensor, style: Tensor, *, source: str, to: str) -> Tensor:
        return x


@pytest.fixture
def counting(registered: None) -> None:
    translators.register("counting", Counting)


def recipe(folders: Path, tmp_path: Path, weights: str = "", **training: int) -> Recipe:
    options = {"steps": 10, "batch_size": 2, "log_every": 4, "sample_every": 0, **training}
    path = tmp_path / "counting.toml"
    path.write_text(
        f'[data]\nname = "folders"\nroot = "{folders}"\nsize = 8\n[translator]\nname = "counting"\n{weights}\n'
        f"[training]\n{''.join(f'{key} = {value}' + chr(10) for key, value in options.items())}"
    )
    return load_recipe(path)


def logged(folder: Path, name: str) -> dict[int, float]:
    """A value by the step of its line; absent where it was not logged."""
    return {int(line["step"]): line[name] for line in metrics(folder) if name in line}


WEIGHTS = """
[translator.weights.first]
falls = { start = 1.0, end = 0.0, steps = 6 }
rises = { start = 0.0, end = 1.0, steps = 9 }
[translator.weights.second]
"parts/b" = { start = 0.0, end = 2.0, steps = 5 }
[translator.weights.last]
off = { start = 1.0, end = 0.0, steps = 9 }
"""


@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_logged_mean_is_over_the_steps_in_which_the_loss_was_computed(
    folders: Path, tmp_path: Path, accumulation: int
) -> None:
    """Not over all steps of the interval; without any such step, the line does not have it."""
    run(recipe(folders, tmp_path, WEIGHTS, accumulation=accumulation), tmp_path / "run")

    def means(values: Mapping[int, float]) -> dict[int, float]:
        found = {}
        for start, end in ((0, 4), (4, 8), (8, 10)):
            own = [value for step, value in values.items() if start <= step < end]
            found.update({end: sum(own) / len(own)} if own else {})
        return found

    every = range(10)
    assert logged(tmp_path / "run", "first/one") == means(dict.fromkeys(every, 1.0)) == {4: 1, 8: 1, 10: 1}
    assert logged(tmp_path / "run", "first/falls") == means({step: step for step in every if step < 6})
    assert logged(tmp_path / "run", "first/falls") == {4: 1.5, 8: 4.5}
    assert logged(tmp_path / "run", "first/rises") == means({step: 10 * step for step in every if step > 0})
    assert logged(tmp_path / "run", "first/rises")[4] == 20
    assert logged(tmp_path / "run", "first/note") == means({step: 100 + step for step in every})
    assert logged(tmp_path / "run", "last/runs") == {4: 1, 8: 1, 10: 1}
    assert set(logged(tmp_path / "run", "second/parts/a")) == {4, 8, 10}


@pytest.mark.usefixtures("counting")
def test_a_part_that_is_off_at_some_steps_has_its_mean_over_the_others(folders: Path, tmp_path: Path) -> None:
    """Parts of one loss are logged each on its own."""
    run(recipe(folders, tmp_path, WEIGHTS, log_every=1), tmp_path / "run")
    assert sorted(logged(tmp_path / "run", "second/parts/b")) == list(range(2, 11))
    assert sorted(logged(tmp_path / "run", "second/parts/a")) == list(range(1, 11))
    assert sorted(logged(tmp_path / "run", "last/off")) == list(range(1, 10))
    assert sorted(logged(tmp_path / "run", "last/runs")) == list(range(1, 10))


@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize("stop", [3, 7])
def test_a_run_that_keeps_something_resumes_bit_for_bit(folders: Path, tmp_path: Path, stop: int) -> None:
    """Files of the last checkpoint, and every line that was logged since."""
    own = recipe(folders, tmp_path, WEIGHTS, checkpoint_every=1, keep=20, log_every=1)
    run(own, tmp_path / "whole")
    run(own, tmp_path / "parts")
    for path in sorted((tmp_path / "parts/checkpoints").iterdir())[stop:]:
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    (tmp_path / "parts/metrics.jsonl").unlink()
    assert run(own, tmp_path / "parts", resume=True) == 10
    names = {file.name for file in (tmp_path / "whole/checkpoints/step-000000010").glob("*.safetensors")}
    assert names == {f"{name}.safetensors" for name in ("ema", "kept", "networks", "optimizers")}
    for name in names:
        one, two = (tmp_path / each / "checkpoints/step-000000010" / name for each in ("whole", "parts"))
        assert one.read_bytes() == two.read_bytes()
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")[stop:]


@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_run_that_keeps_something_cannot_go_on_with_another_batch_size(
    folders: Path, tmp_path: Path, batch_size: int
) -> None:
    """The message has the phase, the name and both shapes; the checkpoint stays."""
    run(recipe(folders, tmp_path, steps=2), tmp_path / "run")
    said = (
        rf"step-000000002 does not fit the recipe: phase 'second' keeps 'seen' with shape \(2, 2\), but this run "
        rf"needs \({batch_size}, 2\); the batch size of a run cannot change"
    )
    with pytest.raises(RunError, match=said):
        run(recipe(folders, tmp_path, steps=4, batch_size=batch_size), tmp_path / "run", resume=True)
    assert run(recipe(folders, tmp_path, steps=4), tmp_path / "run", resume=True) == 4


def test_a_run_without_a_checkpoint_is_resumed_from_its_start(folders: Path, tmp_path: Path) -> None:
    """As after a kill in the first steps; what these logged is not logged twice."""
    options = ("training.steps=3", "training.checkpoint_every=0", "training.sample_every=0")
    whole = i2ikit.train(tiny_recipe(folders, *options), tmp_path / "whole", console=QUIET).folder
    parts = tmp_path / "parts"
    shutil.copytree(whole, parts)
    shutil.rmtree(parts / "checkpoints")
    (parts / "weights.safetensors").unlink()
    i2ikit.resume(parts, console=QUIET)
    assert_same_training(whole, parts)


@pytest.mark.parametrize("left", ["nothing", "folder"])
def test_samples_that_a_kill_took_are_made_when_the_run_is_resumed(
    left: str, folders: Path, tmp_path: Path
) -> None:
    """A kill between the last checkpoint and its pictures; the command then ends as usual."""
    run = i2ikit.train(tiny_recipe(folders), tmp_path / "run", console=QUIET).folder
    before = {file.name: file.read_bytes() for file in (run / "samples").glob("step-000002*")}
    for file in (run / "samples").iterdir():
        file.unlink()
    if left == "nothing":
        (run / "samples").rmdir()
    result = CliRunner().invoke(app, ["resume", str(run)], catch_exceptions=False)
    assert result.exit_code == 0
    assert {file.name: file.read_bytes() for file in (run / "samples").iterdir()} == before
    assert "Done: 2 steps" in result.output
    assert f"i2ikit translate {run} YOUR_IMAGE.png" in result.output


def test_printed_commands_can_be_pasted(folders: Path, tmp_path: Path) -> None:
    out = tmp_path / "my [bold] run"
    recipe = tmp_path / "r.toml"
    recipe.write_text(tiny_recipe(folders).to_toml())
    result = CliRunner().invoke(app, ["run", str(recipe), "--out", str(out)], catch_exceptions=False)
    assert f"i2ikit translate {shlex.quote(str(out))} YOUR_IMAGE.png" in result.output
    assert f"i2ikit eval {shlex.quote(str(out))}" in result.output

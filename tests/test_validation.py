"""Validation while training: what is measured, what is kept, when training stops, and that it changes nothing."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import random
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

import i2ikit
from i2ikit.checkpoints import BEST_FILE, WEIGHTS_FILE
from i2ikit.data.held_out import HeldOutPart
from i2ikit.errors import DataError, RecipeError, RunError, WeightsError
from i2ikit.evaluation import evaluate
from i2ikit.metrics.subject import Measured, Subject
from i2ikit.recipe import Recipe, load_recipe
from i2ikit.registry import metrics as registered_metrics
from i2ikit.runlog import RunLog
from i2ikit.start import resume, train
from i2ikit.testing import check_metric
from i2ikit.testing.measuring import Drawings
from i2ikit.validation import BestSoFar
from tests.image_files import make_folders
from tests.test_processes import TORCHRUN, ended, run_command, started
from tests.tiny import QUIET, metrics, tiny_recipe

HELD_OUT = 7
EVERY = "validation.every=2"


class Scripted:
    """Returns the next value of a list, and notes the images that it measured."""

    higher_is_better: ClassVar[dict[str, bool]] = {"score/total": False}
    script: ClassVar[list[float]] = []
    measured: ClassVar[int] = 0
    names: ClassVar[set[str]] = set()

    def __init__(self, *, num_inputs: int = 100) -> None:
        self.num_inputs = num_inputs

    def measure(self, subject: Subject) -> Measured:
        """See the class."""
        inputs = subject.inputs(self.num_inputs)
        type(self).names |= {subject.data.name("test", subject.source, index) for index in inputs}
        type(self).measured += 1
        return Measured({"count": len(inputs), "score/total": self.script[self.measured - 1]})


class Drawing:
    """Draws from the global generators, as a metric of somebody else may."""

    def measure(self, subject: Subject) -> Measured:
        """See the class."""
        return Measured({"sum": torch.rand(()).item() + np.random.rand() + random.random()})


class Refusing:
    """Cannot measure any run, once it has measured `least` times."""

    higher_is_better: ClassVar[dict[str, bool]] = {"x": True, "of_other_options": True}
    least: ClassVar[int] = 0

    def measure(self, subject: Subject) -> Measured:
        """See the class."""
        if not self.least:
            raise DataError("no image is [red]")
        type(self).least -= 1
        return Measured({"x": 1.0})


class Silent:
    """Has no values."""

    def measure(self, subject: Subject) -> Measured:
        """See the class."""
        return Measured({})


class Unbuildable(Refusing):
    """Needs weights that cannot be found."""

    def __init__(self) -> None:
        raise WeightsError("cannot find the weights of nothing")


OWN = {
    "scripted": Scripted,
    "drawing": Drawing,
    "refusing": Refusing,
    "silent": Silent,
    "unbuildable": Unbuildable,
}


@pytest.fixture(scope="module", autouse=True)
def _own_metrics() -> Iterator[None]:
    for name, metric in OWN.items():
        registered_metrics.register(name, metric)
    yield
    for name in OWN:
        registered_metrics.unregister(name)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folders(tmp_path_factory.mktemp("images") / "data", held_out=HELD_OUT)


def recipe_with(images: Path, metrics: str, *overrides: str) -> Recipe:
    short = ("training.sample_every=0", "training.checkpoint_every=1", "training.keep=99")
    return tiny_recipe(images, *short, EVERY, f"validation.metrics={metrics}", *overrides)


STOPPING = (
    "training.steps=12",
    "validation.best=scripted/score/total",
    "validation.patience=2",
)
SCRIPT = [0.0, 3.0, math.nan, 1.0, 1.0, 2.0, 0.0]
"""That of the initial weights does not count; the best is at step 6, and those of 8 and 10 are not better."""


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run that stops early, and what it printed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    Scripted.script, Scripted.measured, Scripted.names = SCRIPT, 0, set()
    console = Console(file=io.StringIO(), width=200)
    recipe = recipe_with(images, "['l1-diversity', {name='scripted', num_inputs=5}]", *STOPPING)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    train(recipe, folder, console=console)
    torch.set_num_threads(before)
    assert isinstance(console.file, io.StringIO)
    return folder, console.file.getvalue()


def validations(folder: Path) -> list[dict[str, float]]:
    return [line for line in metrics(folder) if "validation/scripted/count" in line]


def test_patience_ends_the_run_and_says_what_was_best(whole: tuple[Path, str]) -> None:
    """nan is not better, and neither is an equal value."""
    folder, said = whole
    assert i2ikit.load(folder).step == 10
    assert (folder / "checkpoints" / "step-000000010").is_dir()
    assert (folder / "samples" / "step-000010.png").is_file()
    assert metrics(folder)[-2]["step"] == 10
    line = "scripted/score/total was best at step 6 (1.0000), and not better in the 2 validations since"
    assert said.count(f"stopping early: {line}") == 1


def test_each_validation_is_one_line_in_the_log_and_one_printed(whole: tuple[Path, str]) -> None:
    folder, said = whole
    lines = validations(folder)
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 10]
    assert [line["validation/scripted/score/total"] for line in lines] == [3, None, 1, 1, 2]
    assert all(line["validation/l1-diversity/diversity"] > 0 for line in lines)
    printed = [line for line in said.splitlines() if ": validation: " in line]
    assert [line.endswith("(best)") for line in printed] == [True, False, True, False, False]
    assert printed[2].startswith("step 6: validation: l1-diversity/diversity 0.")
    assert printed[2].endswith(", scripted/score/total 1.0000 (best)")


def test_the_best_weights_are_the_averaged_ones_of_the_best_step(whole: tuple[Path, str]) -> None:
    folder, _ = whole
    best, last = (load_file(folder / name) for name in (BEST_FILE, WEIGHTS_FILE))
    at_best = load_file(folder / "checkpoints/step-000000006/ema.safetensors")
    assert all(torch.equal(tensor, at_best[name]) for name, tensor in best.items())
    assert best.keys() == last.keys()
    assert any(not torch.equal(tensor, last[name]) for name, tensor in best.items())


def test_a_run_is_opened_with_its_best_weights(whole: tuple[Path, str]) -> None:
    folder, _ = whole
    run = i2ikit.load(folder / BEST_FILE)
    assert (run.step, run.images.size) == (6, 64)
    assert i2ikit.load(run, "cpu").step == 6
    assert "step 6" in repr(run)
    weights = load_file(folder / BEST_FILE)
    own = run.translator.networks.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in weights.items())
    with pytest.raises(RunError, match="given twice"):
        i2ikit.compare([run, folder / BEST_FILE])
    (finding,) = evaluate(run, "l1-diversity", overrides="l1-diversity.num_inputs=1")
    assert finding.path.name == "l1-diversity-a2b-seed0-num_inputs=1-best.json"
    assert json.loads(finding.path.read_text())["trained"]["step"] == 6


def test_a_run_without_best_weights_says_why(images: Path, tmp_path: Path) -> None:
    (tmp_path / "resolved.toml").write_text(tiny_recipe(images).to_toml())
    with pytest.raises(RunError, match=r"has no best\.safetensors: training writes it whenever"):
        i2ikit.load(tmp_path / BEST_FILE).step  # noqa: B018


def test_the_evaluation_uses_the_other_images_and_says_so(whole: tuple[Path, str]) -> None:
    folder, _ = whole
    validated = set(Scripted.names)
    Scripted.names, Scripted.script, Scripted.measured = set(), [1.0], 0
    (finding,) = evaluate(folder, "scripted")
    assert len(validated) >= 2
    assert len(Scripted.names) >= 2
    assert not Scripted.names & validated
    assert len(Scripted.names | validated) == HELD_OUT
    note = (
        f"This run keeps {len(validated)} of 7 held-out images of domain a and {len(validated)} of 7 held-out "
        "images of domain b for validation; they are not measured here."
    )
    assert json.loads(finding.path.read_text())["notes"] == [note]
    assert i2ikit.load(folder).dataset().count("test", "a") == HELD_OUT


def test_without_validation_all_held_out_images_are_evaluated(images: Path, tmp_path: Path) -> None:
    (tmp_path / "resolved.toml").write_text(tiny_recipe(images).to_toml())
    run = i2ikit.load(tmp_path)
    assert run.evaluation_data() is run.dataset()


@pytest.mark.slow
@pytest.mark.parametrize("stop", [3, 8])
def test_resuming_validates_exactly_as_without_the_interruption(
    whole: tuple[Path, str], tmp_path: Path, one_thread: None, stop: int
) -> None:
    """Before the best value, and after it, where one of two validations without a better one is done."""
    expected, _ = whole
    folder = tmp_path / "run"
    shutil.copytree(expected, folder, ignore=shutil.ignore_patterns("eval"))
    for later in range(stop + 1, 11):
        shutil.rmtree(folder / "checkpoints" / f"step-{later:09d}")
    if stop < 6:
        (folder / BEST_FILE).unlink()
    Scripted.script, Scripted.measured = SCRIPT, 1 + stop // 2
    assert resume(folder, console=QUIET).step == 10
    assert metrics(folder) == metrics(expected)
    best, expected_best = load_file(folder / BEST_FILE), load_file(expected / BEST_FILE)
    assert all(torch.equal(tensor, expected_best[name]) for name, tensor in best.items())
    for name in ("networks.safetensors", "ema.safetensors", "state.json"):
        files = [run / "checkpoints/step-000000010" / name for run in (folder, expected)]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_a_run_that_stopped_early_is_not_continued(whole: tuple[Path, str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    console = Console(file=io.StringIO(), width=200)
    assert resume(folder, console=console).step == 10
    assert metrics(folder) == metrics(whole[0])
    assert "stopping early: scripted/score/total was best at step 6" in console.file.getvalue()


@pytest.mark.slow
def test_validation_changes_no_weight(images: Path, tmp_path: Path, one_thread: None) -> None:
    """Not even with metrics that use training mode or draw from the global generators."""
    own = ("translator.style_encoder.norm=bn", "training.steps=3", "validation.every=1")
    names = "['style-health', 'drawing', 'l1-diversity']"
    with_it = recipe_with(images, names, *own)
    without = dataclasses.replace(with_it, validation=None)

    def states() -> tuple[object, ...]:
        return torch.random.get_rng_state().tolist(), repr(np.random.get_state()), random.getstate()

    before = states()
    train(with_it, tmp_path / "with", console=QUIET)
    assert states() == before
    train(without, tmp_path / "without", console=QUIET)
    for step in (1, 2, 3):
        for name in ("networks", "ema", "optimizers"):
            file = f"checkpoints/step-{step:09d}/{name}.safetensors"
            assert (tmp_path / "with" / file).read_bytes() == (tmp_path / "without" / file).read_bytes()
    lines = metrics(tmp_path / "with")
    assert [line for line in lines if "validation/drawing/sum" not in line] == metrics(tmp_path / "without")
    drawn = [line["validation/drawing/sum"] for line in lines if "validation/drawing/sum" in line]
    assert drawn == [drawn[0]] * 3
    assert not (tmp_path / "with" / BEST_FILE).exists()


def test_a_metric_that_fails_while_training_is_said_and_is_not_the_best(images: Path, tmp_path: Path) -> None:
    Refusing.least = 2  # the initial weights, and step 1
    recipe = recipe_with(
        images,
        "['refusing', 'l1-diversity']",
        "training.steps=3",
        "validation.every=1",
        "validation.best=refusing/x",
    )
    console = Console(file=io.StringIO(), width=200)
    train(recipe, tmp_path / "run", console=console)
    said = console.file.getvalue()
    assert said.count("validation: 'refusing' cannot be measured: no image is [red]") == 2
    assert said.count("validation: l1-diversity/diversity") == 2
    state = json.loads((tmp_path / "run/checkpoints/step-000000003/state.json").read_text())
    assert state["validation"] == {"value": 1.0, "step": 1, "since": 2}
    assert [sorted(line) for line in metrics(tmp_path / "run") if "validation/refusing/x" in line] != []


def test_what_the_initial_weights_show_is_a_problem_of_the_recipe(images: Path, tmp_path: Path) -> None:
    """All at once, and before there is a folder."""
    Refusing.least = 0
    with pytest.raises(RecipeError) as caught:
        train(recipe_with(images, "['l1-diversity', 'refusing']"), tmp_path / "run", console=QUIET)
    assert "1 problem\n  validation.metrics[1]: cannot be measured: no image is [red]" in str(caught.value)
    Refusing.least = 1
    best = "validation.best=refusing/of_other_options"
    with pytest.raises(RecipeError) as caught:
        train(recipe_with(images, "['refusing']", best), tmp_path / "run", console=QUIET)
    message = "metric 'refusing' has no value 'of_other_options' for this run (its values: x)"
    assert f"validation.best: {message}" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_the_last_step_is_validated(images: Path, tmp_path: Path) -> None:
    """Also if `every` is larger than the number of steps."""
    train(recipe_with(images, "['drawing']", "training.steps=3"), tmp_path / "two", console=QUIET)
    train(
        recipe_with(images, "['silent', 'drawing']", "validation.every=9"), tmp_path / "nine", console=QUIET
    )
    steps = [
        [line["step"] for line in metrics(tmp_path / name) if "validation/drawing/sum" in line]
        for name in ("two", "nine")
    ]
    assert steps == [[2, 3], [2]]


def test_what_is_known_at_the_start_leaves_no_folder(images: Path, tmp_path: Path, folders: Path) -> None:
    with pytest.raises(WeightsError, match="cannot find the weights of nothing"):
        train(recipe_with(images, "['unbuildable']"), tmp_path / "run", console=QUIET)
    few = r"divides the held-out images into 1 for validation and 2 for evaluation \(domain a\), 1 for"
    with pytest.raises(DataError, match=few):
        train(recipe_with(folders, "['scripted']"), tmp_path / "run", console=QUIET)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("count", [6, 7, 30])
def test_the_parts_are_disjoint_and_depend_on_the_index_only(count: int) -> None:
    """A third is for validation; index i is the same image in all domains, so pairs stay together."""
    parts = [HeldOutPart(Drawings(count=count), part) for part in ("validation", "evaluation")]
    larger = HeldOutPart(Drawings(count=count + 1), "validation")
    one, two = ({part.name("test", "a", n) for n in range(part.count("test", "a"))} for part in parts)
    assert not one & two
    assert one | two == {str(index) for index in range(count)}
    assert abs(len(one) - count / 3) < 1
    assert parts[0].indices["a"] == parts[0].indices["b"]
    assert set(parts[0].indices["a"]) == set(larger.indices["a"]) - {count}


def test_a_part_shows_the_images_of_the_whole() -> None:
    whole = Drawings(count=12)
    part = HeldOutPart(whole, "validation")
    index = part.indices["b"][1]
    assert torch.equal(part.image("test", "b", 1), whole.image("test", "b", index))
    assert torch.equal(part.image("train", "b", 5), whole.image("train", "b", 5))
    assert (part.count("train", "a"), part.name("train", "a", 5), part.aligned) == (12, "5", True)
    assert torch.equal(part.picture(torch.ones(1, 3, 2, 2), "a"), torch.ones(1, 3, 2, 2))

    class Banded(Drawings):
        """Shows its first channel."""

        @staticmethod
        def picture(x: Tensor, domain: str) -> Tensor:
            """See the class."""
            return x[:, :1]

    assert HeldOutPart(Banded(), "validation").picture(torch.ones(1, 3, 2, 2), "a").shape == (1, 1, 2, 2)


def test_the_first_value_is_the_best_and_nan_never_is() -> None:
    state = BestSoFar().after(math.nan, 1, True)
    assert state == BestSoFar(since=1)
    state = state.after(2.0, 2, True)
    assert state == BestSoFar(2.0, 2, 0)
    assert state.after(2.0, 3, True).after(math.nan, 4, True) == BestSoFar(2.0, 2, 2)
    assert state.after(1.0, 3, True).since == 1
    assert state.after(1.0, 3, False) == BestSoFar(1.0, 3, 0)


@pytest.mark.slow
def test_two_processes_find_what_one_finds(images: Path, tmp_path: Path) -> None:
    """Learning rates are tiny, so that only the measurements could differ; the main process writes."""
    own = ("training.steps=2", "optimizer.lr=1e-9", "optimizer.discriminators.lr=1e-9", "validation.every=1")
    best = ("validation.metrics=['l1-diversity', 'style-health']", "validation.best=l1-diversity/diversity")
    found = {}
    for name, launch in {"one": (sys.executable, "-m"), "two": TORCHRUN}.items():
        command = [*launch, "i2ikit", *run_command(images, tmp_path / name, *own, *best)]
        ((code, out, errors),) = ended(started(command))
        assert code == 0, errors
        assert out.count("validation: l1-diversity/diversity") == 2
        lines = metrics(tmp_path / name)
        found[name] = [line for line in lines if any(key.startswith("validation/") for key in line)]
        assert (tmp_path / name / BEST_FILE).is_file()
    assert len(found["one"]) == 2
    for one, two in zip(found["one"], found["two"], strict=True):
        assert two == pytest.approx(one, rel=1e-4, abs=1e-6)


def test_the_bar_gives_way_to_that_of_a_metric(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True)
    with RunLog(tmp_path, 0, 5, console) as log:
        with log.paused():
            assert not log._live.is_started
        assert log._live.is_started
        log.say("step 1: [validation]")
    assert "step 1: [validation]" in console.file.getvalue()


SECTION = "validation={every=5, metrics=['l1-diversity', {name='style-health', num_inputs=20}]}"


def problems_of(*overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe("munit", [SECTION, *overrides])
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("validaton.every=2", "validaton: a recipe has no option 'validaton'; did you mean 'validation'?"),
        ("validation.evry=2", "validation.evry: [validation] has no option 'evry'; did you mean 'every'?"),
        ("validation.every=0", "validation.every: should be greater than 0, got 0"),
        ("validation.metrics=[]", "validation.metrics: list should have at least 1 item"),
        (
            "validation.metrics=['l1-diversty']",
            "validation.metrics[0].name: no metric named 'l1-diversty'; did you mean 'l1-diversity'?",
        ),
        (
            "validation.metrics=['fid', {name='l1-diversity', num_input=2}]",
            "validation.metrics[1].num_input: metric 'l1-diversity' has no option 'num_input'; did you mean",
        ),
        ("validation.metrics=['fid', 'fid']", "validation.metrics: names 'fid' 2 times; name it once"),
        (
            "validation.metrics=[{name='lpips-diversity', num_samples=3}]",
            "validation.metrics[0]: num_samples = 3 is odd",
        ),
        (
            "validation.best=style-healt/style_recon",
            "validation.best: 'style-healt/style_recon' names no metric of validation.metrics; "
            "write METRIC/VALUE; did you mean 'style-health/style_recon'? (known: l1-diversity/diversity, ",
        ),
        (
            "validation.best=style-health/style_recons",
            "validation.best: metric 'style-health' does not say whether a higher 'style_recons' is better; "
            "did you mean 'style_recon'?",
        ),
        ("validation.best=style-health/encoded_std", "whether a higher 'encoded_std' is better (known: "),
        ("validation.best=3", 'validation.best: should be text, in quotes: "3", got 3'),
        ("validation.patience=3", "validation.patience: needs validation.best"),
    ],
)
def test_a_wrong_section_says_where_and_what(change: str, message: str) -> None:
    assert message in problems_of(change)


def test_a_metric_that_does_not_say_what_is_better_can_only_be_measured() -> None:
    change = "validation.metrics=['drawing']"
    assert load_recipe("munit", [SECTION, change]).validation.metrics[0].name == "drawing"
    assert "does not say whether a higher 'sum' is better (known: none)" in problems_of(
        change, "validation.best=drawing/sum"
    )


def test_a_section_that_is_no_table_is_refused(images: Path) -> None:
    with pytest.raises(RecipeError, match="validation: should be a table"):
        tiny_recipe(images, "validation=3")


def test_images_that_are_too_small_for_a_metric_are_refused(images: Path) -> None:
    small = ("translator.discriminator.num_scales=1", "translator.discriminator.num_layers=2")
    size = ("data.size=28", "translator.style_encoder.num_downsample=2", *small)
    with pytest.raises(RecipeError, match=r"validation\.metrics\[0\]: the image size of 28 px does not suit"):
        recipe_with(images, "['lpips-diversity']", *size)


def test_the_section_is_saved_with_every_default_and_extended(tmp_path: Path) -> None:
    recipe = load_recipe("munit", [SECTION, "validation.best=style-health/style_recon"])
    text = recipe.to_toml()
    table = tomllib.loads(text)["validation"]
    assert table["metrics"][1] == {"name": "style-health", "num_inputs": 20, "num_styles": 6, "batch_size": 4}
    assert (table["every"], table["best"], "patience" in table) == (5, "style-health/style_recon", False)
    (tmp_path / "base.toml").write_text(text)
    assert load_recipe(tmp_path / "base.toml").to_toml() == text
    (tmp_path / "own.toml").write_text('extends = "base.toml"\n[validation]\npatience = 3\n')
    own = load_recipe(tmp_path / "own.toml", "validation.every=7").validation
    assert own == dataclasses.replace(recipe.validation, patience=3, every=7)
    assert "validation" not in tomllib.loads(load_recipe("munit").to_toml())


def test_a_value_may_contain_slashes() -> None:
    names = "validation.metrics=['lpips-diversity']"
    recipe = load_recipe("munit", [SECTION, names, "validation.best=lpips-diversity/LPIPS v0.0/diversity"])
    assert recipe.validation.judged == ("lpips-diversity", "LPIPS v0.0/diversity")


def test_what_a_metric_says_about_its_values_is_checked() -> None:
    class Declared(Drawing):
        """One value."""

        def measure(self, subject: Subject) -> Measured:
            """See the class."""
            return Measured({"sum": 1.0})

    for declared, message in (
        ({"sum": True, "of_other_options": False}, ""),
        ({"sun": True}, "higher_is_better names sun; expected values that measure.. returns: sum"),
        ({"sum": "yes"}, r"higher_is_better\['sum'\] should be True or False, got 'yes'"),
        (["sum"], "higher_is_better should be a mapping of value names"),
    ):
        Declared.higher_is_better = declared
        if not message:
            check_metric(Declared)
            continue
        with pytest.raises(AssertionError, match=message):
            check_metric(Declared)


@pytest.mark.parametrize("higher", [True, False])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_never_the_best(value: float, higher: bool) -> None:
    """Neither the first one nor a later one: no finite value could follow an infinite best."""
    first = BestSoFar().after(value, 1, higher)
    assert first == BestSoFar(None, 0, 1)
    assert first.after(2.0, 2, higher) == BestSoFar(2.0, 2, 0)
    assert BestSoFar(2.0, 2, 0).after(value, 3, higher) == BestSoFar(2.0, 2, 1)

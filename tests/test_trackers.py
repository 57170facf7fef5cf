"""Trackers: what each gets of a run, what a resumed run adds, and what happens when one fails."""

from __future__ import annotations

import errno
import io
import os
import random
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trackio
import trackio.sqlite_storage
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

import i2ikit
from i2ikit.errors import RecipeError, RunError
from i2ikit.recipe import Recipe
from i2ikit.trackers import Trackers
from i2ikit.translator import Direction
from tests.image_files import make_folders
from tests.tiny import QUIET, assert_same_training, stopped_at, tiny_recipe

pytestmark = pytest.mark.slow

BOTH = 'training.trackers=["tensorboard", "trackio"]'
SHORT = (
    *("training.steps=4", "training.checkpoint_every=1", "training.keep=9", "training.sample_every=2"),
    *("validation.every=4", 'validation.metrics=["l1-diversity"]'),
)
VALIDATED = "validation/l1-diversity/diversity"


def small(folders: Path, *overrides: str) -> Recipe:
    return tiny_recipe(folders, *SHORT, *overrides)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folders(tmp_path_factory.mktemp("images") / "data", held_out=6)


@pytest.fixture(scope="module")
def whole(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with both trackers that was never interrupted."""
    return i2ikit.train(
        small(folders, BOTH), tmp_path_factory.mktemp("whole") / "zebra", console=QUIET
    ).folder


def tensorboard(run: Path) -> EventAccumulator:
    (events,) = {file.parent for file in (run / "tensorboard").rglob("events*")}
    return EventAccumulator(str(events)).Reload()


def identity(run: Path) -> str:
    return (run / "tracking-id").read_text()


def in_trackio(run: Path) -> Any:
    """The run, as trackio's own interface reads it."""
    (found,) = [each for each in trackio.Api().runs("i2ikit") if each.id == identity(run)]
    return found


def lines(run: Path) -> list[dict[str, Any]]:
    return trackio.sqlite_storage.SQLiteStorage.get_logs("i2ikit", run.name, run_id=identity(run))


def steps(run: Path, key: str) -> list[int]:
    return [line["step"] for line in lines(run) if key in line]


def test_tensorboard_gets_losses_diversity_validations_and_grids(whole: Path) -> None:
    shown = tensorboard(whole)
    tags = shown.Tags()
    curves = {tag: [event.step for event in shown.Scalars(tag)] for tag in tags["scalars"]}
    assert curves["generator/image_recon/a"] == [1, 2, 3, 4]
    assert curves["diversity/a2b"] == [0, 2, 4]
    assert curves[VALIDATED] == [4]
    assert set(tags["images"]) == {"samples/a2b", "samples/b2a"}
    for tag, ending in (("samples/a2b", ""), ("samples/b2a", "-b2a")):
        *_, last = shown.Images(tag)
        assert [event.step for event in shown.Images(tag)] == [0, 2, 4]
        with (
            Image.open(io.BytesIO(last.encoded_image_string)) as one,
            Image.open(whole / f"samples/step-000004{ending}.png") as two,
        ):
            assert np.array_equal(np.asarray(one), np.asarray(two))


def test_tensorboard_gets_no_config_which_would_be_a_file_for_each_value(whole: Path) -> None:
    assert [path.name.partition(".")[0] for path in (whole / "tensorboard").rglob("*")] == ["events"]


def test_trackio_gets_the_same_and_the_recipe(whole: Path) -> None:
    """The run has the name of its folder; lists of the recipe are text."""
    run = in_trackio(whole)
    assert run.name == "zebra"
    assert steps(whole, "generator/image_recon/a") == [1, 2, 3, 4]
    assert steps(whole, "diversity/a2b") == [0, 2, 4]
    assert steps(whole, VALIDATED) == [4]
    last = [line["samples/b2a"] for line in lines(whole) if "samples/b2a" in line][-1]
    with (
        Image.open(trackio.utils.MEDIA_DIR / last["file_path"]) as one,
        Image.open(whole / "samples/step-000004-b2a.png") as two,
    ):
        assert np.array_equal(np.asarray(one.convert("RGB")), np.asarray(two))
    config = {key: value for key, value in run.config.items() if not key.startswith("_")}
    assert config["training.steps"] == 4
    assert config["translator.name"] == "munit"
    assert config["training.trackers"] == '["tensorboard", "trackio"]'
    assert {type(value) for value in config.values()} <= {int, float, str, bool}
    assert not [key for key in config if key.startswith("versions")]
    assert "allow_val_change" not in config


def test_trackers_change_neither_training_nor_the_generators(
    whole: Path, folders: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The same weights and the same metrics.jsonl without any; `trackers = []` makes no folder and no file.

    Neither prints anything.
    """
    states = []
    for name, trackers in (("none", "training.trackers=[]"), ("both", BOTH)):
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        i2ikit.train(small(folders, trackers), tmp_path / name, console=QUIET)
        states.append((random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()))
    assert capfd.readouterr() == ("", "")
    assert states[0] == states[1]
    assert_same_training(whole, tmp_path / "none")
    assert not (tmp_path / "none" / "tensorboard").exists()
    assert not (tmp_path / "none" / "tracking-id").exists()


def test_a_resumed_run_goes_on_in_both(whole: Path, tmp_path: Path) -> None:
    """After a kill: TensorBoard shows each step once, trackio what is logged again twice.

    A younger run of the same name stays apart in trackio.
    """
    run = stopped_at(whole, 2, tmp_path / "zebra")
    other = tmp_path / "other" / "zebra"
    other.mkdir(parents=True)
    with (trackers := Trackers(["trackio"], other, 0, {})).closing(print):
        trackers.write({"generator/image_recon/a": 1.0}, 1)
    i2ikit.resume(run, console=QUIET)
    assert_same_training(whole, run)
    shown = tensorboard(run)
    losses = [tag for tag in shown.Tags()["scalars"] if tag.startswith("generator/")]
    assert losses
    for tag in losses:
        assert [event.step for event in shown.Scalars(tag)] == [1, 2, 3, 4], tag
    assert [event.step for event in shown.Images("samples/a2b")] == [0, 2, 4]
    assert identity(run) == identity(whole) != identity(other)
    assert steps(run, "generator/image_recon/a") == [1, 2, 3, 4, 3, 4]
    assert steps(other, "generator/image_recon/a") == [1]


def test_trackers_may_change_when_a_run_is_resumed(whole: Path, tmp_path: Path) -> None:
    run = stopped_at(whole, 2, tmp_path / "changed")
    (run / "tracking-id").unlink()
    i2ikit.resume(run, "training.trackers=[]", console=QUIET)
    assert_same_training(whole, run)
    assert not (run / "tracking-id").exists()


@pytest.mark.parametrize("name", ["wandb", "comet_ml"])
def test_a_tracker_that_is_not_installed_is_a_problem_of_the_recipe(
    name: str, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if there is a folder of that name, as wandb leaves in the current one."""
    (tmp_path / name).mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        RecipeError, match=rf"training.trackers: '{name}' is not installed: pip install {name}"
    ):
        tiny_recipe(folders, f'training.trackers=["{name}"]')


def test_a_finished_run_needs_no_tracker(whole: Path, tmp_path: Path) -> None:
    """Its recipe may name one that is not installed here."""
    text = (whole / "resolved.toml").read_text().partition("\n")[2]
    run = tmp_path / "run"
    run.mkdir()
    (run / "resolved.toml").write_text(text.replace('"trackio"', '"wandb"'))
    assert i2ikit.load(run).recipe.training.trackers == ("tensorboard", "wandb")


def test_names_that_are_unknown_or_given_twice_are_problems(folders: Path) -> None:
    with pytest.raises(RecipeError, match=r"training.trackers: names 'tensorboard' twice"):
        tiny_recipe(folders, 'training.trackers=["tensorboard", "tensorboard"]')
    with pytest.raises(RecipeError, match=r"training.trackers.0: should be .* got 'tensorbord'"):
        tiny_recipe(folders, 'training.trackers=["tensorbord"]')


def test_a_tracker_that_cannot_start_ends_the_command_before_training(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message has the tracker's own words and what to type; TensorBoard, started before, is closed."""
    monkeypatch.setenv("TRACKIO_SERVER_URL", "http://127.0.0.1:9")
    with pytest.raises(RunError) as raised:
        i2ikit.train(small(folders, BOTH), tmp_path / "run", console=QUIET)
    assert str(raised.value) == (
        "the tracker 'trackio' cannot start (ValueError: Self-hosted logging requires a write token: add "
        "write_token to the server URL, or set the TRACKIO_WRITE_TOKEN environment variable.); set up its "
        "account or server and resume the run, or leave it out: "
        f"i2ikit resume {tmp_path / 'run'} --set 'training.trackers=[\"tensorboard\"]'"
    )
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_tracker_that_fails_later_is_left_out_with_a_warning(
    whole: Path, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once; the run goes on, also with the other tracker."""
    calls = []

    def gone(run: object, values: object, step: int) -> None:
        calls.append(step)
        raise ConnectionError("the server\nis gone")

    monkeypatch.setattr(trackio.Run, "log", gone)
    console = Console(record=True, width=200, file=io.StringIO())
    run = i2ikit.train(small(folders, BOTH), tmp_path / "run", console=console).folder
    warning = "warning: the tracker 'trackio' failed and gets nothing more of this run: "
    assert console.export_text().count(warning + "ConnectionError: the server is gone") == 1
    assert calls == [0]
    assert_same_training(whole, run)
    assert tensorboard(run).Tags() == tensorboard(whole).Tags()
    trackio.finish()


def test_errors_of_tensorboard_s_disk_are_those_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it starts and later."""
    (tmp_path / "tensorboard").write_text("")
    with pytest.raises(
        RunError, match=r"cannot write .*tensorboard: there is a file where a folder should be"
    ):
        Trackers(["tensorboard"], tmp_path, 0, {})
    (tmp_path / "tensorboard").unlink()

    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(SummaryWriter, "add_scalar", full)
    trackers = Trackers(["tensorboard"], tmp_path, 0, {})
    with pytest.raises(RunError, match="No space left on device"), trackers.closing(print):
        trackers.write({"generator/adversarial": 1.0}, 1)


class Recorder:
    """A package of a tracker: any attribute is there, and calls are noted by their dotted name."""

    def __init__(self, calls: dict[str, list[Any]], name: str, **known: Any) -> None:
        self._calls, self._name, self._known = calls, name, known
        self.__spec__ = ModuleSpec(name, None, origin="a test")

    def __getattr__(self, name: str) -> Any:
        if name in self._known:
            return self._known[name]
        if name.startswith("__"):
            raise AttributeError(name)
        return Recorder(self._calls, f"{self._name}.{name}", **self._known)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self._calls.setdefault(f"{self._name}.{name}", []).append(value)

    def __call__(self, *args: Any, **options: Any) -> Any:
        self._calls.setdefault(self._name, []).append((args, options))
        return Recorder(self._calls, f"{self._name}()", **self._known)

    def __setitem__(self, key: str, value: Any) -> None:
        self._calls.setdefault(f"{self._name}[]", []).append((key, value))

    def __len__(self) -> int:
        return 0

    def __bool__(self) -> bool:
        return True


KNOWN = {
    "__version__": "3.58.8",  # of comet_ml
    "MAX_PARAM_VAL_LENGTH": 6000,  # of mlflow
    "MAX_PARAMS_TAGS_PER_BATCH": 100,
    "current_task": lambda: None,  # of clearml
}
PARTS = {
    # how it starts, and with what; what logs values, the config, a picture; what ends it
    "wandb": (
        "wandb.init",
        {"project": "i2ikit", "name": "zebra", "resume": "allow"},
        ("wandb.init().log", "wandb.config.update", "wandb.Image", "wandb.init().finish"),
    ),
    "comet_ml": (
        "comet_ml.start",
        {"project_name": "i2ikit"},
        *[[f"comet_ml.start().{part}" for part in ("log_metric", "log_parameters", "log_image", "end")]],
    ),
    "aim": ("aim.Run", {}, ("aim.Run().track", "aim.Run()[]", "aim.Image", "aim.Run().close")),
    "mlflow": (
        "mlflow.start_run",
        {"run_name": "zebra"},
        *[[f"mlflow.{part}" for part in ("log_metrics", "log_params", "log_image", "end_run")]],
    ),
    "clearml": (
        "clearml.Task.init",
        {"project_name": "i2ikit", "task_name": "zebra", "reuse_last_task_id": False},
        (
            "clearml.Task.init().get_logger().report_scalar",
            "clearml.Task.init().connect_configuration",
            "clearml.Task.init().get_logger().report_image",
            "clearml.Task.init().close",
        ),
    ),
    "dvclive": (
        "dvclive.Live",
        {"resume": True},
        *[[f"dvclive.Live().{part}" for part in ("log_metric", "log_params", "log_image", "end")]],
    ),
    "swanlab": (
        "swanlab.init",
        {"project": "i2ikit", "name": "zebra"},
        ("swanlab.init().log", "swanlab.config.update", "swanlab.Image", "swanlab.init().finish"),
    ),
}


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """The calls of the packages that are not installed here."""
    calls: dict[str, list[Any]] = {}
    for name in (*PARTS, "dvclive.plots"):
        monkeypatch.setitem(sys.modules, name, Recorder(calls, name, **KNOWN))
    return calls


@pytest.mark.parametrize("name", PARTS)
def test_each_tracker_gets_values_config_and_pictures(
    name: str, packages: dict[str, list[Any]], folders: Path, tmp_path: Path
) -> None:
    """With packages that only note their calls: what they are called with is that of Accelerate 1.15."""
    start, options, (values, config, picture, end) = PARTS[name]
    recipe = tiny_recipe(folders, f'training.trackers=["{name}"]')
    folder = tmp_path / "zebra"
    folder.mkdir()
    trackers = Trackers(recipe.training.trackers, folder, 5, recipe.flat())
    (started,) = packages[start]
    assert started[1].items() >= options.items()
    with trackers.closing(print):
        trackers.write({"generator/adversarial": 1.5}, 6)
        trackers.show({Direction("a", "b"): Image.new("RGB", (4, 3))}, 6)
        assert end not in packages
    assert len(packages[end]) == 1
    assert "1.5" in str(packages[values])
    assert "training.batch_size" in str(packages[config])
    assert "size=4x3" in str(packages[picture])
    if name == "wandb":
        assert started[1]["id"] == identity(folder)


def test_the_id_of_a_run_stays_and_is_no_other_run_s(packages: dict[str, list[Any]], tmp_path: Path) -> None:
    """wandb continues a run by it; two folders of the same name have two."""
    for parent in ("one", "two", "one"):
        folder = tmp_path / parent / "zebra"
        folder.mkdir(parents=True, exist_ok=True)
        Trackers(["wandb"], folder, 0, {})
    one, two, again = [options["id"] for _, options in packages["wandb.init"]]
    assert one == again != two


def test_a_tracker_that_fails_at_the_end_hides_no_error_and_is_said(
    packages: dict[str, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its OSError is no full disk of the run folder; the others are closed too."""

    def broken() -> None:
        raise OSError("no route to host")

    said: list[str] = []
    known = {**KNOWN, "end": broken}
    monkeypatch.setitem(sys.modules, "comet_ml", Recorder(packages, "comet_ml", **known))
    with Trackers(["wandb", "comet_ml", "aim"], tmp_path, 0, {}).closing(said.append):
        pass
    assert said == [
        "warning: the tracker 'comet_ml' failed and gets nothing more of this run: OSError: no route to host"
    ]
    assert packages["wandb.init().finish"]
    assert packages["aim.Run().close"]
    with (
        pytest.raises(ZeroDivisionError),
        Trackers(["comet_ml"], tmp_path, 0, {}).closing(said.append),
    ):
        raise ZeroDivisionError


def test_generators_are_restored_after_a_tracker_used_them(
    packages: dict[str, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As mlflow does for a name."""
    known = {**KNOWN, "init": lambda **options: random.random() + np.random.rand()}
    monkeypatch.setitem(sys.modules, "swanlab", Recorder(packages, "swanlab", **known))
    before = random.getstate(), np.random.get_state()[1].tolist()
    Trackers(["swanlab"], tmp_path, 0, {})
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before

"""Evaluation: what is measured, what is kept, and that two processes find what one finds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from i2ikit import evaluation
from i2ikit.errors import DataError, RecipeError, RunError, WeightsError
from i2ikit.evaluation import USUAL, evaluate
from i2ikit.metrics.subject import Measured
from i2ikit.registry import metrics
from i2ikit.run import Run
from tests.image_files import make_folders
from tests.tiny import tiny_recipe, untrained


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("work")
    return untrained(tiny_recipe(make_folders(root / "data")), root / "runs" / "one")


def found(run: Path, names: list[str] | None, seed: int = 0, overrides: list[str] | None = None) -> dict:
    """What each metric says of translations into b."""
    findings = evaluate(Run(run), names, to="b", seed=seed, overrides=overrides or [])
    return {finding.metric: finding.found for finding in findings}


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches, an index that is down, and no way out."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("I2IKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


def test_the_report_names_all_that_the_numbers_depend_on(run: Path, alexnet_file: str) -> None:
    options = [f'lpips-diversity.weights="{alexnet_file}"', "lpips-diversity.num_samples=4"]
    (finding,) = evaluate(Run(run), ["lpips-diversity"], to="a", seed=7, overrides=options)
    assert finding.path.name == "lpips-diversity-b2a-seed7-num_samples=4-weights=alexnet.safetensors.json"
    report = json.loads(finding.path.read_text())
    assert report["values"] == finding.found.values
    assert (report["direction"], report["seed"], report["image_size"]) == ("b2a", 7, 64)
    assert (report["protocol"], report["num_inputs"], report["num_samples"]) == ("munit", 3, 4)
    assert report["options"]["num_inputs"] == 100
    assert report["data"]["name"] == "folders"
    assert report["processes"] == 1
    assert set(report["versions"]) == {"i2ikit", "torch", "torchvision", "lpips"}
    assert finding.path.with_name(f"{finding.path.stem}-extremes.png").is_file()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers_twice(run: Path, alexnet_file: str) -> None:
    options = [f'lpips-diversity.weights="{alexnet_file}"']
    once, again, other = (
        found(run, ["lpips-diversity"], seed, options)["lpips-diversity"].values for seed in (0, 0, 1)
    )
    assert once == again != other


@pytest.mark.slow
def test_two_processes_find_what_one_finds(run: Path, alexnet_file: str) -> None:
    """To 1e-6, in every metric that shares its inputs out; three inputs, so the parts differ."""
    shutil.rmtree(run / "eval", ignore_errors=True)
    names = [*USUAL]
    options = [f'lpips-diversity.weights="{alexnet_file}"', "lpips-diversity.protocol=bicyclegan"]
    alone = found(run, names, 0, options)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += ["-m", "i2ikit", "eval", str(run)]
    command += [word for name in names for word in ("--metric", name)]
    command += [word for option in options for word in ("--set", option)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("lpips-diversity") == 2  # its heading and its file: one process speaks
    for name in names:
        (path,) = (run / "eval").glob(f"{name}-a2b-seed0*.json")
        report = json.loads(path.read_text())
        assert report["processes"] == 2
        assert report["values"] == pytest.approx(alone[name].values, rel=0, abs=1e-6)


def test_without_names_what_cannot_be_measured_is_said(run: Path, offline: Path) -> None:
    each = found(run, None)
    assert tuple(each) == USUAL
    assert each["lpips-diversity"].startswith("not measured: cannot find the weights of alexnet")
    assert isinstance(each["l1-diversity"], Measured)


def test_images_that_the_trunk_cannot_see_stop_only_lpips(tmp_path: Path, alexnet_file: str) -> None:
    """Grey ones, of 28 px."""
    small = ("data.size=28", "translator.discriminator.num_scales=1", "translator.discriminator.num_layers=2")
    grey = ("data.channels_b=1", "translator.style_encoder.num_downsample=2")
    recipe = tiny_recipe(make_folders(tmp_path / "data"), *small, *grey)
    run = untrained(recipe, tmp_path / "run")
    each = found(run, None, 0, [f'lpips-diversity.weights="{alexnet_file}"'])
    assert each["lpips-diversity"].endswith(
        "images of 28x28 px are too small for LPIPS with the trunk 'alex', which needs 31 px"
    )
    assert all(isinstance(each[name], Measured) for name in USUAL[1:])
    with pytest.raises(RecipeError, match="which needs 31 px or more"):
        found(run, ["lpips-diversity"])


def test_by_name_it_is_an_error(run: Path, offline: Path) -> None:
    with pytest.raises(WeightsError, match="cannot find the weights of alexnet"):
        list(evaluate(Run(run), ["lpips-diversity"], to="b", seed=0))
    with pytest.raises(WeightsError, match="cannot find the weights of inception-2015-12-05"):
        list(evaluate(Run(run), ["fid"], to="b", seed=0))
    with pytest.raises(RecipeError, match=r"conditional-inception\.classifier: .* needs it"):
        list(evaluate(Run(run), ["conditional-inception"], to="b", seed=0))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lpips-diversty.num_inputs=3", "is not among the metrics measured; did you mean 'lpips-diversity'?"),
        ("fid.num_inputs=3", "is not among the metrics measured (lpips-diversity)"),
        ("lpips-diversity.num_input=3", "did you mean 'num_inputs'?"),
        ("lpips-diversity=fid", "should be METRIC.OPTION=VALUE"),
        ("lpips-diversity.name=fid", "should be METRIC.OPTION=VALUE"),
        ("num_inputs=3", "should be METRIC.OPTION=VALUE"),
        ("lpips-diversity.num_inputs", "should be KEY=VALUE"),
        ("lpips-diversity.num_samples=3", "num_samples = 3 is odd"),
    ],
)
def test_options_that_change_nothing_are_an_error(run: Path, override: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        found(run, ["lpips-diversity"], 0, [override])
    assert message in str(caught.value)


def test_data_without_pairs_has_no_targets(run: Path, alexnet_file: str) -> None:
    options = [f'lpips-to-target.weights="{alexnet_file}"']
    with pytest.raises(DataError, match="has no pairs"):
        list(evaluate(Run(run), ["lpips-to-target"], to="b", seed=0, overrides=options))


@pytest.mark.slow
def test_offline_the_command_names_each_place_ends_with_2_and_leaves_nothing(
    run: Path, offline: Path
) -> None:
    command = [sys.executable, "-m", "i2ikit", "eval", str(run), "--metric", "lpips-diversity"]
    before = sorted(run.rglob("*"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    for place in (
        "i2ikit's cache: no",
        "torch hub's cache: no",
        "download: https://download.pytorch.org/models/alexnet-owt-7be5be79.pth: ConnectError",
        "package index: http://127.0.0.1:9/simple: ConnectError",
        "--set METRIC.weights=PATH",
    ):
        assert place in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(offline.iterdir())
    assert sorted(run.rglob("*")) == before


def test_a_metric_of_somebody_else_is_measured_by_name(run: Path) -> None:
    class Answer:
        """The answer."""

        def __init__(self, *, times: int = 1) -> None:
            self.times = times

        def measure(self, subject: object) -> Measured:
            """See the class."""
            return Measured({"answer": 42.0 * self.times})

    metrics.register("answer", Answer)
    try:
        (finding,) = evaluate(Run(run), ["answer"], to="b", seed=0, overrides=["answer.times=2"])
    finally:
        metrics.unregister("answer")
    assert finding.found.values == {"answer": 84}
    assert finding.path.name == "answer-a2b-seed0-times=2.json"
    assert json.loads(finding.path.read_text())["options"]["times"] == 2


def test_nothing_of_the_group_of_processes_is_left(run: Path) -> None:
    list(evaluate(Run(run), ["l1-diversity"], to="b", seed=0))
    assert not torch.distributed.is_initialized()


def test_known_reports_of_a_run_that_may_not_be_written_are_read(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `compare` does on runs on a read-only disk; what is not known yet fails before it is measured."""

    def read_only(folder: Path) -> None:
        raise RunError(f"cannot write {folder}")

    (first,) = evaluate(run, "l1-diversity", reuse=True)
    monkeypatch.setattr(evaluation, "check_writable", read_only)
    (again,) = evaluate(run, "l1-diversity", reuse=True)
    assert again.found.values == first.found.values
    with pytest.raises(RunError, match="cannot write"):
        list(evaluate(run, "l1-diversity"))

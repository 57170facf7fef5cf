"""Fixtures that several tests share, and the options of the test command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import AlexNet, vgg

from i2ikit.errors import WeightsError
from i2ikit.pretrained.weights import Network, Weights, load_weights
from i2ikit.registry import registries
from tests.chromium import Tab, open_tab
from tests.image_files import make_folders


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", type=Path, help="Run tests/reference on this file of golden numbers.")
    parser.addoption("--process-runs", type=int, default=3, help="How many two-process runs must end with 0.")
    parser.addoption(
        "--sharing-seed", type=int, default=0, help="Seed of what one and two processes compute."
    )
    parser.addoption(
        "--hostile", type=int, default=50, help="How many files of each kind tests/hostile damages."
    )
    parser.addoption("--demo-run", type=Path, action="append", help="A run for the demo page, by its name.")
    parser.addoption("--report-run", type=Path, help="A run for the browser tests of its report.")
    parser.addoption("--screenshots", type=Path, help="Folder for pictures of the browser tests.")
    parser.addoption("--hostile-page", type=Path, help="Page for the table of what tests/hostile found.")


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """A small unpaired data set: 6 training and 3 test images of each domain, 70 x 66 px."""
    return make_folders(tmp_path / "data")


@pytest.fixture
def tab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tab]:
    """A tab of Chromium; skips the test without it."""
    opened = open_tab(tmp_path, request.config.getoption("--screenshots"))
    yield opened
    opened.driver.quit()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """The same sums in the same order, whatever else runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def published_weights() -> Callable[[Network], Weights]:
    """`load_weights`, which fetches them once; without a network the test is skipped, but not in CI."""

    def load(network: Network) -> Weights:
        try:
            return load_weights(network)
        except WeightsError as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(error))

    return load


@pytest.fixture(scope="session")
def alexnet_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Random weights of AlexNet's convolutions: what is measured with them means nothing, but is exact."""
    torch.manual_seed(1)
    tensors = {f"features.{k}": v for k, v in AlexNet().features.state_dict().items()}
    file = tmp_path_factory.mktemp("weights") / "alexnet.safetensors"
    save_file(tensors, file)
    return str(file)


@pytest.fixture(scope="session")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Random weights of VGG-16's convolutions."""
    torch.manual_seed(1)
    tensors = {f"features.{k}": v for k, v in vgg.make_layers(vgg.cfgs["D"]).state_dict().items()}
    file = tmp_path_factory.mktemp("weights") / "vgg16.safetensors"
    save_file(tensors, file)
    return str(file)


@pytest.fixture(scope="session")
def fresh_environment(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`run("-m", "pip", ...)` of Python in a new environment, which sees what this one has installed."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    sites = [path for path in sys.path if path.endswith("site-packages")]
    lines = [f"import site; site.addsitedir({path!r})" for path in sites]
    (site / "outer.pth").write_text("\n".join(lines) + "\n")

    def run(*arguments: str, cwd: Path, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        command = [str(folder / "bin" / "python"), *arguments]
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
        assert code in (None, done.returncode), done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def registered() -> Iterator[None]:
    """Take back what a test registers."""
    before = {kind: dict(registry._registered) for kind, registry in registries.items()}
    yield
    for kind, registry in registries.items():
        registry._registered = before[kind]

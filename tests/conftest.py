"""Fixtures that several tests share, and the options of the test command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import AlexNet, vgg

from i2ikit.errors import WeightsError
from i2ikit.pretrained.weights import Network, Weights, load_weights
from i2ikit.recipe import Recipe, load_recipe
from i2ikit.registry import registries


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", type=Path, help="Run tests/reference on this file of golden numbers.")
    parser.addoption("--process-runs", type=int, default=3, help="How many two-process runs must end with 0.")
    parser.addoption(
        "--sharing-seed", type=int, default=0, help="Seed of what one and two processes compute."
    )


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """A small unpaired data set: 6 training and 3 test images of each domain, 70 x 66 px."""
    return make_folders(tmp_path / "data")


def make_folders(root: Path, side: tuple[int, int] = (70, 66)) -> Path:
    """Gradients (a) and blobs of one colour (b), as PNG files."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 3)):
        for domain in "AB":
            folder = root / f"{split}{domain}"
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
                picture = Image.fromarray(pixels).resize(side, Image.Resampling.BICUBIC)
                picture.save(folder / f"{index}.png")
    return root


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


TINY = (
    "translator.content_encoder.width=4",
    "translator.content_encoder.num_residual=1",
    "translator.style_encoder.width=4",
    "translator.decoder.num_residual=1",
    "translator.decoder.mlp_width=8",
    "translator.discriminator={name='multiscale-patch', width=4}",
    "data.size=64",
)
"""Overrides that make a recipe of MUNIT's small and quick, and let it do without a trunk's weights."""


PIP_INSTALL = (
    "-m",
    "pip",
    "install",
    "--quiet",
    "--no-deps",
    "--no-build-isolation",
    "--disable-pip-version-check",
)
"""Arguments that install a project without a network."""

NARROW = {
    "munit": TINY[:-1],
    "bicyclegan": tuple(f"translator.{part}.width=4" for part in ("generator", "encoder", "discriminator")),
    "unit": ("translator.encoder.width=4", "translator.discriminator.width=4"),
    "cyclegan": ("translator.generator.width=4", "translator.discriminator.width=4"),
}
"""Overrides that make the recipes of each method quick."""


def tiny_recipe(folders: Path, *overrides: str) -> Recipe:
    """recipes/munit.toml on the test folders: two steps of two images, in fp32."""
    on_folders = ("data.name=folders", f'data.root="{folders}"', "training.precision=fp32")
    short = ("training.steps=2", "training.batch_size=2", "training.log_every=1", "optimizer.decay=none")
    return load_recipe("munit", [*on_folders, *TINY, *short, *overrides])

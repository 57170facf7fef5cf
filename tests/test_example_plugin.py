"""A stranger's package, tests/example_plugin: installed with pip, listed, used, uninstalled, gone."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fake_packages import PIP_INSTALL
from tests.image_files import make_folders

EXAMPLE = Path(__file__).parent / "example_plugin"
NAMES = {"spectral-patchgan", "hinge", "spectral-patchgan/drawings"}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with a copy of the package's source, and images."""
    folder = tmp_path_factory.mktemp("stranger")
    shutil.copytree(EXAMPLE, folder / "source")
    make_folders(folder / "data")
    return folder


@pytest.fixture(scope="module")
def installed(fresh_environment: Callable[..., object], work: Path) -> Iterator[Callable[..., object]]:
    """The environment, with the package installed."""
    fresh_environment(*PIP_INSTALL, "./source", cwd=work)
    yield fresh_environment
    fresh_environment("-m", "pip", "uninstall", "--yes", "--quiet", "spectral-patchgan", cwd=work)
    found = json.loads(fresh_environment("-m", "i2ikit", "list", "--json", cwd=work).stdout)
    assert not NAMES & {offer["name"] for offer in found["offers"]}
    gone = fresh_environment("-m", "i2ikit", "run", "spectral-patchgan/drawings", cwd=work, code=2)
    assert "no such recipe" in gone.stderr


@pytest.mark.slow
def test_it_is_listed_with_its_version_and_shown(installed: Callable[..., object], work: Path) -> None:
    found = json.loads(installed("-m", "i2ikit", "list", "--json", cwd=work).stdout)
    theirs = {offer["name"]: offer for offer in found["offers"] if offer["package"] == "spectral-patchgan"}
    assert set(theirs) == NAMES
    assert {offer["version"] for offer in theirs.values()} == {"0.3.0"}
    assert theirs["hinge"]["summary"].startswith("The hinge loss: only scores on the wrong side")
    shown = installed("-m", "i2ikit", "show", "discriminator", "spectral-patchgan", cwd=work).stdout
    assert "spectral_patchgan/__init__.py:" in shown
    assert "[translator.discriminator]" in shown
    assert "num_layers = 4" in shown
    assert "No problems found." in installed("-m", "i2ikit", "doctor", cwd=work).stdout


@pytest.mark.slow
def test_its_own_tests_pass_with_warnings_as_errors(installed: Callable[..., object], work: Path) -> None:
    installed("-W", "error", "-m", "pytest", "-q", cwd=work / "source")


@pytest.mark.slow
def test_its_recipe_trains_by_name_and_the_run_says_which_version(
    installed: Callable[..., object], work: Path
) -> None:
    narrow = [
        "content_encoder.width=4",
        "style_encoder.width=4",
        "decoder.mlp_width=8",
        "discriminator.width=4",
    ]
    settings = [
        "data.name=folders",
        "data.root=data",
        "data.size=64",
        "training.steps=3",
        "training.batch_size=2",
    ]
    settings += [f"translator.{setting}" for setting in narrow]
    arguments = [argument for setting in settings for argument in ("--set", setting)]
    run = ("-m", "i2ikit", "run", "spectral-patchgan/drawings", "--out", "run", *arguments)
    assert "Done: 3 steps" in installed(*run, cwd=work).stdout
    resolved = (work / "run" / "resolved.toml").read_text()
    assert 'spectral-patchgan = "0.3.0"' in resolved
    assert (work / "run" / "recipe.toml").read_text() == (
        EXAMPLE / "spectral_patchgan/recipes/drawings.toml"
    ).read_text()
    assert 'name = "hinge"' in resolved
    installed("-m", "i2ikit", "translate", "run", "data/testA/0.png", "--styles", "2", cwd=work)
    wrong = (*run[:4], "--set", "translator.discriminator.num_layer=2")
    said = installed(*wrong, cwd=work, code=2).stderr
    assert "discriminator 'spectral-patchgan' has no option 'num_layer'; did you mean 'num_layers'?" in said
    small = (*run[:4], "--set", "data.size=64", "--set", "translator.discriminator.num_layers=8")
    assert "needs 256 px or more" in installed(*small, cwd=work, code=2).stderr


@pytest.mark.slow
def test_a_type_checker_understands_it(installed: Callable[..., object], work: Path) -> None:
    installed("-m", "mypy", "--strict", "spectral_patchgan", "tests", cwd=work / "source")


def test_it_is_one_file_of_sixty_lines_and_uses_only_what_is_public() -> None:
    source = (EXAMPLE / "spectral_patchgan" / "__init__.py").read_text()
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = [node.body[0] for node in ast.walk(tree) if isinstance(node, documented)]
    lines = set(range(1, len(source.splitlines()) + 1))
    for text in docstrings:
        if isinstance(text, ast.Expr):
            lines -= set(range(text.lineno, (text.end_lineno or 0) + 1))
    code = [n for n in lines if source.splitlines()[n - 1].strip()]
    assert len(code) <= 60
    assert [file.name for file in EXAMPLE.rglob("*.py")].count("__init__.py") == 1


TYPED = {
    "norm": ("check_norm", "class N(nn.Module):\n    def __init__(self, channels: int, groups: int) -> None: ...\n    def forward(self, x: Tensor) -> Tensor: return x\n"),
    "encoder": ("check_style_encoder", "class N(nn.Module):\n    def __init__(self, in_channels: int, style_dim: int) -> None: ...\n    def forward(self, x: Tensor, y: Tensor) -> Tensor: return x\n"),
    "discriminator": ("check_discriminator", "class N(nn.Module):\n    def __init__(self, in_channels: int) -> None: ...\n    def forward(self, x: Tensor) -> Tensor: return x\n"),
    "loss": ("check_adversarial_loss", "class N:\n    def generator(self, fake: Sequence[Tensor]) -> Tensor: return fake[0]\n"),
    "metric": ("check_metric", "class N:\n    def measure(self, subject: Subject) -> float: return 1.0\n"),
    "dataset": ("check_dataset", "class N:\n    def count(self, split: str, domain: str) -> int: return 1\n"),
}  # fmt: skip


@pytest.mark.slow
def test_a_type_checker_refuses_what_does_not_keep_the_contract(
    fresh_environment: Callable[..., object], tmp_path: Path
) -> None:
    """A wired parameter too many, an argument too many, a wrong result, a missing method."""
    head = "from collections.abc import Sequence\nfrom torch import Tensor, nn\nfrom i2ikit.metrics.subject import Subject\n"
    for name, (check, source) in TYPED.items():
        (tmp_path / f"wrong_{name}.py").write_text(
            f"{head}from i2ikit.testing import {check}\n{source}{check}(N)\n"
        )
    done = fresh_environment("-m", "mypy", "--strict", ".", cwd=tmp_path, code=1)
    for name, (check, _) in TYPED.items():
        assert f"wrong_{name}.py:" in done.stdout
        assert f'Argument 1 to "{check}" has incompatible type' in done.stdout, done.stdout

"""What `pip install .` puts on a machine: built as a wheel and used from another folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_the_wheel_holds_package_plugins_and_recipes_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    plugins = {path.name for path in (REPOSITORY / "plugins").iterdir()}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"i2ikit", *plugins}
    assert {"i2ikit/recipes/munit.toml", "i2ikit/recipes/munit-paper.toml", "i2ikit/py.typed"} <= set(names)
    templates = {path.name for path in (REPOSITORY / "i2ikit/packages/templates").glob("[!.]*.*")}
    assert {f"i2ikit/packages/templates/{name}" for name in templates} <= set(names)


@pytest.mark.slow
def test_the_installed_wheel_works_outside_a_checkout(wheel: Path, tmp_path: Path) -> None:
    """The recipe is found by name, the plugin through its entry point, and the problem in it is reported."""
    site = tmp_path / "site"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
    ]
    subprocess.run([*pip, str(wheel)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-m", "i2ikit", "run", "munit", "--set", "training.stepz=5"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "munit: 1 problem" in done.stderr
    where = [
        sys.executable,
        "-c",
        "import i2ikit_munit, i2ikit; print(i2ikit.__file__, i2ikit_munit.__file__)",
    ]
    done = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.count(str(site)) == 2
    new = [sys.executable, "-m", "i2ikit", "new-plugin", "own-loss", "--kind", "loss"]
    subprocess.run(new, cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert (tmp_path / "own-loss" / "own_loss" / "recipes" / "own-loss.toml").is_file()


def test_the_core_names_no_plugin() -> None:
    for file in (REPOSITORY / "i2ikit").rglob("*.py"):
        assert "i2ikit_" not in file.read_text().replace("i2ikit_cache", ""), file

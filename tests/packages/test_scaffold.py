"""`i2ikit new-plugin`: what it writes installs, and passes its own test, as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from i2ikit.errors import ComponentError
from i2ikit.packages.entry import KINDS
from i2ikit.packages.scaffold import write_plugin
from tests.fake_packages import PIP_INSTALL


@pytest.fixture(scope="module")
def plugins(fresh_environment: Callable[..., object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of each kind, written by the command and installed: editable, as a person would."""
    folder = tmp_path_factory.mktemp("plugins")
    for word in KINDS.values():
        said = fresh_environment(
            "-m", "i2ikit", "new-plugin", f"own-{word}", "--kind", word, cwd=folder
        ).stdout
        assert f"pip install -e own-{word}" in said
        assert f"i2ikit run own-{word}/own-{word}" in said
    editable = [part for word in KINDS.values() for part in ("-e", f"./own-{word}")]
    fresh_environment(*PIP_INSTALL, *editable, cwd=folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("word", KINDS.values())
def test_a_new_plugin_of_each_kind_passes_its_own_test(
    fresh_environment: Callable[..., object], plugins: Path, word: str
) -> None:
    done = fresh_environment("-W", "error", "-m", "pytest", "-q", f"own-{word}", cwd=plugins)
    assert f"{2 if word == 'translator' else 3} passed" in done.stdout


@pytest.mark.slow
def test_new_plugins_are_typed_strictly(fresh_environment: Callable[..., object], plugins: Path) -> None:
    files = [str(file.relative_to(plugins)) for file in plugins.rglob("*.py")]
    fresh_environment("-m", "mypy", "--strict", *files, cwd=plugins)


@pytest.mark.slow
def test_all_of_them_are_listed_and_nothing_is_wrong(
    fresh_environment: Callable[..., object], plugins: Path
) -> None:
    said = fresh_environment("-m", "i2ikit", "list", cwd=plugins).stdout
    for word in KINDS.values():
        assert f"own-{word} 0.1.0" in said
        assert f"own-{word}/own-{word}" in said
    assert "problem" not in said
    assert "No problems found." in fresh_environment("-m", "i2ikit", "doctor", cwd=plugins).stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("My Norm", "use lower-case letters, digits and hyphens, such as 'my-norm'"),
        ("my_norm", "such as 'my-norm'"),
        ("2norm", "such as 'norm'"),
        ("../norm", "such as 'norm'"),
        ("json", "Python itself uses 'json'"),
        ("in", "Python itself uses 'in'"),
        ("bn", "norm 'bn' is i2ikit's own"),
        ("torch", "a package 'torch' can already be imported"),
        ("größe", "use lower-case letters"),
        ("x-", "such as 'x'"),
    ],
)
def test_names_that_cannot_work_are_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        write_plugin(name, "norms", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    write_plugin("own", "norms", tmp_path / "new")
    with pytest.raises(ComponentError, match="already exists"):
        write_plugin("other", "norms", tmp_path / "new")
    (tmp_path / "file").touch()
    with pytest.raises(ComponentError, match="cannot write"):
        write_plugin("other", "norms", tmp_path / "file" / "new")


def test_names_of_torch_do_not_clash(tmp_path: Path) -> None:
    """The class of a plugin called `tensor` is TensorNorm."""
    files = write_plugin("my-word", "norms", tmp_path / "placeholder")
    assert 'my-word = "my_word:MyWordNorm"' in files[0].read_text()
    files = write_plugin("tensor", "norms", tmp_path / "new")
    assert "class TensorNorm(nn.Module)" in files[1].read_text()
    assert "class WideNorm(nn.Module)" in write_plugin("wide-norm", "norms", tmp_path / "two")[1].read_text()

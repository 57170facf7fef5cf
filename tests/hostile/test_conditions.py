"""Every command where something that it needs is missing: it works, or says in a line what is wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import i2ikit
from tests.hostile.tally import readings
from tests.image_files import make_folders
from tests.tiny import QUIET, tiny_recipe

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="conditions of POSIX systems")

START = """
import errno, os, pwd, sys
condition, folder = sys.argv[1:3]
sys.argv = ["i2ikit", *sys.argv[3:]]
CHANGING = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
def changes(name, values):
    if name == "open":
        path, _, flags = values
        if not flags & (os.O_WRONLY | os.O_RDWR):
            return False
    elif name in CHANGING:
        path = values[0]
    else:
        return False
    return isinstance(path, (str, os.PathLike)) and os.path.abspath(os.fspath(path)).startswith(folder)
def hook(name, values):
    if changes(name, values):
        raise OSError(number, os.strerror(number))
def nobody(number):
    raise KeyError(number)
if condition in ("full disk", "read-only disk"):
    number = errno.ENOSPC if condition == "full disk" else errno.EROFS
    sys.addaudithook(hook)
if condition == "no home directory":
    os.environ.pop("HOME", None)
    for name in ("I2IKIT_CACHE", "XDG_CACHE_HOME"):
        os.environ.pop(name, None)
    pwd.getpwuid = nobody
if condition == "vanished directory":
    os.mkdir("gone")
    os.chdir("gone")
    os.rmdir("../gone")
from i2ikit.cli.main import main
main()
"""

COMMANDS = {
    "run": ["run", "RECIPE", "--out", "WORK/new"],
    "resume": ["resume", "WORK/one", "--set", "training.steps=3"],
    "translate": ["translate", "WORK/one", "WORK/data/testA/0.png", "--styles", "1"],
    "eval": ["eval", "WORK/one", "--metric", "l1-diversity"],
    "eval with LPIPS": ["eval", "WORK/one", "--metric", "lpips-diversity"],
    "compare": ["compare", "WORK/one", "WORK/two", "--out", "WORK/page.html"],
    "list": ["list", "norms"],
    "show": ["show", "norm", "adain"],
    "doctor": ["doctor"],
    "new-plugin": ["new-plugin", "mine", "--out", "WORK/mine"],
}
ENDS = {
    # Commands that need the disk, or the folder, say so; others work.
    "full disk": {"run", "resume", "translate", "eval", "eval with LPIPS", "compare", "new-plugin"},
    "read-only disk": {"run", "resume", "translate", "eval", "eval with LPIPS", "compare", "new-plugin"},
    "vanished run": {"resume", "translate", "eval", "eval with LPIPS", "compare"},
    "vanished directory": set(COMMANDS),
    "no home directory": {"eval with LPIPS"},
    "no terminal": set(),
    "20 columns": set(),
    "ASCII locale": set(),
    "closed pipe": set(),
}
"""Under each condition, the commands that end with 2."""

NEEDS_WEIGHTS = {"eval with LPIPS", "compare"}
QUICK = {
    ("eval", "full disk"),
    ("translate", "read-only disk"),
    ("eval with LPIPS", "no home directory"),
    ("list", "20 columns"),
    ("run", "vanished directory"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("conditions")
    recipe = tiny_recipe(make_folders(root / "data"), "training.checkpoint_every=1")
    for name in ("one", "two"):
        i2ikit.train(recipe, root / name, console=QUIET)
    (root / "recipe.toml").write_text(recipe.to_toml())
    return root


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "condition"),
    [
        pytest.param(command, condition, marks=() if (command, condition) in QUICK else pytest.mark.long)
        for condition in ENDS
        for command in COMMANDS
    ],
)
def test_what_is_read(command: str, condition: str, whole: Path, tmp_path: Path, published_weights) -> None:
    """The exit code, no traceback, and no part of a file."""
    work = Path(shutil.copytree(whole, tmp_path / "work"))
    if condition == "vanished run":
        shutil.rmtree(work / "one")
    places = {"WORK": str(work), "RECIPE": str(work / "recipe.toml")}
    arguments = [places.get(word, word.replace("WORK", str(work))) for word in COMMANDS[command]]
    own = {
        "20 columns": {"COLUMNS": "20"},
        "ASCII locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    }
    reading, writing = os.pipe()
    if condition == "closed pipe":
        os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", START, condition, str(work), *arguments],
        cwd=tmp_path,
        env={**os.environ, **own.get(condition, {})},
        stdin=subprocess.DEVNULL,
        stdout=writing if condition == "closed pipe" else subprocess.PIPE,
        stderr=subprocess.PIPE,
        check=False,
        timeout=300,
    )
    os.close(writing)
    if condition != "closed pipe":
        os.close(reading)
    said = (done.stdout or b"").decode(), done.stderr.decode()
    assert done.returncode == (2 if command in ENDS[condition] else 0), said
    assert "Traceback" not in "".join(said)
    assert not [path for path in work.rglob(".*") if path.name.endswith(".tmp")]
    if done.returncode:
        last = said[1].strip().rpartition("error: ")[2].replace("\n", " ")
    else:
        last = "works" if condition != "no terminal" else said[0].strip().rpartition("\n")[2]
    for path, name in ((str(work), "WORK"), (str(tmp_path), "."), (os.path.expanduser("~"), "~")):
        last = last.replace(path, name)
    readings.setdefault(condition, {})[command] = last

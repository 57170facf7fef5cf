"""Runs every code block of README.md and docs/: Python as it is, i2ikit commands made small."""

from __future__ import annotations

import os

# Before torch is imported: two workers with two threads each on two cores would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import atexit
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser

from i2ikit.recipe import load_recipe
from tests.image_files import make_folders
from tests.tiny import NARROW

if "TRACKIO_DIR" not in os.environ:  # trackio reads it when it is imported; commands of the tests inherit it
    os.environ["TRACKIO_DIR"] = tempfile.mkdtemp(prefix="trackio-")
    atexit.register(shutil.rmtree, os.environ["TRACKIO_DIR"], ignore_errors=True)

NOT_RUN = (
    *("pip install", "git clone", "cd ", "tensorboard", "make ", "python -m pytest", "bash "),
    "i2ikit run bicyclegan-photos --set data.name=side-by-side",
    "i2ikit compare runs/table",
    *("i2ikit import", "i2ikit translate runs/zebra", "i2ikit export runs/zebra", "i2ikit eval runs/zebra"),
    *("i2ikit push", "i2ikit translate hf:"),
    *("i2ikit resume runs/zebra", "i2ikit export runs/evening --f"),  # tests/exchange does all of these
    "i2ikit eval runs/new-s0",
    "i2ikit demo",  # tests/demo
    "torchrun --nnodes",
    "accelerate launch",
    "python -m tests",
    "i2ikit run munit-photos --set data.name=shards",
    "torchrun --standalone --nproc_per_node 8",
)
"""What CI does itself, what never ends, and what needs data or runs that are not there."""


def _commands(block: str) -> list[str]:
    """Each command of a shell block: continued lines joined, comments and prompts left out."""
    lines = block.replace("\\\n", " ").splitlines()
    commands = [part for line in lines for part in line.split("#")[0].split("&&")]
    return [command.strip().removeprefix("$ ") for command in commands if command.strip()]


def _run_shell(example: Example) -> None:
    for command in _commands(example.parsed):
        if command.startswith(NOT_RUN):
            continue
        words = shlex.split(command)
        assert words[0] in ("i2ikit", "torchrun"), f"do not know how to test {command!r}"
        place = words.index("i2ikit")
        if words[0] == "torchrun":
            words[0] = "torch.distributed.run"
        if words[place + 1] == "run":
            given = [words[n + 1] for n, word in enumerate(words) if word == "--set"]
            recipe = load_recipe(words[place + 2], [text for text in given if not text.startswith("data.")])
            narrow = NARROW[recipe.translator.name]
            # A key cannot be both a value, as in `narrow`, and a table, as in the command.
            tables = {text.partition("=")[0].rpartition(".")[0] for text in given}
            small = [
                "data.name=folders",
                "data.root=data",
                "data.size=64",
                f"data.paired={str(recipe.data.options['paired']).lower()}",
                *(text for text in narrow if text.partition("=")[0] not in tables),
                "training.steps=2",
                "training.batch_size=2",
            ]
            words += [word for override in small for word in ("--set", override)]
        if words[place + 1] == "resume":  # one step more than the runs above
            words = ["training.steps=3" if w.startswith("training.steps=") else w for w in words]
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=example.namespace["folder"], capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def _run_shown(example: Example) -> None:
    """A block that starts with `$ i2ikit ...` shows what that command prints; others are not run."""
    first, _, shown = example.parsed.partition("\n")
    if first.startswith("$ i2ikit "):
        words = [sys.executable, "-m", *shlex.split(first.removeprefix("$ "))]
        done = subprocess.run(words, cwd=example.namespace["folder"], capture_output=True, text=True)
        assert done.stdout + done.stderr == shown, first


def _read_toml(example: Example) -> None:
    tomllib.loads(example.parsed)


def _set_up(namespace: dict[str, Any]) -> None:
    """A working folder for one document: images, a data set, and the recipes of the checkout."""
    folder = Path(tempfile.mkdtemp(prefix="i2ikit-docs-"))
    make_folders(folder / "data")
    (folder / "recipes").symlink_to(Path(__file__).parent / "recipes")
    for name in ("my-outline.png", "exemplar.png"):
        (folder / name).write_bytes((folder / "data" / "testA" / "0.png").read_bytes())
    shutil.copytree(folder / "data" / "testA", folder / "my-outlines")
    namespace["folder"] = folder
    namespace["before"] = Path.cwd()
    os.chdir(folder)  # where Python blocks write what commands then read


def _tear_down(namespace: dict[str, Any]) -> None:
    os.chdir(namespace["before"])
    shutil.rmtree(namespace["folder"])


pytest_collect_file = Sybil(
    parsers=[
        PythonCodeBlockParser(),
        CodeBlockParser("sh", _run_shell),
        CodeBlockParser("toml", _read_toml),
        CodeBlockParser("text", _run_shown),
    ],
    patterns=["README.md", "docs/*.md", "docs/reference/*.md"],
    # tests/test_write_a_plugin.py runs the first, tests/packages/test_describe.py the second.
    excludes=["docs/write-a-plugin.md", "docs/reference/metrics.md"],
    setup=_set_up,
    teardown=_tear_down,
).pytest()

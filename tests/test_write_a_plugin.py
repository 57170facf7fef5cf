"""docs/write-a-plugin.md, done as it is written: every block, in order, in a fresh environment."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.image_files import make_folders
from tests.tiny import NARROW

PAGE = Path(__file__).parents[1] / "docs" / "write-a-plugin.md"


@dataclass(frozen=True)
class Block:
    """A fenced block of the page."""

    language: str
    text: str


def blocks() -> list[Block]:
    found = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [Block(language, text) for language, text in found]


def test_the_page_has_no_block_that_nobody_tries() -> None:
    assert {block.language for block in blocks()} == {"sh", "text", "toml", "python"}
    assert PAGE.read_text("utf-8").count("```") == 2 * len(blocks())


@pytest.fixture
def uninstalled(fresh_environment: Callable[..., object], tmp_path: Path) -> Iterator[None]:
    yield
    fresh_environment("-m", "pip", "uninstall", "--yes", "--quiet", "frn", cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("uninstalled")
def test_every_block_does_what_the_page_says(
    fresh_environment: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Files are written where their first line says, commands run, and output is what they printed.

    Other Python blocks run in this process, one after the other.
    """
    make_folders(tmp_path / "data")
    said = ""
    namespace: dict[str, object] = {}
    for block in blocks():
        if block.language == "sh":
            said = "".join(run(line, fresh_environment, tmp_path) for line in block.text.splitlines())
        elif block.language == "text":
            for line in block.text.splitlines():
                assert line.strip() in said, f"{line}\nis not in\n{said}"
        elif block.text.startswith("# frn/"):
            file, _, text = block.text.partition("\n")
            (tmp_path / file.removeprefix("# ")).write_text(text)
        elif block.language == "python":
            exec(block.text, namespace)
        else:
            assert block.text in (tmp_path / "frn" / "pyproject.toml").read_text()
    assert list((tmp_path / "dist").glob("frn-0.1.0-*.whl"))
    assert 'frn = "0.1.0"' in (tmp_path / "runs" / "frn" / "resolved.toml").read_text()


def run(line: str, environment: Callable[..., subprocess.CompletedProcess[str]], folder: Path) -> str:
    """One command of the page; without a network, and `i2ikit run` on small images."""
    command, _, comment = line.partition("  # ")
    words = shlex.split(command)
    words = words[1:] if words[0] == "python" else ["-m", *words]
    if words[1] == "pip":
        words[3:3] = ["--no-build-isolation", "--quiet"]
    if words[1:3] == ["i2ikit", "run"]:
        small = [
            "data.name=folders",
            "data.root=data",
            "data.size=64",
            *NARROW["munit"],
            "training.batch_size=2",
        ]
        words += [part for override in small for part in ("--set", override)]
    done = environment(*words, cwd=folder, code=None)
    assert (done.returncode != 0) == (comment == "fails"), f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr

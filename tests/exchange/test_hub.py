"""Runs go to the Hub and come back; a server on the loopback interface stands for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

import i2ikit
from i2ikit.errors import ExportError, FetchError
from i2ikit.exchange.hub import address_of, pull, push
from i2ikit.run import Run
from tests.exchange.hub_server import Hub, hub

pytestmark = pytest.mark.slow

pytest.importorskip("huggingface_hub", reason="needs the extra i2ikit[hub]")
REPO = "lab/emoji"


@pytest.fixture
def server() -> Iterator[Hub]:
    with hub() as running:
        yield running


@pytest.fixture
def environment(server: Hub, tmp_path: Path) -> dict[str, str]:
    """Variables that huggingface_hub reads when it is imported."""
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith("HF_")},
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_TOKEN": "hf_token",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
    }


def command(environment: dict[str, str], folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "i2ikit", *words], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.fixture
def measured(munit_run: Path) -> Path:
    """A run with samples and a report."""
    (munit_run / "samples").mkdir(exist_ok=True)
    Image.new("RGB", (8, 8)).save(munit_run / "samples" / "step-000001.png")
    (munit_run / "eval").mkdir(exist_ok=True)
    values = {"diversity": 0.1234, "diversity_se": 0.0056, "real_pairs": None}
    report = {"metric": "l1-diversity", "direction": "a2b", "seed": 0, "values": values, "num_inputs": 100}
    ours = Run(munit_run).sha256
    for options, sha in (("", ours), ("-part=evaluation", ours), ("-num_inputs=3", "0" * 64)):
        text = json.dumps({**report, "trained": {"step": 1, "sha256": sha}})
        (munit_run / "eval" / f"l1-diversity-a2b-seed0{options}.json").write_text(text)
    (munit_run / "eval" / "damaged.json").write_text("{")
    return munit_run


def test_a_run_goes_to_the_hub_and_comes_back(
    measured: Path, server: Hub, environment: dict[str, str], tmp_path: Path
) -> None:
    """The same pictures, from the weights and the recipe alone."""
    pushed = command(
        environment, tmp_path, "push", str(measured), REPO, "--licence", "cc-by-4.0", "--private"
    )
    assert pushed.returncode == 0, pushed.stderr
    assert f"Uploaded: http://127.0.0.1:{server.server_port}/{REPO}" in pushed.stdout
    files = server.repositories[REPO]
    assert {*files} == {"README.md", "resolved.toml", "samples.png", "weights.safetensors"}
    assert server.private[REPO]
    for content in files.values():
        assert str(measured.parent).encode() not in content
    card = files["README.md"].decode()
    assert card.startswith('---\nlicense: "cc-by-4.0"\nlibrary_name: i2ikit\npipeline_tag: image-to-image\n')
    for line in (
        "![Held-out images and their translations](samples.png)",
        "| domains | a (3 channels), b (3 channels) |",
        "| translations | random styles of length 4, or the style of an exemplar |",
        "| l1-diversity: diversity | a2b | 0.1234 | 0.0056 | 100 |",
        "| l1-diversity (part=evaluation): diversity | a2b | 0.1234 | 0.0056 | 100 |",
        f"i2ikit translate hf://{REPO} IMAGE.png",
    ):
        assert line in card
    assert card.count("l1-diversity") == 2, "a report of older weights is left out"

    server.repositories[REPO]["evil.py"] = b"raise SystemExit(9)"
    image = tmp_path / "x.png"
    Image.new("RGB", (70, 64), "red").save(image)
    made = command(environment, tmp_path, "translate", f"hf://{REPO}", str(image), "--styles", "2")
    assert made.returncode == 0, made.stderr
    here = command(
        environment, tmp_path, "translate", str(measured), str(image), "--styles", "2", "--out", "here"
    )
    assert here.returncode == 0, here.stderr
    names = [file.name for file in (tmp_path / "here").glob("*.png")]
    assert len(names) == 3
    for name in names:
        assert (tmp_path / "translations" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
    assert not [line for line in server.log if "evil" in line]


def test_what_the_hub_refuses_is_said(
    munit_run: Path, server: Hub, environment: dict[str, str], tmp_path: Path
) -> None:
    for change, words, message in (
        ({"HF_TOKEN": "wrong"}, ["push", str(munit_run), REPO], f"cannot upload to {REPO}: "),
        ({}, ["push", str(munit_run), "emoji"], "'emoji' is not a name on the Hub; it has the form ORG/NAME"),
        (
            {},
            ["translate", "hf://lab/none", "x.png"],
            "cannot download hf://lab/none: RepositoryNotFoundError",
        ),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, ["push", str(munit_run), REPO], f"cannot upload to {REPO}: "),
    ):
        found = command({**environment, **change}, tmp_path, *words)
        assert found.returncode == 2, found.stdout
        assert message in found.stderr
        assert "Traceback" not in found.stderr


def test_a_repository_without_a_run_is_named(
    server: Hub, environment: dict[str, str], tmp_path: Path
) -> None:
    server.repositories["lab/other"] = {"README.md": b"hello"}
    found = command(environment, tmp_path, "translate", "hf://lab/other", "x.png")
    assert found.returncode == 2
    assert (
        "hf://lab/other is not a run of i2ikit: it has no weights.safetensors and no resolved.toml"
        in found.stderr
    )


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("hf://lab/emoji", True),
        ("hf://lab/emoji@v1.0", True),
        (Path("hf://lab/emoji"), True),
        ("hf://emoji", False),
        ("runs/one", False),
        ("hf://lab/emoji/weights", False),
        ("hf://../..@x", True),
    ],
)
def test_addresses(given: str | Path, address: bool) -> None:
    assert (address_of(given) is not None) == address


def test_names_that_are_no_repositories(munit_run: Path) -> None:
    with pytest.raises(FetchError, match="hf://emoji is not an address as hf://ORG/NAME"):
        pull("hf://emoji")
    for name in ("emoji", "a/b/c", "a/b@main", ""):
        with pytest.raises(ExportError, match="is not a name on the Hub"):
            push(munit_run, name)
    assert isinstance(i2ikit.load(munit_run), Run)
    assert torch.is_tensor(i2ikit.load(munit_run).encode_style(torch.zeros(3, 64, 64)))

"""Runs for the demo page, with their initial weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from i2ikit.demo.live import LiveModel
from i2ikit.demo.studio import Studio
from i2ikit.loading import load
from i2ikit.recipe import load_recipe
from tests.image_files import make_folders
from tests.tiny import NARROW, untrained


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`runs("munit")`: the folder of a small run; all runs have the same images."""
    root = tmp_path_factory.mktemp("demo")
    data = make_folders(root / "data", held_out=4)

    def folder(name: str, *overrides: str) -> Path:
        path = root / "-".join([name, *(text.split("=")[-1] for text in overrides)])
        if not path.exists():
            paired = str(name in ("bicyclegan", "pix2pix")).lower()
            own = ("data.name=folders", f'data.root="{data}"', "data.size=64", f"data.paired={paired}")
            # Beside MUNIT's codes of 4 numbers, longer ones.
            longer = ("translator.latent_dim=8",) if name == "bicyclegan" else ()
            untrained(load_recipe(name, [*own, *NARROW[name], *longer, *overrides]), path)
        return path

    return folder


@pytest.fixture
def studio(runs: Callable[[str], Path]) -> Callable[..., Studio]:
    """`studio("munit", "bicyclegan")`: a studio of these runs."""

    def made(*names: str) -> Studio:
        return Studio([LiveModel(load(runs(name), "cpu"), "cpu") for name in names])

    return made

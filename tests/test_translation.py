"""Translating files: the names of what is written, and where."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from i2ikit.checkpoints import save_weights
from i2ikit.errors import RunError
from i2ikit.run import RESOLVED, Run
from i2ikit.training import new_translator
from i2ikit.translation import translate_files
from tests.tiny import tiny_recipe


@pytest.fixture
def untrained(folders: Path, tmp_path: Path) -> Run:
    recipe = tiny_recipe(folders)
    images = recipe.data().images
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / RESOLVED).write_text(recipe.to_toml())
    save_weights(new_translator(recipe, images).eval(), images, 0, tmp_path / "run")
    return Run(tmp_path / "run", "cpu")


def test_numbered_files_do_not_overwrite_a_file_of_that_name(untrained: Run, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("x.png", "x.bmp", "x-2.png", "x.png")]
    for file in files:
        Image.new("L", (64, 64), 90).save(file)
    sheets = translate_files(untrained, files, 1, [], None, None, 0, tmp_path / "out")
    assert [sheet.name for sheet in sheets] == [
        "x-sheet.png",
        "x-3-sheet.png",
        "x-2-sheet.png",
        "x-4-sheet.png",
    ]


def test_a_folder_that_cannot_be_created_is_named(untrained: Run, tmp_path: Path) -> None:
    Image.new("L", (64, 64), 90).save(tmp_path / "x.png")
    for out in (tmp_path / "x.png", tmp_path / "x.png" / "out"):
        with pytest.raises(RunError, match=r"cannot create the folder .*x\.png"):
            translate_files(untrained, [tmp_path / "x.png"], 1, [], None, None, 0, out)

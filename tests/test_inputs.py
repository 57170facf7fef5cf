"""The images that a command translates: files, folders and patterns."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from i2ikit.inputs import input_files
from i2ikit.run import RESOLVED
from i2ikit.styles import chosen_styles
from i2ikit.translation import translate_files
from tests.styled import styled_model


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (20, 16), 90).save(path)
    return path


def found(folder: Path, *given: str, channels: int = 3, out: str = "out") -> tuple[list[str], list[str]]:
    """Paths relative to the folder, and why inputs are refused."""
    model = styled_model(folder, {"a": channels, "b": 3})
    files, refused = input_files(model, [folder / each for each in given], None, None, folder / out)
    return [str(path.relative_to(folder)) for path in files], [each.reason for each in refused]


def test_a_pattern_gives_its_images_in_natural_order(tmp_path: Path) -> None:
    for name in (
        "10.png",
        "9.png",
        "x10y2.JPG",
        "x9y10.jpg",
        "x10y1.png",
        ".hidden.png",
        "in/2.png",
        "in/deep/1.png",
    ):
        picture(tmp_path / name)
    (tmp_path / "notes.txt").touch()
    np.save(tmp_path / "array.npy", np.zeros((16, 16, 3)))
    top = ["9.png", "10.png", "x9y10.jpg", "x10y1.png", "x10y2.JPG"]
    assert found(tmp_path, "*") == (top, [])
    assert found(tmp_path, "**/[0-9]*.png") == (["9.png", "10.png", "in/2.png", "in/deep/1.png"], [])
    assert found(tmp_path, "i?/**/*.png") == (["in/2.png", "in/deep/1.png"], [])
    assert found(tmp_path, "*.npy") == (["array.npy"], [])
    assert found(tmp_path, "*", channels=5) == (["array.npy"], [])
    assert found(tmp_path, ".") == (top, [])


def test_a_pattern_gives_no_image_a_second_time(tmp_path: Path) -> None:
    for name in ("1.png", "2.png", "in/3.png"):
        picture(tmp_path / name)
    (tmp_path / "in" / "link.png").symlink_to("3.png")
    (tmp_path / "in" / "again").symlink_to("..")
    assert found(tmp_path, "**/*.png") == (["1.png", "2.png", "in/3.png"], [])
    assert found(tmp_path, "2.png", "*.png", "[12].png") == (["2.png", "1.png"], [])
    assert found(tmp_path, "*.png", "2.png", ".") == (["1.png", "2.png"], [])
    assert found(tmp_path, "2.png", "2.png") == (["2.png", "2.png"], [])


def test_a_name_with_the_characters_of_a_pattern_is_a_file_if_it_exists(tmp_path: Path) -> None:
    picture(tmp_path / "x[1].png")
    picture(tmp_path / "x1.png")
    picture(tmp_path / "[a]" / "y.png")
    picture(tmp_path / "a" / "z.png")
    assert found(tmp_path, "x[1].png") == (["x[1].png"], [])
    assert found(tmp_path, "x[1-2].png") == (["x1.png"], [])
    assert found(tmp_path, "[a]") == (["[a]/y.png"], [])
    assert found(tmp_path, "[a]/*.png") == (["[a]/y.png"], [])
    assert found(tmp_path, "[ab]/*.png") == (["a/z.png"], [])


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("*.gif", "*.gif: no file has this name, and as a pattern it matches no file"),
        ("x[2].png", "x[2].png: no file has this name, and as a pattern it matches no file"),
        ("no/such/**/*.png", "*.png: no file has this name, and as a pattern it matches no file"),
        ("i*", "i* matches no image, but 1 folder; give i*/* for the images inside"),
        ("*.txt", "*.txt matches no image (.png, .jpg, .jpeg, .webp, .bmp, .tif, .tiff)"),
    ],
)
def test_a_pattern_without_images_is_named(tmp_path: Path, pattern: str, message: str) -> None:
    picture(tmp_path / "in" / "x.png")
    (tmp_path / "notes.txt").touch()
    picture(tmp_path / "good.png")
    files, (reason,) = found(tmp_path, "good.png", pattern)
    assert files == ["good.png"]
    assert reason.replace(f"{tmp_path}{os.sep}", "").endswith(message)


def test_what_shows_several_translations_is_never_an_input(tmp_path: Path) -> None:
    """Sheets, strips, animations and contact sheets; translations are inputs elsewhere than in the folder."""
    file = picture(tmp_path / "x.png")
    model = styled_model(tmp_path)
    out = tmp_path / "made"
    for interpolate in (None, 3):
        styles = chosen_styles(model, count=2, interpolated=interpolate is not None)
        list(translate_files(model, [file], styles, out, interpolate=interpolate, contact_sheet=True))
    assert len(list(out.glob("*.png"))) == 2 + 1 + 1 + 1 + 1
    single = [f"made/x-a2b-seed0-style-{n}-of-2.png" for n in (1, 2)]
    assert found(tmp_path, "made") == (single, [])
    assert found(tmp_path, "made/*") == (single, [])
    assert found(tmp_path, "**/*") == ([*single, "x.png"], [])
    files, (reason,) = found(tmp_path, "made/*", out="made")
    assert files == []
    assert reason.endswith(
        "made/* matches only translations; to translate them, give another folder with --out"
    )


def test_a_folder_gives_its_images_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    for name in ("b.png", "a.JPG", "c.tif", ".hidden.png", "inner/d.png"):
        picture(folder / name)
    (folder / "notes.txt").touch()
    np.save(folder / "array.npy", np.zeros((64, 64, 3)))
    single = picture(tmp_path / "z.png")
    files, _ = input_files(styled_model(tmp_path), [single, folder], None, None, tmp_path / "out")
    assert files == [single, folder / "a.JPG", folder / "b.png", folder / "c.tif"]


def test_inputs_that_cannot_be_translated_are_named_before_the_others_are_translated(tmp_path: Path) -> None:
    good = picture(tmp_path / "good.png")
    (tmp_path / "notes.png").write_text("not an image")
    (tmp_path / "notes.npy").write_text("not an array")
    (tmp_path / "empty").mkdir()
    picture(tmp_path / "outer" / "inner" / "x.png")
    (tmp_path / "link.png").symlink_to("nothing")
    names = ("missing.png", "notes.png", "notes.npy", "empty", "outer", "link.png", "n" * 300, "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / RESOLVED).touch()
    given = [good, *(tmp_path / name for name in names)]
    files, refused = input_files(styled_model(tmp_path), given, None, None, tmp_path / "out")
    assert files == [good]
    assert [each.image for each in refused] == given[1:]
    problems = [each.reason for each in refused]
    endings = ".png, .jpg, .jpeg, .webp, .bmp, .tif, .tiff"
    for expected in (
        f"empty/ contains no image ({endings})",
        f"outer/ contains no image ({endings}), but 1 in its sub-folder inner/; give that folder",
        "missing.png: no such file or folder",
        "run is a run folder; give it first, before the images",
    ):
        assert [line for line in problems if line.endswith(expected)], expected
    assert [
        line for line in problems if "notes.png: not a readable image (its content is none of PNG" in line
    ]
    assert [line for line in problems if "notes.npy: not a readable array (ValueError" in line]

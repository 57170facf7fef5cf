"""Translating files: what is translated, and what the results are named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from i2ikit.checkpoints import save_weights
from i2ikit.errors import RunError
from i2ikit.inputs import Refused, input_files
from i2ikit.model import Model
from i2ikit.output_folder import origins
from i2ikit.run import RESOLVED, Run
from i2ikit.styles import chosen_styles
from i2ikit.training import new_translator
from i2ikit.translation import ContactPage, Translated, translate_files
from tests.tiny import tiny_recipe


@pytest.fixture
def untrained(folders: Path, tmp_path: Path) -> Run:
    recipe = tiny_recipe(folders)
    images = recipe.data().images
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / RESOLVED).write_text(recipe.to_toml())
    save_weights(new_translator(recipe, images).eval(), images, 0, tmp_path / "run")
    return Run(tmp_path / "run", "cpu")


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (64, 64), 90).save(path)
    return path


def results(
    model: Model,
    files: list[Path],
    out: Path,
    *exemplars: Path,
    styles: int | None = 1,
    seed: int | None = None,
    codes: Path | None = None,
    source: str | None = None,
    **options: Any,
) -> Iterator[Translated | Refused | ContactPage]:
    interpolated = "interpolate" in options
    chosen = chosen_styles(
        model,
        count=styles,
        seed=seed,
        exemplars=exemplars,
        codes=codes,
        source=source,
        interpolated=interpolated,
    )
    return translate_files(model, files, chosen, out, **options)


def translated(run: Run, files: list[Path], out: Path, *exemplars: Path, **options: Any) -> list[Translated]:
    found = results(run.model, files, out, *exemplars, **options)
    return [each for each in found if isinstance(each, Translated)]


def test_names_say_direction_seed_and_style_and_sort(untrained: Run, tmp_path: Path) -> None:
    file = picture(tmp_path / "my photo.v1.png")
    (made,) = translated(untrained, [file], tmp_path / "out", styles=12, seed=7)
    names = [path.name for path in made.files]
    assert names[0] == "my photo.v1-a2b-seed7-style-01-of-12.png"
    assert names == sorted(names)
    assert made.sheet.name == "my photo.v1-a2b-seed7-sheet-of-12.png"
    first, second = picture(tmp_path / "one" / "ex.png"), picture(tmp_path / "two" / "ex.png")
    (made,) = translated(untrained, [file], tmp_path / "out", first, second)
    assert [path.name for path in (*made.files, made.sheet)] == [
        "my photo.v1-a2b-as-ex.png",
        "my photo.v1-a2b-as-ex-2.png",
        "my photo.v1-a2b-as-ex-and-1-more-sheet.png",
    ]
    found = origins(tmp_path / "out")
    assert len(found) == 13 + 3
    assert found["my photo.v1-a2b-as-ex-2.png"]["exemplar"] == str(second)
    assert found["my photo.v1-a2b-seed7-style-01-of-12.png"] == {
        "source": str(file),
        "run": str(untrained.folder),
        "weights": "last",
        "direction": "a2b",
        "seed": 7,
        "style": 1,
        "styles": 12,
    }


def test_only_the_same_command_replaces_results(untrained: Run, tmp_path: Path) -> None:
    """Another seed, number of styles, direction, exemplar, run, or image of the same name does not."""
    out = tmp_path / "out"
    one, two = picture(tmp_path / "one" / "x.png"), picture(tmp_path / "two" / "x.jpg")
    exemplars = [picture(tmp_path / name / "e.png") for name in ("p", "q")]
    (untrained.folder / "best.safetensors").write_bytes(
        (untrained.folder / "weights.safetensors").read_bytes()
    )
    for _ in range(2):
        for run in (untrained, Run(untrained.folder, "cpu", best=True)):
            for file in (one, two):
                for seed in (0, 1):
                    for styles in (1, 2):
                        list(results(run.model, [file], out, styles=styles, seed=seed))
                for exemplar in exemplars:
                    list(results(run.model, [file], out, exemplar))
                list(results(run.model, [file], out, source="b"))
    images = 2 * 2 * (2 * (1 + 2) + 2 + 1)
    sheets = 2 * 2 * (2 * 2 + 2 + 1)
    assert len(list(out.glob("*.png"))) == images + sheets
    (untrained.folder).rename(tmp_path / "other run")
    list(results(Run(tmp_path / "other run", "cpu").model, [one], out))
    assert len(list(out.glob("*.png"))) == images + sheets + 2


def test_translations_in_bf16_replace_no_others(untrained: Run, tmp_path: Path) -> None:
    """The index names the precision, if it is not fp32; the same command replaces its own."""
    file, out = picture(tmp_path / "x.png"), tmp_path / "out"
    (exact,) = results(untrained.model, [file], out)
    (fast,) = results(untrained.model, [file], out, precision="bf16")
    (again,) = results(untrained.model, [file], out, precision="bf16")
    assert again.files == fast.files
    assert not set(exact.files) & set(fast.files)
    precisions = {name: origin.get("precision") for name, origin in origins(out).items()}
    assert {name for name, precision in precisions.items() if precision == "bf16"} == {
        path.name for path in (*fast.files, fast.sheet)
    }


def test_an_exemplar_may_be_named_like_a_sheet(untrained: Run, tmp_path: Path) -> None:
    file = picture(tmp_path / "x.png")
    names = ("e.png", "e-and-2-more-sheet.png", "E.png")
    exemplars = [picture(tmp_path / name) for name in names]
    (made,) = translated(untrained, [file], tmp_path / "out", *exemplars)
    assert len({path.name.casefold() for path in (*made.files, made.sheet)}) == 4
    assert len(origins(tmp_path / "out")) == 4


def test_numbers_are_not_those_of_another_image(untrained: Run, tmp_path: Path) -> None:
    files = [picture(tmp_path / name) for name in ("x.png", "x.bmp", "x-2.png", "x.png")]
    made = translated(untrained, files, tmp_path / "out")
    assert [each.files[0].name.removesuffix("-a2b-seed0-style-1-of-1.png") for each in made] == [
        "x",
        "x-3",
        "x-2",
        "x-4",
    ]


def test_results_beside_the_inputs_replace_none_of_them(untrained: Run, tmp_path: Path) -> None:
    """The folder can be translated again: its results are not taken for inputs."""
    folder = tmp_path / "pictures"
    names = ("photo.png", "photo-a2b-seed0-style-1-of-1.png", "PHOTO-2-a2b-seed0-sheet-of-1.png")
    before = {picture(folder / name): (folder / name).read_bytes() for name in names}
    for _ in range(2):
        files, refused = input_files(untrained.model, [folder], None, None, folder)
        assert (files, refused) == (sorted(before), [])
        translated(untrained, files, folder)
    assert {path: path.read_bytes() for path in before} == before
    assert len(list(folder.glob("*.png"))) == 3 * 3


def test_a_folder_gives_its_images_in_order(untrained: Run, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    for name in ("b.png", "a.JPG", "c.tif", ".hidden.png", "inner/d.png"):
        picture(folder / name)
    (folder / "notes.txt").touch()
    np.save(folder / "array.npy", np.zeros((64, 64, 3)))
    single = picture(tmp_path / "z.png")
    files, _ = input_files(untrained.model, [single, folder], None, None, tmp_path / "out")
    assert files == [single, folder / "a.JPG", folder / "b.png", folder / "c.tif"]


def test_sheets_are_not_translated_but_translations_are(untrained: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (made,) = translated(untrained, [picture(tmp_path / "x.png")], out, styles=2)
    assert input_files(untrained.model, [out], "b", None, tmp_path / "back") == (list(made.files), [])
    files, (refused,) = input_files(untrained.model, [out], "b", None, out)
    assert files == []
    assert re.search(r"out/ contains only translations; .* another folder with --out", refused.reason)


def test_inputs_that_cannot_be_translated_are_named_before_the_others_are_translated(
    untrained: Run, tmp_path: Path
) -> None:
    good = picture(tmp_path / "good.png")
    (tmp_path / "notes.png").write_text("not an image")
    (tmp_path / "notes.npy").write_text("not an array")
    (tmp_path / "empty").mkdir()
    picture(tmp_path / "outer" / "inner" / "x.png")
    (tmp_path / "link.png").symlink_to("nothing")
    names = ("missing.png", "notes.png", "notes.npy", "empty", "outer", "link.png", "n" * 300, "run")
    given = [good, *(tmp_path / name for name in names)]
    files, refused = input_files(untrained.model, given, None, None, tmp_path / "out")
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


def test_an_image_that_cannot_be_decoded_does_not_stop_the_others(untrained: Run, tmp_path: Path) -> None:
    """It is named when its turn comes."""
    files = [picture(tmp_path / f"{name}.png") for name in "abc"]
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(files[1])
    files[1].write_bytes(files[1].read_bytes()[:1000])
    given = [*files, files[1]]
    assert input_files(untrained.model, given, None, None, tmp_path) == (given, [])
    found = list(results(untrained.model, given, tmp_path / "out"))
    assert [each.image for each in found if not isinstance(each, ContactPage)] == given
    refused = [each for each in found if isinstance(each, Refused)]
    assert refused == [found[1], found[3]]
    assert all(f"{files[1]}: not a readable image" in each.reason for each in refused)
    assert len(list((tmp_path / "out").glob("*.png"))) == 4


def test_a_file_in_a_folder_that_is_no_image_does_not_stop_the_others(untrained: Run, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    good = picture(folder / "good.png")
    (folder / "bad.png").write_text("not an image")
    files, _ = input_files(untrained.model, [folder], None, None, tmp_path / "out")
    assert files == [folder / "bad.png", good]
    bad, made = results(untrained.model, files, tmp_path / "out")
    assert isinstance(made, Translated)
    assert isinstance(bad, Refused)
    assert "bad.png: not a readable image" in bad.reason


def test_images_are_translated_one_after_another(untrained: Run, tmp_path: Path) -> None:
    """The second is not even read before the first is written."""
    files = [picture(tmp_path / f"{name}.png") for name in "ab"]
    steps = results(untrained.model, files, tmp_path / "out")
    next(steps)
    picture(files[1]).unlink()
    refused = next(steps)
    assert isinstance(refused, Refused)
    assert "b.png: not a readable image (FileNotFoundError" in refused.reason


def test_a_folder_that_cannot_be_written_in_is_named_before_anything_is_translated(
    untrained: Run, tmp_path: Path
) -> None:
    file = picture(tmp_path / "x.png")
    with pytest.raises(RunError, match=r"cannot write in the folder .*x\.png: .*; give another folder"):
        results(untrained.model, [file], file)

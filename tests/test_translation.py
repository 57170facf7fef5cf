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
from tests.styled import styled_model
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


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as opened:
        return opened.size


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


def test_sheets_are_not_translated_but_translations_are(untrained: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (made,) = translated(untrained, [picture(tmp_path / "x.png")], out, styles=2)
    assert input_files(untrained.model, [out], "b", None, tmp_path / "back") == (list(made.files), [])
    files, (refused,) = input_files(untrained.model, [out], "b", None, out)
    assert files == []
    assert re.search(r"out/ contains only translations; .* another folder with --out", refused.reason)


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


def test_an_interpolation_is_a_strip_and_an_animation(tmp_path: Path) -> None:
    """The translations of the codes in between, in place of the single ones; the same command replaces them."""
    model, file, out = styled_model(tmp_path, {"a": 3, "b": 1}), picture(tmp_path / "x.png"), tmp_path / "out"
    np.save(tmp_path / "ends.npy", np.array([[-0.5] * 4, [0.5] * 4, [0] * 4], np.float32))
    for _ in range(2):
        (made,) = results(model, [file], out, styles=None, codes=tmp_path / "ends.npy", interpolate=5)
    assert isinstance(made, Translated)
    names = [f"x-a2b-ends-3-codes-interpolated-5.{ending}" for ending in ("webp", "png")]
    assert [path.name for path in (*made.files, made.sheet)] == names
    assert sorted(path.name for path in out.glob("x*")) == sorted(names)
    grey = 90 / 127.5 - 1
    expected = [[grey - 0.5 + n / 4 for n in range(5)], [grey + 0.5 - n / 8 for n in range(5)]]
    levels = np.rint((np.clip(expected, -1, 1) + 1) * 127.5)
    with Image.open(made.sheet) as opened:
        strip = np.asarray(opened.convert("L"), float)
    assert strip.shape == (16 + 2 + 2 * 66, 2 + 5 * 66)
    np.testing.assert_allclose(strip[[16 + 34, 16 + 100]][:, [34 + 66 * n for n in range(5)]], levels, atol=1)
    with Image.open(made.files[0]) as animation:
        assert animation.n_frames == 16  # 9 and 7 back
        assert animation.size == (256, 256)
    origin = origins(out)[names[0]]
    assert (origin["sheet"], origin["interpolation"], origin["codes"]) == (3, 5, str(tmp_path / "ends.npy"))


def test_an_interpolation_with_too_many_pixels_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    Image.new("L", (700, 512)).save(file)
    model = styled_model(tmp_path)
    options: dict[str, Any] = {"styles": 2, "interpolate": 1000, "size": "original"}
    (found,) = results(model, [file], tmp_path / "out", **options)
    assert isinstance(found, Refused)
    assert found.reason == (
        f"{file}: an animation of 1000 pictures with 700x512 px has 358 megapixels, more than the limit of 250; "
        "choose a smaller --interpolate, a smaller --size or fewer styles"
    )


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("sides", [(1, 1), (37, 53), (64, 16)])
def test_a_translation_of_the_original_size_has_the_size_of_the_image(
    tmp_path: Path, channels: int, sides: tuple[int, int]
) -> None:
    width, height = sides
    model = styled_model(tmp_path, {"a": channels, "b": channels, "c": 3})
    file = tmp_path / ("x.npy" if channels == 5 else "x.jpg")
    if channels == 5:
        np.save(file, np.full((height, width, 5), 0.5))
    else:
        Image.new("RGB", sides).save(file)
    (made,) = results(model, [file], tmp_path / "out", size="original")
    assert isinstance(made, Translated)
    (path,) = made.files
    found = np.load(path).shape[:2] if channels == 5 else size_of(path)[::-1]
    assert found == (height, width)
    assert origins(tmp_path / "out")[path.name]["size"] == "original"


def test_a_size_and_a_format_replace_no_others(tmp_path: Path) -> None:
    model, file, out = styled_model(tmp_path), picture(tmp_path / "x.png"), tmp_path / "out"
    for _ in range(2):
        for options in (
            {},
            {"size": 32},
            {"size": "original"},
            {"image_format": "webp"},
            {"image_format": "jpg"},
        ):
            list(results(model, [file], out, **options))
    label = "a2b-seed0-style-1-of-1"
    sizes = {path.name: size_of(path) for path in out.glob("x*style*")}
    assert sizes == {
        f"x-{label}.png": (16, 16),
        f"x-2-{label}.png": (32, 32),
        f"x-3-{label}.png": (64, 64),
        f"x-4-{label}.webp": (16, 16),
        f"x-5-{label}.jpg": (16, 16),
    }
    starts = {path.suffix: path.read_bytes()[:3] for path in out.glob("x-*style*")}
    assert starts == {".png": b"\x89PN", ".webp": b"RIF", ".jpg": b"\xff\xd8\xff"}


def test_a_format_that_cannot_be_chosen_is_an_error(tmp_path: Path) -> None:
    file = picture(tmp_path / "x.png")
    with pytest.raises(
        RunError, match=r"into b have 5 channels and are written as \.npy; leave --format out"
    ):
        results(styled_model(tmp_path, {"a": 3, "b": 5}), [file], tmp_path, image_format="png")
    with pytest.raises(RunError, match="a strip as PNG and an animation as WebP; leave --format out"):
        results(styled_model(tmp_path), [file], tmp_path, styles=2, image_format="png", interpolate=2)


def test_an_image_that_a_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    Image.new("L", (16400, 200)).save(file)
    (found,) = results(styled_model(tmp_path), [file], tmp_path, size="original", image_format="webp")
    assert isinstance(found, Refused)
    assert "x.png: a file of the format webp has at most 16383 px on a side, not 16400x200" in found.reason


def test_a_contact_sheet_has_a_row_for_each_image_and_pages(tmp_path: Path) -> None:
    model = styled_model(tmp_path)
    files = [picture(tmp_path / "in" / f"{n}.png") for n in range(34)]
    files[5].write_text("not an image")
    for _ in range(2):
        found = list(results(model, files, tmp_path / "out", styles=2, contact_sheet=True))
    assert [type(each) for each in found[30:]] == [Translated] * 3 + [ContactPage, Translated, ContactPage]
    pages = sorted((tmp_path / "out").glob("contact*"))
    assert [each.file for each in found if isinstance(each, ContactPage)] == pages
    assert [path.name for path in pages] == [f"contact-sheet-a2b-seed0-2-styles-page-{n}.png" for n in (1, 2)]
    heights = [size_of(path)[1] for path in pages]
    assert heights == [18 + 68 * 32 + 4, 18 + 68 + 4]
    origin = origins(tmp_path / "out")[pages[1].name]
    assert (origin["contact_sheet"], origin["sheet"]) == (2, 2)
    list(results(model, files[:2], tmp_path / "out", styles=2, contact_sheet=True))
    assert len(list((tmp_path / "out").glob("contact*"))) == 3


def test_progress_counts_translations(tmp_path: Path) -> None:
    made: list[int] = []
    files = [picture(tmp_path / f"{n}.png") for n in range(2)]
    list(
        results(
            styled_model(tmp_path), files, tmp_path / "out", styles=3, interpolate=4, progress=made.append
        )
    )
    assert sum(made) == 2 * 2 * 4


def test_a_translation_of_many_pixels_is_made_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parts give the same files."""
    model, file = styled_model(tmp_path), picture(tmp_path / "x.png")
    made: list[int] = []
    list(results(model, [file], tmp_path / "one", styles=5))
    monkeypatch.setattr("i2ikit.translation.PIXELS_AT_ONCE", 2 * 16 * 16)
    list(results(model, [file], tmp_path / "two", styles=5, progress=made.append))
    assert made == [2, 2, 1]
    for path in (tmp_path / "one").glob("*.png"):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_an_image_for_which_there_is_no_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory")

    model = styled_model(tmp_path)
    files = [picture(tmp_path / f"{n}.png") for n in range(2)]
    monkeypatch.setattr(model.translator, "translate", fail)
    for found in results(model, files, tmp_path / "out"):
        assert isinstance(found, Refused)
        assert found.reason == (
            f"{found.image}: the image has 16x16 px, and there is not enough memory to translate it; choose a "
            "smaller size"
        )

"""What the demo page asks of several models at once."""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import i2ikit
from i2ikit.demo.live import LiveModel, opened
from i2ikit.demo.studio import Problem, Studio, archive, mixed
from i2ikit.errors import ExportError, RunError
from i2ikit.loading import load
from i2ikit.run import Run
from i2ikit.translator import Direction
from tests.tiny import tiny_recipe, untrained

A2B, B2A = Direction("a", "b"), Direction("b", "a")
Studios = Callable[..., Studio]


def picture(path: Path, side: tuple[int, int] = (90, 71), mode: str = "RGB") -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(side).convert(mode).save(path)
    return path


def one(answers: list[object]) -> object:
    (answer,) = answers
    return answer


def test_translations_are_those_of_the_run(
    studio: Studios, runs: Callable[[str], Path], tmp_path: Path
) -> None:
    file = picture(tmp_path / "photo.jpg")
    its = studio("munit")
    for direction in (A2B, B2A):
        codes = its.random_styles(direction, 3, 5)
        (found,) = its.translations(its.inputs(file, direction.source), codes, direction)
        expected = i2ikit.load(runs("munit"), "cpu").translate(file, styles=3, seed=5, to=direction.to)
        assert [np.asarray(p).tolist() for p in found] == [np.asarray(p).tolist() for p in expected]


def test_each_model_answers_for_itself(studio: Studios) -> None:
    """BicycleGAN translates in one direction only, and CycleGAN in one way only."""
    its = studio("munit", "bicyclegan", "cyclegan")
    assert its.directions == [A2B, B2A]
    assert [its.style_length(direction) for direction in its.directions] == [8, 4]
    ((_, array), *_) = its.held_out("b", 2, 0)
    codes = its.random_styles(B2A, 3, 0)
    made = its.translations(its.inputs(array, "b"), codes, B2A)
    assert [len(each) for each in (made[0], made[2])] == [3, 1]
    assert made[1] == "this translator does not translate from b to a; it translates a to b"
    assert isinstance(made[1], Problem)


def test_styles_of_an_exemplar_are_those_of_the_encoder(studio: Studios, runs: Callable[[str], Path]) -> None:
    its = studio("munit", "cyclegan")
    ((_, array), *_) = its.held_out("b", 2, 0)
    found, none = its.styles_of(array, A2B)
    torch.testing.assert_close(found, i2ikit.load(runs("munit"), "cpu").encode_style(array, "b"))
    assert none.shape == (1, 0)


def test_held_out_images_are_those_of_the_dataset(studio: Studios, runs: Callable[[str], Path]) -> None:
    data = Run(runs("munit")).dataset()
    known = [data.image("test", "a", n) for n in range(4)]
    found = studio("munit").held_out("a", 8, 0)
    assert len(found) == 4
    for _, array in found:
        x = torch.from_numpy(array).permute(2, 0, 1) * 2 - 1
        assert min((x - image).abs().max() for image in known) < 1e-6


def test_transitions_begin_and_end_at_the_styles(studio: Studios) -> None:
    its = studio("munit")
    ((_, array), *_) = its.held_out("a", 2, 0)
    x = its.inputs(array, "a")
    start, end = its.random_styles(A2B, 1, 1), its.random_styles(A2B, 1, 2)
    (shown,) = its.transitions(x, start, end, 5, A2B)
    strip = np.asarray(shown.strip)
    for codes, left in ((start, 2), (end, 2 + 4 * 66)):
        ((expected,),) = its.translations(x, codes, A2B)
        assert (strip[18 : 18 + 64, left : left + 64] == np.asarray(expected)).all()
    with Image.open(io.BytesIO(shown.animation)) as animated:
        assert (animated.format, animated.n_frames) == ("WEBP", 8)


def test_a_deterministic_model_has_no_transitions(studio: Studios) -> None:
    its = studio("cyclegan")
    assert its.style_length(A2B) == 0
    ((_, array), *_) = its.held_out("a", 2, 0)
    codes = its.random_styles(A2B, 8, 0)
    assert its.transitions(its.inputs(array, "a"), codes, codes, 5, A2B) == [
        "it has only one translation of each image"
    ]


def test_sliders_reach_what_the_prior_draws(studio: Studios) -> None:
    """1,000 normal codes of 8 numbers: the largest is above 3, and below 5 but for 1 in 200."""
    assert studio("munit").range() in (4, 5)
    assert studio("cyclegan").range() == 1


def test_locked_numbers_stay() -> None:
    new, old = torch.arange(8.0).reshape(2, 4), torch.full((1, 4), -1.0)
    (codes,) = mixed([new], [old], [1, 3, 7])
    assert codes.tolist() == [[0, -1, 2, -1], [4, -1, 6, -1]]
    assert new[0, 1] == 1
    assert mixed([Problem("no")], [old], [1]) == ["no"]


def bad_files(folder: Path) -> dict[str, str]:
    """Files that cannot be used, and a part of what is said about each."""
    (folder / "empty.png").write_bytes(b"")
    (folder / "notes.png").write_text("not a picture")
    (folder / "photo.gif").write_bytes(b"GIF89a")
    (folder / "evil.npy").write_bytes(b"\x93NUMPY")
    picture(folder / "torn.png")
    (folder / "torn.png").write_bytes((folder / "torn.png").read_bytes()[:60])
    Image.new("1", (9000, 9000)).save(folder / "huge.png")
    return {
        "empty.png": "not a readable image",
        "notes.png": "not a readable image",
        "photo.gif": "the ending of its name is not",
        "evil.npy": "not a readable array",
        "torn.png": "not a readable image",
        "huge.png": "9000x9000 px are more than the limit of 64 megapixels",
    }


def test_files_that_cannot_be_used_are_named_without_the_folder(studio: Studios, tmp_path: Path) -> None:
    its = studio("munit")
    for name, text in bad_files(tmp_path).items():
        (answer,) = its.inputs(tmp_path / name, "a")
        assert isinstance(answer, Problem), name
        assert text in answer
        assert answer.startswith(name)
        assert str(tmp_path) not in answer


def test_a_picture_that_is_large_after_resizing_is_refused(
    studio: Studios, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("i2ikit.demo.studio.MOST_PIXELS", 64 * 640)
    its = studio("munit")
    assert one(its.inputs(picture(tmp_path / "x.png", (1280, 128)), "a")).shape == (1, 3, 64, 640)
    assert one(its.inputs(picture(tmp_path / "x.png", (1282, 128)), "a")) == (
        "641x64 px after resizing is too large for this page; crop it"
    )


def test_new_weights_are_used_when_training_saves_them(folders: Path, tmp_path: Path) -> None:
    """A damaged file, or none, leaves the model as it was."""
    run = untrained(tiny_recipe(folders), tmp_path / "run")
    other = untrained(tiny_recipe(folders, "seed=1"), tmp_path / "other")
    live = LiveModel(load(run, "cpu"), "cpu")
    before = live.model()
    assert live.model() is before
    shutil.copy(other / "weights.safetensors", tmp_path / "new")
    (tmp_path / "new").replace(run / "weights.safetensors")
    after = live.model()
    assert after is not before
    assert after.sha256 == Run(other).sha256
    (run / "weights.safetensors").write_bytes(b"damaged")
    assert live.model() is after
    (run / "weights.safetensors").unlink()
    assert live.model() is after


def test_a_run_without_weights_is_waited_for(folders: Path, tmp_path: Path) -> None:
    run = untrained(tiny_recipe(folders), tmp_path / "run")
    weights = run / "weights.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    found = opened(run, "cpu", wait=0)
    assert next(found) == f"{run} has not saved any weights yet. Waiting for them; Ctrl-C stops."
    weights.write_bytes(content)
    (live,) = found
    assert isinstance(live, LiveModel)
    assert live.model().step == 1


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no run"):
        next(opened(tmp_path / "none", "cpu"))


def test_a_run_whose_images_are_gone_still_translates(folders: Path, tmp_path: Path) -> None:
    run = untrained(tiny_recipe(folders), tmp_path / "run")
    shutil.rmtree(folders)
    its = Studio([LiveModel(load(run, "cpu"), "cpu")])
    assert its.held_out("a", 8, 0) == []
    x = its.inputs(picture(tmp_path / "x.png"), "a")
    assert len(one(its.translations(x, its.random_styles(A2B, 2, 0), A2B))) == 2


def test_grey_and_colour_and_16_bits_are_read(studio: Studios, tmp_path: Path) -> None:
    its = studio("munit")
    for mode, ending in (("L", "png"), ("RGBA", "png"), ("I;16", "tiff"), ("CMYK", "jpg")):
        assert one(its.inputs(picture(tmp_path / f"x.{ending}", (70, 64), mode), "a")).shape == (1, 3, 64, 70)


def test_an_archive_holds_what_translate_can_use_again(studio: Studios) -> None:
    its = studio("munit", "bicyclegan")
    ((_, array), *_) = its.held_out("a", 2, 0)
    codes = its.random_styles(A2B, 2, 0)
    made = its.translations(its.inputs(array, "a"), codes, A2B)
    with zipfile.ZipFile(io.BytesIO(archive(["one", "two"], made, codes))) as archived:
        assert archived.namelist() == [
            f"{name}/{file}"
            for name in ("one", "two")
            for file in ("style-1.png", "style-2.png", "styles.npy")
        ]
        assert np.load(io.BytesIO(archived.read("one/styles.npy"))).tolist() == codes[0].tolist()
        with Image.open(io.BytesIO(archived.read("one/style-2.png"))) as shown:
            assert np.asarray(shown).tolist() == np.asarray(made[0][1]).tolist()


def test_a_model_that_cannot_draw_styles_begins_with_zeros(
    studio: Studios, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exported file with a mapping network is such a model; sliders and exemplars still work."""

    def unknown(*_: object) -> None:
        raise ExportError("it does not say how random styles are distributed")

    its = studio("munit")
    translator = its.models[0].model().translator
    monkeypatch.setattr(translator, "style_length", lambda to: 4)
    monkeypatch.setattr(translator, "sample_style", unknown)
    assert its.range() == 4
    drawn = its.random_styles(A2B, 8, 0)
    assert drawn == ["it does not say how random styles are distributed"]
    assert one(its.or_zeros(drawn, A2B)).tolist() == [[0.0] * 4]

"""The embedded drawings: rendering, cleaning, and a split without leaks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from i2ikit.data.dataset import Dataset
from i2ikit.data.openmoji import OpenMoji, _names_in, held_out
from i2ikit.draws import counted_generator
from i2ikit.errors import DataError


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def drawings(cache: Path, monkeypatch: pytest.MonkeyPatch) -> OpenMoji:
    monkeypatch.setenv("I2IKIT_CACHE", str(cache))
    return OpenMoji(size=32)


def test_there_are_about_4200_drawings_and_a_twelfth_is_held_out(drawings: OpenMoji) -> None:
    assert isinstance(drawings, Dataset)
    train, test = drawings.count("train", "a"), drawings.count("test", "a")
    assert 4_200 < train + test < 4_237
    assert 0.05 < test / (train + test) < 0.12


def test_outlines_are_dark_lines_on_white_and_drawings_have_colour(drawings: OpenMoji) -> None:
    names = [drawings.name("train", "a", i) for i in range(drawings.count("train", "a"))]
    smile = names.index("1F600")
    outline, drawing = drawings.image("train", "a", smile), drawings.image("train", "b", smile)
    assert outline.shape == drawing.shape == (3, 32, 32)
    assert (outline > 0.99).float().mean() > 0.5
    assert (outline[0] - outline[2]).abs().max() < 0.01
    assert (drawing[0] - drawing[2]).mean() > 0.3  # a yellow face


def test_no_flags_and_no_constant_pictures(drawings: OpenMoji) -> None:
    names = {drawings.name(s, "a", i) for s in ("train", "test") for i in range(drawings.count(s, "a"))}
    assert "1F1E9-1F1EA" not in names
    assert "1F195" not in names  # its outline is all white
    for split in ("train", "test"):
        for index in range(0, drawings.count(split, "a"), 50):
            for domain in "ab":
                image = drawings.image(split, domain, index)
                assert image.min() < image.max()


def test_no_outline_and_no_first_code_point_is_on_both_sides(drawings: OpenMoji) -> None:
    outlines, codes = {}, {}
    for split in ("train", "test"):
        indices = range(drawings.count(split, "a"))
        outlines[split] = {drawings.image(split, "a", i).numpy().tobytes() for i in indices}
        codes[split] = {drawings.name(split, "a", i).split("-")[0] for i in indices}
    assert not outlines["train"] & outlines["test"]
    assert not codes["train"] & codes["test"]


def test_the_split_keeps_chains_of_equal_outlines_together() -> None:
    """1 and 2 share an outline, 2 and 3 a code point, 3 and 4 an outline: one group."""
    names = ["1", "2", "2-3", "4"]
    for extra in range(200):
        named = [*names, f"{extra}-x"]
        test = held_out(named, ["p", "p", "q", "q", f"own{extra}"])
        assert len(test & set(names)) in (0, 4)


def test_pairs_are_augmented_alike_and_unpaired_domains_are_not_told_apart_by_index(
    drawings: OpenMoji,
) -> None:
    for seed in range(6):
        outline = drawings.image("train", "a", 5, counted_generator(seed))
        drawing = drawings.image("train", "b", 5, counted_generator(seed))
        flipped = [
            not torch.equal(x, drawings.image("train", d, 5)) for d, x in (("a", outline), ("b", drawing))
        ]
        assert flipped[0] == flipped[1]


def test_grey_pictures_have_one_channel(drawings: OpenMoji) -> None:
    grey = OpenMoji(size=32, channels_a=1)
    assert grey.image("test", "a", 0).shape == (1, 32, 32)
    assert grey.images.channels == {"a": 1, "b": 3}


def test_the_cache_holds_the_credit_and_nothing_half_written(drawings: OpenMoji, cache: Path) -> None:
    folders = [p.name for p in cache.iterdir()]
    assert folders == ["openmoji-17.0.0-32"]
    assert "CC BY-SA 4.0" in json.loads((cache / folders[0] / "index.json").read_text())["credit"]


@pytest.mark.parametrize(
    "index",
    [
        "{",
        "[]",
        '{"train": [], "test": []}',
        '{"train": ["../x"], "test": ["1F600"]}',
        '{"train": ["1F601"], "test": ["1F600"]}',
    ],
)
def test_a_damaged_cache_is_named_with_what_to_do(index: str, tmp_path: Path) -> None:
    for domain in "ab":
        (tmp_path / domain).mkdir()
        (tmp_path / domain / "1F600.png").touch()
    (tmp_path / "index.json").write_text(index)
    with pytest.raises(DataError, match=rf"is damaged.*; delete the folder {tmp_path}, and"):
        _names_in(tmp_path)

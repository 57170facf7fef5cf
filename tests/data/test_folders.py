"""Datasets of image files: folders, pairs, and both images in one file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from i2ikit.checking import check
from i2ikit.data.batches import training_batches
from i2ikit.data.dataset import DATASET_SLOT, Dataset
from i2ikit.data.folders import SideBySide, image_files
from i2ikit.draws import counted_generator
from i2ikit.errors import DataError
from i2ikit.registry import Setting
from tests.image_files import folders_at, save, side_by_side


def test_folders_are_a_dataset_of_the_documented_shape_and_range(folders: Path) -> None:
    data = folders_at(folders)
    assert isinstance(data, Dataset)
    assert (data.count("train", "a"), data.count("test", "b")) == (6, 3)
    image = data.image("train", "a", 0, counted_generator(1))
    assert image.shape == (3, 64, 64)
    assert image.dtype == torch.float32
    assert -1 <= image.min() < image.max() <= 1
    assert data.name("test", "b", 2) == "2.png"


def test_one_channel_is_luma(folders: Path) -> None:
    grey = folders_at(folders, channels_a=1).image("test", "a", 0)
    colour = folders_at(folders).image("test", "a", 0)
    luma = (colour * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0)
    assert grey.shape == (1, 64, 64)
    assert (grey[0] - luma).abs().max() < 0.02


def test_training_crops_and_flips_and_test_does_not(folders: Path) -> None:
    data = folders_at(folders, load_size=80)
    views = {data.image("train", "a", 0, counted_generator(n)).numpy().tobytes() for n in range(8)}
    assert len(views) > 4
    assert torch.equal(data.image("test", "a", 0), data.image("test", "a", 0))


@pytest.mark.parametrize("side", [(64, 300), (300, 64), (5, 9), (64, 64), (1, 1)])
def test_any_shape_becomes_a_square_of_the_asked_size(tmp_path: Path, side: tuple[int, int]) -> None:
    for name in ("trainA", "trainB", "testA", "testB"):
        (tmp_path / name).mkdir()
        save(tmp_path / name / "x.png", Image.new("RGB", side, "red"))
    data = folders_at(tmp_path)
    for image in (data.image("train", "a", 0, counted_generator(0)), data.image("test", "b", 0)):
        assert image.shape == (3, 64, 64)
        assert torch.equal(image, torch.tensor([1.0, -1.0, -1.0])[:, None, None].expand(3, 64, 64))


@pytest.mark.parametrize("side", [(128, 64), (64, 128), (192, 64)])
def test_a_held_out_image_is_cropped_at_its_centre(tmp_path: Path, side: tuple[int, int]) -> None:
    """The middle square is white, all else black."""
    left, top = ((extent - 64) // 2 for extent in side)
    picture = Image.new("L", side)
    picture.paste(255, (left, top, left + 64, top + 64))
    for name in ("trainA", "trainB", "testA", "testB"):
        (tmp_path / name).mkdir()
        save(tmp_path / name / "x.png", picture)
    assert (folders_at(tmp_path).image("test", "a", 0) == 1).all()


def test_one_picture_is_enough_to_train_from(tmp_path: Path) -> None:
    for name in ("trainA", "trainB", "testA", "testB"):
        (tmp_path / name).mkdir()
        save(tmp_path / name / "x.png", Image.new("RGB", (64, 64), "red"))
    batch = next(iter(training_batches(folders_at(tmp_path), 0, 0, 1, 4, range(4))))
    assert batch["a"].shape == (4, 3, 64, 64)


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"trainA/ contains no image \(\.png"):
        folders_at(tmp_path)


def test_only_images_count(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "notes.txt", ".hidden"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [p.name for p in image_files(tmp_path)] == ["a.jpg", "b.PNG"]


def pairs_at(root: Path, size_a: tuple[int, int] = (90, 70), size_b: tuple[int, int] = (180, 140)) -> Path:
    """Noise (a), and the same inverted at another resolution (b), in another format."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for domain in "AB":
            (root / f"{split}{domain}").mkdir(parents=True)
        for n in range(3):
            picture = Image.fromarray(rng.integers(0, 255, (5, 6, 3), dtype=np.uint8))
            picture = picture.resize((360, 280), Image.Resampling.BICUBIC)
            inverted = Image.eval(picture, lambda value: 255 - value)
            picture.resize(size_a).save(root / f"{split}A" / f"{n}.png")
            inverted.resize(size_b).save(root / f"{split}B" / f"{n}.jpg", quality=95)
    return root


def test_pairs_share_index_crop_and_flip_whatever_their_resolution(tmp_path: Path) -> None:
    """Where b is a inverted, their sum is 0 everywhere."""
    data = folders_at(pairs_at(tmp_path), paired=True, load_size=80)
    assert data.paired
    assert data.aligned
    batches = training_batches(data, 0, 0, 4, 3, range(3))
    assert max((x["a"] + x["b"]).abs().mean().item() for x in batches) < 0.1
    plain = data.image("test", "a", 1) + data.image("test", "b", 1)
    assert plain.abs().mean() < 0.1


def test_unpaired_they_do_not_meet(tmp_path: Path) -> None:
    batches = training_batches(folders_at(pairs_at(tmp_path), load_size=80), 0, 0, 4, 3, range(3))
    assert max((x["a"] + x["b"]).abs().mean().item() for x in batches) > 0.2


def test_a_file_without_partner_is_named(tmp_path: Path) -> None:
    pairs_at(tmp_path)
    (tmp_path / "testB" / "1.jpg").unlink()
    message = r"no partner in .*testB/ for '1' of .*testA/"
    with pytest.raises(DataError, match=message):
        folders_at(tmp_path, paired=True)
    problems = check(
        {"name": "folders", "root": str(tmp_path), "paired": True}, "data", DATASET_SLOT, Setting(None, 1)
    )[1]
    assert ["no partner" in problem.message for problem in problems] == [True]
    save(tmp_path / "trainA" / "0.bmp", Image.new("RGB", (90, 70)))
    with pytest.raises(DataError, match="several images named '0'"):
        folders_at(tmp_path, paired=True)


def test_a_pair_of_two_shapes_is_named(tmp_path: Path) -> None:
    data = folders_at(pairs_at(tmp_path, size_b=(140, 180)), paired=True)
    with pytest.raises(DataError, match=r"0.png \(90x70 px\) and its partner .*0.jpg \(140x180 px\) differ"):
        data.image("train", "a", 0)


def test_a_turned_photo_has_the_shape_that_a_person_sees(tmp_path: Path) -> None:
    pairs_at(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    picture = Image.open(tmp_path / "trainA" / "0.png").transpose(Image.Transpose.ROTATE_90)
    (tmp_path / "trainA" / "0.png").unlink()
    picture.save(tmp_path / "trainA" / "0.jpg", exif=exif, quality=95)
    data = folders_at(tmp_path, paired=True)
    assert (data.image("train", "a", 0) + data.image("train", "b", 0)).abs().mean() < 0.1


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_the_left_half_is_a_and_the_right_half_b(tmp_path: Path, held_out: str) -> None:
    data = SideBySide(root=str(side_by_side(tmp_path, held_out)), size=70, channels_a=1)
    assert isinstance(data, Dataset)
    assert (data.count("test", "a"), data.name("test", "b", 1)) == (2, "1.png")
    a, b = (data.image("test", d, 0) for d in "ab")
    assert (a.shape, b.shape) == ((1, 70, 70), (3, 70, 70))
    assert (a.mean() < -0.99, b.mean() > 0.99) == (True, True)
    batch = next(iter(training_batches(data, 0, 0, 1, 2, range(2))))
    assert torch.equal(batch["a"].expand(-1, 3, -1, -1), -batch["b"])


def test_side_by_side_says_what_is_wrong(tmp_path: Path) -> None:
    options = {"root": str(tmp_path), "size": 64, "load_size": None}
    found = list(SideBySide.problems(options, Setting(None, 1)))
    assert [text.rpartition(" ")[2] for text in found] == ["train/", "test/"]
    side_by_side(tmp_path)
    Image.new("RGB", (161, 70)).save(tmp_path / "train" / "0.png")
    data = SideBySide(root=str(tmp_path), size=64)
    with pytest.raises(DataError, match=r"0.png is 161 px wide: it cannot be cut into two equal halves"):
        data.image("train", "a", 0)

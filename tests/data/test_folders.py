"""Datasets of image files: folders, pairs, and both images in one file."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from i2ikit.checking import check
from i2ikit.data.batches import training_batches
from i2ikit.data.dataset import DATASET_SLOT, Dataset
from i2ikit.data.folders import Folders, SideBySide
from i2ikit.data.reading import image_files
from i2ikit.draws import counted_generator
from i2ikit.errors import DataError, RecipeError
from i2ikit.recipe import load_recipe
from i2ikit.registry import Setting
from tests.image_files import folders_at, make_folders, save, side_by_side


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
    (tmp_path / "trainA").mkdir()
    with pytest.raises(DataError, match=r"trainA/ contains no image \(\.png"):
        folders_at(tmp_path).count("train", "a")
    with pytest.raises(DataError, match=r"root = '.*' contains no folder trainB/"):
        folders_at(tmp_path).name("train", "b", 0)
    with pytest.raises(DataError, match=r"root = '.*none' is not a folder"):
        folders_at(tmp_path / "none").image("test", "b", 0)


@pytest.mark.parametrize("layout", ["letters", "test", "val", "side-by-side"])
def test_held_out_images_are_read_without_training_images(tmp_path: Path, layout: str) -> None:
    """Whatever the layout; only the use of a training image says that its folder is missing."""
    if layout == "letters":
        data: Folders | SideBySide = folders_at(make_folders(tmp_path))
    elif layout == "side-by-side":
        data = SideBySide(root=str(side_by_side(tmp_path)), size=64)
    else:
        data = folders_at(named_folders(tmp_path, ["cat", "dog"], layout))
    for folder in tmp_path.glob("train*"):
        shutil.rmtree(folder)
    data = type(data)(root=str(tmp_path), size=64)
    last = list(data.images.channels)[-1]
    assert data.image("test", last, data.count("test", last) - 1).shape == (3, 64, 64)
    with pytest.raises(DataError, match="contains no folder train"):
        data.count("train", last)


def test_pairs_match_where_endings_would_sort_them_differently(tmp_path: Path) -> None:
    """a.bmp is before a.c.png, but a.png after it."""
    for split in ("train", "test"):
        for domain, endings in (("A", ("a.bmp", "a.c.png")), ("B", ("a.png", "a.c.png"))):
            (tmp_path / f"{split}{domain}").mkdir()
            for value, name in enumerate(endings):
                save(tmp_path / f"{split}{domain}" / name, Image.new("RGB", (64, 64), (200 * value,) * 3))
    data = folders_at(tmp_path, paired=True)
    for index in range(2):
        assert torch.equal(data.image("train", "a", index), data.image("train", "b", index))


def test_headers_show_bad_kinds_and_shapes(tmp_path: Path) -> None:
    """Of a pair the second image is compared with the first; a file side by side is cut into two halves."""
    data = folders_at(pairs_at(tmp_path, size_b=(140, 180)), paired=True)
    data.inspect("train", "a", 0)
    with pytest.raises(DataError, match=r"0.jpg \(140x180 px\) and its partner .*0.png \(90x70 px\) differ"):
        data.inspect("train", "b", 0)
    (tmp_path / "trainA" / "1.png").write_text("no image")
    with pytest.raises(DataError, match=r"1.png: not a readable image"):
        data.inspect("train", "a", 1)
    halves = SideBySide(root=str(side_by_side(tmp_path / "halves")), size=64)
    halves.inspect("test", "b", 1)
    Image.new("RGB", (161, 70)).save(tmp_path / "halves" / "test" / "1.png")
    with pytest.raises(DataError, match=r"1.png is 161 px wide: it cannot be cut into two equal halves"):
        halves.inspect("test", "b", 1)


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
        folders_at(tmp_path, paired=True).count("test", "b")
    problems = check(
        {"name": "folders", "root": str(tmp_path), "paired": True}, "data", DATASET_SLOT, Setting(None, 1)
    )[1]
    assert ["no partner" in problem.message for problem in problems] == [True]
    save(tmp_path / "trainA" / "0.bmp", Image.new("RGB", (90, 70)))
    with pytest.raises(DataError, match="several images named '0'"):
        folders_at(tmp_path, paired=True).count("train", "a")


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


NAMES = ("10_day-old", "Cat", "wild-2")


def named_folders(root: Path, names: Sequence[str] = NAMES, held_out: str = "test") -> Path:
    """train/NAME and test/NAME; domain n has n + 2 training images of grey value 40 * n, and n + 1 others."""
    for split, more in (("train", 2), (held_out, 1)):
        for n, name in enumerate(names):
            (root / split / name).mkdir(parents=True)
            for index in range(n + more):
                picture = Image.new("RGB", (20, 16), (40 * n,) * 3)
                save(root / split / name / f"{index}.png", picture)
    return root


def problems_at(root: Path, *overrides: str) -> str:
    """The problems of a recipe that has this folder."""
    own = ["data.name=folders", f'data.root="{root}"', "data.size=64", *overrides]
    with pytest.raises(RecipeError) as caught:
        load_recipe("cyclegan-noise", own)
    return str(caught.value)


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_folders_named_after_domains_are_domains_of_these_names(tmp_path: Path, held_out: str) -> None:
    """Names are sorted; they may contain digits, - and _; without test/, val/ is read."""
    data = folders_at(named_folders(tmp_path, held_out=held_out), size=16)
    assert isinstance(data, Dataset)
    assert list(data.images.channels) == list(NAMES)
    for n, name in enumerate(NAMES):
        assert (data.count("train", name), data.count("test", name)) == (n + 2, n + 1)
        for image in (data.image("train", name, n + 1, counted_generator(0)), data.image("test", name, n)):
            torch.testing.assert_close(image, torch.full((3, 16, 16), 40 * n / 127.5 - 1))
    assert data.name("test", "wild-2", 2) == "2.png"
    batch = next(iter(training_batches(data, 0, 0, 1, 2, range(2))))
    assert {name: x.shape for name, x in batch.items()} == dict.fromkeys(NAMES, (2, 3, 16, 16))


def test_test_is_used_rather_than_val(tmp_path: Path) -> None:
    """val/ may hold anything then."""
    named_folders(tmp_path)
    (tmp_path / "val" / "Cat").mkdir(parents=True)
    assert folders_at(tmp_path).count("test", "Cat") == 2


def test_domains_may_be_chosen_and_ordered(tmp_path: Path) -> None:
    """The first direction is from the first into the second; others are not read."""
    root = named_folders(tmp_path)
    (root / "train" / "wild-2" / "x.png").write_text("no image")
    data = folders_at(root, domains=["Cat", "10_day-old"])
    assert list(data.images.channels) == ["Cat", "10_day-old"]
    assert data.count("train", "Cat") == 3
    with pytest.raises(DataError, match=r"x\.png: not a readable image"):
        folders_at(root).image("train", "wild-2", 4)


def test_channels_are_given_by_domain(tmp_path: Path) -> None:
    """3 for those that are not named; before the dataset is built too."""
    root = named_folders(tmp_path)
    data = folders_at(root, channels={"Cat": 1})
    assert dict(data.images.channels) == {"10_day-old": 3, "Cat": 1, "wild-2": 3}
    assert data.image("test", "Cat", 0).shape == (1, 64, 64)
    text = problems_at(root, "data.channels={Cat=1, Cta=3}", "data.domains=['Cat', 'wild-2']")
    assert "channels names 'Cta', which is not a domain; did you mean 'Cat'? (Cat, wild-2)" in text
    assert "data.channels.Cat: should be 1 or 3, got 2" in problems_at(root, "data.channels={Cat=2}")


def test_a_recipe_knows_the_domains_before_the_dataset_is_built(tmp_path: Path) -> None:
    """CycleGAN needs two of the three, and says how to choose them."""
    root = named_folders(tmp_path)
    text = problems_at(root)
    expected = "translates between 2 domains, but the data has 3 (10_day-old, Cat, wild-2); choose them with data.domains"
    assert expected in text
    own = ["data.name=folders", f'data.root="{root}"', "data.size=64", 'data.domains=["wild-2", "Cat"]']
    recipe = load_recipe("cyclegan-noise", own)
    assert list(recipe.data().images.channels) == ["wild-2", "Cat"]
    path = tmp_path / "again.toml"
    path.write_text(recipe.to_toml())
    assert load_recipe(path).data == recipe.data


def test_a_missing_folder_of_a_domain_is_named(tmp_path: Path) -> None:
    """By the recipe's check and by the dataset itself; so is one without images."""
    root = named_folders(tmp_path, ["cat", "dog"])
    shutil.rmtree(root / "test" / "dog")
    assert f"root = '{root}' contains no folder test/dog/" in problems_at(root)
    with pytest.raises(DataError, match="contains no folder test/dog/"):
        folders_at(root).count("test", "dog")
    (root / "test" / "dog").mkdir()
    with pytest.raises(DataError, match=r"test/dog/ contains no image \(\.png"):
        folders_at(root).count("test", "dog")
    assert "test/dog/ contains no image (.png" in problems_at(root)
    assert f"root = '{root}' contains no folder train/bird/" in problems_at(
        root, 'data.domains=["cat", "bird"]'
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat"], "two or more domains are needed, got cat"),
        ([], "two or more domains are needed, got none"),
        (["cat", "wild cat"], "'wild cat' cannot name a domain; use letters, digits, - and _"),
        (["cat", "train"], "'train' cannot name a domain"),
        (["cat", "dog.old"], "'dog.old' cannot name a domain"),
    ],
)
def test_folders_that_cannot_be_domains_are_named(tmp_path: Path, names: list[str], message: str) -> None:
    """In the recipe's check and by the dataset; nothing is skipped in silence."""
    root = named_folders(tmp_path, names)
    for split in ("train", "test"):
        (root / split).mkdir(exist_ok=True)
    with pytest.raises(DataError) as caught:
        folders_at(root)
    assert message in str(caught.value)
    assert message in problems_at(root)


def test_files_and_hidden_folders_beside_the_domains_are_not_domains(tmp_path: Path) -> None:
    """As desktops and version control leave them."""
    root = named_folders(tmp_path, ["cat", "dog"])
    (root / "train" / "labels.txt").write_text("cat")
    (root / "train" / ".git").mkdir()
    assert list(folders_at(root).images.channels) == ["cat", "dog"]


def test_folders_of_letters_are_read_as_before(folders: Path) -> None:
    """Whatever lies beside them: trainA and trainB are the domains a and b."""
    for name in ("train", "val", "notes"):
        (folders / name / "cat").mkdir(parents=True)
    data = folders_at(folders)
    assert list(data.images.channels) == ["a", "b"]
    assert (data.count("train", "a"), data.count("test", "b")) == (6, 3)
    assert data.image("test", "a", 0).shape == (3, 64, 64)


def test_domains_named_a_and_b_may_be_folders_in_train(tmp_path: Path) -> None:
    """Then channels_a and channels_b are theirs too; `channels` comes first."""
    root = named_folders(tmp_path, ["a", "b"])
    data = folders_at(root, channels_a=1)
    assert dict(data.images.channels) == {"a": 1, "b": 3}
    assert dict(folders_at(root, channels_a=1, channels={"a": 3, "b": 1}).images.channels) == {"a": 3, "b": 1}
    assert data.count("train", "b") == 3


def test_three_paired_domains_share_names_crop_and_flip(tmp_path: Path) -> None:
    """Each has the same picture at another brightness; one without a partner is named."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for n in range(3):
            pixels = rng.integers(0, 128, (30, 40, 3), dtype=np.uint8)
            for k, name in enumerate(("one", "three", "two")):
                (tmp_path / split / name).mkdir(parents=True, exist_ok=True)
                save(tmp_path / split / name / f"{n}.png", Image.fromarray(pixels + 30 * k))
    data = folders_at(tmp_path, size=16, load_size=30, paired=True)
    for batch in training_batches(data, 0, 0, 3, 2, range(2)):
        for k, name in enumerate(("one", "three", "two")):
            assert (batch[name] - batch["one"] - 30 * k / 127.5).abs().max() < 0.01
    (tmp_path / "train" / "two" / "1.png").unlink()
    with pytest.raises(DataError, match=r"no partner in .*train/two/ for '1' of .*train/one/"):
        folders_at(tmp_path, size=16, paired=True).count("train", "two")


def test_a_root_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Once, and not as missing domains."""
    text = problems_at(tmp_path / "nothing")
    assert "is not a folder (working directory: " in text
    assert text.count("nothing") == 1

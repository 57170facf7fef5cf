"""Datasets and batches: counted order, augmentation, and images of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from i2ikit.data.batches import shares, training_batches
from i2ikit.data.dataset import Dataset
from i2ikit.data.folders import Folders, SideBySide, image_files
from i2ikit.data.images import load_image, read_image, to_picture
from i2ikit.draws import counted_generator, counted_seed, normal_draws
from i2ikit.errors import DataError
from i2ikit.registry import Setting
from tests.conftest import make_folders


def folders_at(root: Path, **options: object) -> Folders:
    return Folders(root=str(root), **{"size": 64, **options})


def save(path: Path, picture: Image.Image, **options: object) -> Path:
    picture.save(path, **options)
    return path


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
    assert data.image("train", "a", 0, counted_generator(0)).shape == (3, 64, 64)
    assert data.image("test", "b", 0).shape == (3, 64, 64)


def test_one_picture_is_enough_to_train_from(tmp_path: Path) -> None:
    for name in ("trainA", "trainB", "testA", "testB"):
        (tmp_path / name).mkdir()
        save(tmp_path / name / "x.png", Image.new("RGB", (64, 64), "red"))
    batch = next(iter(training_batches(folders_at(tmp_path), 0, 0, 1, 4, range(4))))
    assert batch["a"].shape == (4, 3, 64, 64)


def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"trainA/ holds no image \(\.png"):
        folders_at(tmp_path)


def test_only_images_count(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "notes.txt", ".hidden"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [p.name for p in image_files(tmp_path)] == ["a.jpg", "b.PNG"]


def test_transparency_is_put_on_white(tmp_path: Path) -> None:
    """The colours below transparent pixels are whatever a drawing program left there."""
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert read_image(save(tmp_path / "x.png", clear), 3).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([255, 0, 0] * 256)
    assert read_image(save(tmp_path / "p.png", palette, transparency=0), 3).getpixel((0, 0)) == (
        255,
        255,
        255,
    )


def test_rotation_in_the_metadata_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_image(save(tmp_path / "x.jpg", Image.new("RGB", (8, 4)), exif=exif), 3).size == (4, 8)


def test_16_bit_grey_keeps_its_range(tmp_path: Path) -> None:
    """Pillow's own conversion clips everything above 255 to white."""
    values = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    picture = read_image(save(tmp_path / "x.png", Image.fromarray(values)), 1)
    assert [picture.getpixel((n, 0)) for n in range(3)] == [0, 100, 255]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_mode_can_be_read(tmp_path: Path, mode: str) -> None:
    path = save(tmp_path / ("x.tif" if mode == "CMYK" else "x.png"), Image.new(mode, (6, 4)))
    assert read_image(path, 3).mode == "RGB"
    assert read_image(path, 1).mode == "L"


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(DataError, match=r"broken\.png: not a readable image"):
        read_image(tmp_path / "broken.png", 3)
    with pytest.raises(DataError, match=r"none\.png: not a readable image"):
        read_image(tmp_path / "none.png", 3)


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    path = save(tmp_path / "bomb.png", Image.new("1", (10_000, 8_000)))
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match=r"10000x8000 px are more than 64 megapixels"):
        read_image(path, 3)


def test_a_picture_survives_the_way_to_a_tensor_and_back(tmp_path: Path) -> None:
    pixels = np.arange(256 * 3, dtype=np.uint16).reshape(16, 16, 3).astype(np.uint8)
    path = save(tmp_path / "x.png", Image.fromarray(pixels))
    assert np.array_equal(np.asarray(to_picture(load_image(path, 3, 16))), pixels)


def test_an_image_to_translate_keeps_its_shape(tmp_path: Path) -> None:
    path = save(tmp_path / "x.png", Image.new("RGB", (300, 100)))
    assert load_image(path, 3, 64).shape == (3, 64, 192)


def test_every_picture_is_seen_once_per_epoch_and_the_domains_are_shuffled_apart(tmp_path: Path) -> None:
    data = folders_at(make_folders(tmp_path / "square", (64, 64)), flip=False)
    seen: dict[str, list[int]] = {"a": [], "b": []}
    plain = {d: torch.stack([data.image("train", d, i) for i in range(6)]) for d in "ab"}
    for batch in training_batches(data, 0, 0, 6, 2, range(2)):
        for d in "ab":
            seen[d] += [int((plain[d] - x).abs().sum((1, 2, 3)).argmin()) for x in batch[d]]
    for d in "ab":
        assert sorted(seen[d][:6]) == sorted(seen[d][6:]) == list(range(6))
        assert seen[d][:6] != seen[d][6:]
    assert seen["a"] != seen["b"]


def test_processes_read_disjoint_places_of_one_batch(folders: Path) -> None:
    data = folders_at(folders)
    whole = next(iter(training_batches(data, 0, 3, 4, 4, range(4))))
    parts = [next(iter(training_batches(data, 0, 3, 4, 4, places))) for places in ((0, 1), (2, 3))]
    for d in "ab":
        assert torch.equal(torch.cat([part[d] for part in parts]), whole[d])


def test_draws_depend_on_what_they_are_for_and_on_nothing_else() -> None:
    shapes = {"z": (3,), "eps": (2, 2)}
    draws = normal_draws(0, 5, "generator", shapes, range(4))
    assert {name: tuple(d.shape) for name, d in draws.items()} == {"z": (4, 3), "eps": (4, 2, 2)}
    later = normal_draws(0, 5, "generator", {"z": (3,)}, [2])
    assert torch.equal(later["z"][0], draws["z"][2])
    others = [normal_draws(1, 5, "generator", shapes, [2]), normal_draws(0, 6, "generator", shapes, [2])]
    others.append(normal_draws(0, 5, "discriminator", shapes, [2]))
    assert all(not torch.equal(other["z"][0], draws["z"][2]) for other in others)


def test_draws_are_standard_normal() -> None:
    z = normal_draws(0, 0, "p", {"z": (100_000,)}, [0])["z"]
    assert z.mean().item() == pytest.approx(0, abs=0.02)
    assert z.std().item() == pytest.approx(1, abs=0.02)
    assert z.abs().mean().item() == pytest.approx(0.798, abs=0.02)


def test_seeds_are_the_same_on_every_machine() -> None:
    assert counted_seed(0, "noise", 1) == 128985677152142988982045038048339697992


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
    options = {"root": str(tmp_path), "paired": True, "size": 64, "load_size": None}
    (problem,) = Folders.problems(options, Setting(None, 1))
    assert "no partner" in problem
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


def side_by_side(root: Path, held_out: str = "test") -> Path:
    for split in ("train", held_out):
        (root / split).mkdir(parents=True)
        for n in range(2):
            both = Image.new("RGB", (160, 70), "black")
            both.paste("white", (80, 0, 160, 70))
            both.putpixel((10, 10), (255, 255, 255))
            both.putpixel((90, 10), (0, 0, 0))
            both.save(root / split / f"{n}.png")
    return root


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
    with pytest.raises(DataError, match=r"0.png is 161 px wide: it cannot be cut into two"):
        data.image("train", "a", 0)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("accumulation", [1, 2, 3])
@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("batch_size", [24, 26, 38])
def test_a_batch_is_shared_out_whole_and_evenly(
    batch_size: int, parts: int, accumulation: int, processes: int
) -> None:
    """Every place once; micro-batches do not depend on the number of processes; parts stay together."""
    found = shares(batch_size, parts, accumulation, processes)
    assert sorted(place for micro in found for share in micro for place in share) == list(range(batch_size))
    assert [len(micro) for micro in found] == [processes] * accumulation
    alone = shares(batch_size, parts, accumulation, 1)
    for micro, (whole,) in zip(found, alone, strict=True):
        assert sorted(place for share in micro for place in share) == sorted(whole)
        sizes = [len(share) for share in micro]
        assert max(sizes) - min(sizes) <= parts
        for share in micro:
            first_parts = [place * parts // batch_size for place in share]
            assert first_parts == sorted(first_parts)
            assert all(first_parts.count(part) == len(share) // parts for part in range(parts))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_a_worker_cannot_read_is_named_in_one_line(folders: Path, workers: int) -> None:
    data = folders_at(folders)
    for file in (folders / "trainA").iterdir():
        file.write_text("no image")
    with pytest.raises(DataError, match=r"^[^\n]*trainA/\d+\.png: not a readable image[^\n]*$"):
        list(training_batches(data, 0, 0, 1, 2, range(2), workers))

"""Datasets and batches: counted order, augmentation, and images of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from i2ikit.data import (
    Dataset,
    UnpairedFolders,
    image_files,
    load_image,
    read_image,
    to_picture,
    training_batches,
)
from i2ikit.draws import counted_generator, counted_seed, normal_draws
from i2ikit.errors import DataError
from tests.conftest import make_folders


def folders_at(root: Path, **options: object) -> UnpairedFolders:
    return UnpairedFolders(root=str(root), **{"size": 64, **options})


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

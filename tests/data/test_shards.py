"""Images in tar files: what is read, in which order, by which process."""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import itertools
import json
import lzma
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset

from i2ikit.data import shards, tar_files
from i2ikit.data.batches import shares, training_batches
from i2ikit.data.shards import Shards
from i2ikit.errors import DataError, RecipeError
from i2ikit.recipe import Recipe
from tests.image_files import write_tars
from tests.tiny import metrics, run, tiny_recipe


def reds(image: torch.Tensor) -> list[int]:
    """Of each image, its red value."""
    return ((image[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()


def batches(data: Shards, first: int, last: int, places: list[int], batch: int = 4, workers: int = 0):
    return list(training_batches(data, 0, first, last, batch, places, workers))


@pytest.mark.parametrize("paired", [False, True])
def test_every_image_comes_once_in_an_epoch_of_each_place(tmp_path: Path, paired: bool) -> None:
    """Four places, four tar files, fourteen images: each place reads one tar file to its end, then another."""
    data = Shards(root=str(write_tars(tmp_path, paired=paired)), size=64, paired=paired)
    assert data.count("train", "a") == 14
    seen = batches(data, 0, 3, [0, 1, 2, 3])
    for domain, offset in (("a", 0), ("b", 100)):
        by_place = list(zip(*(reds(batch[domain]) for batch in seen), strict=True))
        assert sorted({red // 10 for place in by_place for red in place}) == sorted(
            offset // 10 + tar for tar in range(4)
        )
        for place in by_place:
            assert len({red // 10 for red in place}) == 1
            assert len(set(place)) == 3
    if paired:
        assert all((batch["b"][:, 0] - batch["a"][:, 0]).min() > 0.7 for batch in seen)
        assert all(np.subtract(reds(b["b"]), reds(b["a"])).tolist() == [100] * 4 for b in seen)
    many = Counter(red for batch in batches(data, 0, 70, [0, 1, 2, 3]) for red in reds(batch["a"]))
    assert len(many) == 14
    assert max(many.values()) < 2 * min(many.values())


def test_order_is_a_function_of_seed_step_and_place_whatever_the_processes(tmp_path: Path) -> None:
    """Two processes, workers, and a start in the middle of a later epoch give the same images."""
    data = Shards(root=str(write_tars(tmp_path)), size=64, load_size=68)
    whole = batches(data, 0, 12, [0, 1, 2, 3])
    for share in shares(4, 1, 1, 2)[0]:
        for one, two in zip(whole, batches(data, 0, 12, share), strict=True):
            assert all(torch.equal(one[d][share], two[d]) for d in "ab")
    for workers in (1, 2):
        for one, two in zip(whole[9:], batches(data, 9, 12, [0, 1, 2, 3], workers=workers), strict=True):
            assert all(torch.equal(one[d], two[d]) for d in "ab")
    other = next(iter(training_batches(data, 1, 0, 1, 4, [0, 1, 2, 3])))
    assert not torch.equal(other["a"], whole[0]["a"])


def test_a_process_opens_only_the_tar_files_of_its_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Shards(root=str(write_tars(tmp_path, samples=4)), size=64)
    opened: list[tuple[str, str]] = []
    real = shards._samples

    def samples(tar: Path, paired: bool):
        opened.append((tar.parent.name, tar.name))
        return real(tar, paired)

    monkeypatch.setattr(shards, "_samples", samples)
    apart = []
    for places in ([0, 1], [2, 3]):
        batches(data, 0, 3, places)
        apart.append(set(opened))
        opened.clear()
    assert len(apart[0]) == len(apart[1]) == 4  # of two domains two each
    assert not apart[0] & apart[1]


def test_sizes_json_spares_counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_tars(tmp_path)
    for domain in "AB":
        sizes = {f"{tar:04d}.tar": 3 + tar % 2 for tar in range(4)}
        (root / f"train{domain}" / "sizes.json").write_text(json.dumps(sizes))
    data = Shards(root=str(root), size=64)

    def never(**_: object) -> None:
        raise AssertionError("the tar file was read to be counted")

    monkeypatch.setattr(tar_files.tarfile, "open", never)
    assert data.count("train", "a") == 14
    with pytest.raises(DataError, match="the tar file was read to be counted"):
        data.count("test", "a")


def test_held_out_images_are_found_by_number(tmp_path: Path) -> None:
    data = Shards(root=str(write_tars(tmp_path, tars=2)), size=32, channels_b=1)
    assert data.count("test", "b") == 7
    assert data.image("test", "b", 0).shape == (1, 32, 32)
    assert reds(torch.stack([data.image("test", "a", n) for n in range(7)])) == [0, 1, 2, 10, 11, 12, 13]
    assert data.name("test", "a", 3) == "1-0"
    with pytest.raises(DataError, match=r"have no index: use stream\(\)"):
        data.image("train", "a", 0)


def recipe_on(root: Path, *overrides: str) -> Recipe:
    return tiny_recipe(root, "data.name=shards", "training.batch_size=3", "data.load_size=70", *overrides)


@pytest.mark.slow
def test_a_run_on_tar_files_resumes_bit_exactly(tmp_path: Path, one_thread: None) -> None:
    """In the middle of a tar file, with a worker."""
    root = write_tars(tmp_path / "data")
    often = ("training.checkpoint_every=1", "training.keep=9")
    recipe = recipe_on(root, "training.steps=4", "training.workers=1", *often)
    run(recipe, tmp_path / "r")
    whole = metrics(tmp_path / "r")
    for n in (3, 4):
        shutil.rmtree(tmp_path / "r/checkpoints" / f"step-{n:09d}")
    assert run(recipe, tmp_path / "r", resume=True) == 4
    assert metrics(tmp_path / "r") == whole


def test_what_is_wrong_with_the_folders_is_said_with_the_recipe(tmp_path: Path) -> None:
    root = write_tars(tmp_path / "data", tars=2)
    with pytest.raises(
        RecipeError, match=r"trainA/ contains 2 tar files, fewer than the 3 images of a batch"
    ):
        recipe_on(root)
    for tar in (root / "testB").iterdir():
        tar.unlink()
    with pytest.raises(RecipeError, match=r"testB/ contains no tar file"):
        recipe_on(root, "training.batch_size=2")
    with pytest.raises(RecipeError, match=r"no folder .*train/"):
        recipe_on(root, "data.paired=true")


def damaged(tmp_path: Path, content: bytes) -> Shards:
    root = write_tars(tmp_path, tars=1)
    (root / "trainA" / "0000.tar").write_bytes(content)
    return Shards(root=str(root), size=64)


def read(data: Shards, count: int = 1) -> object:
    return list(itertools.islice(data.stream(0, 0, 1, 0), count))


def test_damaged_tar_files_are_named(tmp_path: Path) -> None:
    whole = write_tars(tmp_path / "whole", tars=1) / "trainA" / "0000.tar"
    with pytest.raises(DataError, match=r"0000\.tar: not a readable tar file"):
        read(damaged(tmp_path / "text", b"no tar file" * 100))
    with pytest.raises(DataError, match=r"0000\.tar"):
        read(damaged(tmp_path / "cut", whole.read_bytes()[:700]), 3)
    empty = io.BytesIO()
    tarfile.open(fileobj=empty, mode="w").close()
    with pytest.raises(DataError, match=r"0000\.tar contains no sample"):
        read(damaged(tmp_path / "empty", empty.getvalue()))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"png": b"no picture"}, r"0000\.tar: 7\.png: not a readable image"),
        ({"txt": b"x"}, r"0000\.tar: sample '7' has txt, but none of png, jpg"),
    ],
)
def test_samples_that_hold_no_image_are_named(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    root = write_tars(tmp_path, tars=1)
    with webdataset.TarWriter(str(root / "trainA" / "0000.tar")) as writer:
        writer.write({"__key__": "7", **files})
    with pytest.raises(DataError, match=message):
        read(Shards(root=str(root), size=64))


def test_a_plain_tar_file_may_begin_with_a_name_that_bz2_begins_with(tmp_path: Path) -> None:
    root = write_tars(tmp_path, tars=1)
    with webdataset.TarWriter(str(root / "testA" / "0000.tar")) as writer:
        writer.write({"__key__": "BZh1", "png": b"no picture"})
    assert Shards(root=str(root), size=64).name("test", "a", 0) == "BZh1"


@pytest.mark.parametrize(
    "pack",
    [
        bytes,
        gzip.compress,
        bz2.compress,
        lzma.compress,
        functools.partial(lzma.compress, format=lzma.FORMAT_ALONE),
    ],
)
@pytest.mark.parametrize("end", [1024, 512, 100, 0])
def test_tar_files_that_are_packed_or_end_early_are_read(pack, end: int, tmp_path: Path) -> None:
    """Not every program writes the two blocks of zeros at the end."""
    root = write_tars(tmp_path, tars=1)
    file = root / "testA" / "0000.tar"
    file.write_bytes(pack(_whole(file) + bytes(end)))
    data = Shards(root=str(root), size=64)
    assert data.count("test", "a") == 3
    assert data.image("test", "a", 2).shape == (3, 64, 64)


def _whole(tar: Path) -> bytes:
    """A tar file without what follows its last member."""
    with tarfile.open(tar) as opened:
        last = opened.getmembers()[-1]
    return tar.read_bytes()[: last.offset_data + last.size + -last.size % 512]


def test_a_file_that_is_cut_off_says_so(tmp_path: Path) -> None:
    root = write_tars(tmp_path, tars=1)
    file = root / "testA" / "0000.tar"
    file.write_bytes(_whole(file)[:-10])
    with pytest.raises(
        DataError, match=r"0000\.tar: not a readable tar file \(ValueError: it ends in the middle of"
    ):
        Shards(root=str(root), size=64).count("test", "a")


@pytest.mark.parametrize("text", ["{", "[1]", '{"0000.tar": "3"}'])
def test_a_wrong_sizes_json_is_named(tmp_path: Path, text: str) -> None:
    root = write_tars(tmp_path)
    (root / "trainA" / "sizes.json").write_text(text)
    with pytest.raises(DataError, match=r"sizes\.json"):
        Shards(root=str(root), size=64).count("train", "a")


def test_sizes_json_that_does_not_fit_is_found_out(tmp_path: Path) -> None:
    """At the end of the tar file, whatever part of it was skipped."""
    root = write_tars(tmp_path, tars=1)
    (root / "trainA" / "sizes.json").write_text('{"0000.tar": 5}')
    data = Shards(root=str(root), size=64)
    for first in (0, 2):
        with pytest.raises(DataError, match=r"0000\.tar contains 3 samples, not 5: sizes\.json is wrong"):
            list(itertools.islice(data.stream(0, 0, 1, first), 9))


def test_a_root_that_looks_like_a_command_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """webdataset would run `pipe:...`."""
    monkeypatch.chdir(tmp_path)
    write_tars(tmp_path / "pipe:touch ran #")
    data = Shards(root="pipe:touch ran #", size=64)
    assert len(batches(data, 0, 1, [0, 1, 2, 3])) == 1
    assert not (tmp_path / "ran").exists()

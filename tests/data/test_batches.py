"""Batches: order, shares, and errors of workers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from i2ikit.data.batches import shares, training_batches
from i2ikit.errors import DataError
from tests.image_files import folders_at, make_folders


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

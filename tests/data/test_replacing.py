"""Images that take the place of damaged ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from i2ikit.data.batches import training_batches
from i2ikit.data.dataset import Dataset
from i2ikit.data.replacing import Replacing
from i2ikit.errors import DataError
from tests.image_files import folders_at, make_folders


def seen(data: Dataset, domain: str) -> list[str]:
    """Names of the images of two epochs, in their order."""
    names = []
    plain = [data.image("train", domain, index) for index in range(6)]
    for batch in training_batches(data, 0, 0, 6, 2, range(2)):
        for image in batch[domain]:
            names.append(
                data.name("train", domain, min(range(6), key=lambda n: (plain[n] - image).abs().sum()))
            )
    return names


def test_the_next_good_image_takes_the_place_and_all_others_keep_theirs(tmp_path: Path) -> None:
    """After the last image comes the first; two damaged ones in a row get the same replacement."""
    whole = folders_at(make_folders(tmp_path, (64, 64)), flip=False)
    data = Replacing(whole, {"a": [1, 2, 5]})
    assert isinstance(data, Dataset)
    assert [data.name("train", "a", index) for index in range(6)] == [
        *("0.png", "3.png", "3.png"),
        *("3.png", "4.png", "0.png"),
    ]
    taken = {"1.png": "3.png", "2.png": "3.png", "5.png": "0.png"}
    assert seen(data, "a") == [taken.get(name, name) for name in seen(whole, "a")]
    assert seen(data, "b") == seen(whole, "b")
    assert data.count("train", "a") == 6
    assert torch.equal(data.image("test", "a", 1), whole.image("test", "a", 1))


def test_of_pairs_both_are_replaced(tmp_path: Path) -> None:
    data = Replacing(folders_at(make_folders(tmp_path), paired=True), {"b": [4], "a": [0]})
    for domain in "ab":
        assert [data.name("train", domain, index) for index in (0, 4, 3)] == ["1.png", "5.png", "3.png"]


def test_a_domain_needs_a_good_image(tmp_path: Path) -> None:
    data = folders_at(make_folders(tmp_path))
    assert Replacing(data, {"a": range(5)}).name("train", "a", 0) == "5.png"
    with pytest.raises(DataError, match="all 6 training images of domain b are damaged"):
        Replacing(data, {"b": range(6)})


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("workers", [0, 1])
def test_two_processes_read_what_one_does(tmp_path: Path, paired: bool, workers: int) -> None:
    """A damaged image that both need at one step is the same for both."""
    whole = folders_at(make_folders(tmp_path), paired=paired, load_size=70)
    data = Replacing(whole, {"a": [1, 2], "b": [5]})
    alone = list(training_batches(data, 0, 0, 3, 4, range(4)))
    parts = [list(training_batches(data, 0, 0, 3, 4, places, workers)) for places in ((0, 1), (2, 3))]
    for batch, *shares in zip(alone, *parts, strict=True):
        for domain in "ab":
            assert torch.equal(torch.cat([share[domain] for share in shares]), batch[domain])

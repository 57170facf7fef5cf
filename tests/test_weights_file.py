"""The file of averaged weights: equal bytes for equal weights, and no damage is overlooked."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from i2ikit.errors import RunError
from i2ikit.translator import ImageSpec
from i2ikit.weights_file import read_weights, write_weights

IMAGES = ImageSpec({"day": 3, "night": 1}, 64)


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"g.weight": torch.rand(5, 7, generator=generator), "g.count": torch.tensor(3)}


def test_equal_weights_have_equal_files(tmp_path: Path) -> None:
    for n in range(20):
        write_weights(tmp_path / f"{n}.safetensors", tensors(), IMAGES, 9)
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1
    found = read_weights(tmp_path / "0.safetensors")
    assert (found.images, found.step, found.has_checksum) == (IMAGES, 9, True)
    assert found.sha256 == hashlib.sha256((tmp_path / "0.safetensors").read_bytes()).hexdigest()
    assert all(torch.equal(found.tensors[name], x) for name, x in tensors().items())
    assert load_file(tmp_path / "0.safetensors").keys() == tensors().keys()


def test_every_flipped_bit_and_every_cut_is_found(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    write_weights(file, tensors(), IMAGES, 9)
    content = file.read_bytes()
    for place in range(len(content)):
        for bit in random.Random(place).sample(range(8), 2):
            file.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
            with pytest.raises(RunError, match="is damaged, or was not written by i2ikit"):
                read_weights(file)
    for end in (0, 7, 8, 300, len(content) - 1):
        file.write_bytes(content[:end])
        with pytest.raises(RunError, match="is damaged"):
            read_weights(file)
    file.write_bytes(content + b"x")
    with pytest.raises(RunError, match="is damaged"):
        read_weights(file)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    file = tmp_path / "w.safetensors"
    metadata = {"format": "1", "step": "9", "images": '[{"a": 3, "b": 3}, 64]'}
    save_file({**tensors(), "g.bias": torch.tensor([0, value])}, file, metadata)
    with pytest.raises(RunError, match=r"holds values that are not finite \(NaN or inf\), in g.bias"):
        read_weights(file)


@pytest.mark.parametrize(
    "images",
    ["", "3", "null", "[]", "[[1], 2]", '[{"a": 3}, "x"]', "[null, 1e999]", '[{"a": 3}, 1e999]', "{}"],
)
def test_metadata_of_other_types_are_named(tmp_path: Path, images: str) -> None:
    file = tmp_path / "w.safetensors"
    save_file(tensors(), file, {"format": "1", "step": "9", "images": images})
    with pytest.raises(RunError, match="is damaged, or was not written by i2ikit"):
        read_weights(file)
    save_file(tensors(), file, {"i2ikit": f'{{"format": 2, "images": {images or 0}, "sha256": ""}}'})
    with pytest.raises(RunError, match="is damaged, or was not written by i2ikit"):
        read_weights(file)


def test_a_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    save_file(tensors(), file, {"format": "1", "step": "9", "images": '[{"a": 3, "b": 3}, 64]'})
    found = read_weights(file)
    assert (found.step, found.has_checksum, found.images.size) == (9, False, 64)


def test_a_running_minimum_that_is_still_inf_is_read(tmp_path: Path) -> None:
    write_weights(tmp_path / "w", {"g.low": torch.tensor([torch.inf])}, IMAGES, 0)
    assert read_weights(tmp_path / "w").tensors["g.low"].item() == torch.inf


def test_a_forged_tensor_with_more_dimensions_than_torch_computes_with_is_read(tmp_path: Path) -> None:
    """safetensors accepts it; where it is used, its shape does not fit."""
    file = tmp_path / "w.safetensors"
    header = {
        "__metadata__": {"format": "1", "step": "9", "images": '[{"a": 3, "b": 3}, 64]'},
        "g.weight": {"dtype": "F32", "shape": [1] * 100, "data_offsets": [0, 4]},
    }
    text = json.dumps(header).encode()
    start = len(text).to_bytes(8, "little") + text
    file.write_bytes(start + bytes(4))
    assert read_weights(file).tensors["g.weight"].dim() == 100
    file.write_bytes(start + b"\x00\x00\xc0\x7f")
    with pytest.raises(RunError, match=r"not finite \(NaN or inf\), in g\.weight"):
        read_weights(file)

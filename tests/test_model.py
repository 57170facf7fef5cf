"""A model translates images at the training size, at another one, or at their own, as far as memory allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from i2ikit.errors import DataError, RunError
from i2ikit.run import Run
from tests.styled import styled_model
from tests.tiny import tiny_recipe, untrained


def test_a_size_is_that_of_the_shorter_side(tmp_path: Path) -> None:
    model = styled_model(tmp_path)
    picture = Image.new("RGB", (90, 45))
    picture.save(tmp_path / "x.png")
    for size, expected in (("trained", (32, 16)), (30, (60, 30)), ("original", (90, 45))):
        options: dict[str, Any] = {"size": size, "styles": 1}
        for image in (picture, tmp_path / "x.png"):
            assert model.translate(image, **options)[0].size == expected
        assert model.translate(np.asarray(picture), **options).shape == (1, *expected[::-1], 3)
    for size in ("trained", "original"):
        assert model.translate(torch.zeros(3, 45, 90), size=size, styles=1).shape == (1, 3, 45, 90)


@pytest.mark.parametrize("size", [7, 4097, "other", "64", True, 64.0, None])
def test_another_size_is_an_error(tmp_path: Path, size: Any) -> None:
    message = "should be 'trained', 'original' or a number of pixels from 8 to 4096"
    with pytest.raises(RunError, match=message):
        styled_model(tmp_path).translate(Image.new("L", (90, 45)), size=size)


def test_a_tensor_is_not_resized(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="size = 64, but a tensor keeps its size; resize it first"):
        styled_model(tmp_path).translate(torch.zeros(3, 45, 90), size=64)


@pytest.mark.parametrize("sides", [(1, 1), (3, 70), (65, 33)])
def test_networks_translate_images_of_any_size(folders: Path, tmp_path: Path, sides: tuple[int, int]) -> None:
    """They are padded to what the networks need, and cut back."""
    run = Run(untrained(tiny_recipe(folders), tmp_path / "run"), "cpu")
    (found,) = run.translate(Image.new("RGB", sides, "red"), size="original", styles=1)
    assert found.size == sides


def test_an_image_for_which_there_is_no_memory_is_refused_before_it_is_translated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a smaller one takes is measured once; small images are not measured."""
    model = styled_model(tmp_path)
    measured = 0

    def taken(compute: Any) -> int:
        nonlocal measured
        measured += 1
        compute()
        return 512 * 512 * 100  # 100 bytes per pixel

    monkeypatch.setattr("i2ikit.model.memory_taken", taken)
    monkeypatch.setattr("i2ikit.model.available_memory", lambda: 240_000_000)
    for _ in range(2):
        with pytest.raises(DataError) as raised:
            model.translate(Image.new("L", (1500, 1480)), size="original", styles=1)
    assert str(raised.value) == (
        "the image has 1500x1480 px, and to translate it takes about 0.3 GB of memory; 0.2 GB are free; choose a "
        "smaller size"
    )
    assert model.translate(Image.new("L", (1500, 1300)), size="original", styles=1)[0].size == (1500, 1300)
    assert measured == 1
    monkeypatch.setattr("i2ikit.model.available_memory", lambda: 0)
    assert model.translate(Image.new("L", (600, 600)), size="original", styles=1)[0].size == (600, 600)

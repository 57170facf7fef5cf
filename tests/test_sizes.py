"""Sizes of images: what components need, how a recipe is refused, and how inference pads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

import i2ikit
from i2ikit.checking import check, size_problems, whole_requirement
from i2ikit.data.dataset import Split
from i2ikit.errors import DataError, RecipeError
from i2ikit.recipe import load_recipe
from i2ikit.registry import Slot, Spec, datasets, discriminators, encoders, registries, schema_of
from i2ikit.sizes import SizeRequirement
from i2ikit.testing import check_discriminator
from i2ikit.training import new_translator
from i2ikit.translator import ImageSpec, at_any_size, padded
from tests.tiny import NARROW, TINY, tiny_recipe


@pytest.mark.parametrize(
    ("requirement", "side", "enlarged", "nearest", "text"),
    [
        (SizeRequirement(), 1, 1, [1], "1 px or more"),
        (SizeRequirement(61), 60, 61, [61], "61 px or more"),
        (SizeRequirement(multiple_of=64), 96, 128, [64, 128], "multiples of 64 px"),
        (SizeRequirement(8, 4), 3, 8, [8], "8 px or more, in multiples of 4"),
        (SizeRequirement(8, 4), 63, 64, [60, 64], "8 px or more, in multiples of 4"),
        (SizeRequirement(61) & SizeRequirement(8, 4), 63, 64, [64], "61 px or more, in multiples of 4"),
        (SizeRequirement(5, 6) & SizeRequirement(7, 4), 25, 36, [24, 36], "multiples of 12 px"),
        (SizeRequirement(3, 7), 0, 7, [7], "multiples of 7 px"),
    ],
)
def test_the_next_sides_that_a_requirement_allows(
    requirement: SizeRequirement, side: int, enlarged: int, nearest: list[int], text: str
) -> None:
    assert requirement.enlarged(side) == enlarged
    assert requirement.nearest(side) == nearest
    assert str(requirement) == text


def test_a_requirement_below_one_pixel_is_refused() -> None:
    for wrong in ((0, 1), (1, 0), (-4, 1)):
        with pytest.raises(ValueError, match="both need 1 or more"):
            SizeRequirement(*wrong)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 31), (64, 64), (7, 9)])
def test_padding_repeats_the_right_and_lower_edge_and_is_cut_off_again(height: int, width: int) -> None:
    need, x = SizeRequirement(6, 4), torch.rand(2, 3, height, width)
    larger = padded(x, need)
    assert larger.shape[2:] == (need.enlarged(height), need.enlarged(width))
    assert torch.equal(larger[:, :, :height, :width], x)
    assert torch.equal(larger[:, :, -1, -1], x[:, :, -1, -1])
    assert torch.equal(at_any_size(lambda y: 2 * y, x, need), 2 * x)


@pytest.mark.parametrize(
    ("kind", "name", "options", "expected"),
    [
        ("encoders", "munit-content", {}, SizeRequirement(8, 4)),
        ("encoders", "munit-content", {"num_downsample": 0}, SizeRequirement(4, 1)),
        ("encoders", "munit-style", {}, SizeRequirement(16)),
        ("encoders", "resnet-latent", {"num_blocks": 2}, SizeRequirement(8)),
        ("decoders", "unet", {}, SizeRequirement(multiple_of=64)),
        ("decoders", "resnet", {}, SizeRequirement(8, 4)),
        ("decoders", "resnet", {"num_downsample": 1}, SizeRequirement(4, 2)),
        ("decoders", "munit-adain", {}, SizeRequirement()),
        ("discriminators", "multiscale-patch", {}, SizeRequirement(61)),
        ("discriminators", "patchgan", {"num_scales": 1}, SizeRequirement(24)),
        ("discriminators", "projected", {}, SizeRequirement(61)),  # that of the one beside it
    ],
)
def test_what_components_need(kind: str, name: str, options: dict[str, Any], expected: object) -> None:
    slot = Slot(kind, schema_of(registries[kind].load(name)).wired)
    spec, problems = check({"name": name, **options}, name, slot)
    assert problems == []
    assert whole_requirement(spec) == expected


def test_every_component_that_does_not_suit_is_named_with_sizes_that_suit_all(folders: Path) -> None:
    with pytest.raises(RecipeError) as refused:
        tiny_recipe(folders, "data.size=27")
    assert [str(problem) for problem in refused.value.problems] == [
        "translator.content_encoder: data.size = 27 does not suit encoder 'munit-content', which needs "
        "8 px or more, in multiples of 4; the nearest size that suits all is 64",
        "translator.discriminator: data.size = 27 does not suit discriminator 'multiscale-patch', which "
        "needs 61 px or more; the nearest size that suits all is 64",
    ]


def with_discriminator(name: str, folders: Path, *overrides: str) -> i2ikit.Recipe:
    narrow = [change for change in TINY if "discriminator" not in change]
    data = ("data.name=folders", f'data.root="{folders}"', f"translator.discriminator={name}")
    return load_recipe("munit", [*narrow, *data, *overrides])


class Choosy(nn.Module):
    """A discriminator that takes multiples of 48 px only."""

    def __init__(self, in_channels: int, *, step: int = 48) -> None:
        super().__init__()
        self.layer = nn.Conv2d(in_channels, 1, 3, 1, 1)
        self.step = step

    @staticmethod
    def size_requirement(options: Mapping[str, Any]) -> SizeRequirement:
        return SizeRequirement(multiple_of=options["step"])

    def forward(self, x: Tensor) -> list[Tensor]:
        assert not x.shape[2] % self.step
        assert not x.shape[3] % self.step
        return [self.layer(x)]


class Squeezing(Choosy):
    """Says that it takes 1 px, and fails there."""

    @staticmethod
    def size_requirement(options: Mapping[str, Any]) -> SizeRequirement:
        return SizeRequirement(multiple_of=options["step"] // 2)


class Broken(Choosy):
    """Cannot say what it takes."""

    @staticmethod
    def size_requirement(options: Mapping[str, Any]) -> SizeRequirement:
        raise RuntimeError("no idea")


class Vague(Choosy):
    """Says it in words."""

    @staticmethod
    def size_requirement(options: Mapping[str, Any]) -> SizeRequirement:
        return "48"  # type: ignore[return-value]


def test_training_needs_what_all_roles_need_and_inference_what_the_generative_ones_need(
    folders: Path, registered: None
) -> None:
    discriminators.register("choosy", Choosy)
    with pytest.raises(RecipeError, match=r"needs multiples of 48 px; the nearest sizes .* are 48 and 96"):
        with_discriminator("choosy", folders)
    recipe = with_discriminator("choosy", folders, "data.size=48")
    translator = new_translator(recipe, ImageSpec({"a": 3, "b": 3}, 48)).eval()
    assert translator.size_required_by() == SizeRequirement(16, 4)
    assert translator.size_required_by("discriminators") == SizeRequirement(1, 48)
    assert translator.size_required_by("style_encoders") == SizeRequirement(16)
    x, style = torch.rand(1, 3, 52, 60), translator.sample_style(1, "b")
    own_result = translator.decoders["b"](translator.content_encoders["a"](x), style)
    assert torch.equal(translator.translate(x, style, source="a", to="b"), own_result)


@pytest.mark.parametrize("name", ["munit", "bicyclegan", "unit", "cyclegan", "cyclegan-noise", "pix2pix"])
def test_images_of_any_size_are_translated(name: str, folders: Path) -> None:
    """Down to a single pixel; a code and a reconstruction can be had of each too."""
    own = ("data.name=folders", f'data.root="{folders}"', "data.size=64", "data.paired=true")
    recipe = load_recipe(name, [*own, *NARROW[name.partition("-")[0]]])
    translator = new_translator(recipe, recipe.data().images).eval()
    style = translator.sample_style(1, "b")
    for height, width in ((1, 1), (2, 5), (3, 70), (65, 64)):
        x = torch.rand(1, 3, height, width)
        assert translator.translate(x, style, source="a", to="b").shape == x.shape
        if isinstance(translator, i2ikit.translator.StyleEncoding):
            assert translator.encode_style(x, "b").shape == style.shape
        if isinstance(translator, i2ikit.translator.Reconstructing):
            assert translator.reconstruct(x, "b").shape == x.shape


@pytest.mark.parametrize(
    ("component", "message"),
    [(Broken, "RuntimeError: no idea"), (Vague, "TypeError: size_requirement() should return a SizeReq")],
)
def test_a_component_that_cannot_say_what_it_needs_is_named(
    folders: Path, registered: None, component: type, message: str
) -> None:
    discriminators.register("odd", component)
    with pytest.raises(RecipeError) as refused:
        with_discriminator("odd", folders)
    (problem,) = refused.value.problems
    assert problem.path == "translator.discriminator"
    assert f"discriminator 'odd' failed to report its size requirement: {message}" in problem.message


def test_the_kit_notices_a_network_that_cannot_do_with_what_it_asks_for() -> None:
    check_discriminator(Choosy)
    with pytest.raises(AssertionError, match="Squeezing: fails on"):
        check_discriminator(Squeezing)


def test_components_in_lists_are_named_by_their_place(registered: None) -> None:
    encoders.register("choosy", Choosy)
    inner = Spec("encoders", "choosy", {"step": 48})
    problems = size_problems(Spec("encoders", "munit-style", {"parts": (inner, inner)}), "e", 50, "this")
    assert [problem.path for problem in problems] == ["e.parts[0]", "e.parts[1]"]


class Fixed:
    """Images of 48 px, whose size no option says."""

    paired = aligned = False

    def __init__(self, *, side: int = 48) -> None:
        self.images = ImageSpec({"a": 3, "b": 3}, side)

    def count(self, split: Split, domain: str) -> int:
        return 3

    def name(self, split: Split, domain: str, index: int) -> str:
        return str(index)

    def image(self, split: Split, domain: str, index: int, rng: np.random.Generator | None = None) -> Tensor:
        return torch.full((3, self.images.size, self.images.size), index / 3)


class Foretold(Fixed):
    """The same, known before it is built."""

    @staticmethod
    def image_spec(options: Mapping[str, Any]) -> ImageSpec:
        if options["side"] == 13:
            raise DataError("no file has 13 px")
        if options["side"] == 14:
            raise KeyError("side")
        return ImageSpec({"a": 3, "b": 3}, options["side"])


def on(name: str, *overrides: str) -> i2ikit.Recipe:
    data = (f"data={{name='{name}'}}", "training.steps=1", "training.precision=fp32", "training.batch_size=2")
    return load_recipe("munit", [*NARROW["munit"], *data, *overrides])


def test_a_dataset_without_a_size_is_checked_when_it_is_open_and_leaves_no_folder(
    tmp_path: Path, registered: None
) -> None:
    datasets.register("fixed", Fixed)
    with pytest.raises(RecipeError) as refused:
        i2ikit.train(on("fixed"), tmp_path / "run", console=Console(quiet=True))
    assert not (tmp_path / "run").exists()
    assert "the image size of 48 px does not suit discriminator 'multiscale-patch'" in str(refused.value)
    run = i2ikit.train(on("fixed", "data.side=64"), tmp_path / "run", console=Console(quiet=True))
    assert run.images.size == 64


def test_a_dataset_may_say_its_size_before_it_is_built(registered: None) -> None:
    datasets.register("foretold", Foretold)
    with pytest.raises(RecipeError, match="the image size of 48 px does not suit discriminator"):
        on("foretold")
    on("foretold", "data.side=64")
    with pytest.raises(RecipeError, match="data: failed to describe its images: no file has 13 px"):
        on("foretold", "data.side=13")
    with pytest.raises(RecipeError, match="data: failed to describe its images: KeyError: 'side'"):
        on("foretold", "data.side=14")

"""What every registered translator promises, and that each of its parts can be replaced by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from i2ikit.packages.recipes import recipe_files
from i2ikit.recipe import load_recipe
from i2ikit.registry import Spec, decoders, discriminators, encoders, losses, norms, registries, translators
from i2ikit.testing import check_recipe, check_translator
from i2ikit.training import MicroBatch, build, counted_draw, new_accelerator, train_step
from i2ikit.translator import ImageSpec
from tests.tiny import NARROW, tiny_recipe

NAMES = translators.names()


SMALL = {
    "munit": {
        "content_encoder": {"width": 4, "num_residual": 1},
        "style_encoder": {"width": 4},
        "decoder": {"num_residual": 1, "mlp_width": 8},
        "discriminator": {"width": 4},
    },
    "bicyclegan": {part: {"width": 4} for part in ("generator", "encoder", "discriminator")},
    "unit": {part: {"width": 4} for part in ("encoder", "discriminator")},
    "cyclegan": {part: {"width": 4} for part in ("generator", "discriminator")},
    "pix2pix": {part: {"width": 4} for part in ("generator", "discriminator")},
}
"""Options that make our own methods quick; one that somebody installed is tried as it is."""


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_method_keeps_the_contract(name: str) -> None:
    check_translator(name, SMALL.get(name))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"order": "discriminator-first"},
        {"style_encoder": {"width": 4, "norm": "bn"}},
        {"weights": {"generator": {"cycle_recon": 10.0}}},
    ],
    ids=str,
)
def test_munit_keeps_it_in_its_other_forms(options: dict[str, Any]) -> None:
    check_translator("munit", {**SMALL["munit"], **options}, batch_size=5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"pool_size": 4, "noise_dim": 0},
        {"generator": {"name": "resnet", "width": 4, "num_residual": 2, "dropout": 0.5}, "noise_dim": 2},
    ],
    ids=str,
)
def test_cyclegan_keeps_it_with_a_pool_and_with_its_own_generator(options: dict[str, Any]) -> None:
    check_translator("cyclegan", {**SMALL["cyclegan"], **options})


class Centre(nn.Module):
    """A norm: subtract each map's mean."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean((2, 3), keepdim=True)


class Shift(nn.Module):
    """An adaptive norm with one number per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def param_count(self) -> int:
        return self.channels

    def forward(self, x: Tensor, params: Tensor) -> Tensor:
        return x + params[:, :, None, None]


class Halve(nn.Module):
    """A content encoder of one convolution."""

    num_downsample = 1

    def __init__(self, in_channels: int, *, out_channels: int = 6) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.conv = nn.Conv2d(in_channels, out_channels, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class MeanColour(nn.Module):
    """A style encoder: a linear map of the mean colour."""

    def __init__(self, in_channels: int, style_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, style_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mean((2, 3)))


class Tint(nn.Module):
    """A decoder of one transposed convolution and a colour."""

    def __init__(self, content_channels: int, out_channels: int, style_dim: int, num_upsample: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(content_channels, out_channels, 2**num_upsample, 2**num_upsample)
        self.colour = nn.Linear(style_dim, out_channels)

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        return torch.tanh(self.conv(content) + self.colour(style)[:, :, None, None])


class Pixels(nn.Module):
    """A discriminator of single pixels."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 1, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.conv(x)]


class Hinge:
    """An adversarial loss."""

    def discriminator(self, fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
        return sum((1 + f).relu().mean() + (1 - r).relu().mean() for f, r in zip(fake, real, strict=True))  # type: ignore[return-value]

    def generator(self, fake: Sequence[Tensor]) -> Tensor:
        return -sum(f.mean() for f in fake)  # type: ignore[return-value]


class L2:
    """A reconstruction loss."""

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction - target).square().mean()


@pytest.fixture
def foreign_parts() -> Iterator[None]:
    parts = [
        (norms, "centre", Centre),
        (norms, "shift", Shift),
        (encoders, "halve", Halve),
        (encoders, "mean-colour", MeanColour),
        (decoders, "tint", Tint),
        (discriminators, "pixels", Pixels),
        (losses, "hinge", Hinge),
        (losses, "l2", L2),
    ]
    for registry, name, part in parts:
        registry.register(name, part)
    yield
    for registry, name, _ in parts:
        registry.unregister(name)


def run_two_steps(*overrides: str, folders: Path) -> None:
    tiny = folders / "tiny.toml"
    tiny.write_text(tiny_recipe(folders).to_toml())
    recipe = load_recipe(tiny, overrides)
    translator = recipe.translator(ImageSpec({"a": 3, "b": 3}, 64))
    state = build(translator, recipe.optimizers, new_accelerator("fp32"), 2)
    batch = MicroBatch({d: torch.rand(2, 3, 64, 64) for d in "ab"}, range(2))
    for t in range(2):
        losses = train_step(state, t, [batch], counted_draw(0, t))
        assert all(loss.isfinite() for loss in losses.values())
    assert state.skips == 0


@pytest.mark.usefixtures("foreign_parts")
@pytest.mark.parametrize(
    "swap",
    [
        "content_encoder.norm=centre",
        "content_encoder=halve",
        "style_encoder=mean-colour",
        "style_encoder.norm=centre",
        "decoder=tint",
        "decoder.norm=shift",
        "decoder.up_norm=none",
        "discriminator=pixels",
        "discriminator.norm=centre",
        "adversarial_loss=hinge",
        "adversarial_loss=nsgan",
        "recon_loss=l2",
    ],
)
def test_every_part_of_munit_can_be_replaced_from_the_recipe(folders: Path, swap: str) -> None:
    part, _, name = swap.partition("=")
    override = f"translator.{part}={{name = '{name}'}}" if "norm" not in part else f"translator.{part}={name}"
    run_two_steps(override, folders=folders)


@pytest.mark.usefixtures("foreign_parts")
def test_all_parts_can_be_replaced_at_once(folders: Path) -> None:
    parts = {
        "content_encoder": "halve",
        "style_encoder": "mean-colour",
        "decoder": "tint",
        "discriminator": "pixels",
        "adversarial_loss": "hinge",
        "recon_loss": "l2",
    }
    run_two_steps(
        *(f"translator.{part}={{name = '{name}'}}" for part, name in parts.items()), folders=folders
    )


RECIPES = sorted(name for name in recipe_files() if "/" not in name)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_that_ships_trains_two_steps(folders: Path, name: str) -> None:
    """At 64 px and with narrow layers; its own order, norms, losses, batch size and precision."""
    base = load_recipe(name)
    own, paired = base.translator, str(base.data.options["paired"]).lower()
    generator = own.options.get("generator")
    deep = generator and generator.options["num_downsample"] > 6
    on_folders = ("data.name=folders", f'data.root="{folders}"', "data.size=64", f"data.paired={paired}")
    check_recipe(
        name, *on_folders, *NARROW[own.name], *["translator.generator.num_downsample=6"] * bool(deep)
    )


def test_every_component_that_ships_says_what_it_takes_and_gives() -> None:
    for kind in ("encoders", "decoders", "norms", "discriminators", "losses", "datasets", "metrics"):
        for name in registries[kind].names():
            text = registries[kind].load(name).__doc__ or ""
            assert len(text.splitlines()) > 3, f"{kind} {name}"
    for kind in ("encoders", "decoders", "discriminators"):
        for name in registries[kind].names():
            text = registries[kind].load(name).__doc__ or ""
            assert all(word in text for word in ("Shapes:", "Values:", "Source:")), f"{kind} {name}"


def test_a_spec_without_a_recipe_builds_with_the_documented_defaults() -> None:
    assert Spec("encoders", "munit-content")(3).out_channels == 256

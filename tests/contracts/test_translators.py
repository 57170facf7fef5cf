"""What every registered translator promises, and that each of its parts can be replaced by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from i2ikit.recipe import load_recipe
from i2ikit.registry import (
    Setting,
    Spec,
    decoders,
    discriminators,
    encoders,
    losses,
    norms,
    registries,
    translators,
)
from i2ikit.training import MicroBatch, build, new_accelerator, train_step
from i2ikit.translator import Draws, ImageSpec, Phase, Reconstructing, StyleEncoding, Translator
from tests.conftest import NARROW, tiny_recipe

NAMES = translators.names()


def from_defaults(name: str, channels: tuple[int, int] = (3, 3), size: int = 64) -> Translator:
    spec, problems = translators.check(name, "translator", ("images",), Setting(size, 2, paired=True))
    assert problems == []
    return spec(ImageSpec({"a": channels[0], "b": channels[1]}, size))


@pytest.fixture(scope="module", params=NAMES)
def translator(request: pytest.FixtureRequest) -> Translator:
    return from_defaults(request.param).eval()


def test_every_role_is_declared_once_and_trained_by_a_phase(translator: Translator) -> None:
    roles = [*translator.generative, *translator.adversarial]
    assert sorted(roles) == sorted(translator.networks)
    trained = [net for phase in translator.phases() for net in phase.trains]
    assert all(any(net is t for t in trained) for net in translator.networks.values())


def test_phases_and_weights_have_the_same_names(translator: Translator) -> None:
    assert {phase.name for phase in translator.phases()} == set(translator.weights)


@pytest.mark.parametrize("shape", [(64, 64), (61, 30), (17, 90)])
def test_translations_keep_the_shape_and_stay_in_range(
    translator: Translator, shape: tuple[int, int]
) -> None:
    x = torch.rand(2, 3, *shape) * 2 - 1
    with torch.no_grad():
        for to in translator.targets:
            y = translator.translate(x, translator.sample_style(2), to)
            assert y.shape == x.shape
            assert y.abs().max() <= 1
            if isinstance(translator, Reconstructing):
                assert translator.reconstruct(x, to).shape == x.shape
            if isinstance(translator, StyleEncoding):
                assert translator.encode_style(x, to).shape == translator.sample_style(2).shape


def test_another_style_is_another_picture_and_the_same_is_the_same(translator: Translator) -> None:
    x = torch.rand(1, 3, 64, 64)
    one, two = translator.sample_style(2).split(1)
    with torch.no_grad():
        first = translator.translate(x, one, "b")
        assert torch.equal(first, translator.translate(x, one, "b"))
        assert not torch.equal(first, translator.translate(x, two, "b"))


def test_random_styles_follow_their_generator(translator: Translator) -> None:
    styles = [translator.sample_style(3, torch.Generator().manual_seed(n)) for n in (1, 1, 2)]
    assert torch.equal(styles[0], styles[1])
    assert not torch.equal(styles[0], styles[2])


@pytest.mark.parametrize("name", NAMES)
def test_state_saved_and_loaded_gives_the_same_pictures(name: str) -> None:
    torch.manual_seed(1)
    one = from_defaults(name).eval()
    torch.manual_seed(2)
    two = from_defaults(name).eval()
    x, style = torch.rand(1, 3, 64, 64), one.sample_style(1)
    with torch.no_grad():
        assert not torch.equal(one.translate(x, style, "b"), two.translate(x, style, "b"))
        two.load_state_dict(one.state_dict())
        assert torch.equal(one.translate(x, style, "b"), two.translate(x, style, "b"))


@pytest.mark.parametrize("name", NAMES)
def test_domains_may_differ_in_their_channels(name: str) -> None:
    translator = from_defaults(name, (1, 3)).eval()
    with torch.no_grad():
        for to, channels, made in (("b", 1, 3), ("a", 3, 1)):
            if to in translator.targets:
                y = translator.translate(torch.rand(1, channels, 64, 64), translator.sample_style(1), to)
                assert y.shape[1] == made


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
    recipe = tiny_recipe(folders, *overrides)
    translator = recipe.translator(ImageSpec({"a": 3, "b": 3}, 64))
    state = build(translator, recipe.optimizers, new_accelerator("fp32", folders), 2)
    batch = MicroBatch({d: torch.rand(2, 3, 64, 64) for d in "ab"}, range(2))

    def draw(phase: Phase, places: Sequence[int]) -> Draws:
        return {name: torch.randn(2, *shape) for name, shape in phase.draws.items()}

    for t in range(2):
        assert all(loss.isfinite() for loss in train_step(state, t, [batch], draw).values())
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


RECIPES = sorted(path.stem for path in Path("recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES)
def test_every_recipe_that_ships_runs_two_steps(folders: Path, path: str) -> None:
    """On generated images, at 64 px and with narrow layers; its own order, norms and losses."""
    own = load_recipe(path)
    name = own.translator.name
    deep = name == "bicyclegan" and own.translator.options["generator"].options["num_downsample"] > 6
    keep = [f"training.batch_size={own.training.batch_size}", f"training.precision={own.training.precision}"]
    recipe = load_recipe(
        path,
        ["data.name=folders", f'data.root="{folders}"', "data.size=64", *keep]
        + list(NARROW[name])
        + ["translator.generator.num_downsample=6"] * deep,
    )
    translator = recipe.translator(ImageSpec({"a": 3, "b": 3}, 64))
    state = build(translator, recipe.optimizers, new_accelerator(recipe.training.precision, folders), 2)
    n = recipe.training.batch_size
    batch = MicroBatch({d: torch.rand(n, 3, 64, 64) for d in "ab"}, range(n))
    for t in range(2):
        losses_ = train_step(
            state, t, [batch], lambda phase, _: {k: torch.randn(n, *s) for k, s in phase.draws.items()}
        )
        assert all(loss.isfinite() for loss in losses_.values())


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

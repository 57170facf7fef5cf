"""UNIT and CycleGAN with noise: their losses written out, and what a method without styles cannot do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from i2ikit.checkpoints import save_weights
from i2ikit.errors import RunError
from i2ikit.evaluation import evaluate
from i2ikit.recipe import Recipe, load_recipe
from i2ikit.registry import Setting
from i2ikit.run import RESOLVED, Run
from i2ikit.testing import phase_input
from i2ikit.training import new_translator
from i2ikit.translator import ImageSpec, StyleEncoding, Translator
from i2ikit_cyclegan import CycleGAN
from i2ikit_unit import UNIT
from tests.tiny import NARROW
from tests.translating import translated

OTHER = {"a": "b", "b": "a"}
IMAGES = ImageSpec({"a": 1, "b": 3}, 64)


def on_folders(name: str, folders: Path) -> Recipe:
    recipe = load_recipe(name)
    paired = str(recipe.data.options["paired"]).lower()
    own = ("data.name=folders", f'data.root="{folders}"', "data.size=64", f"data.paired={paired}")
    return load_recipe(name, [*own, *NARROW[recipe.translator.name]])


def losses_of(translator: Translator) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    batch = {d: torch.rand(2, IMAGES.channels[d], 64, 64) * 2 - 1 for d in "ab"}
    phase = translator.phases()[0]
    given = phase_input(translator, phase, batch)
    result = phase.losses(given)
    assert {k: v.shape for k, v in result.handed.items()} == {d: batch[d].shape for d in "ab"}
    return batch, dict(given.draws), dict(result.losses)


def test_unit_encodes_adds_noise_and_decodes_in_either_domain(folders: Path) -> None:
    translator = new_translator(on_folders("unit", folders), IMAGES)
    assert isinstance(translator, UNIT)
    batch, draws, losses = losses_of(translator)
    encode, decode = translator.encoders, translator.decoders
    one = torch.ones(2, 1)
    for d in "ab":
        mean = encode[d](batch[d])
        across = decode[OTHER[d]](mean + draws[d], one)
        again = encode[OTHER[d]](across)
        expected = {
            "image_recon": (decode[d](mean + draws[d], one) - batch[d]).abs().mean(),
            "cycle_recon": (decode[d](again + draws[f"cycle_{d}"], one) - batch[d]).abs().mean(),
            "kl": mean.square().mean() + again.square().mean(),
        }
        for name, value in expected.items():
            assert losses[f"{name}/{d}"].item() == pytest.approx(value.item(), rel=1e-5), name


def test_units_noise_is_all_that_differs_at_any_size(folders: Path) -> None:
    translator = new_translator(on_folders("unit", folders), IMAGES).eval()
    assert isinstance(translator, UNIT)
    with torch.no_grad():
        for shape in ((64, 64), (50, 90)):
            x = torch.rand(1, 3, *shape)
            one, two = translator.sample_style(2, "a").split(1)
            first, second = (translator.translate(x, noise, source="b", to="a") for noise in (one, two))
            assert first.shape == (1, 1, *shape)
            assert not torch.equal(first, second)
            none = torch.zeros_like(one)
            mean = translator.encoders["b"](
                torch.nn.functional.pad(x, (0, -shape[1] % 4, 0, -shape[0] % 4), "replicate")
            )
            plain = translator.decoders["a"](mean, torch.ones(1, 1))[:, :, : shape[0], : shape[1]]
            torch.testing.assert_close(translator.translate(x, none, source="b", to="a"), plain)


def test_cyclegan_goes_there_and_back_with_noise_at_both_inputs(folders: Path) -> None:
    translator = new_translator(on_folders("cyclegan-noise", folders), IMAGES)
    assert isinstance(translator, CycleGAN)
    batch, draws, losses = losses_of(translator)
    made = translator.generators
    for d in "ab":
        there = made[OTHER[d]](batch[d], draws[OTHER[d]])
        back = made[d](there, draws[f"cycle_{d}"])
        assert losses[f"cycle_recon/{d}"].item() == pytest.approx(
            (back - batch[d]).abs().mean().item(), rel=1e-5
        )
        scores = translator.discriminators[OTHER[d]](there)
        expected = translator.adversarial_loss.generator(scores).item()
        assert losses[f"adversarial/{OTHER[d]}"].item() == pytest.approx(expected, rel=1e-5)


@pytest.fixture
def untrained(folders: Path, tmp_path: Path) -> dict[str, Path]:
    """Runs of initial weights of a method without styles, and of one with one direction."""
    runs = {}
    for name in ("cyclegan-noise", "bicyclegan"):
        recipe = on_folders(name, folders)
        images = recipe.data().images
        runs[name] = tmp_path / name
        runs[name].mkdir()
        (runs[name] / RESOLVED).write_text(recipe.to_toml())
        save_weights(new_translator(recipe, images).eval(), images, 1, runs[name])
    return runs


def test_no_exemplar_without_a_style_encoder(untrained: dict[str, Path], tmp_path: Path) -> None:
    picture = tmp_path / "x.png"
    Image.new("RGB", (64, 64), "red").save(picture)
    out = tmp_path / "out"
    with pytest.raises(RunError, match="no style encoder and cannot follow exemplars"):
        translated(Run(untrained["cyclegan-noise"]).model, [picture], 2, [picture], None, None, 0, out)
    assert not out.exists()
    (made,) = translated(Run(untrained["cyclegan-noise"]).model, [picture], 2, [], None, None, 0, out)
    assert made.files == tuple(out / f"x-a2b-seed0-style-{n}-of-2.png" for n in (1, 2))
    assert made.sheet == out / "x-a2b-seed0-sheet-of-2.png"
    (found,) = evaluate(Run(untrained["cyclegan-noise"]), ["style-health"], to=None, seed=0, strict=False)
    assert found.found == "not measured: this translator has no style encoder, which this metric needs"


def test_a_direction_that_the_method_cannot_do_is_named(untrained: dict[str, Path], tmp_path: Path) -> None:
    picture = tmp_path / "x.png"
    Image.new("RGB", (64, 64), "red").save(picture)
    message = "this translator does not translate to a; it translates a to b"
    with pytest.raises(RunError, match=message):
        translated(Run(untrained["bicyclegan"]).model, [picture], 2, [], None, "a", 0, tmp_path / "out")
    with pytest.raises(RunError, match=message):
        list(evaluate(Run(untrained["bicyclegan"]), ["l1-diversity"], to="a", seed=0))
    (found,) = evaluate(Run(untrained["bicyclegan"]), ["style-health"], to=None, seed=0)
    assert found.direction == "a2b"
    assert "image_recon" not in found.found.values  # type: ignore[union-attr]


def test_only_what_has_a_style_encoder_says_so(folders: Path) -> None:
    methods = {
        n: new_translator(on_folders(n, folders), IMAGES)
        for n in ("munit", "bicyclegan", "unit", "cyclegan-noise")
    }
    hears = {name: isinstance(method, StyleEncoding) for name, method in methods.items()}
    assert hears == {"munit": True, "bicyclegan": True, "unit": False, "cyclegan-noise": False}


def test_an_identity_loss_needs_equal_channels() -> None:
    def said(weight: float, **channels: int) -> list[str]:
        options = {"weights": {"generator": {"identity": weight}}}
        return [*CycleGAN.problems(options, Setting(64, 1, channels=channels))]

    assert said(0.0, a=1, b=3) == said(5.0, a=3, b=3) == said(5.0) == []
    assert said(5.0, a=1, b=3) == [
        "the identity loss needs domains with equal numbers of channels, but they have 1 (a) and 3 (b)"
    ]

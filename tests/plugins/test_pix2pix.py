"""pix2pix: phases, what the discriminator sees, running statistics; its numbers are in tests/reference."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from i2ikit.components.norms import statistics_unchanged
from i2ikit.errors import RecipeError
from i2ikit.recipe import load_recipe
from i2ikit.registry import Spec
from i2ikit.testing import phase_input
from i2ikit.translator import ImageSpec, Result
from i2ikit_pix2pix import Pix2Pix
from tests.tiny import NARROW


def tiny(dropout: float = 0.0, **options: object) -> Pix2Pix:
    unet = {"width": 4, "norm": Spec("norms", "bn"), "dropout": dropout}
    return Pix2Pix(
        ImageSpec({"a": 1, "b": 3}, 64),
        generator=Spec("decoders", "unet", unet),
        discriminator=Spec("discriminators", "patchgan", {"width": 4, "num_scales": 1}),
        **options,  # type: ignore[arg-type]
    )


def images(count: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {d: torch.rand(count, c, 64, 64, generator=generator) * 2 - 1 for d, c in (("a", 1), ("b", 3))}


def losses_of(translator: Pix2Pix, phase: int, batch: dict[str, Tensor]) -> Result:
    chosen = translator.phases()[phase]
    return chosen.losses(phase_input(translator, chosen, batch))


def generated(translator: Pix2Pix, x: Tensor) -> Tensor:
    with torch.no_grad(), statistics_unchanged(translator):
        made: Tensor = translator.generator(x, x.new_zeros(len(x), 0))
        return made


def test_the_discriminator_comes_first_and_sees_the_input_before_the_image() -> None:
    translator, batch = tiny(), images()
    assert [phase.name for phase in translator.phases()] == ["discriminator", "generator"]
    fake = generated(translator, batch["a"])
    judged = {
        name: translator.discriminator(torch.cat([batch["a"], image], dim=1))
        for name, image in (("fake", fake), ("real", batch["b"]))
    }
    expected = translator.adversarial_loss.discriminator(judged["fake"], judged["real"])
    found = losses_of(translator, 0, batch).losses
    assert found["adversarial"].item() == pytest.approx(expected.item(), rel=1e-5)
    found = losses_of(translator, 1, batch).losses
    expected = translator.adversarial_loss.generator(judged["fake"])
    assert found["adversarial"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert found["image_recon"].item() == pytest.approx((fake - batch["b"]).abs().mean().item(), rel=1e-5)


def test_an_iteration_updates_the_generators_running_statistics_once() -> None:
    """By the phase of the generator: the other one, which translates the same images, leaves them."""
    translator, batch = tiny(), images()

    def counts() -> set[int]:
        buffers = translator.generator.named_buffers()
        return {int(x) for name, x in buffers if name.endswith("num_batches_tracked")}

    before = {name: x.clone() for name, x in translator.generator.named_buffers()}
    losses_of(translator, 0, batch)
    assert all(torch.equal(x, before[name]) for name, x in translator.generator.named_buffers())
    losses_of(translator, 1, batch)
    assert counts() == {1}


def test_each_phase_draws_its_own_dropout() -> None:
    translator = tiny(dropout=0.5)
    for phase in translator.phases():
        assert [name for name in phase.draws if "dropout" in name] == ["generator/translated/dropout_4"]
    assert all(loss.isfinite() for n in (0, 1) for loss in losses_of(translator, n, images()).losses.values())


def test_it_is_deterministic_and_translates_in_one_direction() -> None:
    translator = tiny(dropout=0.5, direction="b2a").eval()
    assert translator.directions == (("b", "a"),)
    assert translator.is_deterministic("a")
    x, style = torch.rand(2, 3, 64, 128), translator.sample_style(2, "a")
    with torch.no_grad():
        one, two = (translator.translate(x, style, source="b", to="a") for _ in range(2))
    assert one.shape == (2, 1, 64, 128)
    assert torch.equal(one, two)
    translator.train()
    assert all(loss.isfinite() for loss in losses_of(translator, 0, images()).losses.values())


@pytest.mark.parametrize("name", ["adversarial", "image_recon"])
def test_losses_of_weight_0_are_not_computed(name: str) -> None:
    weights = {"generator": {name: 0.0}, "discriminator": {"adversarial": float(name != "adversarial")}}
    translator = tiny(weights=weights)
    assert name not in losses_of(translator, 1, images()).losses
    assert ("adversarial" in losses_of(translator, 0, images()).losses) == (name != "adversarial")


def test_the_generator_may_be_a_resnet() -> None:
    resnet = Spec("decoders", "resnet", {"width": 4, "num_residual": 1, "dropout": 0.5})
    translator = Pix2Pix(ImageSpec({"a": 1, "b": 3}, 64), generator=resnet)
    losses = losses_of(translator, 1, images()).losses
    assert all(loss.isfinite() for loss in losses.values())


def test_data_without_pairs_is_refused(folders: Path) -> None:
    with pytest.raises(RecipeError, match="learns from pairs, but this data is unpaired"):
        load_recipe("pix2pix", [*NARROW["pix2pix"], "data.paired=false"])
    on_folders = ("data.name=folders", f'data.root="{folders}"', "data.size=64")
    load_recipe("pix2pix", [*NARROW["pix2pix"], *on_folders, "data.paired=true"])
    with pytest.raises(RecipeError, match="learns from pairs"):
        load_recipe("pix2pix", [*NARROW["pix2pix"], *on_folders])

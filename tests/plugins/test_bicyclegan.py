"""BicycleGAN: halves of a batch, what each loss moves, sizes; its numbers are compared in tests/reference."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from i2ikit.components.smoothness import EdgeAwareSmoothness
from i2ikit.errors import RecipeError
from i2ikit.recipe import load_recipe
from i2ikit.registry import Spec
from i2ikit.testing import phase_input
from i2ikit.translator import ImageSpec, Result, Tensors
from i2ikit_bicyclegan import DEFAULT_WEIGHTS, BicycleGAN, kl_divergence
from tests.tiny import NARROW


def tiny(size: int = 64, weights: dict[str, float] | None = None, **options: object) -> BicycleGAN:
    generator = {**DEFAULT_WEIGHTS["generator"], **(weights or {})}
    return BicycleGAN(
        ImageSpec({"a": 1, "b": 3}, size),
        latent_dim=4,
        generator=Spec("decoders", "unet", {"width": 4}),
        encoder=Spec("encoders", "resnet-latent", {"width": 4}),
        discriminator=Spec("discriminators", "patchgan", {"width": 4}),
        weights={**DEFAULT_WEIGHTS, "generator": generator},
        **options,  # type: ignore[arg-type]
    )


def generator_step(translator: BicycleGAN, count: int) -> Result:
    phase = translator.phases()[0]
    return phase.losses(phase_input(translator, phase, images(count)))


def judged(translator: BicycleGAN, count: int, handed: Tensors) -> Tensors:
    phase = translator.phases()[1]
    return phase.losses(phase_input(translator, phase, images(count), handed)).losses


def images(count: int, size: int = 64) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {d: torch.rand(count, c, size, size, generator=generator) * 2 - 1 for d, c in (("a", 1), ("b", 3))}


@pytest.mark.parametrize(("count", "encoded", "random"), [(1, [0], [0]), (2, [0], [1]), (3, [0, 1], [2])])
def test_the_first_half_is_encoded_and_a_single_pair_is_both(
    count: int, encoded: list[int], random: list[int]
) -> None:
    translator = tiny()
    batch = images(count)
    result = generator_step(translator, count)
    handed = result.handed
    assert all(loss.isfinite() for loss in result.losses.values())
    assert len(handed["encoded"]) == len(handed["random"]) == len(encoded)
    found = judged(translator, count, handed)
    for branch, places in (("encoded", encoded), ("random", random)):
        judge = translator.discriminators[branch]
        expected = translator.adversarial_loss.discriminator(judge(handed[branch]), judge(batch["b"][places]))
        assert found[f"adversarial_{branch}"].item() == pytest.approx(expected.item())


def test_random_translations_are_made_where_a_discriminator_will_judge_them() -> None:
    """Its weight is 0 at the first step only, and rises over all steps, of which a phase is told the number."""
    translator = tiny(weights={"adversarial_random": 0.0, "latent_recon": 0.0})
    rising = {"adversarial_encoded": 1.0, "adversarial_random": {"start": 0.0, "end": 1.0}}
    translator.weights = {**translator.weights, "discriminator": rising}
    phase = translator.phases()[0]
    for step in range(3):
        handed = phase.losses(phase_input(translator, phase, images(2), step=step)).handed
        assert set(handed) == ({"encoded"} if step == 0 else {"encoded", "random"})


def gradients(translator: BicycleGAN, role: str, latent_recon: float) -> torch.Tensor:
    losses = generator_step(translator, 4).losses
    weights = {**DEFAULT_WEIGHTS["generator"], "latent_recon": latent_recon}
    translator.zero_grad()
    torch.stack([weights[name] * loss for name, loss in losses.items()]).sum().backward()
    return torch.cat([p.grad.flatten() for p in translator.networks[role].parameters() if p.grad is not None])


def test_the_latent_loss_moves_the_generator_and_not_the_encoder(one_thread: None) -> None:
    translator = tiny()
    with_it, without = (gradients(translator, "encoder", weight) for weight in (0.5, 0.0))
    assert torch.equal(with_it, without)
    with_it, without = (gradients(translator, "generator", weight) for weight in (0.5, 0.0))
    assert not torch.equal(with_it, without)


def test_the_latent_loss_moves_the_encoder_too_if_the_recipe_says_so(one_thread: None) -> None:
    translator = tiny(latent_recon_trains="generator-and-encoder")
    with_it, without = (gradients(translator, "encoder", weight) for weight in (0.5, 0.0))
    assert not torch.equal(with_it, without)


def test_the_initial_gain_is_that_of_generator_and_encoder_and_not_of_discriminators() -> None:
    """Xavier normal has a standard deviation of gain * sqrt(2 / (fan_in + fan_out))."""
    of_paper, of_one = tiny(), tiny(init_gain=1.0)

    def gains(translator: BicycleGAN) -> dict[str, float]:
        found = {}
        for role, network in translator.networks.items():
            weights = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d)]
            expected = [math.sqrt(2 / (w[0].numel() + w[:, 0].numel())) for w in weights]
            scaled = [(w / std).flatten() for w, std in zip(weights, expected, strict=True)]
            found[role] = torch.cat(scaled).std().item()
        return found

    assert gains(of_paper) == pytest.approx(dict.fromkeys(of_paper.networks, 0.02), rel=0.1)
    assert gains(of_one) == pytest.approx({"generator": 1, "encoder": 1, "discriminators": 0.02}, rel=0.1)


def test_each_translation_should_be_smooth_where_its_input_is() -> None:
    translator = tiny(
        weights={"smoothness": 2.0},
        smoothness_loss=Spec("losses", "edge-aware-smoothness", {"sharpness": 3.0}),
    )
    result = generator_step(translator, 4)
    compare = EdgeAwareSmoothness(sharpness=3.0).compare
    found = [compare(result.handed[branch], images(4)["a"][:2]).item() for branch in ("encoded", "random")]
    assert result.losses["smoothness"].item() == pytest.approx(sum(found) / 2)
    result.losses["smoothness"].backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in translator.generator.parameters())


def test_kl_is_the_textbook_one() -> None:
    """KL(N(m, v) || N(0, I)), from torch's own distributions; mean over samples."""
    mean, log_variance = torch.randn(5, 3), torch.randn(5, 3)
    normal = torch.distributions.Normal
    each = torch.distributions.kl_divergence(normal(mean, (log_variance / 2).exp()), normal(0, 1))
    assert kl_divergence(mean, log_variance).item() == pytest.approx(each.sum(1).mean().item(), rel=1e-5)


def test_smoothness_alone_needs_the_encoded_translation() -> None:
    """A schedule may have all other weights at 0 in a step."""
    translator = tiny(weights=dict.fromkeys(DEFAULT_WEIGHTS["generator"], 0.0) | {"smoothness": 1.0})
    zero = dict.fromkeys(DEFAULT_WEIGHTS["discriminator"], 0.0)
    translator.weights = {**translator.weights, "discriminator": zero}
    result = generator_step(translator, 2)
    assert set(result.losses) == {"smoothness"}
    assert set(result.handed) == {"encoded"}


def test_without_the_random_losses_it_is_a_cvae_gan() -> None:
    translator = tiny(weights={"adversarial_random": 0.0, "latent_recon": 0.0, "smoothness": 1.0})
    translator.weights = {
        **translator.weights,
        "discriminator": {**DEFAULT_WEIGHTS["discriminator"], "adversarial_random": 0.0},
    }
    result = generator_step(translator, 2)
    assert set(result.losses) == {"adversarial_encoded", "image_recon", "kl", "smoothness"}
    expected = EdgeAwareSmoothness().compare(result.handed["encoded"], images(2)["a"][:1])
    assert result.losses["smoothness"].item() == pytest.approx(expected.item())
    assert set(result.handed) == {"encoded"}
    assert set(judged(translator, 2, result.handed)) == {"adversarial_encoded"}


def test_a_shared_discriminator_is_one_network() -> None:
    shared = tiny(shared_discriminator=True)
    assert shared.discriminators["encoded"] is shared.discriminators["random"]
    assert len(shared.networks["discriminators"]) == 1
    apart = tiny()
    assert apart.discriminators["encoded"] is not apart.discriminators["random"]


def test_the_other_direction() -> None:
    translator = tiny(direction="b2a")
    assert translator.directions == (("b", "a"),)
    made = translator.translate(torch.rand(1, 3, 64, 64), translator.sample_style(1, "a"), source="b", to="a")
    assert made.shape == (1, 1, 64, 64)
    losses = generator_step(translator, 2).losses
    assert all(loss.isfinite() for loss in losses.values())


def recipe(name: str, *overrides: str) -> None:
    load_recipe(name, [*NARROW["bicyclegan"], *overrides])


@pytest.mark.parametrize("size", [64, 128, 192, 256, 512])
def test_every_multiple_of_64_works(size: int) -> None:
    recipe("bicyclegan", f"data.size={size}")
    translator = tiny(size).eval()
    with torch.no_grad():
        x = torch.rand(1, 1, size, size)
        made = translator.translate(x, translator.sample_style(1, "b"), source="a", to="b")
        assert made.shape == (1, 3, size, size)
        assert translator.encode_style(torch.rand(1, 3, size, size), "b").shape == (1, 4)
        assert all(s.numel() for s in translator.discriminators["encoded"](torch.rand(1, 3, size, size)))


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("bicyclegan", 96, "needs multiples of 64 px; the nearest sizes that suit all are 64 and 128"),
        ("bicyclegan", 32, "needs multiples of 64 px; the nearest size that suits all is 64"),
        ("bicyclegan-paper", 128, "needs multiples of 256 px; the nearest size that suits all is 256"),
    ],
)
def test_other_sizes_are_refused_before_anything_is_built(name: str, size: int, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe(name, f"data.size={size}")


def test_data_without_pairs_is_refused(folders: Path) -> None:
    with pytest.raises(RecipeError, match="learns from pairs, but this data is unpaired"):
        recipe("bicyclegan", "data.paired=false")
    on_folders = ("data.name=folders", f'data.root="{folders}"', "data.size=64")
    recipe("bicyclegan", *on_folders, "data.paired=true")
    with pytest.raises(RecipeError, match="learns from pairs"):
        recipe("bicyclegan", *on_folders)


def test_weights_that_teach_the_encoder_nothing_are_refused() -> None:
    zero = [f"translator.weights.generator.{name}=0" for name in ("adversarial_encoded", "image_recon")]
    with pytest.raises(RecipeError, match="no other loss makes codes informative"):
        recipe("bicyclegan", *zero)


def test_an_initial_gain_of_zero_is_refused() -> None:
    with pytest.raises(RecipeError, match="init_gain"):
        recipe("bicyclegan", "translator.init_gain=0")

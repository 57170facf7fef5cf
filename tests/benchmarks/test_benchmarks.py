"""The reference composition computes what MUNIT does, and the comparison runs."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from i2ikit.recipe import load_recipe
from i2ikit.training import MicroBatch, build, train_step
from i2ikit.translator import ImageSpec
from tests.benchmarks.against_reference import in_turns, our_step, reference_step
from tests.benchmarks.checkerboard import excess
from tests.benchmarks.reference import Reference


def copy_weights(ours: nn.ModuleDict, theirs: Reference) -> None:
    """Both list the parameters of each part in the same order."""
    for n, d in enumerate("ab"):
        generator, decoder = theirs.generators[n], ours["decoders"][d]
        pairs = [
            (ours["content_encoders"][d], [generator.content]),
            (ours["style_encoders"][d], [generator.style]),
            (decoder, [generator.residuals, generator.mlp, generator.up]),
            (ours["discriminators"][d], [theirs.discriminators[n]]),
        ]
        for mine, parts in pairs:
            others = [parameter for part in parts for parameter in part.parameters()]
            for one, other in zip(mine.parameters(), others, strict=True):
                other.data.copy_(one.detach().view_as(other))


def test_the_reference_computes_the_losses_of_munit() -> None:
    """Three updates of both networks in the official order agree to 1e-8 in float64."""
    widths = [f"translator.{part}.width=4" for part in ("content_encoder", "style_encoder", "discriminator")]
    recipe = load_recipe("munit-paper", widths)
    translator = recipe.translator(ImageSpec({"a": 3, "b": 3}, 64)).double()
    reference = Reference(4)
    for part in (reference.generators, reference.discriminators):
        part.double()
    copy_weights(translator.networks, reference)
    state = build(translator, recipe.optimizers, Accelerator(cpu=True), recipe.training.steps)
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    styles: dict[str, dict[str, Tensor]] = {}
    for step in range(3):
        x = {d: normal(2, 3, 64, 64).tanh() for d in "ab"}
        styles.update({phase.name: {f"s_{d}": normal(2, 8) for d in "ab"} for phase in state.phases})
        losses = train_step(state, step, [MicroBatch(x, range(2))], lambda phase, places: styles[phase.name])
        theirs = reference(x["a"], x["b"], [s for of_phase in styles.values() for s in of_phase.values()])
        for phase, total in zip(("discriminator", "generator"), theirs, strict=True):
            weights = translator.weights[phase]
            ours = sum(weights[key.split("/")[1]] * v for key, v in losses.items() if key.startswith(phase))
            assert abs(ours - total.item()) < 1e-8


def test_a_step_is_compared_with_the_reference() -> None:
    """At a small size: the seconds of each are there."""
    steps = {"reference": reference_step(64, 1, 4), "fp32": our_step(64, 1, 4, "fp32")}
    assert all(0 < seconds < 20 for seconds in in_turns(steps, 1).values())


def test_a_pattern_shows_at_its_own_period_only() -> None:
    """Beside noise, whose energy is 64 * 64**2 in a line, a pattern adds (amplitude * 64**2)**2 along one of two axes."""
    noise = torch.randn(50, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    columns = torch.arange(64) % 4
    # Fourier coefficients of 0101 and of 1100 at their periods
    cases = ((2, (columns % 2).float(), 1 / 2), (4, (columns < 2).float(), 2**0.5 / 4))
    for period, pattern, coefficient in cases:
        expected = 1 + (0.3 * coefficient * 64**2) ** 2 / (64 * 64**2) / 2
        (other,) = {2, 4} - {period}
        assert abs(excess(noise, period) - 1) < 0.05
        assert abs(excess(noise + 0.3 * pattern, period) - expected) < 0.05
        assert abs(excess(noise + 0.3 * pattern, other) - 1) < 0.05

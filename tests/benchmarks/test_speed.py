"""How long the parts of a run take; ratios, as seconds depend on the machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from i2ikit.recipe import load_recipe
from i2ikit.training import MicroBatch, build, counted_draw, new_accelerator, train_step, update_ema
from i2ikit.translator import ImageSpec


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_of_the_default_recipe(benchmark: BenchmarkFixture, tmp_path: Path, precision: str) -> None:
    """The EMA update included, reading images not."""
    recipe = load_recipe("munit", [f"training.precision={precision}"])
    state = build(
        recipe.translator(ImageSpec({"a": 3, "b": 3}, 64)),
        recipe.optimizers,
        new_accelerator(recipe.training.precision, tmp_path),
        recipe.training.steps,
    )
    n = recipe.training.batch_size
    batch = MicroBatch({d: torch.rand(n, 3, 64, 64) * 2 - 1 for d in "ab"}, range(n))

    draw = counted_draw(0, 0, torch.device("cpu"))

    def step() -> None:
        train_step(state, 0, [batch], draw)
        update_ema(state.ema, state.translator, 0.999, 100)

    benchmark.pedantic(step, rounds=5, warmup_rounds=1)


def test_translating_one_image_of_the_default_recipe(benchmark: BenchmarkFixture) -> None:
    """Eight styles of one 64 px input."""
    translator = load_recipe("munit").translator(ImageSpec({"a": 3, "b": 3}, 64)).eval()
    x, styles = torch.rand(1, 3, 64, 64), translator.sample_style(8, "b")

    @torch.no_grad()
    def translate() -> torch.Tensor:
        return translator.translate(x.expand(8, -1, -1, -1), styles, source="a", to="b")

    assert benchmark(translate).shape == (8, 3, 64, 64)

"""How long steps, translations and the start of the command line take: `make bench`.

Seconds depend on the machine; `against_reference` measures ratios.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from i2ikit.recipe import load_recipe
from i2ikit.translator import ImageSpec, Translator
from tests.benchmarks.against_reference import WORK, our_step, recipe_step

IMAGES = ImageSpec({"a": 3, "b": 3}, 256)
STYLES = 16


@pytest.mark.benchmark(group="training step")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("recipe", ["munit", "bicyclegan", "bicyclegan-paper"])
def test_a_step_of_a_recipe(benchmark: BenchmarkFixture, recipe: str, precision: str) -> None:
    """The update of the averages included, reading images not."""
    benchmark.pedantic(recipe_step(recipe, precision), rounds=5, warmup_rounds=1)


@pytest.mark.benchmark(group="training step")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("size", sorted(WORK))
def test_a_step_at_the_widths_of_the_paper(benchmark: BenchmarkFixture, size: int, precision: str) -> None:
    """The work that `against_reference` compares."""
    benchmark.pedantic(our_step(size, *WORK[size], precision), rounds=3, warmup_rounds=1)


@pytest.fixture(scope="module")
def translator() -> Translator:
    """MUNIT at the paper's width."""
    built: Translator = load_recipe("munit-paper").translator(IMAGES).eval().requires_grad_(False)
    return built


@pytest.mark.benchmark(group="16 styles of a 256 px image")
@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@torch.no_grad()
def test_translating_one_image(
    benchmark: BenchmarkFixture, translator: Translator, at_once: bool, precision: str
) -> None:
    """All styles at once, and one after the other."""
    x, styles = torch.rand(1, 3, 256, 256), translator.sample_style(STYLES, "b")

    def translate() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            if at_once:
                return translator.translate_with_each(x, styles, source="a", to="b")
            return torch.cat([translator.translate(x, s[None], source="a", to="b") for s in styles])

    assert benchmark.pedantic(translate, rounds=3, warmup_rounds=1).shape == (STYLES, 3, 256, 256)


@pytest.mark.benchmark(group="start of the command line")
@pytest.mark.parametrize("command", ["--help", "list"])
def test_the_command_line_starts(benchmark: BenchmarkFixture, command: str) -> None:
    """In a process of its own."""
    benchmark.pedantic(
        subprocess.run,
        ([sys.executable, "-m", "i2ikit", command],),
        {"check": True, "capture_output": True},
        rounds=5,
        warmup_rounds=1,
    )

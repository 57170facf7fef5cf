"""Number formats of training: what "auto" means here, and what is said about a slow one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from i2ikit.precision import has_bf16, precision_here
from i2ikit.recipe import load_recipe
from tests.tiny import tiny_recipe


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A machine without a GPU whose processor has these capabilities."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: request.param)


WITHOUT = {"avx2": True, "avx512_bf16": False, "architecture": "x86_64"}


@pytest.mark.parametrize(
    ("processor", "precision"),
    [
        (WITHOUT, "fp32"),
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
        ({"neon": True, "bf16": True, "architecture": "aarch64"}, "bf16"),
        ({"neon": True, "bf16": False}, "fp32"),
        ({}, "fp32"),
    ],
    indirect=["processor"],
)
@pytest.mark.usefixtures("processor")
def test_auto_is_bf16_only_where_the_processor_has_instructions_for_it(precision: str) -> None:
    assert has_bf16() == (precision == "bf16")
    assert precision_here("auto") == precision
    assert [precision_here(fixed) for fixed in ("fp32", "bf16", "fp16")] == ["fp32", "bf16", "fp16"]


@pytest.mark.parametrize("processor", [WITHOUT], indirect=True)
@pytest.mark.usefixtures("processor")
def test_a_recipe_holds_what_auto_means_and_says_so(folders: Path) -> None:
    """A resumed run, and another run with its resolved.toml, then compute in the same precision anywhere."""
    recipe = tiny_recipe(folders, "training.precision=auto")
    assert 'precision = "fp32"' in recipe.to_toml()
    assert recipe.notes[0] == "training in fp32, because this machine has no instructions for bf16"
    assert tiny_recipe(folders, "training.precision=fp32").notes == ()


@pytest.mark.parametrize("processor", [WITHOUT], indirect=True)
@pytest.mark.usefixtures("processor")
def test_bf16_without_instructions_is_used_and_said_to_be_slow(folders: Path) -> None:
    recipe = tiny_recipe(folders, "training.precision=bf16")
    assert recipe.training.precision == "bf16"
    assert "ten times as long" in recipe.notes[0]


@pytest.mark.parametrize("processor", [{"amx_bf16": True}], indirect=True)
@pytest.mark.usefixtures("processor")
def test_nothing_is_said_where_bf16_is_quick(folders: Path) -> None:
    recipe = tiny_recipe(folders, "training.precision=auto")
    assert (recipe.training.precision, recipe.notes) == ("bf16", ())


def test_the_shipped_recipes_for_quick_runs_leave_the_choice_to_the_machine() -> None:
    expected = precision_here("auto")
    for name in ("munit", "bicyclegan", "unit", "cyclegan", "pix2pix"):
        assert load_recipe(name).training.precision == expected


def test_what_the_machine_says_is_known_by_these_names() -> None:
    capabilities: Mapping[str, object] = torch.cpu.get_capabilities()
    assert "architecture" in capabilities
    if capabilities["architecture"] == "x86_64":
        assert {"avx512_bf16", "amx_bf16"} <= capabilities.keys()

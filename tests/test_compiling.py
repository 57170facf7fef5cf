"""training.compile: each network is compiled, under the same names."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

from i2ikit.errors import TrainingError
from i2ikit.loop import train
from i2ikit.training import compile_networks
from tests.tiny import assert_same_training, metrics, run, tiny_recipe
from tests.toy import Numbers, Toy

CPU = torch.device("cpu")


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The modules of which `compile` was called, which does nothing."""
    found: list[nn.Module] = []

    def same(function: Callable[..., Any]) -> Callable[..., Any]:
        return function

    monkeypatch.setattr(torch, "compile", same)
    monkeypatch.setattr(nn.Module, "compile", lambda module: found.append(module))
    return found


def test_the_network_of_each_domain_is_compiled(compiled: list[nn.Module]) -> None:
    """The dictionary around them is not compiled: it has no forward pass."""
    one, a, b = (Numbers(x=1.0) for _ in range(3))
    toy = Toy({"one": one, "two": nn.ModuleDict({"a": a, "b": b})}, [], {})
    compile_networks(toy, CPU)
    assert compiled == [one, a, b]


def test_a_machine_that_cannot_compile_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first step, with torch's reason and what to change."""

    def fail(function: Callable[..., Any]) -> Callable[..., Any]:
        raise RuntimeError("No compiler found Set TORCHDYNAMO_VERBOSE=1 for more")

    monkeypatch.setattr(torch, "compile", fail)
    with pytest.raises(TrainingError, match=r"\(RuntimeError: No compiler found\); install .* = false"):
        compile_networks(Toy({"one": Numbers(x=1.0)}, [], {}), CPU)


def test_the_loop_compiles_and_says_so(folders: Path, tmp_path: Path, compiled: list[nn.Module]) -> None:
    """Only if the recipe asks for it."""
    run(tiny_recipe(folders), tmp_path / "plain")
    assert not compiled
    recipe, folder, said = tiny_recipe(folders, "training.compile=true"), tmp_path / "compiled", io.StringIO()
    folder.mkdir()
    train(recipe, recipe.data(), folder, console=Console(file=said, width=200))
    assert len(compiled) == 8
    assert "the networks are compiled; the first step takes minutes" in said.getvalue()
    assert_same_training(tmp_path / "plain", folder)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch's own, while it compiles
def test_a_compiled_run_has_the_losses_of_a_plain_one_and_resumes(folders: Path, tmp_path: Path) -> None:
    """To 1e-3 after two steps; bit for bit when resumed after the first."""
    steps = ("training.steps=2", "training.log_every=1")
    run(tiny_recipe(folders, *steps), tmp_path / "plain")
    own = (*steps, "training.compile=true")
    run(tiny_recipe(folders, *own), tmp_path / "compiled")
    for plain, compiled in zip(metrics(tmp_path / "plain"), metrics(tmp_path / "compiled"), strict=True):
        for name in plain:
            if "/" in name:
                assert compiled[name] == pytest.approx(plain[name], rel=1e-3)
    run(tiny_recipe(folders, *own, "training.steps=1"), tmp_path / "resumed")
    run(tiny_recipe(folders, *own), tmp_path / "resumed", resume=True)
    assert_same_training(tmp_path / "compiled", tmp_path / "resumed")

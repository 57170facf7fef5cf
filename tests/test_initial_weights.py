"""Starting from the weights of another run: what fits is taken, and the rest is said to start fresh."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import i2ikit
from i2ikit.checkpoints import newest_checkpoint
from i2ikit.errors import RunError
from i2ikit.recipe import Recipe
from i2ikit.resolved import RESOLVED, read_resolved
from i2ikit.training import new_translator
from tests.image_files import make_folders
from tests.tiny import QUIET, tiny_recipe

pytestmark = pytest.mark.slow

ROLES = ("content_encoders", "style_encoders", "decoders", "discriminators")
STILL = ("training.steps=1", "optimizer.lr=1e-12")
"""One update that changes almost nothing."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folders(tmp_path_factory.mktemp("initial") / "data")


@pytest.fixture(scope="module")
def source(data: Path) -> Path:
    recipe = tiny_recipe(data, "seed=5", "optimizer.lr=1e-2")
    return i2ikit.train(recipe, data.parent / "source", console=QUIET).folder


@pytest.fixture
def copy(source: Path, tmp_path: Path) -> Path:
    shutil.copytree(source, tmp_path / "copy")
    return tmp_path / "copy"


def networks(run: Path, step: int = 0) -> dict[str, torch.Tensor]:
    return load_file(run / f"checkpoints/step-{step:09d}/networks.safetensors")


def equal_roles(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> set[str]:
    roles = {name.partition(".")[0] for name in one}
    own = {role: {name: x for name, x in one.items() if name.startswith(f"{role}.")} for role in roles}
    return {
        role
        for role, tensors in own.items()
        if all(name in two and torch.equal(x, two[name]) for name, x in tensors.items())
    }


def start(recipe: Recipe, out: Path, weights_from: Path) -> tuple[Path, str]:
    """The run, and what it said."""
    said = io.StringIO()
    run = i2ikit.train(recipe, out, weights_from=weights_from, console=Console(file=said, width=900))
    return run.folder, said.getvalue()


def test_all_networks_of_a_checkpoint_are_taken(data: Path, source: Path, tmp_path: Path) -> None:
    """Bit for bit, also the discriminators, and recorded; they are the first checkpoint of the new run."""
    run, said = start(tiny_recipe(data, *STILL), tmp_path / "run", source)
    assert equal_roles(networks(run), networks(source, 2)) == set(ROLES)
    assert f"{source}/checkpoints/step-000000002 (step 2) are taken for: " in said
    assert "these start fresh: none" in said
    record = read_resolved(run)[0]["weights_from"]
    assert (record["run"], record["file"]) == (str(source), "checkpoints/step-000000002")
    assert (record["step"], set(record["taken"]), record["fresh"]) == (2, set(ROLES), [])


def test_a_network_of_another_shape_starts_fresh(data: Path, source: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(data, *STILL, "translator.style_encoder.width=6")
    run, said = start(recipe, tmp_path / "run", source)
    assert equal_roles(networks(run), networks(source, 2)) == set(ROLES) - {"style_encoders"}
    assert "these start fresh: style_encoders (style_encoders." in said
    assert "there, and (" in said
    fresh = {
        f"style_encoders.{name}": x
        for name, x in new_translator(recipe, recipe.data().images)
        .networks["style_encoders"]
        .state_dict()
        .items()
    }
    assert equal_roles(fresh, networks(run)) == {"style_encoders"}
    assert read_resolved(run)[0]["weights_from"]["fresh"] == ["style_encoders"]


@pytest.mark.parametrize("way", ["no checkpoint", "damaged", "named"])
def test_without_a_checkpoint_the_averaged_weights_are_taken(
    data: Path, copy: Path, tmp_path: Path, way: str
) -> None:
    given = copy
    if way == "no checkpoint":
        shutil.rmtree(copy / "checkpoints")
    elif way == "damaged":
        (copy / "checkpoints/step-000000002/manifest.json").write_text("{}")
    else:
        given = copy / "weights.safetensors"
    run, said = start(tiny_recipe(data, *STILL), tmp_path / "run", given)
    assert equal_roles(networks(run), load_file(copy / "weights.safetensors")) == set(ROLES[:3])
    assert "discriminators (not in the file)" in said


def test_a_run_that_nothing_fits_is_refused_before_there_is_a_folder(
    data: Path, source: Path, tmp_path: Path
) -> None:
    wider = ("content_encoder.width=6", "style_encoder.width=6", "decoder.mlp_width=6")
    own = [f"translator.{option}" for option in wider]
    recipe = tiny_recipe(data, *own, "translator.discriminator.width=6")
    with pytest.raises(RunError, match=r"(?s)no network fits the weights of .*decoders: .* has shape"):
        i2ikit.train(recipe, tmp_path / "run", weights_from=source, console=QUIET)
    with pytest.raises(RunError, match=r"there is no run .*nowhere"):
        i2ikit.train(recipe, tmp_path / "run", weights_from=tmp_path / "nowhere", console=QUIET)
    assert not (tmp_path / "run").exists()


def test_weights_that_are_damaged_or_not_there_are_named(data: Path, copy: Path, tmp_path: Path) -> None:
    shutil.rmtree(copy / "checkpoints")
    file = copy / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(RunError, match="is damaged"):
        i2ikit.train(tiny_recipe(data), tmp_path / "run", weights_from=copy, console=QUIET)
    file.unlink()
    with pytest.raises(RunError, match=r"there is no weights\.safetensors"):
        i2ikit.train(tiny_recipe(data), tmp_path / "run", weights_from=copy, console=QUIET)


def test_resuming_needs_the_other_run_no_more(data: Path, copy: Path, tmp_path: Path) -> None:
    """It equals the run without the interruption; without its first checkpoint, resuming is refused."""
    options = ("training.steps=2", "training.checkpoint_every=1", "training.keep=9")
    whole, _ = start(tiny_recipe(data, *options), tmp_path / "whole", copy)
    shutil.rmtree(copy)
    for step in (1, 2):
        shutil.copytree(whole, tmp_path / f"at {step - 1}")
        run = tmp_path / f"at {step - 1}"
        for later in range(step, 3):
            shutil.rmtree(run / f"checkpoints/step-00000000{later}")
        (run / "weights.safetensors").unlink()
        i2ikit.resume(run, console=QUIET)
        assert (run / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(RunError, match=r"was stopped before .* were saved; start it again: .*--weights-from"):
        i2ikit.resume(run, console=QUIET)


def test_running_its_resolved_recipe_says_what_is_missing(data: Path, source: Path, tmp_path: Path) -> None:
    run, _ = start(tiny_recipe(data, *STILL), tmp_path / "run", source)
    i2ikit.resume(run, "training.steps=2", console=QUIET)
    notes = i2ikit.load_recipe(run / RESOLVED).notes
    assert any(f"started from the weights of {source}; --weights-from" in note for note in notes)
    assert any("was changed on the way" in note for note in notes)
    assert newest_checkpoint(run) is not None

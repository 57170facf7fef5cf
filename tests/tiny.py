"""Recipes that train in seconds, and what training left."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

from rich.console import Console

from i2ikit import comparison
from i2ikit.checkpoints import save_weights
from i2ikit.loop import train
from i2ikit.recipe import Recipe, load_recipe
from i2ikit.run import RESOLVED
from i2ikit.training import new_translator

QUIET = Console(quiet=True)

TINY = (
    "translator.content_encoder.width=4",
    "translator.content_encoder.num_residual=1",
    "translator.style_encoder.width=4",
    "translator.decoder.num_residual=1",
    "translator.decoder.mlp_width=8",
    "translator.discriminator={name='multiscale-patch', width=4}",
    "translator.weights.generator.smoothness=0.0",
    "data.size=64",
)
"""Overrides that make a recipe of MUNIT's small and quick, and let it do without a trunk's weights."""

NARROW = {
    "munit": TINY[:-1],
    "bicyclegan": tuple(f"translator.{part}.width=4" for part in ("generator", "encoder", "discriminator")),
    "unit": ("translator.encoder.width=4", "translator.discriminator.width=4"),
    "cyclegan": ("translator.generator.width=4", "translator.discriminator.width=4"),
    "pix2pix": ("translator.generator.width=4", "translator.discriminator.width=4"),
}
"""Overrides that make the recipes of each method quick."""


def quick_columns(alexnet_file: str, vgg_file: str) -> list[comparison.Column]:
    """The columns of `compare` for three inputs, with these weights."""
    columns = []
    for column in comparison.COLUMNS:
        options = [*column.options, f"{column.metric}.num_inputs=3"]
        if column.metric in ("lpips-diversity", "lpips-to-target", "kid"):
            file = vgg_file if "kid.network=vgg16" in options else alexnet_file
            options.append(f'{column.metric}.weights="{file}"')
        columns.append(dataclasses.replace(column, options=options))
    return columns


def tiny_recipe(folders: Path, *overrides: str) -> Recipe:
    """recipes/munit.toml on the test folders: two steps of two images, in fp32."""
    on_folders = ("data.name=folders", f'data.root="{folders}"', "training.precision=fp32")
    short = ("training.steps=2", "training.batch_size=2", "training.log_every=1", "optimizer.decay=none")
    return load_recipe("munit", [*on_folders, *TINY, *short, *overrides])


def run(recipe: Recipe, folder: Path, *, resume: bool = False) -> int:
    folder.mkdir(exist_ok=True)
    (folder / RESOLVED).write_text(recipe.to_toml())
    return train(recipe, recipe.data(), folder, resume=resume, console=QUIET).step


def untrained(recipe: Recipe, folder: Path) -> Path:
    """A run folder whose weights are the initial ones."""
    folder.mkdir(parents=True)
    (folder / RESOLVED).write_text(recipe.to_toml())
    images = recipe.data().images
    save_weights(new_translator(recipe, images).eval(), images, 1, folder)
    return folder


def metrics(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("elapsed_s", "steps_per_s")} for line in lines]


def stopped_at(run: Path, stop: int, copy: Path) -> Path:
    """A copy of a run that kept every checkpoint, as it was after a kill at this step."""
    shutil.copytree(run, copy)
    for checkpoint in (copy / "checkpoints").glob("step-*"):
        if int(checkpoint.name.removeprefix("step-")) > stop:
            shutil.rmtree(checkpoint)
    (copy / "weights.safetensors").unlink()
    return copy


def assert_same_training(one: Path, two: Path) -> None:
    """Bit for bit: all tensors of the last checkpoint, and every number that was logged."""
    last = max(one.glob("checkpoints/step-*")).relative_to(one)
    for file in (one / last).glob("*.safetensors"):
        assert file.read_bytes() == (two / last / file.name).read_bytes(), file.name
    assert metrics(one) == metrics(two)

"""The methods that ship resume bit for bit, with weights that change and with everything that they keep."""

from __future__ import annotations

from pathlib import Path

import pytest

import i2ikit
from tests.tiny import NARROW, QUIET, TINY, assert_same_training, stopped_at

pytestmark = pytest.mark.slow

FALLING = "{start=2.0, end=0.0, steps=6}"

METHODS = {
    "munit": (*TINY, f"translator.weights.generator.content_recon={FALLING}"),
    "bicyclegan": (
        *NARROW["bicyclegan"], "data.paired=true", "translator.generator.dropout=0.5",
        f"translator.weights.generator.latent_recon={FALLING}",
    ),
    "unit": (*NARROW["unit"], "optimizer.encoders.name=adamw", "optimizer.decay=cosine"),
    "cyclegan-noise": (
        *NARROW["cyclegan"], "translator.noise_dim=0", "translator.pool_size=6",
        f"translator.weights.generator.identity={FALLING}",
    ),
    "cyclegan": (*NARROW["cyclegan"], "translator.generator.num_residual=1", "translator.pool_size=6"),
    "pix2pix": (*NARROW["pix2pix"], "data.paired=true"),
}  # fmt: skip


def trained(method: str, folders: Path, out: Path) -> Path:
    """Twelve steps; every checkpoint is kept."""
    short = ("training.steps=12", "training.batch_size=2", "training.log_every=1", "training.sample_every=0")
    keeping = ("training.checkpoint_every=1", "training.keep=20", "training.precision=fp32", "data.size=64")
    data = ("data.name=folders", f'data.root="{folders}"')
    recipe = i2ikit.load_recipe(method, [*data, *short, *keeping, *METHODS[method]])
    i2ikit.train(recipe, out, console=QUIET)
    return out


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "stop", [pytest.param(n, marks=[] if n == 5 else pytest.mark.long) for n in range(1, 11)]
)
def test_it_resumes_bit_for_bit(method: str, stop: int, folders: Path, tmp_path: Path) -> None:
    whole = trained(method, folders, tmp_path / "whole")
    parts = stopped_at(whole, stop, tmp_path / "parts")
    i2ikit.resume(parts, console=QUIET)
    assert_same_training(whole, parts)

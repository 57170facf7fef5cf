"""A run that went wrong without an error says so at its end; good runs do not, however short."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor

import i2ikit
from i2ikit.errors import RunError
from i2ikit.recipe import Recipe, load_recipe
from i2ikit.runlog import logged
from i2ikit.verdict import verdict
from tests.image_files import make_folders, side_by_side
from tests.tiny import NARROW, QUIET, TINY, tiny_recipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folders(tmp_path_factory.mktemp("verdict") / "data")


def said(recipe: Recipe, folder: Path) -> str:
    """What training printed."""
    console = Console(file=io.StringIO(), width=400)
    i2ikit.train(recipe, folder, console=console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def small(name: str, data: Path, tmp_path: Path, *overrides: str) -> Recipe:
    own = TINY if name == "munit" else NARROW[name.partition("-")[0]]
    folders = ("data.name=folders", f'data.root="{data}"')
    if name in ("bicyclegan", "pix2pix"):
        folders = ("data.name=side-by-side", f'data.root="{side_by_side(tmp_path / "pairs")}"')
    short = ("training.batch_size=2", "training.log_every=1", "training.precision=fp32", "data.size=64")
    return load_recipe(name, [*folders, *own, *short, *overrides])


@pytest.mark.parametrize("options", [("training.steps=1", "training.sample_every=0"), ("training.steps=6",)])
@pytest.mark.parametrize("name", ["munit", "unit", "bicyclegan", "cyclegan-noise", "cyclegan", "pix2pix"])
def test_a_short_run_is_not_said_to_be_wrong(
    data: Path, tmp_path: Path, name: str, options: tuple[str, ...]
) -> None:
    """With tiny initial weights, BicycleGAN's first images are nearly grey, and styles change them little."""
    pale = ("translator.init_gain=0.02",) if name == "bicyclegan" else ()
    text = said(small(name, data, tmp_path, *pale, *options), tmp_path / "run")
    assert "samples appear in" in text
    assert "wrong" not in text


@pytest.mark.parametrize("name", ["munit", "unit", "cyclegan-noise"])
@pytest.mark.parametrize("rate", ["1.0", "1e3"])
def test_a_learning_rate_that_is_too_high_is_said_at_the_end(
    data: Path, tmp_path: Path, name: str, rate: str
) -> None:
    """Also with a translator that is deterministic, and whenever the finished run is resumed.

    Whether they end as black and white, as one image for all inputs, or both, differs between seeds.
    """
    recipe = small(name, data, tmp_path, "training.steps=15", f"optimizer.lr={rate}")
    text = said(recipe, tmp_path / "run")
    assert text.index("this run went wrong:") > text.index("samples appear in")
    assert re.search(r"its translations a2b (and b2a )?are (saturated: |the same for all inputs)", text)
    assert f"Try again with a lower learning rate (optimizer.lr, here {float(rate):g})" in text
    console = Console(file=io.StringIO(), width=400)
    i2ikit.resume(tmp_path / "run", console=console)
    assert "this run went wrong:" in console.file.getvalue()  # type: ignore[attr-defined]


def test_weights_whose_images_are_not_finite_make_no_pictures(data: Path, tmp_path: Path) -> None:
    """Each weight is finite, but not their products."""
    recipe = small("unit", data, tmp_path, "training.steps=6", "optimizer.lr=1e36")
    text = said(recipe, tmp_path / "run")
    assert "updates were skipped, because they were not finite" in text
    assert "its translations a2b are not finite" in text
    with pytest.raises(RunError, match="the translation is not finite"):
        i2ikit.load(tmp_path / "run", "cpu").translate(data / "testA/0.png")


class Made:
    """A translator, of which only translations count, of the images that are given."""

    def __init__(self, run: i2ikit.Run, function: object) -> None:
        self.translator = run.translator
        self.function = function

    def __getattr__(self, name: str) -> object:
        return getattr(self.translator, name)

    def translate(self, x: Tensor, style: Tensor, *, source: str, to: str) -> Tensor:
        return self.function(x)  # type: ignore[operator,no-any-return]


@pytest.fixture(scope="module")
def run(data: Path) -> i2ikit.Run:
    return i2ikit.train(tiny_recipe(data), data.parent / "run", console=QUIET)


def found(
    run: i2ikit.Run, function: object, step: int = 2, lines: Sequence[Mapping[str, object]] = ()
) -> str:
    made = Made(run, function)
    return "\n".join(verdict(run.recipe, made, run.dataset(), lines, step, 0))  # type: ignore[arg-type]


def test_what_the_images_show(run: i2ikit.Run) -> None:
    """Nearly equal grey images count only in a long run."""
    assert found(run, lambda x: x) == ""
    assert found(run, lambda x: x * 1e-3) == ""
    assert "a2b are the same for all inputs" in found(run, lambda x: x * 1e-3, step=1000)
    assert "a2b are the same for all inputs" in found(run, lambda x: x[:1].expand_as(x))
    assert "b2a are saturated: 100% of their pixels" in found(run, torch.sign)
    assert "a2b are not finite" in found(run, lambda x: x / 0)


def test_what_the_log_shows_counts_where_it_is_certain(run: i2ikit.Run) -> None:
    """A loss that has grown a thousandfold, and a style that has lost its effect, but no faint one."""
    lines = [
        {"step": 1, "steps_per_s": 1.0, "generator/gan/a": 0.5, "generator/kl": 9.0, "generator/x": None},
        {"step": 2, "steps_per_s": 1.0, "generator/gan/a": 1001.0, "generator/kl": 900.0, "generator/x": 1e9},
    ]
    (line,) = found(run, lambda x: x, lines=lines).splitlines()
    assert line.startswith("generator/gan/a grew from 0.5 to 1e+03. Start again with a lower learning rate")
    faint = {"step": 2, "diversity/a2b": 0.002}
    assert found(run, lambda x: x, lines=[faint]) == ""
    assert "has no effect on its translations a2b" in found(
        run, lambda x: x, lines=[{"step": 0, "diversity/a2b": 0.02}, faint]
    )


def test_a_damaged_line_of_the_log_is_left_out(tmp_path: Path) -> None:
    lines = [json.dumps({"step": 1, "x": 2.0}), "{", "[]", json.dumps({"step": 2})]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert logged(tmp_path) == [{"step": 1, "x": 2.0}, {"step": 2}]

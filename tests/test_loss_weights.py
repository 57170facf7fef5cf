"""Weights of losses: numbers and schedules, by name and by part, in Python and in recipes."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from i2ikit.checking import check
from i2ikit.errors import RecipeError
from i2ikit.loss_weights import Weights, largest_weights, weights_at
from i2ikit.recipe import load_recipe
from i2ikit.registry import LossWeights, Setting, Slot, losses
from i2ikit.training import new_translator
from i2ikit.translator import ImageSpec, Translator
from i2ikit_cyclegan import CycleGAN

FALLING = {"start": 1.0, "end": 0.0, "steps": 4}
RISING = {"start": 0.5, "end": 3.0, "steps": 10}


@pytest.mark.parametrize("step", [0, 1, 1_000_000])
def test_a_number_is_the_weight_of_every_step(step: int) -> None:
    """Numbers do not depend on the step."""
    assert dict(weights_at({"x": 2.5, "y": 0.0}, step, 15)) == {"x": 2.5, "y": 0.0}


@pytest.mark.parametrize("schedule", [FALLING, RISING, {"start": 2.0, "end": 2.0, "steps": 1}])
def test_a_schedule_is_linear_and_then_constant(schedule: dict[str, Any]) -> None:
    """At each step, the exact fraction of the way from start to end; both ends are exact."""
    start, end, steps = (Fraction(schedule[key]) for key in ("start", "end", "steps"))
    found = [weights_at({"x": schedule}, step, 15)["x"] for step in range(15)]
    exact = [start + (end - start) * min(Fraction(step) / steps, 1) for step in range(15)]
    assert found == pytest.approx([float(value) for value in exact], rel=1e-15)
    assert found[0] == schedule["start"]
    assert found[schedule["steps"] :] == [schedule["end"]] * (15 - schedule["steps"])


def test_a_schedule_without_steps_takes_the_whole_training() -> None:
    """Its end is reached after the last step, whatever their number."""
    for steps in (1, 3, 12):
        given = {"x": {"start": 1.0, "end": 4.0}, "y": {"start": 1.0, "end": 4.0, "steps": None}}
        for step in range(steps + 1):
            weights = weights_at(given, step, steps)
            assert weights["x"] == weights["y"] == pytest.approx(1 + 3 * step / steps, rel=1e-15)


def test_a_part_has_the_weight_of_its_name_unless_it_has_its_own() -> None:
    """Also where one of the two is 0, or a schedule."""
    weights = weights_at({"cycle": 10.0, "cycle/a": 5.0, "kl": 0.0, "kl/b": FALLING}, 1, 9)
    assert (weights["cycle"], weights["cycle/a"], weights["cycle/b"]) == (10, 5, 10)
    assert (weights["kl"], weights["kl/a"], weights["kl/b"]) == (0, 0, 0.75)
    assert list(weights) == ["cycle", "cycle/a", "kl", "kl/b"]
    assert len(weights) == 4


def test_a_name_without_a_weight_is_an_error_and_not_0() -> None:
    """A misspelt loss in a phase must not switch itself off."""
    weights = Weights({"cycle": 1.0})
    for name in ("cycl", "cycl/a", "a/cycle"):
        with pytest.raises(KeyError):
            weights[name]
    assert "cycle/a" in weights
    assert "a/cycle" not in weights


def test_the_largest_weight_is_that_of_any_step_and_any_part() -> None:
    """A schedule counts with the larger of its ends; a name with the largest of its parts."""
    falling, rising = {"start": 7.0, "end": 1.0, "steps": 3}, {"start": 0.0, "end": 9.0, "steps": 3}
    largest = largest_weights({"x": 2.0, "x/a": rising, "x/b": 1.0, "y": falling, "z": 0.0, "z/a": 0.0})
    assert dict(largest) == {"x": 9.0, "x/a": 9.0, "x/b": 1.0, "y": 7.0, "z": 0.0, "z/a": 0.0}
    weights = {"x": 2.0, "x/a": rising, "y": falling}
    for step in range(6):
        assert all(
            value <= largest_weights(weights)[key] for key, value in weights_at(weights, step, 6).items()
        )


RECIPE = """
extends = "munit"
[translator.weights.generator]
image_recon = { start = 10.0, end = 0.0, steps = 4 }
cycle_recon = 3
"cycle_recon/a" = 5.0
"style_recon/b" = { start = 0.0, end = 1.0, steps = 8 }
"""


def recipe_at(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def own(folders: Path) -> list[str]:
    return [
        "data.name=folders",
        f'data.root="{folders}"',
        "translator.discriminator={name='multiscale-patch', width=4}",
        "data.size=64",
    ]


def built(recipe: Any) -> Translator:
    return new_translator(recipe, ImageSpec({"a": 3, "b": 3}, 64))


def test_a_recipe_has_schedules_and_weights_of_parts(folders: Path, tmp_path: Path) -> None:
    """What the recipe does not name keeps its default; all of it reaches the translator."""
    recipe = load_recipe(recipe_at(tmp_path, RECIPE), own(folders))
    default = load_recipe("munit", own(folders)).translator.options["weights"]["generator"]
    weights = recipe.translator.options["weights"]["generator"]
    assert weights == {
        **default,
        "image_recon": {"start": 10.0, "end": 0.0, "steps": 4},
        "cycle_recon": 3.0,
        "cycle_recon/a": 5.0,
        "style_recon/b": {"start": 0.0, "end": 1.0, "steps": 8},
    }
    translator = built(recipe)
    for step, image_recon, style_recon in ((0, 10.0, 0.0), (1, 7.5, 0.125), (4, 0.0, 0.5), (99, 0.0, 1.0)):
        found = translator.weights_at("generator", step, 100)
        assert (found["image_recon/a"], found["style_recon/b"]) == (image_recon, style_recon)
        assert (found["cycle_recon/a"], found["cycle_recon/b"]) == (5, 3)
        assert found["style_recon/a"] == default["style_recon"]


def test_the_resolved_recipe_repeats_the_weights(folders: Path, tmp_path: Path) -> None:
    """Read again, it gives the same weights, whether by file or by text."""
    recipe = load_recipe(recipe_at(tmp_path, RECIPE), own(folders))
    again = load_recipe(recipe_at(tmp_path, recipe.to_toml()))
    assert again.translator == recipe.translator
    assert again.to_toml() == recipe.to_toml()
    assert '"cycle_recon/a" = 5.0' in recipe.to_toml()


@pytest.mark.parametrize(
    ("below", "above", "expected"),
    [
        ("image_recon = 3.0", {"start": 1.0, "end": 0.0, "steps": 2}, {"start": 1.0, "end": 0.0, "steps": 2}),
        ("image_recon = { start = 1.0, end = 0.0, steps = 2 }", 4.0, 4.0),
        (
            "image_recon = { start = 1.0, end = 0.0, steps = 2 }",
            {"steps": 7},
            {"start": 1.0, "end": 0.0, "steps": 7},
        ),
    ],
)
def test_a_number_replaces_a_schedule_and_the_reverse(
    folders: Path, tmp_path: Path, below: str, above: Any, expected: Any
) -> None:
    """A recipe that extends another, or `--set`, can change one key of a schedule."""
    path = recipe_at(tmp_path, f'extends = "munit"\n[translator.weights.generator]\n{below}\n')
    key = "translator.weights.generator.image_recon"
    many = isinstance(above, Mapping)
    changes = [f"{key}.{name}={value}" for name, value in above.items()] if many else [f"{key}={above}"]
    if many and "steps" not in below:
        changes = [f"{key}={{start={above['start']}, end={above['end']}, steps={above['steps']}}}"]
    recipe = load_recipe(path, [*own(folders), *changes])
    assert recipe.translator.options["weights"]["generator"]["image_recon"] == expected


GENERATOR = "translator.weights.generator"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("image_recon=-1", f"{GENERATOR}.image_recon: should be greater than or equal to 0, got -1"),
        ("image_recon=inf", f"{GENERATOR}.image_recon: should be a finite number"),
        ("image_recon=true", f"{GENERATOR}.image_recon: should be a valid number, got True"),
        ("image_recon='high'", f"{GENERATOR}.image_recon: should be a valid number, got 'high'"),
        (
            "image_recon={start=1, end=-0.5, steps=9}",
            f"{GENERATOR}.image_recon.end: should be greater than or equal to 0, got -0.5",
        ),
        (
            "image_recon={start=1, end=0, steps=0}",
            f"{GENERATOR}.image_recon.steps: should be greater than 0, got 0",
        ),
        ("image_recon={start=1, end=0, steps=1.5}", f"{GENERATOR}.image_recon.steps: should be a valid int"),
        ("image_recon={start=1, steps=3}", f"{GENERATOR}.image_recon.end: is missing"),
        (
            "image_recon={start=1, end=0, step=3}",
            f"{GENERATOR}.image_recon.step: [{GENERATOR}] has no option 'step'",
        ),
        ("'image_recon/a'=-1", f"{GENERATOR}.image_recon/a: should be greater than or equal to 0, got -1"),
        (
            "'image_recon/a'={start=1, end=0, steps=-2}",
            f"{GENERATOR}.image_recon/a.steps: should be greater than 0, got -2",
        ),
        ("image_recn=1", f"{GENERATOR}.image_recn: [{GENERATOR}] has no option 'image_recn'; did you mean"),
        ("'image_recn/a'=1", f"{GENERATOR}.image_recn/a: [{GENERATOR}] has no option 'image_recn/a'"),
        ("'image_recon/'=1", f"{GENERATOR}.image_recon/: [{GENERATOR}] has no option 'image_recon/'"),
    ],
)
def test_a_wrong_weight_is_said_with_its_place(
    folders: Path, tmp_path: Path, change: str, message: str
) -> None:
    """In the recipe's own spelling; nothing about how it is checked."""
    key, _, value = change.partition("=")
    text = f'extends = "munit"\n[{GENERATOR}]\n{key} = {value}\n'
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe_at(tmp_path, text), own(folders))
    assert message in str(caught.value)
    assert "<" not in str(caught.value)


def test_an_unknown_phase_with_a_part_is_a_problem(folders: Path, tmp_path: Path) -> None:
    """Naming a part does not make the phase known."""
    text = 'extends = "munit"\n[translator.weights.generatr]\n"image_recon/a" = 1.0\n'
    with pytest.raises(RecipeError, match=r"weights\.generatr: .* has no option 'generatr'; did you mean"):
        load_recipe(recipe_at(tmp_path, text), own(folders))


@pytest.mark.parametrize(
    "value", ["{ start = 0.0, end = 1.0, steps = 5 }", "{ start = 1.0, end = 0.0, steps = 5 }"]
)
def test_a_component_checks_the_largest_weight_of_all_steps(
    folders: Path, tmp_path: Path, value: str
) -> None:
    """MUNIT refuses a generator without any loss; one that has a loss at some step is fine."""
    names = load_recipe("munit", own(folders)).translator.options["weights"]["generator"]
    nothing = "".join(f"{name} = 0.0\n" for name in names if name != "adversarial")
    text = f'extends = "munit"\n[{GENERATOR}]\n{nothing}adversarial = '
    with pytest.raises(RecipeError, match="are 0"):
        load_recipe(recipe_at(tmp_path, f"{text}0.0\n"), own(folders))
    recipe = load_recipe(recipe_at(tmp_path, f"{text}{value}\n"), own(folders))
    assert built(recipe).weights_at("generator", 1, 9)["adversarial"] in (0.2, 0.8)


@pytest.mark.usefixtures("registered")
def test_a_component_sees_numbers_where_the_recipe_has_schedules() -> None:
    """Its own check may compare them: the largest of all steps and parts, by phase."""
    seen: list[Any] = []

    class Checking:
        def __init__(self, *, weights: LossWeights = {"g": {"x": 1.0, "y": 0.0}}) -> None:  # noqa: B006
            self.weights = weights

        @staticmethod
        def problems(options: Mapping[str, Any], setting: Setting) -> list[str]:
            seen.append({phase: dict(weights) for phase, weights in options["weights"].items()})
            return []

    losses.register("checking", Checking)
    table = {"name": "checking", "weights": {"g": {"y": FALLING, "x/a": RISING}}}
    spec, problems = check(table, "loss", Slot("losses", ()), Setting(64, 1))
    assert problems == []
    assert seen == [{"g": {"x": 3.0, "y": 1.0, "x/a": 3.0}}]
    assert spec.options["weights"]["g"]["x"] == 1.0
    assert spec().weights == {"g": {"x": 1.0, "y": FALLING, "x/a": RISING}}


def test_the_weights_of_a_translator_that_is_built_in_python_are_completed() -> None:
    """Callers name only what differs; a part and a schedule are possible there too."""
    weights = {"generator": {"cycle_recon/b": FALLING}}
    translator = CycleGAN(ImageSpec({"a": 1, "b": 1}, 64), weights=weights)
    assert translator.weights["discriminator"] == {"adversarial": 1.0}
    found = translator.weights_at("generator", 2, 9)
    assert (found["cycle_recon/a"], found["cycle_recon/b"], found["identity"]) == (10, 0.5, 0)

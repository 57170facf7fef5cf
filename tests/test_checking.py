"""What a recipe may say about a component, and how problems are worded."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from i2ikit.checking import check
from i2ikit.components.norms import NormSpec
from i2ikit.registry import Setting, Slot, encoders, norms

NORM = Slot("norms", ("channels",))
ENCODER = Slot("encoders", ("in_channels",))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "munit-content", "widht": 3}, "no option 'widht'; did you mean 'width'?"),
        ({"name": "munit-content", "width": -3}, "should be greater than 0, got -3"),
        ({"name": "munit-content", "width": "32"}, "should be a valid integer, got '32'"),
        ({"name": "munit-content", "width": True}, "should be a valid integer, got True"),
        ({"name": "munit-content", "num_downsample": 2.5}, "valid integer"),
        ({"name": "munit-content", "norm": "adain"}, "norm 'adain' does not fit here: no adaptive norm does"),
        ({"name": "munit-content", "norm": {"name": "bn", "momentum": float("nan")}}, "finite"),
        ({"name": "munit-style"}, "is built from (in_channels, style_dim), but this place gives it (in_ch"),
        ({"width": 3}, "should be the name of the encoder, or a table with a `name` (munit-content, munit-s"),
        ({"nam": "munit-content"}, "is 'nam' meant to be it?"),
        (3, "should be the name"),
    ],
)
def test_impossible_options_are_refused_with_their_path(given: object, message: str) -> None:
    _, problems = check(given, "translator.content_encoder", ENCODER)
    assert len(problems) == 1
    assert problems[0].path.startswith("translator.content_encoder")
    assert message in problems[0].message


def test_several_problems_are_all_found() -> None:
    given = {"name": "munit-content", "widht": 3, "num_residual": -1, "norm": {"name": "inn"}}
    _, problems = check(given, "e", ENCODER)
    assert {p.path for p in problems} == {"e.widht", "e.num_residual", "e.norm.name"}


def test_checked_options_are_complete_and_build_the_component() -> None:
    spec, problems = check({"name": "munit-content", "width": 4}, "e", ENCODER, Setting(64, 4))
    assert problems == []
    assert spec.options["num_residual"] == 4
    assert spec.table()["norm"] == {"name": "in"}
    assert spec(1).out_channels == 16


class Careless(nn.Module):
    """Swallows whatever it is given."""

    def __init__(self, channels: int, **options: Any) -> None:
        super().__init__()


class Nested(nn.Module):
    """Needs a norm, without a default."""

    def __init__(self, in_channels: int, *, norm: NormSpec) -> None:
        super().__init__()


@pytest.mark.usefixtures("registered")
def test_a_component_that_would_swallow_typos_is_refused() -> None:
    norms.register("careless", Careless)
    _, problems = check("careless", "norm", NORM)
    assert "takes *args or **kwargs: a typo would vanish" in str(problems[0])


@pytest.mark.usefixtures("registered")
def test_a_required_slot_that_is_missing_is_a_problem() -> None:
    encoders.register("nested", Nested)
    _, problems = check("nested", "e", ENCODER)
    assert str(problems[0]) == "e.norm: encoder 'nested' needs it"


def test_a_table_without_a_name_changes_the_default_component() -> None:
    spec, problems = check(
        {"name": "munit-style", "norm": {}}, "e", Slot("encoders", ("in_channels", "style_dim"))
    )
    assert problems == []
    assert spec.options["norm"].name == "none"

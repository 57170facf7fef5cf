"""What a recipe may say about a component, and how problems are worded."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import Field
from torch import nn

from i2ikit.checking import check
from i2ikit.components.norms import NormSpec
from i2ikit.registry import Setting, Slot, Spec, encoders, norms

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
        ({"name": "munit-content", "norm": "adain"}, "does not fit here (not allowed: adaptive norm)"),
        ({"name": "munit-content", "norm": {"name": "bn", "momentum": float("nan")}}, "finite"),
        ({"name": "munit-style"}, "is built from (in_channels, style_dim), but here it is given (in_ch"),
        ({"width": 3}, "should be the name of the encoder, or a table with a `name` (munit-content, munit-s"),
        ({"nam": "munit-content"}, "is 'nam' a typo for `name`?"),
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
    assert "takes *args or **kwargs, which would hide typos" in str(problems[0])


@pytest.mark.usefixtures("registered")
def test_a_required_slot_that_is_missing_is_a_problem() -> None:
    encoders.register("nested", Nested)
    _, problems = check("nested", "e", ENCODER)
    assert str(problems[0]) == "e.norm: is missing; encoder 'nested' needs it"


def test_a_table_without_a_name_changes_the_default_component() -> None:
    spec, problems = check(
        {"name": "munit-style", "norm": {}}, "e", Slot("encoders", ("in_channels", "style_dim"))
    )
    assert problems == []
    assert spec.options["norm"].name == "none"


class Layered(nn.Module):
    """May have one norm, and has any number of others."""

    def __init__(
        self,
        in_channels: int,
        *,
        norm: NormSpec | None = None,
        others: list[NormSpec] = [Spec("norms", "in"), Spec("norms", "bn", {"momentum": 0.2})],  # noqa: B006
        more: tuple[NormSpec, ...] = (),
        few: Annotated[list[NormSpec], Field(min_length=1, max_length=2)] = [Spec("norms", "in")],  # noqa: B006
        extra: Annotated[NormSpec | None, "a remark"] = None,
    ) -> None:
        super().__init__()
        self.norm = norm(in_channels) if norm else None
        self.others = nn.ModuleList(other(in_channels) for other in others)


@pytest.mark.usefixtures("registered")
def test_an_option_may_hold_no_component_or_several() -> None:
    encoders.register("layered", Layered)
    spec, problems = check("layered", "e", ENCODER)
    assert problems == []
    assert spec.options["norm"] is None
    built = spec(3)
    assert built.norm is None
    assert len(built.others) == 2
    assert spec.table()["others"] == [{"name": "in"}, {"name": "bn", "momentum": 0.2, "local": False}]
    given = {
        "name": "layered",
        "norm": "bn",
        "others": ["none", {"name": "bn", "momentum": 0.3}],
        "more": ["in"],
    }
    spec, problems = check(given, "e", ENCODER, Setting(64, 4))
    assert problems == []
    assert isinstance(spec.options["more"], tuple)
    assert spec(3).others[1].norm.momentum == 0.3
    assert check(spec.table(), "e", ENCODER)[0] == spec
    assert [inner.name for inner in spec.all()] == ["layered", "bn", "none", "bn", "in", "in"]


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"others": "in"}, "e.others: should be a list of norm names or tables, got 'in'"),
        ({"others": ["in", "inn"]}, "e.others[1].name: no norm named 'inn'; did you mean 'in'?"),
        (
            {"others": [{"name": "bn", "momentum": 3}]},
            "e.others[0].momentum: should be less than or equal to 1",
        ),
        ({"norm": 3}, "e.norm: should be the name of the norm"),
        ({"few": []}, "e.few: list should have at least 1 item"),
        ({"few": ["in", "in", "in"]}, "e.few: list should have at most 2 items"),
    ],
)
def test_what_is_wrong_with_one_of_several_is_said_with_its_place(
    given: dict[str, Any], problem: str
) -> None:
    encoders.register("layered", Layered)
    _, problems = check({"name": "layered", **given}, "e", ENCODER)
    assert len(problems) == 1
    assert str(problems[0]).startswith(problem)

"""Signatures as text: for `i2ikit show`, and for docs/reference/."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field
from torch import nn

from i2ikit.checking import check
from i2ikit.components.norms import NormSpec
from i2ikit.components.optimizers import OPTIMIZER_SLOT
from i2ikit.data.dataset import DATASET_SLOT
from i2ikit.metrics.subject import METRIC_SLOT
from i2ikit.packages.describe import (
    SECTIONS,
    argument_notes,
    describe,
    toml_value,
    type_text,
    without_arguments,
)
from i2ikit.packages.reference import pages
from i2ikit.recipe_text import overriding
from i2ikit.registry import Slot, Spec, norms, registries, schema_of
from i2ikit.translator import TRANSLATOR_SLOT

PAGES = Path(__file__).parents[2] / "docs" / "reference"


def test_the_pages_in_docs_are_what_signatures_say() -> None:
    """If this fails: make reference."""
    written = pages()
    assert {file.name for file in PAGES.glob("*.md")} == set(written)
    for name, text in written.items():
        assert (PAGES / name).read_text("utf-8") == text, name


def everything() -> list[tuple[str, str]]:
    return [(kind, name) for kind, registry in registries.items() for name in registry.names()]


@pytest.mark.parametrize(("kind", "name"), everything())
def test_every_option_is_shown_with_type_and_meaning_and_the_snippet_can_be_pasted(
    kind: str, name: str
) -> None:
    found = describe(kind, name)
    file, _, line = found.source.rpartition(":")
    assert "class " in Path(file).read_text().splitlines()[int(line) - 1]
    schema = schema_of(registries[kind].load(name))
    assert {o.name for o in found.options} == {*schema.model.model_fields, *schema.slots}
    for option in found.options:
        assert option.meaning or option.name in schema.slots, f"{name}: say in Args: what {option.name} is"
    if kind == "metrics":
        words = shlex.split(found.snippet.replace("\\\n", " "))
        assert words[:4] == ["i2ikit", "eval", "--metric", name]
        assert words[4::2] == ["--set"] * (len(words[4:]) // 2)
        metric: dict[str, Any] = {name: {"name": name}}
        settings, problems = overriding(words[5::2])
        assert problems == []
        metric[name] |= settings.get(name, {})
        spec, problems = check(metric[name], name, METRIC_SLOT)
        assert all(str(p).endswith("needs it") for p in problems)
        assert problems or spec == check(name, name, METRIC_SLOT)[0]
        return
    table = tomllib.loads(found.snippet)
    if kind in SECTIONS:
        section = SECTIONS[kind]
        slot = {"translator": TRANSLATOR_SLOT, "data": DATASET_SLOT, "optimizer": OPTIMIZER_SLOT}[section]
        spec, problems = check(table[section], section, slot)
        assert all(str(p).endswith("needs it") for p in problems)
        if not problems:
            assert spec == check(name, section, slot)[0]
        return
    assert found.places, f"{kind} '{name}' fits nowhere"
    method, places = next(iter(found.places.items()))
    spec, problems = check({"name": method, **table["translator"]}, "translator", TRANSLATOR_SLOT)
    assert problems == []
    for part in places[0].split(".")[1:]:
        spec = spec.options[part]
    assert spec.name == name


class Odd(nn.Module):
    """Takes all sorts.

    Args:
        count: how many,
            on two lines.
        low, high: bounds, in pixels.
    """

    def __init__(
        self,
        channels: int,
        *,
        count: Annotated[int, Field(gt=0, le=9)],
        low: float = 1e-7,
        high: float | None = None,
        names: tuple[str, ...] = ("a", 'b"c'),
        inner: NormSpec = Spec("norms", "bn", {"momentum": 0.5}),
        flags: Mapping[str, bool] = {"x y": True},
        maybe: NormSpec | None = None,
        several: list[NormSpec] = [Spec("norms", "in")],  # noqa: B006
    ) -> None:
        super().__init__()


@pytest.fixture
def odd() -> Iterator[None]:
    norms.register("odd", Odd)
    yield
    norms.unregister("odd")


@pytest.mark.usefixtures("odd")
def test_types_defaults_and_required_options_are_said() -> None:
    found = describe("norms", "odd")
    shown = {o.name: (o.type, o.default, o.required, o.meaning) for o in found.options}
    assert shown["count"] == ("int (> 0, <= 9)", "", True, "how many, on two lines.")
    assert shown["low"] == ("float", "1e-07", False, "bounds, in pixels.")
    assert shown["high"] == ("float", "", False, "bounds, in pixels.")
    assert shown["inner"] == ("norm", '{ name = "bn", momentum = 0.5 }', False, "")
    assert shown["names"][:2] == ("[str, ...]", '["a", "b\\"c"]')
    assert shown["flags"][1] == '{ "x y" = true }'
    assert shown["maybe"][:3] == ("norm", "", False)
    assert shown["several"][:3] == ("list of norm", '["in"]', False)
    assert [w.name for w in found.wired] == ["channels"]
    assert found.text == "Takes all sorts."
    lines = found.snippet.splitlines()
    assert "# count = ...  # int (> 0, <= 9); required" in lines
    table = tomllib.loads(found.snippet.replace("# count = ...", "count = 3"))
    norm: Any = table["translator"]
    for part in next(iter(found.places.values()))[0].split(".")[1:]:
        norm = norm[part]
    assert check(norm, "norm", Slot("norms", ("channels",)))[1] == []


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (int, "int"),
        (Literal["a", 3], '"a" or 3'),
        (str | None, "str"),
        (list[int], "list of int"),
        (Mapping[str, float], "table of float"),
        (tuple[Annotated[float, Field(ge=0, lt=1)], int], "[float (>= 0, < 1), int]"),
        (Annotated[str, Field(min_length=2)], "str (2 or more)"),
        (Any, "Any"),
    ],
)
def test_types_are_said_as_a_person_would(hint: Any, text: str) -> None:
    assert type_text(hint) == text


def test_values_survive_the_way_through_toml() -> None:
    for value in (True, 3, 0.1, 1e-8, 'a"b\\', [1, [2.5]], {"a": {"b-c": "x"}}, "größe"):
        assert tomllib.loads(f"v = {toml_value(value)}")["v"] == value


def test_arguments_are_found_and_taken_out() -> None:
    text = "Head.\n\nArgs:\n    a: one:\n        two.\n    b, c: both.\n\nRaises:\n    E: never."
    assert argument_notes(text) == {"a": "one: two.", "b": "both.", "c": "both."}
    assert without_arguments(text) == "Head.\n\nRaises:\n    E: never."
    assert argument_notes("No such section.") == {}

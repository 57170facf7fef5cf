"""Components by name: whatever packages do, recipes and people get answers."""

from __future__ import annotations

import enum
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field
from torch import nn

from i2ikit import registry as registry_module
from i2ikit.checking import check
from i2ikit.components.norms import InstanceNorm, NormSpec
from i2ikit.errors import ComponentError
from i2ikit.packages.entry import KINDS, Entry
from i2ikit.packages.survey import Survey
from i2ikit.registry import Registry, Slot, Spec, norms, registries

NORM = Slot("norms", ("channels",))


class Grouped(nn.Module):
    """A norm of somebody else."""

    def __init__(self, channels: int, *, groups: Annotated[int, Field(gt=0)] = 2) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)


def test_exactly_the_components_of_the_reference_pages_are_there() -> None:
    """docs/reference/KIND.md has a heading for each name."""
    for kind, registry in registries.items():
        page = Path("docs/reference", f"{kind}.md").read_text()
        ours = [entry.name for entry in registry.entries() if entry.package == "i2ikit"]
        assert re.findall(r"^## `?([\w-]+)`?$", page, re.MULTILINE) == ours, kind


def test_the_installed_entry_points_are_those_of_the_checkout() -> None:
    """Else the contract tests would pass over a new component: run `pip install -e .` again."""
    written = tomllib.loads(Path("pyproject.toml").read_text())["project"]["entry-points"]
    for kind, registry in registries.items():
        installed = {entry.name: entry.target for entry in registry.entries() if entry.package == "i2ikit"}
        assert installed == written.get(f"i2ikit.{kind}", {}), "run `pip install -e .` again"


def test_every_entry_loads_and_has_a_schema() -> None:
    for registry in registries.values():
        for entry in registry.entries():
            _, problems = check(entry.name, entry.name, Slot(registry.kind, ("?",)))
            assert all("is built from" in str(p) or "needs it" in str(p) for p in problems)


def test_listing_imports_neither_torch_nor_a_component() -> None:
    code = (
        "import sys, i2ikit; from i2ikit.registry import registries;"
        "[r.entries() for r in registries.values()];"
        "sys.exit('torch' in sys.modules or 'i2ikit_munit' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.usefixtures("registered")
def test_a_registered_component_is_known_by_name_and_built_with_its_options() -> None:
    norms.register("grouped", Grouped)
    spec, problems = check({"name": "grouped", "groups": 4}, "norm", NORM)
    assert problems == []
    assert spec(8).norm.num_groups == 4
    assert "grouped" in norms.names()


@pytest.mark.usefixtures("registered")
def test_registering_a_taken_name_names_both_places() -> None:
    with pytest.raises(
        ComponentError, match=r"test_registry:Grouped.*is already.*norms:InstanceNorm from i2ikit"
    ):
        norms.register("in", Grouped)
    norms.register("grouped", Grouped)
    with pytest.raises(ComponentError, match="is already"):
        norms.register("grouped", Grouped)


def test_an_unknown_name_is_answered_with_the_nearest_and_all_known() -> None:
    with pytest.raises(
        ComponentError, match=r"no norm named 'adian'; did you mean 'adain'\? \(known: adain, bn"
    ):
        norms.load("adian")


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Registry]:
    """A registry of norms in a world where packages offer just these."""

    def offer(*entries: Entry) -> Registry:
        monkeypatch.setattr(registry_module, "survey", lambda: Survey(entries, (), (), None))
        return Registry("norms")

    return offer


def entry(name: str, package: str, load: Any) -> Entry:
    return Entry("norms", name, package, "1.0", f"{package}:X", load)


def test_without_any_entry_the_answer_is_to_install(offered: Callable[..., Registry]) -> None:
    with pytest.raises(ComponentError, match=r"run `pip install \.`"):
        offered().load("in")


def test_two_packages_with_one_name_ask_for_the_qualified_one(offered: Callable[..., Registry]) -> None:
    registry = offered(entry("frn", "one", lambda: InstanceNorm), entry("frn", "two", lambda: Grouped))
    with pytest.raises(ComponentError, match='provided by 2 packages; write one of "one/frn", "two/frn"'):
        registry.load("frn")
    assert registry.load("two/frn") is Grouped


def test_a_name_of_our_own_cannot_be_taken_over(offered: Callable[..., Registry]) -> None:
    """The other package's component is there under its full name only, however that is written."""
    registry = offered(entry("in", "a_thief", None), entry("in", "i2ikit", lambda: InstanceNorm))
    assert registry.load("in") is InstanceNorm
    registry = offered(entry("in", "a-thief", lambda: Grouped), entry("in", "i2ikit", lambda: InstanceNorm))
    assert registry.load("A_Thief/in") is Grouped


def test_a_component_that_fails_to_import_is_reported_with_its_package(
    offered: Callable[..., Registry],
) -> None:
    def fail() -> None:
        raise ImportError("no module named 'cuda_magic'")

    registry = offered(entry("magic", "magic-norms", fail), entry("fine", "other", lambda: Grouped))
    with pytest.raises(
        ComponentError,
        match=r"'magic' comes from magic-norms 1\.0 \(magic-norms:X\), which failed to load: Imp",
    ):
        registry.load("magic")
    assert registry.load("fine") is Grouped


class Unresolvable(nn.Module):
    """Has an annotation that names nothing."""

    def __init__(self, channels: int, *, groups: "Nowhere" = 2) -> None:  # type: ignore[name-defined]  # noqa: F821, UP037
        super().__init__()


@pytest.mark.parametrize(
    ("component", "message"),
    [
        (lambda: 3, r"which is not a class \(got int\)"),
        (lambda: sys, r"which is not a class \(got module\)"),
        (lambda: sys.exit("bye"), "which failed to load: SystemExit: bye"),
        (lambda: Unresolvable, "has an invalid signature: NameError"),
    ],
)
def test_whatever_a_package_offers_instead_of_a_component_is_told(
    offered: Callable[..., Registry], component: Any, message: str
) -> None:
    with pytest.raises(ComponentError, match=message):
        offered(entry("x", "p", component)).load("x")


class Grouping(nn.Module):
    """Has a default that no recipe could say."""

    def __init__(self, channels: int, *, groups: frozenset[int] = frozenset({2})) -> None:
        super().__init__()


class Hidden(nn.Module):
    """Has an option that pydantic would not see."""

    def __init__(self, channels: int, *, _groups: int = 2) -> None:
        super().__init__()


class Sizes(BaseModel):
    """Options in one piece."""

    groups: int = 2


class Keyed(nn.Module):
    """Would hold components by names of their own."""

    def __init__(self, channels: int, *, norms: Mapping[str, NormSpec]) -> None:
        super().__init__()


class Counted(nn.Module):
    """Would hold exactly one component in a tuple."""

    def __init__(self, channels: int, *, norms: tuple[NormSpec]) -> None:
        super().__init__()


class Worded(nn.Module):
    """Names its default component instead of giving a Spec."""

    def __init__(self, channels: int, *, norm: NormSpec = "in") -> None:  # type: ignore[assignment]
        super().__init__()


class Bundled(nn.Module):
    """Takes its options as an object."""

    def __init__(self, channels: int, *, sizes: Sizes) -> None:
        super().__init__()


@pytest.mark.parametrize(
    ("component", "message"),
    [
        (Grouping, r"`groups` = frozenset\(\{2\}\): this default cannot be expressed in TOML"),
        (Hidden, "has an option '_groups', a reserved name"),
        (Worded, "the default of `norm` is 'in', which does not fit its type"),
        (Keyed, r"Keyed: `norms`: expected a component, `\| None`, or a list of components, got"),
        (Counted, "Counted: `norms`: expected a component"),
        (Bundled, "`sizes` is a table; make its keys separate options"),
    ],
)
def test_options_that_recipes_cannot_hold_are_refused_when_it_is_loaded(
    offered: Callable[..., Registry], component: type, message: str
) -> None:
    with pytest.raises(ComponentError, match=message):
        offered(entry("x", "p", lambda: component)).load("x")


class Colour(enum.Enum):
    """Something to choose from."""

    red = "red"


class Located(nn.Module):
    """Takes a path and a member of an enumeration."""

    def __init__(self, channels: int, *, file: Path, colour: Colour) -> None:
        super().__init__()


@pytest.mark.usefixtures("registered")
def test_paths_and_enumerations_go_back_into_a_recipe() -> None:
    norms.register("located", Located)
    given = {"name": "located", "file": "a/b", "colour": "red"}
    spec, problems = check(given, "norm", NORM)
    assert problems == []
    assert spec.options == {"file": Path("a/b"), "colour": Colour.red}
    assert spec.table() == given


class Picky(nn.Module):
    """A norm for even numbers of channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels % 2:
            raise ValueError("channels must be even")


@pytest.mark.usefixtures("registered")
def test_a_constructor_that_fails_is_told_with_what_it_was_given() -> None:
    norms.register("picky", Picky)
    with pytest.raises(
        ComponentError, match=r"'picky' from registered .* from \(3\): ValueError: channels must"
    ):
        Spec("norms", "picky")(3)


def test_kinds_and_registries_are_the_same() -> None:
    assert list(registries) == list(KINDS)

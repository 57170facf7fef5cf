"""Checks what a recipe says about components: validates each option, and words each problem."""

from __future__ import annotations

import functools
import inspect
import json
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Protocol, runtime_checkable

from pydantic import BaseModel, TypeAdapter, ValidationError

from i2ikit.errors import ComponentError, Problem, did_you_mean, in_one_line, shown
from i2ikit.loss_weights import largest_weights
from i2ikit.packages.entry import KINDS
from i2ikit.registry import WEIGHT_FORMS, Held, Setting, Slot, Spec, registries, schema_of
from i2ikit.sizes import SizeRequirement

__all__ = [
    "Checked",
    "SizeRequiring",
    "Table",
    "check",
    "fits",
    "lacking",
    "laid_over",
    "own_requirement",
    "size_problems",
    "validated",
    "whole_requirement",
    "without_default",
]

Table = dict[str, Any]
"""A table of a recipe, as TOML gives it."""

MOST_FINDINGS = 100
"""Problems of one table that are worded; looking for the nearest spelling takes time."""


@runtime_checkable
class Checked(Protocol):
    """A component that checks its options beyond their types."""

    @staticmethod
    def problems(options: Mapping[str, Any], setting: Setting) -> Iterable[str]:
        """One sentence for each invalid choice, with the given values and the valid ones.

        Args:
            options: all options; each loss weight is the largest one over all steps.
        """
        ...


def check(
    given: object,
    path: str,
    slot: Slot,
    setting: Setting | None = None,
    also_known: Iterable[str] = (),
) -> tuple[Spec, list[Problem]]:
    """Turn a recipe's entry into a `Spec` with every default filled in.

    Args:
        given: a name, a table with a `name`, or a `Spec`.
        path: its location in the recipe.
        slot: the kind of component that is needed there.
        setting: if given, also run the checks of each `Checked` component.
        also_known: keys of this table that are handled elsewhere, for the nearest spelling.

    Returns:
        The spec (as far as it could be read) and every problem with it, including nested ones.
    """
    registry = registries[slot.kind]
    table = given.table() if isinstance(given, Spec) else given
    table = {"name": table} if isinstance(table, str) else table
    if not isinstance(table, Mapping) or not isinstance(table.get("name"), str):
        message = f"should be the name of the {registry.word}, or a table with a `name`"
        if isinstance(table, Mapping) and "name" not in table:
            meant = next((key for key in table if did_you_mean(key, ["name"])), None)
            message += f"; is '{meant}' a typo for `name`?" if meant else f" ({', '.join(registry.names())})"
        return Spec(slot.kind, "?"), [Problem(path, message)]
    name = table["name"]
    try:
        component = registry.load(name)
    except ComponentError as error:
        return Spec(slot.kind, name), [Problem(f"{path}.name", str(error))]
    if message := _misfit(component, f"{registry.word} '{name}'", slot):
        return Spec(slot.kind, name), [Problem(f"{path}.name", message)]
    return _check_options(component, slot.kind, table, path, setting, also_known)


def _misfit(component: type, owner: str, slot: Slot) -> str:
    """Why the component does not fit the slot; empty if it fits."""
    wired = schema_of(component).wired
    if slot.like is not None and (missing := lacking(component, slot.like)):
        return f"{owner} does not fit here (needed: {_words(slot.like)}): {missing}"
    if slot.unlike is not None and not lacking(component, slot.unlike):
        return f"{owner} does not fit here (not allowed: {_words(slot.unlike)})"
    if wired != slot.wired:
        return f"{owner} is built from ({', '.join(wired)}), but here it is given ({', '.join(slot.wired)})"
    return ""


def fits(component: type, slot: Slot) -> bool:
    """Whether a component fits a slot."""
    return not _misfit(component, "it", slot)


def lacking(component: type, contract: type) -> str:
    """What a component lacks to satisfy a protocol, or to subclass a class; empty if nothing."""
    if not getattr(contract, "_is_protocol", False):
        return "" if issubclass(component, contract) else f"it does not subclass {contract.__name__}"
    methods = [name for name, value in vars(contract).items() if inspect.isfunction(value)]
    public = [name for name in methods if not name.startswith("_") or name == "__call__"]
    # Not by getattr, which finds `type.__call__` (the constructor) for every class.
    missing = [name for name in public if not any(name in vars(base) for base in component.__mro__)]
    return f"it lacks the method {', '.join(missing)}" if missing else ""


def _check_options(
    component: Any,
    kind: str,
    table: Mapping[str, Any],
    path: str,
    setting: Setting | None,
    also_known: Iterable[str],
) -> tuple[Spec, list[Problem]]:
    schema, name = schema_of(component), table["name"]
    given = {key: value for key, value in table.items() if key != "name"}
    owner = f"{KINDS[kind]} '{name}'"
    plain = {key: value for key, value in given.items() if key not in schema.slots}
    known = ("name", *schema.slots, *also_known)
    options, problems = validated(schema.model_for(plain), plain, path, owner, known)
    for key, held in schema.slots.items():
        if key not in given and key not in schema.defaults:
            problems.append(Problem(f"{path}.{key}", f"is missing; {owner} needs it"))
            continue
        value = _with_default(given.get(key), schema.defaults.get(key))
        options[key], nested = _check_held(value, f"{path}.{key}", held, setting)
        problems += nested
    if setting is not None and not problems and isinstance(component, Checked):
        strongest = {
            option: {phase: largest_weights(weights) for phase, weights in options[option].items()}
            for option in schema.weights
        }
        found = _own_problems(component, owner, {**options, **strongest}, setting)
        problems += [Problem(path, text) for text in found]
    return Spec(kind, name, options), problems


def _check_held(
    given: Any, path: str, held: Held, setting: Setting | None
) -> tuple[Spec | Sequence[Spec] | None, list[Problem]]:
    """Check an option that holds one component, none, or several."""
    if given is None and held.optional:
        return None, []
    if held.several is None:
        return check(given, path, held.slot, setting)
    if not isinstance(given, list | tuple):
        word = KINDS[held.slot.kind]
        return (), [Problem(path, f"should be a list of {word} names or tables, got {shown(given)}")]
    try:
        TypeAdapter(Annotated[list[Any], "how many", *held.counts]).validate_python(list(given))
    except ValidationError as error:
        return (), [Problem(path, _lower(error.errors()[0]["msg"]))]
    checked = [check(inner, f"{path}[{n}]", held.slot, setting) for n, inner in enumerate(given)]
    return held.several(spec for spec, _ in checked), [p for _, problems in checked for p in problems]


def _own_problems(component: Checked, owner: str, options: Mapping[str, Any], setting: Setting) -> list[str]:
    """The problems that the component finds, or the error that its check raises."""
    try:
        return list(component.problems(options, setting))
    except Exception as error:
        return [f"{owner} failed to check its options: {in_one_line(error)}"]


def _with_default(given: object, default: Any) -> object:
    """The value of a slot; a table without a `name` changes options of the default component."""
    if given is None:
        return default
    if not isinstance(given, dict) or not isinstance(default, Spec):
        return without_default(given)
    if "name" not in given:
        return laid_over(default.table(), given)
    if isinstance(given, _Naming) and given["name"] == default.name:
        return laid_over(laid_over(default.table(), given.unnamed), dict(given))
    return given


class _Naming(Table):
    """A table that names a component, over `unnamed`, which names none and so is about the default one."""

    unnamed: Table


def without_default(given: object) -> object:
    """The value of a place that has no default: options before the name can only be about what is named."""
    return laid_over(given.unnamed, dict(given)) if isinstance(given, _Naming) else given


def laid_over(base: Table, table: Table) -> Table:
    """Merge `table` over `base`, key by key; a table that names another component replaces it completely."""
    laid = dict(base)
    for key, value in table.items():
        below = laid.get(key)
        # `norm = "in"` is short for `norm = {name = "in"}`.
        if isinstance(below, str) and isinstance(value, dict):
            below = {"name": below}
        if isinstance(below, dict) and isinstance(value, str) and below.get("name", value) == value:
            value = {"name": value}
        if isinstance(below, dict) and isinstance(value, dict):
            value = _component_over(below, value)
        laid[key] = value
    return laid


def _component_over(below: Table, table: Table) -> Table:
    """Two tables of one option; which component an unnamed one is about is known once its owner is."""
    unnamed = below if "name" not in below else below.unnamed if isinstance(below, _Naming) else None
    same = "name" not in table or table["name"] == below.get("name")
    laid = laid_over(below, table) if same else table
    if "name" not in laid or unnamed is None:
        return laid
    naming = _Naming(laid)
    naming.unnamed = unnamed
    return naming


def _words(protocol: type) -> str:
    """`AdaptiveNorm` -> `adaptive norm`."""
    return "".join(f" {c.lower()}" if c.isupper() else c for c in protocol.__name__).strip()


def validated(
    model: type[BaseModel],
    table: Mapping[str, Any],
    path: str,
    owner: str,
    also_known: Iterable[str] = (),
) -> tuple[dict[str, Any], list[Problem]]:
    """Validate `table` with a pydantic model, strictly.

    JSON mode makes strictness usable: TOML arrays become tuples, but `true` is not accepted as a number.

    Args:
        path: location of the table in the recipe; "" is the top level.
        owner: owner of the options, as named in messages.
        also_known: keys that are handled elsewhere, for the nearest spelling.

    Returns:
        The values with every default (empty if there are problems), and the problems.
    """
    try:
        text = json.dumps(table, default=str)
    except (TypeError, ValueError, RecursionError) as error:
        return {}, [Problem(path, f"cannot be read: {error}")]
    try:
        read = model.model_validate_json(text, strict=True)
    except ValidationError as error:
        findings = error.errors(include_url=False)
        problems = [_problem(finding, model, path, owner, also_known) for finding in findings[:MOST_FINDINGS]]
        more = len(findings) - len(problems)
        return {}, problems + [Problem(path, f"{more} more problems")] * bool(more)
    values = {name: getattr(read, name) for name in model.model_fields}
    if floats := [Problem(place, "should be a valid integer") for place in _floats(table, values, path)]:
        return {}, floats
    plain = {k: v.model_dump() for k, v in values.items() if isinstance(v, BaseModel)}
    return {**values, **plain}, []


def _floats(given: object, read: object, path: str) -> Iterator[str]:
    """Where `1.0` was given and pydantic has read 1: so it does for `Literal[1, 3]`, even when strict."""
    if isinstance(given, Mapping) and isinstance(read, Mapping):
        for key in given.keys() & read.keys():
            yield from _floats(given[key], read[key], f"{path}.{key}" if path else key)
    elif isinstance(given, list) and isinstance(read, list | tuple):
        for n, (one, other) in enumerate(zip(given, read, strict=False)):
            yield from _floats(one, other, f"{path}[{n}]")
    elif isinstance(given, float) and type(read) is int:
        yield path


def _problem(
    finding: Any, model: type[BaseModel], path: str, owner: str, also_known: Iterable[str]
) -> Problem:
    """A pydantic error as a `Problem`, with its path and the nearest valid spelling."""
    keys = [str(key) for key in finding["loc"] if key not in WEIGHT_FORMS]
    where = ".".join([path, *keys] if path else keys)
    known = [*model.model_fields, *also_known]
    for depth, key in enumerate(keys[:-1]):
        inner = model.model_fields[key].annotation if key in model.model_fields else None
        if not (inspect.isclass(inner) and issubclass(inner, BaseModel)):
            break
        model, known = inner, [*inner.model_fields]
        owner = f"[{'.'.join([path, *keys[: depth + 1]] if path else keys[: depth + 1])}]"
    if finding["type"] == "extra_forbidden":
        hint = did_you_mean(keys[-1], known) or f" (known: {', '.join(known) or 'none'})"
        return Problem(where, f"{owner} has no option '{keys[-1]}'{hint}")
    if finding["type"] == "missing" and keys[-1].isdecimal():
        return Problem(where.rpartition(".")[0], f"has too few values, got {shown(finding['input'])}")
    if finding["type"] == "missing":
        return Problem(where, f"is missing; {owner} needs it")
    message = _lower(finding["msg"].removeprefix("Input ").removeprefix("Value error, "))
    given = finding["input"]
    if finding["type"] == "string_type" and isinstance(given, bool | int | float):
        message = f'should be text, in quotes: "{json.dumps(given)}"'
    return Problem(where, f"{message}, got {shown(given)}")


def _lower(message: str) -> str:
    return f"{message[0].lower()}{message[1:]}"


@runtime_checkable
class SizeRequiring(Protocol):
    """A component that does not accept images of every size."""

    @staticmethod
    def size_requirement(options: Mapping[str, Any]) -> SizeRequirement:
        """Its requirement with these options; the requirements of nested components are added to it."""
        ...


def own_requirement(spec: Spec) -> SizeRequirement:
    """The requirement of a component without its nested components.

    Raises:
        TypeError: `size_requirement` does not return a `SizeRequirement`; other exceptions if it fails.
    """
    try:
        component = registries[spec.kind].load(spec.name)
    except ComponentError:  # reported elsewhere, as are rejected options, which are absent here
        return SizeRequirement()
    known = schema_of(component).model.model_fields.keys() <= spec.options.keys()
    if not known or not isinstance(component, SizeRequiring):
        return SizeRequirement()
    found: object = component.size_requirement(spec.options)
    if not isinstance(found, SizeRequirement):
        raise TypeError(f"size_requirement() should return a SizeRequirement, got {found!r}")
    return found


def whole_requirement(spec: Spec) -> SizeRequirement:
    """The requirement of a component and all nested ones."""
    return functools.reduce(operator.and_, map(own_requirement, spec.all()))


def size_problems(spec: Spec, path: str, size: int, what: str, advise: bool = True) -> list[Problem]:
    """One problem for each component, `spec` or nested, that does not accept square images of `size` px.

    Args:
        path: location of the spec in the recipe.
        what: name of the size in messages.
        advise: also suggest valid sizes.
    """
    problems, needs = [], []
    for where, part in _parts(spec, path):
        owner = f"{KINDS[part.kind]} '{part.name}'"
        try:
            needs.append((where, owner, own_requirement(part)))
        except Exception as error:
            message = f"{owner} failed to report its size requirement: {in_one_line(error)}"
            problems.append(Problem(where, message))
    hint = ""
    if advise:
        together = functools.reduce(operator.and_, (need for *_, need in needs), SizeRequirement())
        sides = together.nearest(size)
        nearest = f"sizes that suit all are {sides[0]} and" if len(sides) > 1 else "size that suits all is"
        hint = f"; the nearest {nearest} {sides[-1]}"
    return problems + [
        Problem(where, f"{what} does not suit {owner}, which needs {need}{hint}")
        for where, owner, need in needs
        if need.enlarged(size) != size
    ]


def _parts(spec: Spec, path: str) -> Iterator[tuple[str, Spec]]:
    """A spec and all nested ones, each with its path."""
    yield path, spec
    for key, value in spec.options.items():
        several = isinstance(value, Sequence) and not isinstance(value, str)
        for n, inner in enumerate(value if several else [value]):
            if isinstance(inner, Spec):
                yield from _parts(inner, f"{path}.{key}[{n}]" if several else f"{path}.{key}")

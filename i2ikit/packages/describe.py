"""Describes the options of a component or a recipe section, from its signature and docstring."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import re
import shlex
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from i2ikit.checking import fits
from i2ikit.errors import ComponentError
from i2ikit.packages.entry import CORE, KINDS, Entry
from i2ikit.registry import LossWeightsMark, Slot, Spec, registries, schema_of

__all__ = ["Description", "Option", "describe", "describe_section", "without_arguments"]

SECTIONS = {"translators": "translator", "datasets": "data", "optimizers": "optimizer"}
"""Kinds that have their own section in a recipe."""

BOUNDS = {
    "gt": "> {}", "ge": ">= {}", "lt": "< {}", "le": "<= {}",
    "multiple_of": "a multiple of {}", "min_length": "{} or more", "max_length": "{} at most",
}  # fmt: skip
"""Wording of the bounds of `annotated_types`, which pydantic uses."""

WEIGHTS_TYPE = "table of weights by phase and loss"


@dataclass(frozen=True)
class Option:
    """A parameter of a component, or a key of a recipe.

    Args:
        type: a readable type, with bounds.
        default: the default in TOML; "" if there is none or it is None.
        required: whether a recipe must set it.
        meaning: its description in the docstring, with units.
    """

    name: str
    type: str
    default: str
    required: bool
    meaning: str


@dataclass(frozen=True)
class Description:
    """Description of a component.

    Args:
        signature: its constructor, with types and defaults.
        text: its docstring without `Args:`.
        wired: parameters that the parent component passes.
        options: parameters that a recipe may set.
        places: the recipe keys where it fits, by translator.
        snippet: TOML to paste, with every default; for a metric, a command.
        source: file and line.
    """

    entry: Entry
    signature: str
    text: str
    wired: tuple[Option, ...]
    options: tuple[Option, ...]
    places: Mapping[str, Sequence[str]]
    snippet: str
    source: str


def describe(kind: str, name: str) -> Description:
    """Import a component and describe it.

    Raises:
        ComponentError: the component is unknown or cannot be loaded.
    """
    registry = registries[kind]
    entry = registry.entry(name)
    component = registry.load_entry(entry)
    schema = schema_of(component)
    text = inspect.getdoc(component) or ""
    notes = argument_notes(text)
    wired = [Option(n, type_text(schema.hints.get(n, Any)), "", True, notes.get(n, "")) for n in schema.wired]
    options = [
        _option(parameter, schema.hints.get(parameter.name, Any), notes)
        for parameter in inspect.signature(component).parameters.values()
        if parameter.name not in schema.wired
    ]
    places = _places(entry, component)
    given = _given(component)
    return Description(
        entry, _signature(component), without_arguments(text), tuple(wired), tuple(options), places,
        _snippet(entry, options, given, places), _source(component),
    )  # fmt: skip


def _option(parameter: inspect.Parameter, hint: Any, notes: Mapping[str, str]) -> Option:
    required = parameter.default is parameter.empty
    default = "" if required or parameter.default is None else toml_value(parameter.default)
    return Option(parameter.name, type_text(hint), default, required, notes.get(parameter.name, ""))


def describe_section(model: type[BaseModel]) -> list[Option]:
    """The keys of a recipe's section."""
    hints = typing.get_type_hints(model, include_extras=True)
    notes = argument_notes(inspect.getdoc(model) or "")
    return [
        Option(
            name, type_text(hints[name]),
            "" if field.is_required() or field.default is None else toml_value(field.default),
            field.is_required(), notes.get(name, ""),
        )
        for name, field in model.model_fields.items()
        if not (inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel))
    ]  # fmt: skip


def argument_notes(text: str) -> dict[str, str]:
    """The text in `Args:` for each name; `a, b: ...` describes both."""
    notes: dict[str, str] = {}
    names: list[str] = []
    for line in _arguments(text).splitlines():
        started = re.match(r" {4}(\w+(?:, \w+)*): +(.*)", line)
        if started:
            names = started[1].split(", ")
            notes |= dict.fromkeys(names, started[2].strip())
        else:
            notes |= {name: f"{notes[name]} {line.strip()}" for name in names if line.strip()}
    return notes


def without_arguments(text: str) -> str:
    """A docstring without its `Args:` section."""
    arguments = _arguments(text)
    rest = text.replace(f"Args:\n{arguments}", "") if arguments else text
    return re.sub(r"\n{3,}", "\n\n", rest).strip()


def _arguments(text: str) -> str:
    found = re.search(r"^Args:\n((?: {4,}.*\n?|\n(?= {4}))+)", text, re.MULTILINE)
    return found[1] if found else ""


def type_text(hint: Any) -> str:
    """A type in readable form: `int (> 0, <= 4096)`; `"all" or "input"`; `norm`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _annotated_text(arguments[0], arguments[1:])
    if origin is Literal:
        return " or ".join(map(_literal, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_text(a) for a in arguments if a is not type(None))
    if origin is tuple:
        return f"[{', '.join('...' if a is ... else type_text(a) for a in arguments)}]"
    if inspect.isclass(origin) and arguments and issubclass(origin, Mapping):
        return f"table of {type_text(arguments[-1])}"
    if inspect.isclass(origin) and arguments and issubclass(origin, Sequence):
        return f"list of {type_text(arguments[0])}"
    return hint.__name__ if inspect.isclass(hint) else str(hint).removeprefix("typing.")


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str | int) else repr(value)


def _annotated_text(base: Any, metadata: Sequence[Any]) -> str:
    slot = next((m for m in metadata if isinstance(m, Slot)), None)
    if slot is not None:
        return KINDS[slot.kind]
    if any(isinstance(m, LossWeightsMark) for m in metadata):
        return WEIGHTS_TYPE
    flat = [part for m in metadata for part in (m.metadata if isinstance(m, FieldInfo) else [m])]
    bounds = ", ".join(filter(None, map(_bound_text, flat)))
    return f"{type_text(base)} ({bounds})" if bounds else type_text(base)


def _bound_text(bound: Any) -> str:
    fields: dict[str, Any] = dataclasses.asdict(bound) if dataclasses.is_dataclass(bound) else {}  # type: ignore[arg-type]
    return ", ".join(BOUNDS[name].format(value) for name, value in fields.items() if name in BOUNDS)


def toml_value(value: Any) -> str:
    """A value as TOML on one line; a component without options becomes its name."""
    if isinstance(value, Spec):
        return toml_value(value.table() if value.options else value.name)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(k)} = {toml_value(v)}" for k, v in value.items() if v is not None)
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(toml_value, value))}]"
    # TOML's escapes are those of JSON, except that TOML also escapes DEL.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[\w-]+", name, re.ASCII) else toml_value(name)


def _places(entry: Entry, component: type) -> dict[str, list[str]]:
    """Recipe keys where the component fits, for our translators and those of its own package."""
    methods = registries["translators"]
    found = {}
    for method in methods.entries():
        if method.package in (CORE, entry.package):
            with contextlib.suppress(ComponentError):  # skip translators that cannot be loaded
                owner = methods.load_entry(method)
                found[methods.shortest_name(method)] = [*_slots(owner, "translator", entry.kind, component)]
    return {method: places for method, places in found.items() if places}


def _slots(owner: type, path: str, kind: str, component: type) -> Iterator[str]:
    schema = schema_of(owner)
    for key, held in schema.slots.items():
        if held.slot.kind == kind and fits(component, held.slot):
            yield f"{path}.{key}{'[]' if held.several else ''}"
        default = schema.defaults.get(key)
        if isinstance(default, Spec):
            yield from _slots(registries[default.kind].load(default.name), f"{path}.{key}", kind, component)


def _given(component: type) -> dict[str, Any]:
    """The defaults of the options that have one."""
    parameters = inspect.signature(component).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _snippet(
    entry: Entry,
    options: Sequence[Option],
    given: Mapping[str, Any],
    places: Mapping[str, Sequence[str]],
) -> str:
    """A recipe table with every default; options without a default are comments."""
    name = registries[entry.kind].shortest_name(entry)
    if entry.kind == "metrics":
        changes = [f"{name}.{o.name}={_bare(o.default)}" for o in options if o.default]
        settings = [f"--set {shlex.quote(change)}" for change in changes]
        return " \\\n  ".join([f"i2ikit eval --metric {shlex.quote(name)}", *settings])
    first = next(((place, f"  # of {method}") for method, found in places.items() for place in found), None)
    place, of = first or (SECTIONS.get(entry.kind, f"translator.{KINDS[entry.kind]}"), "")
    head = f"[[{place.removesuffix('[]')}]]" if place.endswith("[]") else f"[{place}]"
    lines = [f"{head}{of}", f"name = {toml_value(name)}"]
    tables = []
    for option in options:
        if option.type == WEIGHTS_TYPE:
            for phase, weights in given[option.name].items():
                inner = [f"{_key(name)} = {toml_value(weight)}" for name, weight in weights.items()]
                tables += ["", f"[{place}.{_key(option.name)}.{_key(phase)}]", *inner]
        elif option.required:
            lines.append(f"# {option.name} = ...  # {option.type}; required")
        elif option.default:
            lines.append(f"{_key(option.name)} = {option.default}")
        else:
            lines.append(f"# {option.name} = ...  # {option.type}")
    return "\n".join([*lines, *tables])


def _bare(value: str) -> str:
    """Remove the quotes from a string that `--set` accepts without them."""
    return re.sub(r'^"([A-Za-z][\w-]*)"$', r"\1", value)


def _signature(component: type) -> str:
    """A constructor with types and defaults in recipe notation; tables are shortened to {...}."""
    hints = schema_of(component).hints
    said: list[str] = []
    for parameter in inspect.signature(component).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in said:
            said.append("*")
        text = f"{parameter.name}: {type_text(hints.get(parameter.name, Any))}"
        if parameter.default is not parameter.empty:
            default = parameter.default
            short = "none" if default is None else toml_value(default)
            text += " = " + ("{...}" if isinstance(default, Mapping) else short)
        said.append(text)
    return f"{component.__name__}({', '.join(said)})"


def _source(component: type) -> str:
    try:
        file = inspect.getsourcefile(component) or "?"
        return f"{file}:{inspect.getsourcelines(component)[1]}"
    except (OSError, TypeError):
        return f"{component.__module__}.{component.__qualname__}"

"""Components by name: nine registries, and the schema given by a constructor's signature.

A component is a class. Its constructor defines its schema:

- parameters before `*` are *wired*: passed by the code that builds it (`in_channels`, `style_dim`);
- keyword-only parameters after `*` are *options* of the recipe, required if they have no default;
- an option annotated with a `Slot` holds another component: a name, or a table with a `name`.

A component is imported only when a recipe (or a caller) names it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import inspect
import types
import typing
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, create_model

from i2ikit.errors import ComponentError, I2IKitError, did_you_mean, in_one_line, shown
from i2ikit.loss_weights import Weight
from i2ikit.packages.entry import CORE, KINDS, Entry, normalised
from i2ikit.packages.survey import ALLOWLIST, survey

__all__ = [
    "LossWeights",
    "LossWeightsMark",
    "Registry",
    "Schema",
    "Setting",
    "Slot",
    "Spec",
    "built_from",
    "datasets",
    "decoders",
    "discriminators",
    "encoders",
    "losses",
    "metrics",
    "norms",
    "optimizers",
    "registries",
    "schema_of",
    "translators",
]


@dataclass(frozen=True)
class Setting:
    """The facts about a run that a component can check its options against before anything is built.

    Args:
        size: side of the training images, in pixels; None if not known.
        batch_size: images per domain and step, over all processes.
        paired: whether training images come in pairs; None if not known.
        processes: number of processes that each micro-batch is split over.
        accumulation: micro-batches per step.
        channels: number of image channels by domain; empty if not known.
        steps: number of training steps; None if not known.
    """

    size: int | None
    batch_size: int
    paired: bool | None = None
    processes: int = 1
    accumulation: int = 1
    channels: Mapping[str, int] = field(default_factory=dict)
    steps: int | None = None

    @property
    def images_at_once(self) -> int:
        """Images per domain that pass through the networks at once, over all processes."""
        return max(1, self.batch_size // self.accumulation)


@dataclass(frozen=True)
class Slot:
    """Marks an option that holds a component: `Annotated[Spec, Slot("norms", ("channels",))]`.

    Args:
        kind: the registry of the component.
        wired: names of the parameters that the owner passes when it builds the component.
        like: protocol that the component must satisfy.
        unlike: protocol that it must not satisfy.
    """

    kind: str
    wired: tuple[str, ...]
    like: type | None = None
    unlike: type | None = None


@dataclass(frozen=True)
class Spec:
    """A component by name, with its options: as written in a recipe, not yet built.

    Calling it builds the component: `Spec("norms", "in")(64)`.
    """

    kind: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, *wired: Any) -> Any:
        """Build a new component from `wired` arguments and these options."""
        return registries[self.kind].build(self, *wired)

    def table(self) -> dict[str, Any]:
        """The TOML table: `{"name": ..., option: ...}`, with nested specs as tables."""
        return {"name": self.name, **{key: _as_toml(value) for key, value in self.options.items()}}

    def all(self) -> list[Spec]:
        """This spec and all nested ones."""
        values = [v for value in self.options.values() for v in (value if _is_list(value) else [value])]
        return [self, *(spec for value in values if isinstance(value, Spec) for spec in value.all())]


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


def _as_toml(value: Any) -> Any:
    """A validated value as written in a recipe: paths and enumeration members become strings."""
    if isinstance(value, Spec):
        return value.table()
    if _is_list(value) and any(isinstance(inner, Spec) for inner in value):
        return [_as_toml(inner) for inner in value]
    if isinstance(value, enum.Enum):
        return value.value
    return value if in_toml(value) else str(value)


class LossWeightsMark:
    """Marks the option that holds the loss weights of a translator."""


LossWeights = Annotated[Mapping[str, Mapping[str, Weight]], LossWeightsMark()]
"""One weight per loss name, by phase: a number, or a schedule `{start, end}`, over all steps or over `steps`
of them. The default must name every loss of every phase; a recipe can change them, and give a part
(`"cycle_recon/a"`) its own weight. Weight 0: the loss is not computed and not returned."""


@dataclass(frozen=True)
class Held:
    """How an option holds other components: `NormSpec`, `NormSpec | None` or `list[NormSpec]`.

    Args:
        optional: whether None is allowed.
        several: `list` or `tuple` if it holds any number of components; None if it holds one.
        counts: pydantic constraints on their number: `Annotated[list[NormSpec], Field(min_length=1)]`.
    """

    slot: Slot
    optional: bool = False
    several: type | None = None
    counts: tuple[Any, ...] = ()

    def holds(self, value: object) -> bool:
        """Whether a value, such as the default, fits the type of the option."""
        if value is None:
            return self.optional
        if self.several is None:
            return isinstance(value, Spec)
        return _is_list(value) and all(isinstance(inner, Spec) for inner in typing.cast(list[Any], value))


@dataclass(frozen=True)
class Schema:
    """The schema of a component, read from its signature.

    Args:
        wired: names of the parameters that the owner passes.
        slots: options that hold other components.
        defaults: default of each slot that has one: a spec, None, or several specs.
        model: all other options, with their types, bounds and defaults.
        weights: options that hold loss weights, with their defaults.
        hints: annotations of all parameters, including `Annotated` metadata.
    """

    wired: tuple[str, ...]
    slots: Mapping[str, Held]
    defaults: Mapping[str, Any]
    model: type[BaseModel]
    weights: Mapping[str, Mapping[str, Mapping[str, Weight]]]
    hints: Mapping[str, Any]

    def model_for(self, table: Mapping[str, Any]) -> type[BaseModel]:
        """The model for a table of options, which may give weights to parts of losses."""
        fields: dict[str, Any] = {
            option: (weights_model(defaults, table[option]), ...)
            for option, defaults in self.weights.items()
            if option in table
        }
        return create_model(self.model.__name__, __base__=self.model, **fields) if fields else self.model


@functools.cache
def schema_of(component: Any) -> Schema:
    """Read the schema of a component from its signature.

    Raises:
        TypeError: the constructor breaks the rules; other exceptions if evaluating its annotations fails.
    """
    function = component.__init__
    hints = typing.get_type_hints(function, include_extras=True)
    wired: list[str] = []
    slots: dict[str, Held] = {}
    defaults: dict[str, Any] = {}
    fields: dict[str, Any] = {}
    weights: dict[str, Any] = {}
    for parameter in inspect.signature(component).parameters.values():
        hint = hints.get(parameter.name, Any)
        held = _held(hint, f"{component.__qualname__}: `{parameter.name}`")
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            raise TypeError(
                f"{component.__qualname__} takes *args or **kwargs, which would hide typos; name each option"
            )
        if parameter.kind is not parameter.KEYWORD_ONLY:
            wired.append(parameter.name)
        elif parameter.name in ("name", "model_config") or parameter.name.startswith("_"):
            raise TypeError(
                f"{component.__qualname__} has an option '{parameter.name}', a reserved name; rename it"
            )
        elif held is not None:
            slots[parameter.name] = held
            if held.holds(parameter.default):
                defaults[parameter.name] = parameter.default
            elif parameter.default is not parameter.empty:
                raise TypeError(
                    f"{component.__qualname__}: the default of `{parameter.name}` is {parameter.default!r}, "
                    "which does not fit its type"
                )
        elif any(isinstance(m, LossWeightsMark) for m in getattr(hint, "__metadata__", ())):
            if not isinstance(parameter.default, Mapping):
                raise TypeError(
                    f"{component.__qualname__}: `{parameter.name}` needs a default that names every loss"
                )
            weights[parameter.name] = parameter.default
            model = weights_model(parameter.default)
            fields[parameter.name] = (model, model())
        else:
            fields[parameter.name] = _plain_field(component.__qualname__, parameter, hint)
    model = create_model(component.__qualname__, __config__=_STRICT, **fields)
    return Schema(tuple(wired), slots, defaults, model, weights, hints)


def _held(hint: Any, owner: str) -> Held | None:
    """How an option of this type holds components; None if it does not hold any.

    Raises:
        TypeError: the type cannot be expressed in a recipe.
    """
    slot = next((m for m in getattr(hint, "__metadata__", ()) if isinstance(m, Slot)), None)
    if slot is not None:
        return Held(slot)
    origin = typing.get_origin(hint)
    if origin is Annotated:
        held = _held(typing.get_args(hint)[0], owner)
        return held and dataclasses.replace(held, counts=hint.__metadata__)
    inner = [a for a in typing.get_args(hint) if a not in (type(None), ...)]
    found = [held for held in (_held(a, owner) for a in inner) if held is not None]
    if not found:
        return None
    if len(inner) == 1 and origin in (typing.Union, types.UnionType):
        return dataclasses.replace(found[0], optional=True)
    sequence = origin is list or (origin is tuple and typing.get_args(hint)[-1] is ...)
    if len(inner) == 1 and sequence and not found[0].optional and not found[0].several:
        return Held(found[0].slot, several=origin)
    raise TypeError(f"{owner}: expected a component, `| None`, or a list of components, got {hint}")


def _plain_field(owner: str, parameter: inspect.Parameter, hint: Any) -> tuple[Any, Any]:
    """Type and default of an option that does not hold a component, for pydantic.

    Raises:
        TypeError: TOML cannot express the default, or the option is itself a table of options.
    """
    if inspect.isclass(hint) and issubclass(hint, BaseModel):
        raise TypeError(f"{owner}: `{parameter.name}` is a table; make its keys separate options")
    if parameter.default is parameter.empty:
        return hint, ...
    if not in_toml(parameter.default):
        kept = f"`{parameter.name}` = {parameter.default!r}"
        raise TypeError(f"{owner}: {kept}: this default cannot be expressed in TOML")
    return hint, parameter.default


def in_toml(value: object) -> bool:
    """Whether a recipe can express the value: None (by omitting the key) or a TOML value."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and in_toml(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return all(inner is not None and in_toml(inner) for inner in value)
    return value is None or type(value) in (bool, int, float, str)


_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, validate_default=True)


class WeightSchedule(BaseModel):
    """A weight that changes linearly from `start` to `end` within `steps` steps (by default all)."""

    model_config = _STRICT

    start: Annotated[float, Field(ge=0)]
    end: Annotated[float, Field(ge=0)]
    steps: Annotated[int, Field(gt=0)] | None = None


WEIGHT_FORMS = ("<number>", "<schedule>")
"""Tags of the two forms of a weight; they appear in the locations of pydantic's errors."""

_RecipeWeight = Annotated[
    Annotated[float, Field(ge=0), Tag(WEIGHT_FORMS[0])] | Annotated[WeightSchedule, Tag(WEIGHT_FORMS[1])],
    Discriminator(lambda value: WEIGHT_FORMS[isinstance(value, Mapping | WeightSchedule)]),
]


def weights_model(defaults: Mapping[str, Mapping[str, Weight]], table: object = None) -> type[BaseModel]:
    """A model with one table for each phase, which holds one non-negative weight for each loss.

    Args:
        table: the recipe's table; for each part of a known loss that it names, the model has a weight too.
    """
    phases: dict[str, Any] = {}
    for phase, weights in defaults.items():
        given = table.get(phase) if isinstance(table, Mapping) else None
        parts = [key for key in (given if isinstance(given, Mapping) else ()) if _part_of(key, weights)]
        fields: dict[str, Any] = {loss: (_RecipeWeight, default) for loss, default in weights.items()}
        fields |= {part: (_RecipeWeight, ...) for part in parts}
        model = create_model(phase, __config__=_STRICT, **fields)
        phases[phase] = (model, ... if parts else model())
    return create_model("weights", __config__=_STRICT, **phases)


def _part_of(key: str, weights: Mapping[str, Weight]) -> bool:
    name, slash, part = key.partition("/")
    return bool(slash and part) and name in weights and key not in weights


class Registry:
    """The components of one kind, by name.

    Entries come from the installed packages (see `survey`) and from `register` (notebooks and tests).
    Packages cannot replace i2ikit's own components: another component of the same name is only
    available as `"package/name"`.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.word = KINDS[kind]
        self._registered: dict[str, Entry] = {}

    def register(self, name: str, component: Any) -> None:
        """Offer `component` as `name` in this process.

        Raises:
            ComponentError: the name is taken; the message gives both classes.
        """
        target = f"{component.__module__}:{component.__qualname__}"
        taken = [entry for entry in self.entries() if entry.name == name]
        if taken:
            raise ComponentError(
                f"{self.word} '{name}' ({target}) is already {taken[0].target} from {taken[0].origin}"
            )
        self._registered[name] = Entry(self.kind, name, "registered", "", target, lambda: component)

    def unregister(self, name: str) -> None:
        """Undo `register`."""
        del self._registered[name]

    def entries(self) -> list[Entry]:
        """All entries, sorted by name and origin, without importing any component."""
        found = [entry for entry in survey().entries if entry.kind == self.kind]
        return sorted([*found, *self._registered.values()], key=lambda e: (e.name, e.origin))

    def names(self) -> list[str]:
        """Every name once, sorted."""
        return sorted({entry.name for entry in self.entries()})

    def entry(self, name: str) -> Entry:
        """The entry called `name` (or `"package/name"`).

        Raises:
            ComponentError: no package, or more than one, provides it.
        """
        entries = self.entries()
        package, _, bare = name.rpartition("/")
        found = [e for e in entries if e.name == bare and normalised(package) in ("", e.package)]
        found = [e for e in found if e.package == CORE] or found
        if len(found) == 1:
            return found[0]
        if found:
            spelled = ", ".join(f'"{e.package}/{e.name}"' for e in found)
            raise ComponentError(
                f"{self.word} {shown(name)} is provided by {len(found)} packages; write one of {spelled}"
            )
        raise ComponentError(f"no {self.word} named {shown(name)}{self._why_missing(package, bare)}")

    def shortest_name(self, entry: Entry) -> str:
        """The name to write in a recipe: `package/name` if the name alone is ambiguous."""
        rivals = [e for e in self.entries() if e.name == entry.name and e.package != entry.package]
        return entry.name if entry.package == CORE or not rivals else f"{entry.package}/{entry.name}"

    def _why_missing(self, package: str, name: str) -> str:
        """Why a name is unknown, and what to do about it."""
        for entry in survey().left_out:
            if entry.kind == self.kind and entry.name == name and normalised(package) in ("", entry.package):
                return f": {entry.origin} provides it, but {ALLOWLIST} excludes that package"
        known = self.names()
        if not known:
            command = "run `pip install .` (or `pip install -e .`) in the checkout"
            return f": no {self.kind} are installed; {command}"
        lost = ", ".join(fault.origin for fault in survey().faults if fault.lost)
        note = f"; the components of {lost} cannot be read (see `i2ikit doctor`)" if lost else ""
        return f"{did_you_mean(name, known)} (known: {', '.join(known)}){note}"

    def load(self, name: str) -> Any:
        """The class behind `name`, imported now.

        Raises:
            ComponentError: the name is unknown or ambiguous, the import fails, or the object is not a
                class; the message names the package.
        """
        return self.load_entry(self.entry(name))

    def load_entry(self, entry: Entry) -> Any:
        """The class behind an entry.

        Raises:
            ComponentError: see `load`.
        """
        whose = f"{self.word} '{entry.name}' comes from {entry.origin} ({entry.target}), which"
        try:
            component: Any = entry.load()
            is_class = inspect.isclass(component)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # importing a module may raise anything, even SystemExit
            raise ComponentError(f"{whose} failed to load: {in_one_line(error)}") from error
        if not is_class:
            raise ComponentError(f"{whose} is not a class (got {type(component).__name__})")
        try:
            schema_of(component)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # evaluating annotations may raise anything
            raise ComponentError(f"{whose} has an invalid signature: {in_one_line(error)}") from error
        return component

    def build(self, spec: Spec, *wired: Any) -> Any:
        """Build a component from wired arguments and the options of `spec`.

        Raises:
            ComponentError: its constructor fails.
        """
        entry = self.entry(spec.name)
        component = self.load_entry(entry)
        try:
            built = component(*wired, **spec.options)
        except I2IKitError:
            raise
        except Exception as error:
            given = ", ".join([*map(repr, wired), *(f"{k}={v!r}" for k, v in spec.options.items())])
            raise ComponentError(
                f"{self.word} '{entry.name}' from {entry.origin} ({entry.target}) cannot be built "
                f"from ({given}): {in_one_line(error)}"
            ) from error
        with contextlib.suppress(TypeError):  # not every component is hashable and weakly referenceable
            _BUILT[built] = spec
        return built


_BUILT: weakref.WeakKeyDictionary[Any, Spec] = weakref.WeakKeyDictionary()


def built_from(component: Any) -> Spec | None:
    """The spec that `component` was built from; None if it was built in another way, or is a copy."""
    return _BUILT.get(component)


encoders = Registry("encoders")
decoders = Registry("decoders")
norms = Registry("norms")
discriminators = Registry("discriminators")
losses = Registry("losses")
translators = Registry("translators")
datasets = Registry("datasets")
metrics = Registry("metrics")
optimizers = Registry("optimizers")
registries: dict[str, Registry] = {
    registry.kind: registry
    for registry in (
        encoders, decoders, norms, discriminators, losses, translators, datasets, metrics,
        optimizers,
    )
}  # fmt: skip
"""Every registry by its kind."""

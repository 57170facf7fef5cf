"""Components by name: eight registries, and what a constructor's signature says.

A component is a class. Its constructor is its schema:

- parameters before `*` are *wired* by the code that builds it (`in_channels`, `style_dim`);
- keyword-only parameters after `*` are *options* of the recipe, required when they have no default;
- an option annotated with a `Slot` holds another component: a name, or a table with a `name`.

Nothing here imports a component before a recipe (or a caller) names it.
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

from pydantic import BaseModel, ConfigDict, Field, create_model

from i2ikit.errors import ComponentError, I2IKitError, did_you_mean, in_one_line
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
    "registries",
    "schema_of",
    "translators",
]


@dataclass(frozen=True)
class Setting:
    """What a component may check its options against before anything is built.

    Args:
        size: side of the training images, in pixels; None where the dataset does not say.
        batch_size: images per domain and step, over all processes.
        paired: whether training gets pairs; None where the dataset does not say.
        processes: among which each micro-batch is shared out.
        accumulation: micro-batches that a step is cut into.
    """

    size: int | None
    batch_size: int
    paired: bool | None = None
    processes: int = 1
    accumulation: int = 1

    @property
    def images_at_once(self) -> int:
        """Images per domain that go through the networks at once, over all processes."""
        return max(1, self.batch_size // self.accumulation)


@dataclass(frozen=True)
class Slot:
    """Marks an option that holds a component: `Annotated[Spec, Slot("norms", ("channels",))]`.

    Args:
        kind: the registry to look in.
        wired: names of the parameters that the owner passes when it builds the component.
        like: protocol that the component must fulfil.
        unlike: protocol that it must not fulfil.
    """

    kind: str
    wired: tuple[str, ...]
    like: type | None = None
    unlike: type | None = None


@dataclass(frozen=True)
class Spec:
    """A component by name, with its options: what a recipe says, not yet built.

    Calling it builds the component: `Spec("norms", "in")(64)`.
    """

    kind: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, *wired: Any) -> Any:
        """A new component, built from `wired` arguments and these options."""
        return registries[self.kind].build(self, *wired)

    def table(self) -> dict[str, Any]:
        """As TOML would hold it: `{"name": ..., option: ...}`, with nested specs as tables."""
        return {"name": self.name, **{key: _as_toml(value) for key, value in self.options.items()}}

    def all(self) -> list[Spec]:
        """This one and all that it holds."""
        values = [v for value in self.options.values() for v in (value if _is_list(value) else [value])]
        return [self, *(spec for value in values if isinstance(value, Spec) for spec in value.all())]


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


def _as_toml(value: Any) -> Any:
    """A validated value as recipes give it: a path or a member of an enumeration as its text."""
    if isinstance(value, Spec):
        return value.table()
    if _is_list(value) and any(isinstance(inner, Spec) for inner in value):
        return [_as_toml(inner) for inner in value]
    if isinstance(value, enum.Enum):
        return value.value
    return value if in_toml(value) else str(value)


class LossWeightsMark:
    """Marks the option that holds the loss weights of a translator."""


LossWeights = Annotated[Mapping[str, Mapping[str, float]], LossWeightsMark()]
"""One weight per loss name, by phase. The default must name every loss of every phase; a recipe
changes any of them, but adds none. Weight 0: the loss is not computed and not returned."""


@dataclass(frozen=True)
class Held:
    """How an option holds other components: `NormSpec`, `NormSpec | None` or `list[NormSpec]`.

    Args:
        optional: it may hold none.
        several: it holds any number, in a `list` or a `tuple`; None: it holds one.
        counts: how many these may be, as pydantic says it: `Annotated[list[NormSpec], Field(min_length=1)]`.
    """

    slot: Slot
    optional: bool = False
    several: type | None = None
    counts: tuple[Any, ...] = ()

    def holds(self, value: object) -> bool:
        """Whether a value, such as the default, is what the option is typed to hold."""
        if value is None:
            return self.optional
        if self.several is None:
            return isinstance(value, Spec)
        return _is_list(value) and all(isinstance(inner, Spec) for inner in typing.cast(list[Any], value))


@dataclass(frozen=True)
class Schema:
    """What the signature of a component says.

    Args:
        wired: names of the parameters that its owner passes.
        slots: options that hold other components.
        defaults: of the slots that have one: a spec, None, or several specs.
        model: all other options, with their types, bounds and defaults.
        hints: annotations of all parameters, with what is `Annotated`.
    """

    wired: tuple[str, ...]
    slots: Mapping[str, Held]
    defaults: Mapping[str, Any]
    model: type[BaseModel]
    hints: Mapping[str, Any]


@functools.cache
def schema_of(component: Any) -> Schema:
    """The signature of a component, taken apart.

    Raises:
        TypeError: it does not keep the rules for constructors; others, if its annotations fail.
    """
    function = component.__init__
    hints = typing.get_type_hints(function, include_extras=True)
    wired: list[str] = []
    slots: dict[str, Held] = {}
    defaults: dict[str, Any] = {}
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(component).parameters.values():
        hint = hints.get(parameter.name, Any)
        held = _held(hint, f"{component.__qualname__}: `{parameter.name}`")
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            raise TypeError(f"{component.__qualname__} takes *args or **kwargs: a typo would vanish")
        if parameter.kind is not parameter.KEYWORD_ONLY:
            wired.append(parameter.name)
        elif parameter.name in ("name", "model_config") or parameter.name.startswith("_"):
            raise TypeError(f"{component.__qualname__} has an option '{parameter.name}', which is taken")
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
                    f"{component.__qualname__}: `{parameter.name}` has no default, which names the losses"
                )
            model = _weights_model(parameter.default)
            fields[parameter.name] = (model, model())
        else:
            fields[parameter.name] = _plain_field(component.__qualname__, parameter, hint)
    model = create_model(component.__qualname__, __config__=_STRICT, **fields)
    return Schema(tuple(wired), slots, defaults, model, hints)


def _held(hint: Any, owner: str) -> Held | None:
    """How an option of this type holds components; None if it holds none.

    Raises:
        TypeError: it would hold them in a way that recipes cannot give.
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
    raise TypeError(f"{owner}: only a component, `| None`, or a list of components can be given; got {hint}")


def _plain_field(owner: str, parameter: inspect.Parameter, hint: Any) -> tuple[Any, Any]:
    """Type and default of an option that holds no component, as pydantic takes them.

    Raises:
        TypeError: no recipe could say the default, or the option is a table of options itself.
    """
    if inspect.isclass(hint) and issubclass(hint, BaseModel):
        raise TypeError(f"{owner}: `{parameter.name}` is a table; take its keys as options")
    if parameter.default is parameter.empty:
        return hint, ...
    if not in_toml(parameter.default):
        kept = f"`{parameter.name}` = {parameter.default!r}"
        raise TypeError(f"{owner}: {kept} is no default that TOML could write")
    return hint, parameter.default


def in_toml(value: object) -> bool:
    """Whether a recipe can say it: None (by leaving it out), and what TOML has."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and in_toml(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return all(inner is not None and in_toml(inner) for inner in value)
    return value is None or type(value) in (bool, int, float, str)


_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, validate_default=True)


def _weights_model(defaults: Mapping[str, Mapping[str, float]]) -> type[BaseModel]:
    """A model with one table for each phase, and in it one weight, 0 or more, for each loss."""
    weight = Annotated[float, Field(ge=0)]
    phases: dict[str, Any] = {}
    for phase, weights in defaults.items():
        fields: dict[str, Any] = {loss: (weight, default) for loss, default in weights.items()}
        model = create_model(phase, __config__=_STRICT, **fields)
        phases[phase] = (model, model())
    return create_model("weights", __config__=_STRICT, **phases)


class Registry:
    """The components of one kind, by name.

    Entries come from the installed packages (see `discovery`) and from `register` (notebooks and
    tests). A name that i2ikit has itself always means its own component: no package can replace
    it, and one that tries is reached as `"package/name"` only.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.word = KINDS[kind]
        self._registered: dict[str, Entry] = {}

    def register(self, name: str, component: Any) -> None:
        """Offer `component` as `name` in this process.

        Raises:
            ComponentError: the name is taken; both places are named.
        """
        target = f"{component.__module__}:{component.__qualname__}"
        taken = [entry for entry in self.entries() if entry.name == name]
        if taken:
            raise ComponentError(
                f"{self.word} '{name}' ({target}) is already {taken[0].target} from {taken[0].origin}"
            )
        self._registered[name] = Entry(self.kind, name, "registered", "", target, lambda: component)

    def unregister(self, name: str) -> None:
        """Take back what `register` offered."""
        del self._registered[name]

    def entries(self) -> list[Entry]:
        """Everything that is offered, sorted by name and origin; imports nothing."""
        found = [entry for entry in survey().entries if entry.kind == self.kind]
        return sorted([*found, *self._registered.values()], key=lambda e: (e.name, e.origin))

    def names(self) -> list[str]:
        """Every name once, sorted."""
        return sorted({entry.name for entry in self.entries()})

    def entry(self, name: str) -> Entry:
        """What `name` (or `"package/name"`) stands for.

        Raises:
            ComponentError: nothing, or more than one package, offers it.
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
                f"{self.word} '{name}' is offered by {len(found)} packages; write one of {spelled}"
            )
        raise ComponentError(f"no {self.word} named '{name}'{self._why_missing(package, bare)}")

    def shortest_name(self, entry: Entry) -> str:
        """What a recipe writes for it: its name, or `package/name` where that means another one."""
        rivals = [e for e in self.entries() if e.name == entry.name and e.package != entry.package]
        return entry.name if entry.package == CORE or not rivals else f"{entry.package}/{entry.name}"

    def _why_missing(self, package: str, name: str) -> str:
        """What to do about a name that nothing offers."""
        for entry in survey().left_out:
            if entry.kind == self.kind and entry.name == name and normalised(package) in ("", entry.package):
                return f": {entry.origin} offers it, but {ALLOWLIST} leaves that package out"
        known = self.names()
        if not known:
            command = "run `pip install .` (or `pip install -e .`) in the checkout"
            return f": no {self.kind} are installed; {command}"
        lost = ", ".join(fault.origin for fault in survey().faults if fault.lost)
        note = f"; what {lost} may offer cannot be read (`i2ikit doctor` says why)" if lost else ""
        return f"{did_you_mean(name, known)} (known: {', '.join(known)}){note}"

    def load(self, name: str) -> Any:
        """The class behind `name`, imported now.

        Raises:
            ComponentError: unknown or ambiguous name, the import fails, or it is no class; says whose
                fault it is.
        """
        return self.load_entry(self.entry(name))

    def load_entry(self, entry: Entry) -> Any:
        """The class that one package offers.

        Raises:
            ComponentError: see `load`.
        """
        whose = f"{self.word} '{entry.name}' comes from {entry.origin} ({entry.target}), which"
        try:
            component: Any = entry.load()
            is_class = inspect.isclass(component)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a module may do anything, sys.exit() too
            raise ComponentError(f"{whose} failed to load: {in_one_line(error)}") from error
        if not is_class:
            raise ComponentError(f"{whose} is no class but of type {type(component).__name__}")
        try:
            schema_of(component)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # annotations are evaluated
            raise ComponentError(
                f"{whose} has a signature that cannot be used: {in_one_line(error)}"
            ) from error
        return component

    def build(self, spec: Spec, *wired: Any) -> Any:
        """A new component from wired arguments and the options of `spec`.

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
        with contextlib.suppress(TypeError):  # not everything that was built can be a key
            _BUILT[built] = spec
        return built


_BUILT: weakref.WeakKeyDictionary[Any, Spec] = weakref.WeakKeyDictionary()


def built_from(component: Any) -> Spec | None:
    """The spec that `component` was built from; None if it was built otherwise, or is a copy."""
    return _BUILT.get(component)


encoders = Registry("encoders")
decoders = Registry("decoders")
norms = Registry("norms")
discriminators = Registry("discriminators")
losses = Registry("losses")
translators = Registry("translators")
datasets = Registry("datasets")
metrics = Registry("metrics")
registries: dict[str, Registry] = {
    registry.kind: registry
    for registry in (
        encoders, decoders, norms, discriminators, losses, translators, datasets, metrics,
    )
}  # fmt: skip
"""Every registry by its kind."""

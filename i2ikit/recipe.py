"""A recipe: TOML to one checked `Recipe`, every problem found before anything is built.

    seed = 0
    [data]        name and options of a dataset
    [translator]  name and options of a method; its components are nested tables, its loss
                  weights are [translator.weights.<phase>]
    [optimizer]   Adam for every network; [optimizer.<role>] overrides it for one
    [training]    steps, batch size, precision, intervals

`extends = "munit"` lays a recipe over another one: only what differs has to be written.
`--set a.b=value` changes one key and is checked alike.
"""

from __future__ import annotations

import dataclasses
import platform
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
import torch
from pydantic import BaseModel, ConfigDict, Field

import i2ikit
from i2ikit.checking import check, validated
from i2ikit.data.dataset import DATA
from i2ikit.errors import ComponentError, Problem, RecipeError, did_you_mean
from i2ikit.packages.entry import CORE, normalised
from i2ikit.packages.recipes import package_recipes, recipe_files
from i2ikit.packages.survey import ALLOWLIST, survey
from i2ikit.registry import Setting, Slot, Spec, datasets, registries, translators
from i2ikit.translator import METHOD, Translator

__all__ = [
    "OptimizerOptions",
    "Precision",
    "Recipe",
    "TopLevel",
    "TrainingOptions",
    "find_recipe",
    "load_data_spec",
    "load_recipe",
    "load_translator_spec",
    "override",
]

Steps = Annotated[int, Field(gt=0)]
Precision = Literal["fp32", "bf16", "fp16"]


class OptimizerOptions(BaseModel):
    """Adam, and how its learning rate falls.

    `[optimizer]` is for every network, `[optimizer.<role>]` overrides it for one.

    Args:
        lr: step size.
        betas: decay of the two moments, per step.
        eps: added to the root of the second moment.
        weight_decay: L2, added to the gradient (as in Adam, not AdamW).
        decay: "none"; "step": times decay_factor after every decay_steps updates; "linear": constant
            for decay_steps updates, then straight to 0 at the last.
        decay_steps: updates; see `decay`.
        decay_factor: see `decay`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    lr: Annotated[float, Field(gt=0)] = 1e-4
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.5, 0.999)
    eps: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    decay: Literal["none", "step", "linear"] = "none"
    decay_steps: Steps = 100_000
    decay_factor: Annotated[float, Field(gt=0, le=1)] = 0.5


class TrainingOptions(BaseModel):
    """How long, how much at once, and how often to look.

    Args:
        steps: iterations; each runs every phase once.
        batch_size: images per domain and step, over all processes.
        accumulation: micro-batches that a step is cut into; each phase adds up their gradients, which
            needs less memory and, batch norm aside, gives the same.
        precision: "fp32", or "bf16" or "fp16" for autocast; weights and losses stay fp32, and fp16
            needs a GPU.
        ema: decay per step of the averaged weights that are used for samples and translation.
        log_every: steps between lines of metrics.jsonl.
        sample_every: steps between pictures; 0 means at the end only.
        checkpoint_every: steps between checkpoints; 0 means at the end only.
        keep: checkpoints kept.
        workers: for each process, others that read its images; 0 reads in itself.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    steps: Steps
    batch_size: Annotated[int, Field(gt=0, le=65536)] = 1
    accumulation: Annotated[int, Field(gt=0, le=65536)] = 1
    precision: Precision = "fp32"
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    log_every: Steps = 10
    sample_every: Annotated[int, Field(ge=0)] = 500
    checkpoint_every: Annotated[int, Field(ge=0)] = 500
    keep: Annotated[int, Field(ge=1)] = 2
    workers: Annotated[int, Field(ge=0, le=256)] = 0


class TopLevel(BaseModel):
    """What stands above the sections.

    `extends` names another recipe (one that ships, `package/name`, or a file beside this one), over which
    this one is laid: only what differs has to be written.

    Args:
        seed: initial weights, order of the images, augmentation and noise depend on it, and on nothing else.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    training: TrainingOptions


@dataclass(frozen=True)
class Recipe:
    """A recipe that can be run: everything checked, every default filled in.

    Args:
        name: the recipe file's stem; run folders are named after it.
        optimizers: options of the optimizer of each role of the translator.
    """

    name: str
    seed: int
    data: Spec
    translator: Spec
    optimizers: Mapping[str, OptimizerOptions]
    training: TrainingOptions

    def to_toml(self) -> str:
        """The whole recipe with every default, and the versions it was checked with."""
        table = {
            "seed": self.seed,
            "data": self.data.table(),
            "translator": self.translator.table(),
            "optimizer": {role: _plain(options) for role, options in self.optimizers.items()},
            "training": _plain(self.training),
            "versions": _versions(self),
        }
        return tomli_w.dumps(_without_none(table), multiline_strings=False)


def load_recipe(source: str | Path, overrides: Sequence[str] = (), processes: int | None = 1) -> Recipe:
    """Read and check a recipe.

    Args:
        source: a path, the name of a recipe that ships with i2ikit, or `package/name`.
        overrides: `key.path=VALUE` each; VALUE is TOML, else a string.
        processes: how many will share out each batch; None: nothing will be trained here, so that what
            only training needs (a GPU for fp16, say) is not checked.

    Raises:
        RecipeError: with every problem, each with its path and the nearest valid spelling.
    """
    path = find_recipe(source)
    table = _read_recipe(path)
    problems = [problem for text in overrides if (problem := override(table, text))]
    recipe, found = _check(table, path.stem, processes)
    problems += found
    if recipe is None or problems:
        raise RecipeError(str(source), problems)
    return recipe


def load_translator_spec(source: Path) -> Spec:
    """The [translator] of a recipe, whether or not its data is at hand.

    Raises:
        RecipeError: with every problem in that section.
    """
    return _load_section(source, "translator", METHOD)


def load_data_spec(source: Path) -> Spec:
    """The [data] of a recipe, whether or not its method could be trained here.

    Raises:
        RecipeError: with every problem in that section.
    """
    return _load_section(source, "data", DATA)


def _load_section(source: Path, key: str, slot: Slot) -> Spec:
    spec, problems = _section(_read_toml(source), key, slot, None)
    if problems:
        raise RecipeError(str(source), problems)
    return spec


def find_recipe(source: str | Path) -> Path:
    """The file of a recipe: as a path; by name, as it ships with i2ikit; as `package/name`.

    Raises:
        RecipeError: there is none; lists those that are installed.
    """
    path = Path(source)
    if path.suffix == ".toml" or path.is_file():
        return path
    files = recipe_files()
    package, _, name = str(source).partition("/")
    named = f"{normalised(package)}/{name}".removeprefix(f"{CORE}/") if name else package
    allowed = survey().allowed
    if name and (allowed is None or normalised(package) in allowed):
        # A package may have recipes and no component, and so no entry point.
        files |= package_recipes(normalised(package), normalised(package).replace("-", "_"))
    if named in files:
        return files[named]
    if path.exists():
        return path
    if allowed is not None and name and normalised(package) not in allowed:
        message = f"{ALLOWLIST} leaves the package {normalised(package)} out"
    else:
        hint = did_you_mean(named, files)
        message = f"no such recipe{hint} (give a .toml file, or one that is installed: {', '.join(files)})"
    raise RecipeError(str(source), [Problem("", message)])


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        message = f"no such file (looked in {Path.cwd()})"
    except IsADirectoryError:
        message = "is a folder; give the .toml file"
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        message = "is not UTF-8 text"
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        message = f"is not TOML: {error}"
    raise RecipeError(str(path), [Problem("", message)])


def _read_recipe(path: Path, extending: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A recipe's table, laid over that of the recipe which it extends."""
    table = _read_toml(path)
    base = table.pop("extends", None)
    if base is None:
        return table
    extending = (path.resolve(), *extending)
    beside = path.parent / str(base)
    found = beside if beside.is_file() or not isinstance(base, str) else find_recipe(base)
    if not found.is_file() or found.resolve() in extending:
        message = f"should be the name or file of another recipe, got {base!r}"
        raise RecipeError(str(path), [Problem("extends", message)])
    return _laid_over(_read_recipe(found, extending), table)


def _laid_over(base: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    """Both, key by key; a table that names another component replaces the base's whole."""
    laid = dict(base)
    for key, value in table.items():
        below = laid.get(key)
        if isinstance(below, str) and isinstance(value, dict):  # `norm = "in"` is short for a table
            below = {"name": below}
        if isinstance(below, dict) and isinstance(value, dict):
            same = value.get("name", below.get("name")) == below.get("name")
            value = _laid_over(below, value) if same else value
        laid[key] = value
    return laid


def override(table: dict[str, Any], text: str) -> Problem | None:
    """Set one key in place; a problem if the text or the path is impossible."""
    key, equals, value = text.partition("=")
    keys = [part.strip() for part in key.split(".")]
    if not equals or not all(keys):
        return Problem(f"--set {text}", "should be KEY=VALUE, such as training.steps=500")
    try:
        parsed = tomllib.loads(f"value = {value}")
    except (tomllib.TOMLDecodeError, RecursionError, ValueError):
        parsed = {"value": value}
    if set(parsed) != {"value"}:
        return Problem(f"--set {text}", "holds more than one value")
    for depth, part in enumerate(keys[:-1]):
        inner = table.setdefault(part, {})
        if isinstance(inner, str) and depth:  # `norm = "in"` is short for `norm = {name = "in"}`
            inner = table[part] = {"name": inner}
        if not isinstance(inner, dict):
            return Problem(f"--set {text}", f"'{'.'.join(keys[: depth + 1])}' is {inner!r}, not a table")
        table = inner
    table[keys[-1]] = parsed["value"]
    return None


def _check(table: dict[str, Any], name: str, processes: int | None) -> tuple[Recipe | None, list[Problem]]:
    sections = ("data", "translator", "optimizer")
    # [versions] of a resolved.toml is a record, not a choice.
    top = {key: value for key, value in table.items() if key not in (*sections, "versions")}
    rest, problems = validated(TopLevel, top, "", "a recipe", sections)
    setting = None if processes is None else _batch_setting(table, processes)
    data, found = _section(table, "data", DATA, setting)
    problems += found
    setting = setting if found or setting is None else _image_setting(data, setting)
    translator, found = _section(table, "translator", METHOD, setting)
    problems += found
    optimizers, found = _check_optimizers(table.get("optimizer", {}), translator)
    problems += found
    if rest and processes is not None:
        problems += _check_machine(TrainingOptions(**rest["training"]), translator, processes)
    if problems:
        return None, problems
    training = TrainingOptions(**rest["training"])
    return Recipe(name, rest["seed"], data, translator, optimizers, training), []


def _image_setting(data: Spec, setting: Setting) -> Setting:
    """What the dataset's options (or its class, for `paired`) say of the images."""
    size = data.options.get("size")
    paired = data.options.get("paired", getattr(datasets.load(data.name), "paired", None))
    return dataclasses.replace(
        setting,
        size=size if isinstance(size, int) else None,
        paired=paired if isinstance(paired, bool) else None,
    )


def _batch_setting(table: Mapping[str, Any], processes: int) -> Setting:
    """The batch, for checks of other options; while it is wrong itself, one of 2, which suits all."""
    training = table.get("training")
    given = training if isinstance(training, Mapping) else {"batch_size": None}
    batch_size, accumulation = given.get("batch_size", 1), given.get("accumulation", 1)
    if isinstance(batch_size, int) and isinstance(accumulation, int) and min(batch_size, accumulation) > 0:
        return Setting(None, batch_size, None, processes, accumulation)
    return Setting(None, 2)


def _check_machine(training: TrainingOptions, translator: Spec, processes: int) -> Iterator[Problem]:
    """What this machine, and this number of processes, cannot do."""
    if training.precision == "fp16" and not torch.accelerator.is_available():
        message = "'fp16' needs a GPU, and this machine shows none; use 'bf16' or 'fp32'"
        yield Problem("training.precision", message)
    if processes == training.accumulation == 1:
        return
    try:
        parts = translators.load(translator.name).batch_parts
    except (ComponentError, AttributeError):
        return  # the translator's own problem
    least = parts * training.accumulation * processes
    if training.batch_size < least or training.batch_size % parts:
        needed = f"{least} or more" + f", in multiples of {parts}" * (parts > 1)
        yield Problem(
            "training.batch_size",
            f"{training.batch_size} cannot be shared out to {processes} process{'es' * (processes > 1)} with "
            f"training.accumulation = {training.accumulation}; '{translator.name}' needs {needed}",
        )


def _section(
    table: Mapping[str, Any], key: str, slot: Slot, setting: Setting | None
) -> tuple[Spec, list[Problem]]:
    if key in table:
        return check(table[key], key, slot, setting)
    registry = registries[slot.kind]
    message = f"is missing; it names the {registry.word}: {', '.join(registry.names())}"
    return Spec(slot.kind, "?"), [Problem(key, message)]


def _check_optimizers(table: object, translator: Spec) -> tuple[dict[str, OptimizerOptions], list[Problem]]:
    """One set of options for each role: [optimizer], overridden by [optimizer.<role>]."""
    if not isinstance(table, Mapping):
        return {}, [Problem("optimizer", "should be a table")]
    roles, problems = _roles(translator)
    nested = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    shared = {key: value for key, value in table.items() if key not in nested}
    problems += validated(OptimizerOptions, shared, "optimizer", "[optimizer]", roles)[1]
    if roles:
        fields = (*roles, *OptimizerOptions.model_fields)
        problems += [
            Problem(f"optimizer.{key}", f"translator '{translator.name}' has no network '{key}'"
                    f"{did_you_mean(key, fields)} (networks: {', '.join(roles)})")
            for key in nested if key not in roles
        ]  # fmt: skip
    optimizers = {}
    for role in roles:
        own = nested.get(role, {})
        _, found = validated(OptimizerOptions, own, f"optimizer.{role}", f"[optimizer.{role}]")
        if not found and not problems:
            values, _ = validated(OptimizerOptions, {**shared, **own}, "optimizer", "[optimizer]")
            optimizers[role] = OptimizerOptions(**values)
        problems += found
    return optimizers, problems


def _roles(translator: Spec) -> tuple[tuple[str, ...], list[Problem]]:
    """Of all networks of a method; none if it is not known, which is reported elsewhere."""
    try:
        method = translators.load(translator.name)
    except ComponentError:
        return (), []
    if not issubclass(method, Translator):
        return (), []
    try:
        return (*method.generative, *method.adversarial), []
    except AttributeError as error:
        message = f"translator '{translator.name}' does not declare its networks: {error}"
        return (), [Problem("translator.name", message)]


def _plain(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(mode="json")


def _without_none(value: Any) -> Any:
    """TOML has no null: an option that is None is left out, which means the same."""
    if isinstance(value, Mapping):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return value


def _specs(spec: Spec) -> list[Spec]:
    inner = [s for value in spec.options.values() if isinstance(value, Spec) for s in _specs(value)]
    return [spec, *inner]


def _versions(recipe: Recipe) -> dict[str, str]:
    """Versions of everything that the numbers may depend on."""
    specs = [*_specs(recipe.data), *_specs(recipe.translator)]
    origins = [registries[spec.kind].entry(spec.name) for spec in specs]
    packages = {entry.package: entry.version for entry in origins}
    named = {"i2ikit": i2ikit.__version__, "python": platform.python_version()}
    return {**packages, **named, **{p: version(p) for p in ("torch", "torchvision", "accelerate")}}

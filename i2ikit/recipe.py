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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
import torch
from pydantic import BaseModel, ConfigDict, Field

from i2ikit.checking import check, validated
from i2ikit.data.dataset import DATASET_SLOT, Foretelling
from i2ikit.errors import ComponentError, DataError, Problem, RecipeError, did_you_mean, in_one_line
from i2ikit.packages.recipes import find_recipe
from i2ikit.recipe_text import RecipeText, overriding, read_recipe
from i2ikit.registry import Setting, Slot, Spec, datasets, registries, translators
from i2ikit.sizes import size_problems
from i2ikit.translator import TRANSLATOR_SLOT, Translator

__all__ = [
    "OptimizerOptions",
    "Precision",
    "Recipe",
    "TopLevel",
    "TrainingOptions",
    "check_section",
    "finished_recipe",
    "image_problems",
    "load_recipe",
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
        source: the file that it was read from.
        text: what that file holds.
        optimizers: options of the optimizer of each role of the translator.
        notes: what its reader should know, such as what fell away with another translator.
    """

    source: Path
    text: str
    seed: int
    data: Spec
    translator: Spec
    optimizers: Mapping[str, OptimizerOptions]
    training: TrainingOptions
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The file's stem; run folders are named after it."""
        return self.source.stem

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


def load_recipe(source: str | Path, overrides: str | Sequence[str] = (), processes: int = 1) -> Recipe:
    """Read and check a recipe.

    Args:
        source: a path, the name of a recipe that ships with i2ikit, or `package/name`.
        overrides: `key.path=VALUE`, or several, laid over the recipe at once; VALUE is TOML, else a string.
        processes: how many will share out each batch.

    Raises:
        RecipeError: with every problem, each with its path and the nearest valid spelling.
    """
    path = find_recipe(source)
    given, problems = overriding([overrides] if isinstance(overrides, str) else overrides)
    recipe, found = _check(read_recipe(path).under(given), processes)
    problems += found
    if recipe is None or problems:
        raise RecipeError(str(source), problems)
    return recipe


def finished_recipe(table: dict[str, Any], source: Path) -> Recipe:
    """The recipe of a run that nobody wants to train on: what only training needs is not checked.

    Args:
        table: of a resolved.toml.

    Raises:
        RecipeError: with every problem.
    """
    recipe, problems = _check(RecipeText(source, table), None)
    if recipe is None:
        raise RecipeError(str(source), problems)
    return recipe


def check_section(table: Mapping[str, Any], key: Literal["data", "translator"], source: Path) -> Spec:
    """One section of a recipe, whether or not the others could be used here.

    Raises:
        RecipeError: with every problem in that section.
    """
    spec, problems = _section(table, key, DATASET_SLOT if key == "data" else TRANSLATOR_SLOT, None)
    if problems:
        raise RecipeError(str(source), problems)
    return spec


def _check(text: RecipeText, processes: int | None) -> tuple[Recipe | None, list[Problem]]:
    """From top to bottom: training, whose batch the components may ask for; data; translator; optimizers."""
    table, sections = text.table, ("data", "translator", "optimizer")
    # [versions] of a resolved.toml is a record, not a choice.
    top = {key: value for key, value in table.items() if key not in (*sections, "versions")}
    values, problems = validated(TopLevel, top, "", "a recipe", sections)
    training = TrainingOptions(**values["training"]) if values else None
    setting = None if processes is None else _batch_setting(training, processes)
    data, found = _section(table, "data", DATASET_SLOT, setting)
    if setting is not None and not found:
        setting, found = _image_setting(data, setting)
    problems += found
    translator, found = _section(table, "translator", TRANSLATOR_SLOT, setting)
    problems += found
    if setting is not None and setting.size is not None:
        problems += image_problems(data, translator, setting.size)
    method = _method(translator)
    optimizers, found, notes = _check_optimizers(text, translator.name, method)
    problems += found
    if training is not None and processes is not None:
        problems += _check_machine(training, translator.name, method, processes)
    if problems or training is None:
        return None, problems
    seed = values["seed"]
    found_notes = tuple(notes)
    return Recipe(text.source, text.text, seed, data, translator, optimizers, training, found_notes), []


def _method(translator: Spec) -> type[Translator] | None:
    """The class; None if there is no such translator, which is a problem that is known by then."""
    try:
        method: type = translators.load(translator.name)
    except ComponentError:
        return None
    return method if issubclass(method, Translator) else None


def _batch_setting(training: TrainingOptions | None, processes: int) -> Setting:
    """The batch, for checks of other options; while it is wrong itself, one of 2, which suits all."""
    if training is None:
        return Setting(None, 2)
    return Setting(None, training.batch_size, None, processes, training.accumulation)


def _image_setting(data: Spec, setting: Setting) -> tuple[Setting, list[Problem]]:
    """What the dataset says of its images before it is built: by itself, or by options of these names."""
    component = datasets.load(data.name)
    size = data.options.get("size")
    paired = data.options.get("paired", getattr(component, "paired", None))
    problems = []
    if isinstance(component, Foretelling):
        try:
            size = component.image_spec(data.options).size
        except Exception as error:
            message = str(error) if isinstance(error, DataError) else in_one_line(error)
            problems.append(Problem("data", f"what its images look like cannot be told: {message}"))
    size = size if isinstance(size, int) and not problems else None
    paired = paired if isinstance(paired, bool) else None
    return dataclasses.replace(setting, size=size, paired=paired), problems


def image_problems(data: Spec, translator: Spec, size: int) -> list[Problem]:
    """What square images of `size` px are wrong for, of all that the translator is made of."""
    what = f"data.size = {size}" if data.options.get("size") == size else f"the images' side of {size} px"
    return size_problems(translator, "translator", size, what)


def _check_machine(
    training: TrainingOptions, name: str, method: type[Translator] | None, processes: int
) -> Iterator[Problem]:
    """What this machine, and this number of processes, cannot do."""
    if training.precision == "fp16" and not torch.accelerator.is_available():
        message = "'fp16' needs a GPU, and this machine shows none; use 'bf16' or 'fp32'"
        yield Problem("training.precision", message)
    if method is None or processes == training.accumulation == 1:
        return
    parts = method.batch_parts
    least = parts * training.accumulation * processes
    if training.batch_size < least or training.batch_size % parts:
        needed = f"{least} or more" + f", in multiples of {parts}" * (parts > 1)
        yield Problem(
            "training.batch_size",
            f"{training.batch_size} cannot be shared out to {processes} process{'es' * (processes > 1)} with "
            f"training.accumulation = {training.accumulation}; '{name}' needs {needed}",
        )


def _section(
    table: Mapping[str, Any], key: str, slot: Slot, setting: Setting | None
) -> tuple[Spec, list[Problem]]:
    if key in table:
        return check(table[key], key, slot, setting)
    registry = registries[slot.kind]
    message = f"is missing; it names the {registry.word}: {', '.join(registry.names())}"
    return Spec(slot.kind, "?"), [Problem(key, message)]


def _check_optimizers(
    text: RecipeText, name: str, method: type[Translator] | None
) -> tuple[dict[str, OptimizerOptions], list[Problem], list[str]]:
    """One set of options for each role: [optimizer], overridden by [optimizer.<role>].

    Returns:
        The options, every problem, and a note for each table that fell away with another translator.
    """
    table = text.table.get("optimizer", {})
    if not isinstance(table, Mapping):
        return {}, [Problem("optimizer", "should be a table")], []
    roles, problems = _roles(name, method)
    options = OptimizerOptions.model_fields
    nested = {k: v for k, v in table.items() if isinstance(v, Mapping) and k not in options}
    problems += [
        Problem(f"optimizer.{key}", "should be a table")
        for key in roles
        if key in table and key not in nested
    ]
    shared = {key: value for key, value in table.items() if key not in nested and key not in roles}
    problems += validated(OptimizerOptions, shared, "optimizer", "[optimizer]", roles)[1]
    notes = []
    for key in [key for key in nested if roles and key not in roles]:
        message = f"translator '{name}' has no network '{key}'"
        if key in text.inherited:
            notes.append(f"[optimizer.{key}] falls away: {message}")
            continue
        hint = did_you_mean(key, (*roles, *options))
        problems.append(Problem(f"optimizer.{key}", f"{message}{hint} (networks: {', '.join(roles)})"))
    optimizers = {}
    for role in roles:
        own = nested.get(role, {})
        _, found = validated(OptimizerOptions, own, f"optimizer.{role}", f"[optimizer.{role}]")
        if not found and not problems:
            values, _ = validated(OptimizerOptions, {**shared, **own}, "optimizer", "[optimizer]")
            optimizers[role] = OptimizerOptions(**values)
        problems += found
    return optimizers, problems, notes


def _roles(name: str, method: type[Translator] | None) -> tuple[tuple[str, ...], list[Problem]]:
    """Of all networks of a method; none if it is not known, which is reported elsewhere."""
    if method is None:
        return (), []
    try:
        return (*method.generative, *method.adversarial), []
    except AttributeError as error:
        message = f"translator '{name}' does not declare its networks: {error}"
        return (), [Problem("translator.name", message)]


def _plain(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(mode="json")


def _without_none(value: Any) -> Any:
    """TOML has no null: an option that is None is left out, which means the same."""
    if isinstance(value, Mapping):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return [_without_none(inner) for inner in value] if isinstance(value, list | tuple) else value


def _versions(recipe: Recipe) -> dict[str, str]:
    """Versions of everything that the numbers may depend on."""
    specs = [*recipe.data.all(), *recipe.translator.all()]
    origins = [registries[spec.kind].entry(spec.name) for spec in specs]
    packages = {entry.package: entry.version for entry in origins}
    named = {"python": platform.python_version()}
    return {**packages, **named, **{p: version(p) for p in ("i2ikit", "torch", "torchvision", "accelerate")}}

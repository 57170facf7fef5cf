"""Recipes: TOML to one checked `Recipe`; every problem is found before anything is built.

    seed = 0
    [data]        name and options of a dataset
    [translator]  name and options of a translator; its components are nested tables, its loss
                  weights are [translator.weights.<phase>]
    [optimizer]   the optimizer of every network; [optimizer.<role>] overrides it for one network
    [training]    steps, batch size, precision, intervals
    [validation]  optional: metrics that are measured while training

`extends = "munit"` inherits all values of another recipe; write only what differs.
`--set a.b=value` changes one key and is checked in the same way.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import platform
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from i2ikit.checking import check, size_problems, validated, without_default
from i2ikit.data.dataset import DATASET_SLOT, Foretelling
from i2ikit.errors import ComponentError, DataError, Problem, RecipeError, in_one_line
from i2ikit.optimizer_options import OptimizerOptions, check_optimizers
from i2ikit.packages.recipes import find_recipe
from i2ikit.precision import Precision, precision_here, remark_on
from i2ikit.recipe_text import RecipeText, overriding, read_recipe
from i2ikit.registry import Setting, Slot, Spec, datasets, registries, translators
from i2ikit.resolved import RESOLVED, matches_checksum
from i2ikit.translator import TRANSLATOR_SLOT, Translator
from i2ikit.validation import Validation, check_validation

__all__ = [
    "RECORDS",
    "Recipe",
    "TopLevel",
    "TrainingOptions",
    "check_section",
    "checked_recipe",
    "finished_recipe",
    "flat_options",
    "image_problems",
    "load_recipe",
]

RECORDS = ("versions", "weights_from", "changes", "imported")
"""Tables of a resolved.toml that say what happened; no option is read from them."""

MOST_STEPS = 10**9  # names of checkpoints have nine digits
Steps = Annotated[int, Field(gt=0, le=MOST_STEPS)]
Interval = Annotated[int, Field(ge=0, le=MOST_STEPS)]
Tracker = Literal[
    "tensorboard", "wandb", "trackio", "comet_ml", "aim", "mlflow", "clearml", "dvclive", "swanlab"
]


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"names {' and '.join(map(repr, twice))} twice")
    return names


class TrainingOptions(BaseModel):
    """Length of training, batch size, precision, and intervals of logs, samples and checkpoints.

    Args:
        steps: iterations; each runs every phase once.
        batch_size: images per domain and step, over all processes.
        accumulation: micro-batches per step, whose gradients each phase sums; more need less memory and
            give the same result (except with batch norm).
        precision: "fp32", or "bf16" or "fp16" for autocast, or "auto": bf16 where the device has instructions
            for it, else fp32. Weights and losses stay fp32; fp16 needs a GPU.
        ema: decay per step of the averaged weights, which samples and translations use.
        log_every: steps between lines of metrics.jsonl.
        sample_every: steps between sample grids; 0 means at the end only.
        checkpoint_every: steps between checkpoints; 0 means at the end only.
        keep: number of checkpoints to keep.
        workers: worker processes that load images, per training process; 0 loads in the process itself.
        damaged_images: "error": damaged images are listed, and training does not start; "skip": the next good
            one takes the place of each damaged training image, which is printed and kept in data.json.
        compile: compile each network with torch.compile, which takes minutes at the first step. For GPUs: on
            CPUs, steps become slower. It needs a C++ compiler, and cannot compute second derivatives,
            such as those of a penalty on gradients.
        trackers: programs that show losses, samples and validations, by the names that Accelerate gives them;
            each but tensorboard is a package to install.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    steps: Steps
    batch_size: Annotated[int, Field(gt=0, le=65536)] = 1
    accumulation: Annotated[int, Field(gt=0, le=65536)] = 1
    precision: Precision = "fp32"
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    log_every: Steps = 10
    sample_every: Interval = 500
    checkpoint_every: Interval = 500
    keep: Annotated[int, Field(ge=1, le=MOST_STEPS)] = 2
    workers: Annotated[int, Field(ge=0, le=256)] = 0
    damaged_images: Literal["error", "skip"] = "error"
    compile: bool = False
    trackers: Annotated[tuple[Tracker, ...], AfterValidator(_distinct)] = ("tensorboard",)


class TopLevel(BaseModel):
    """The keys above the sections.

    `extends` names another recipe (one that ships with i2ikit, `package/name`, or a file beside this one),
    whose values this one inherits; write only what differs.

    Args:
        seed: the only source of randomness for initial weights, image order, augmentation and noise.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    training: TrainingOptions


@dataclass(frozen=True)
class Recipe:
    """A recipe that can be run: everything checked, every default filled in.

    Args:
        source: the file that it was read from.
        text: the content of that file.
        optimizers: optimizer options for each role of the translator.
        validation: None if nothing is measured while training.
        notes: remarks for the user, such as tables that were ignored because the translator changed.
    """

    source: Path
    text: str
    seed: int
    data: Spec
    translator: Spec
    optimizers: Mapping[str, OptimizerOptions]
    training: TrainingOptions
    validation: Validation | None = None
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The stem of the file name; run folders are named after it."""
        return self.source.stem

    def to_toml(self, **records: Mapping[str, Any]) -> str:
        """The whole recipe with every default, and the package versions it was checked with.

        Args:
            records: more tables of `RECORDS`.
        """
        table = {
            "seed": self.seed,
            "data": self.data.table(),
            "translator": self.translator.table(),
            "optimizer": {role: options.table() for role, options in self.optimizers.items()},
            "training": _plain(self.training),
            "validation": self.validation and self.validation.table(),
            "versions": _versions(self),
            **records,
        }
        return tomli_w.dumps(_without_none(table), multiline_strings=False)

    def flat(self) -> dict[str, Any]:
        """Every option by its dotted key, such as training.steps."""
        return dict(flat_options(tomllib.loads(self.to_toml())))


def flat_options(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every option of a recipe's table, by its dotted key."""
    for key, value in table.items():
        if not above and key in RECORDS:
            continue
        if isinstance(value, dict):
            yield from flat_options(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def load_recipe(source: str | Path, overrides: str | Sequence[str] = (), processes: int = 1) -> Recipe:
    """Read and check a recipe.

    Args:
        source: a path, the name of a recipe that ships with i2ikit, or `package/name`.
        overrides: one or several `key.path=VALUE`, applied together; VALUE is TOML, else a string.
        processes: number of processes that will share each batch.

    Raises:
        RecipeError: lists every problem with its path and the nearest valid spelling.
    """
    path = find_recipe(source)
    given, problems = overriding([overrides] if isinstance(overrides, str) else overrides)
    text = read_recipe(path).under(given)
    recipe, found = _check(text, processes)
    problems += found
    if recipe is None or problems:
        raise RecipeError(str(source), problems)
    return dataclasses.replace(recipe, notes=(*recipe.notes, *_notes_of_run(path, text)))


def _notes_of_run(path: Path, text: RecipeText) -> Iterator[str]:
    """Why a new run with the resolved.toml of another one may differ from it."""
    if path.name == RESOLVED and matches_checksum(text.text.encode()) is False:
        yield f"{path} was changed after the run with it had begun, or is damaged: it is used as it is now"
    table = text.table
    if (start := table.get("weights_from")) is not None:
        run = start.get("run", "another one") if isinstance(start, dict) else start
        yield f"the run with this recipe started from the weights of {run}; --weights-from does the same"
    if "changes" in table:
        yield "the run with this recipe was changed on the way; a new one has the last values from the start"


def checked_recipe(text: RecipeText, processes: int) -> Recipe:
    """The recipe of a table.

    Args:
        processes: number of processes that will share each batch.

    Raises:
        RecipeError: lists every problem.
    """
    recipe, problems = _check(text, processes)
    if recipe is None:
        raise RecipeError(str(text.source), problems)
    return recipe


def finished_recipe(table: dict[str, Any], source: Path) -> Recipe:
    """The recipe of a finished run; requirements of training alone are not checked.

    Args:
        table: the content of a resolved.toml.

    Raises:
        RecipeError: lists every problem.
    """
    recipe, problems = _check(RecipeText(source, table), None)
    if recipe is None:
        raise RecipeError(str(source), problems)
    return recipe


def check_section(table: Mapping[str, Any], key: Literal["data", "translator"], source: Path) -> Spec:
    """Check one section of a recipe, even if the others are not usable here.

    Raises:
        RecipeError: lists every problem in that section.
    """
    spec, problems = _section(table, key, DATASET_SLOT if key == "data" else TRANSLATOR_SLOT, None)
    if problems:
        raise RecipeError(str(source), problems)
    return spec


def _check(text: RecipeText, processes: int | None) -> tuple[Recipe | None, list[Problem]]:
    """Check training (components need its batch size), then data, translator, optimizers and validation."""
    table, sections = text.table, ("data", "translator", "optimizer", "validation")
    top = {key: value for key, value in table.items() if key not in (*sections, *RECORDS)}
    values, problems = validated(TopLevel, top, "", "a recipe", ("extends", *sections))
    training = TrainingOptions(**values["training"]) if values else None
    remarks = []
    if training is not None and processes is not None:
        remarks = [remark] if (remark := remark_on(training.precision)) else []
        training = training.model_copy(update={"precision": precision_here(training.precision)})
    setting = None if processes is None else _batch_setting(training, processes)
    data, found = _section(table, "data", DATASET_SLOT, setting)
    if setting is not None and not found:
        setting, found = _image_setting(data, setting)
    problems += found
    translator, found = _section(table, "translator", TRANSLATOR_SLOT, setting)
    problems += found
    if setting is not None:
        problems += image_problems(data, translator, setting.size, setting.channels)
    translator_class = _translator_class(translator)
    roles, found = _roles(translator.name, translator_class)
    problems += found
    defaults = translator_class.optimizer_defaults if translator_class else {}
    optimizers, found, notes = check_optimizers(
        table.get("optimizer", {}), translator.name, roles, defaults, text.inherited, setting
    )
    problems += found
    validation, found = check_validation(table.get("validation"), setting)
    problems += found
    if training is not None and processes is not None:
        problems += _check_machine(training, translator.name, translator_class, processes)
    if problems or training is None:
        return None, problems
    own = (values["seed"], data, translator, optimizers, training, validation)
    return Recipe(text.source, text.text, *own, (*remarks, *notes)), []


def _translator_class(translator: Spec) -> type[Translator] | None:
    """The class; None if there is no such translator, which has been reported already."""
    try:
        loaded: type = translators.load(translator.name)
    except ComponentError:
        return None
    return loaded if issubclass(loaded, Translator) else None


def _batch_setting(training: TrainingOptions | None, processes: int) -> Setting:
    """The batch, for checks of other options; if [training] is invalid, a batch of 2, which suits all."""
    if training is None:
        return Setting(None, 2)
    return Setting(None, training.batch_size, None, processes, training.accumulation, steps=training.steps)


def _image_setting(data: Spec, setting: Setting) -> tuple[Setting, list[Problem]]:
    """Facts about the images before the dataset is built, from its class or its options."""
    component = datasets.load(data.name)
    size, channels = data.options.get("size"), {}
    paired = data.options.get("paired", getattr(component, "paired", None))
    problems = []
    if isinstance(component, Foretelling):
        try:
            images = component.image_spec(data.options)
            size, channels = images.size, dict(images.channels)
        except Exception as error:
            message = str(error) if isinstance(error, DataError) else in_one_line(error)
            problems.append(Problem("data", f"failed to describe its images: {message}"))
    size = size if isinstance(size, int) and not problems else None
    paired = paired if isinstance(paired, bool) else None
    return dataclasses.replace(setting, size=size, paired=paired, channels=channels), problems


def image_problems(data: Spec, translator: Spec, size: int | None, domains: Collection[str]) -> list[Problem]:
    """What the translator does not accept: the number of domains, or square images of `size` px.

    Args:
        size: None if it is not known yet; so is the number of domains if `domains` is empty.
    """
    problems = []
    translator_class = _translator_class(translator)
    needed = translator_class.num_domains if translator_class else None
    if domains and needed not in (None, len(domains)):
        choose = "; choose them with data.domains" if "domains" in data.options else ""
        problems.append(
            Problem(
                "translator.name",
                f"'{translator.name}' translates between {needed} domains, but the data has {len(domains)} "
                f"({', '.join(domains)}){choose}",
            )
        )
    if size is not None:
        what = f"data.size = {size}" if data.options.get("size") == size else f"the image size of {size} px"
        problems += size_problems(translator, "translator", size, what)
    return problems


def _check_machine(
    training: TrainingOptions, name: str, translator_class: type[Translator] | None, processes: int
) -> Iterator[Problem]:
    """Problems with this machine, and with this number of processes."""
    if training.precision == "fp16" and not torch.accelerator.is_available():
        message = "'fp16' needs a GPU, and none was found; use 'bf16' or 'fp32'"
        yield Problem("training.precision", message)
    for tracker in training.trackers:
        found = importlib.util.find_spec(tracker)
        if found is None or found.origin is None:  # a mere folder, such as the one that wandb writes
            yield Problem("training.trackers", f"'{tracker}' is not installed: pip install {tracker}")
    if translator_class is None or processes == training.accumulation == 1:
        return
    parts = translator_class.batch_parts
    least = parts * training.accumulation * processes
    if training.batch_size < least or training.batch_size % parts:
        needed = f"{least} or more" + f", in multiples of {parts}" * (parts > 1)
        yield Problem(
            "training.batch_size",
            f"{training.batch_size} cannot be split over {processes} process{'es' * (processes > 1)} with "
            f"training.accumulation = {training.accumulation}; '{name}' needs {needed}",
        )


def _section(
    table: Mapping[str, Any], key: str, slot: Slot, setting: Setting | None
) -> tuple[Spec, list[Problem]]:
    if key in table:
        return check(without_default(table[key]), key, slot, setting)
    registry = registries[slot.kind]
    message = f"is missing; it names the {registry.word}: {', '.join(registry.names())}"
    return Spec(slot.kind, "?"), [Problem(key, message)]


def _roles(name: str, translator_class: type[Translator] | None) -> tuple[tuple[str, ...], list[Problem]]:
    """The roles of all networks of a translator; empty if it is unknown, which is reported elsewhere."""
    if translator_class is None:
        return (), []
    try:
        return (*translator_class.generative, *translator_class.adversarial), []
    except AttributeError as error:
        message = f"translator '{name}' does not declare its networks: {error}"
        return (), [Problem("translator.name", message)]


def _plain(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(mode="json")


def _without_none(value: Any) -> Any:
    """Omit options that are None: TOML has no null, and a missing key means the same."""
    if isinstance(value, Mapping):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return [_without_none(inner) for inner in value] if isinstance(value, list | tuple) else value


def _versions(recipe: Recipe) -> dict[str, str]:
    """Versions of every package that results may depend on."""
    optimizers = [options.optimizer for options in recipe.optimizers.values()]
    metrics = recipe.validation.metrics if recipe.validation else ()
    specs = [s for spec in (recipe.data, recipe.translator, *metrics) for s in spec.all()] + optimizers
    origins = [registries[spec.kind].entry(spec.name) for spec in specs]
    packages = {entry.package: entry.version for entry in origins}
    named = {"python": platform.python_version()}
    return {**packages, **named, **{p: version(p) for p in ("i2ikit", "torch", "torchvision", "accelerate")}}

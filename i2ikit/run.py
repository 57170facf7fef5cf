"""A run folder as one object: the files that training wrote, each read once.

recipe.toml            the recipe as given
resolved.toml          the recipe with every default and version; repeats the run
weights.safetensors    EMA weights of the generative networks; translation needs only this and resolved.toml
best.safetensors       the same at the step at which the value `validation.best` was best
checkpoints/step-N/    the state that `i2ikit resume` needs
samples/*.png          translations of fixed inputs during training
metrics.jsonl          one line per log interval
results.csv            its numbers for spreadsheets
report.html            the run on one page
sessions.jsonl         one line for each command that trained it
data.json              what the images were: their number, and a checksum of names and sizes
tensorboard/           the same for TensorBoard, with the samples
tracking-id            what identifies the run in other trackers, if training.trackers names any
eval/                  reports and pictures of `i2ikit eval`
.lock                  empty; a command that trains the run holds it
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from i2ikit.checkpoints import BEST_FILE, WEIGHTS_FILE
from i2ikit.data.dataset import Dataset
from i2ikit.data.held_out import HeldOutPart
from i2ikit.data.images import Picture
from i2ikit.errors import RunError, did_you_mean
from i2ikit.model import InferencePrecision, Model, Size
from i2ikit.paths import pasted
from i2ikit.recipe import RECORDS, Recipe, check_section, finished_recipe
from i2ikit.registry import Spec
from i2ikit.resolved import RESOLVED, WITHOUT_CHECKSUM, create_resolved, read_resolved
from i2ikit.state import load_networks
from i2ikit.translator import (
    Direction,
    ImageSpec,
    Translator,
)
from i2ikit.weights_file import WeightsFile, read_weights
from i2ikit.writing import check_name

__all__ = ["RESOLVED", "Run", "create_run", "find_run", "is_run", "open_run"]


def open_run(run: Run | str | Path | None = None, device: str | torch.device | None = None) -> Run:
    """Open a run, as `i2ikit.load` does; not an exported file.

    Raises:
        RunError: there is no such run or device; the message lists what is available.
    """
    if isinstance(run, Run):
        return run if device is None else Run(run.folder, device, best=run.best)
    path = None if run is None else Path(run)
    if path is not None and path.name in (WEIGHTS_FILE, BEST_FILE):
        return Run(find_run(path.parent), device, best=path.name == BEST_FILE)
    return Run(find_run(path), device)


class Run:
    """A run folder, finished or not.

    Files are read at their first use and then cached. `i2ikit.load` finds a run.

    Args:
        folder: an existing run folder.
        device: see `i2ikit.load`.
        best: use the weights of best.safetensors, not those of weights.safetensors.

    Raises:
        RunError: the device cannot be used here.
    """

    def __init__(
        self, folder: str | Path, device: str | torch.device | None = None, *, best: bool = False
    ) -> None:
        self.folder = Path(folder)
        self.best = best
        self._file = self.folder / (BEST_FILE if best else WEIGHTS_FILE)
        self.chosen_device = None if device is None else _usable(device)

    def __repr__(self) -> str:
        try:
            return f"Run({self.folder}: step {self.step}, {self.images.size} px)"
        except RunError:
            why = "its weights are damaged" if self._file.is_file() else "nothing saved yet"
            return f"Run({self.folder}: {why})"

    @property
    def device(self) -> torch.device:
        """The device that it computes on."""
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return self.chosen_device or found or torch.device("cpu")

    @property
    def weights_file(self) -> Path:
        """The file of its weights, which training replaces whenever it saves; it may not exist yet."""
        return self._file

    @property
    def step(self) -> int:
        """Number of training steps of its weights."""
        return self._weights.step

    @property
    def images(self) -> ImageSpec:
        """Channels and size of its images; read from the weights, without the dataset."""
        return self._weights.images

    @property
    def sha256(self) -> str:
        """Of the file of its weights, as `sha256sum` prints it; equal weights have equal files."""
        return self._weights.sha256

    @functools.cached_property
    def recipe(self) -> Recipe:
        """The whole recipe; requirements of training alone, such as a GPU for fp16, are not checked.

        Raises:
            RecipeError: a component is not installed here, or has changed.
        """
        return finished_recipe(self._table, self.folder / RESOLVED)

    @functools.cached_property
    def data(self) -> Spec:
        """The dataset's spec, not yet opened; available even if the translator is not installed here."""
        return check_section(self._table, "data", self.folder / RESOLVED)

    @functools.cached_property
    def translator(self) -> Translator:
        """The trained translator in eval mode, on the device.

        Raises:
            RunError: no weights are saved yet, or they do not fit the recipe.
        """
        spec = check_section(self._table, "translator", self.folder / RESOLVED)
        try:
            with torch.random.fork_rng([]):  # the initial weights are random, and replaced at once
                translator: Translator = spec(self.images)
            networks = {role: translator.networks[role] for role in translator.generative}
            load_networks(networks, self._weights.tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise RunError(f"{self._file} does not fit {self.folder / RESOLVED}: {error}") from error
        return translator.eval().requires_grad_(False).to(self.device)

    @functools.cached_property
    def _dataset(self) -> Dataset:
        dataset: Dataset = self.data()
        return dataset

    def dataset(self) -> Dataset:
        """Its images, for training and held out.

        Raises:
            DataError: the images no longer exist.
        """
        return self._dataset

    def evaluation_data(self, *, spare_validation: bool = False) -> Dataset:
        """As `dataset`, but without the held-out images that [validation] of the recipe used.

        Args:
            spare_validation: leave out those images too if this recipe has no such section, so that the run
                can be compared with one whose recipe has it.

        Raises:
            DataError: the images no longer exist.
        """
        apart = self.validated or spare_validation
        return HeldOutPart(self._dataset, "evaluation") if apart else self._dataset

    @property
    def validated(self) -> bool:
        """Whether [validation] of the recipe used a part of the held-out images."""
        return "validation" in self._table

    @property
    def origin(self) -> dict[str, Any]:
        """What resolved.toml says besides the recipe and the versions: weights_from, changes, imported."""
        return {key: self._table[key] for key in RECORDS if key in self._table and key != "versions"}

    def data_at(self, root: str | Path) -> Spec:
        """The dataset's spec with other images: with another value of its option `root`.

        Raises:
            RunError: the dataset has no such option.
        """
        if "root" not in self.data.options:
            raise RunError(
                f"{self.folder}: its dataset '{self.data.name}' has no option 'root', so it cannot read "
                "images from elsewhere"
            )
        table = {"data": {**self._table["data"], "root": str(root)}}
        return check_section(table, "data", self.folder / RESOLVED)

    @functools.cached_property
    def model(self) -> Model:
        """What an exported file has as well: the translator, and what it needs to translate pictures."""
        return Model(
            self.folder, self.translator, self.images, self.device, self.step, self.sha256, self.best,
            self.data.name,
        )  # fmt: skip

    def translate(
        self,
        image: Picture,
        *,
        to: str | None = None,
        source: str | None = None,
        styles: int | Tensor | NDArray[Any] = 8,
        exemplars: Picture | Sequence[Picture] | None = None,
        seed: int = 0,
        size: Size = "trained",
        precision: InferencePrecision = "fp32",
    ) -> Any:
        """Translate an image, see `Model.translate`."""
        return self.model.translate(
            image, to=to, source=source, styles=styles, exemplars=exemplars, seed=seed, size=size,
            precision=precision,
        )  # fmt: skip

    def encode_style(self, image: Picture, domain: str | None = None) -> Tensor:
        """The style code of an image, (1, style_dim), see `Model.encode_style`."""
        return self.model.encode_style(image, domain)

    def direction(self, source: str | None = None, to: str | None = None) -> Direction:
        """The translator's first direction with this source and target, if they are given.

        Raises:
            RunError: there is none.
        """
        return self.model.direction(source, to)

    @property
    def notes(self) -> list[str]:
        """Remarks about files that an earlier version wrote, without a checksum."""
        files = {self.folder / RESOLVED: self._resolved[1]}
        if self._file.is_file():
            files[self._file] = self._weights.has_checksum
        without = [str(file) for file, has_checksum in files.items() if not has_checksum]
        return [f"{file} {WITHOUT_CHECKSUM}" for file in without]

    @functools.cached_property
    def _resolved(self) -> tuple[dict[str, Any], bool]:
        return read_resolved(self.folder)

    @property
    def _table(self) -> dict[str, Any]:
        return self._resolved[0]

    @functools.cached_property
    def _weights(self) -> WeightsFile:
        if not self._file.is_file():
            why = "the run has not saved anything yet"
            if self.best:
                why = "training writes it whenever the value of `validation.best` is the best so far"
            raise RunError(f"{self.folder} has no {self._file.name}: {why}")
        return read_weights(self._file)


def _usable(device: str | torch.device) -> torch.device:
    """The device, after checking that a tensor can be created on it."""
    try:
        found = torch.device(device)
        torch.empty(1, device=found).cpu()
    except Exception as error:  # each backend raises its own exceptions
        here = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        there = "cpu" if here is None else f"cpu and {here.type}"
        raise RunError(f"device '{device}' cannot be used; this machine has {there}") from error
    return found


def create_run(out: Path | None, recipe: Recipe, **records: Mapping[str, Any]) -> Path:
    """Create a run folder, `out` or runs/<recipe>-<date>-<time>, that contains the recipe.

    Args:
        records: more tables for resolved.toml, such as the run whose weights it starts from.

    Raises:
        RunError: `out` exists and is not an empty folder, or cannot be created.
    """
    if out is not None:
        check_name(out)
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(
            f"{out} already exists; give --out another folder"
            + (f", or continue it with `i2ikit resume {pasted(out)}`" if is_run(out) else "")
        )
    is_new = out is None or not out.exists()
    folder = out or Path("runs") / f"{recipe.name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    try:
        folder = _made(folder) if out is None else folder
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "recipe.toml").open("x", encoding="utf-8") as file:  # another command may be faster
            file.write(recipe.text)
        create_resolved(folder, recipe.to_toml(**records))  # last: it makes the folder a run
    except FileExistsError as error:
        raise RunError(f"{folder} already exists: another command has just made it") from error
    except OSError as error:
        with contextlib.suppress(OSError):  # it may not exist
            (folder / "recipe.toml").unlink(missing_ok=True)
            if is_new:
                folder.rmdir()
        raise RunError(f"cannot create the run folder {folder}: {error.strerror}") from error
    return folder


def _made(folder: Path) -> Path:
    """Make this folder, or one with a number after its name; no other command gets the same."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for name in (folder.name, *(f"{folder.name}-{n}" for n in range(2, 1000))):
        with contextlib.suppress(FileExistsError):
            folder.with_name(name).mkdir()
            return folder.with_name(name)
    raise RunError(f"{folder}: too many runs in one second; name a folder with --out")


def is_run(path: Path) -> bool:
    """Whether the path is a run folder."""
    return os.path.isfile(path / RESOLVED)  # False also for a name that is too long


def _last_written(run: Path) -> float:
    """When a run was started, or last logged something."""
    files = [run / RESOLVED, run / "metrics.jsonl"]
    return max(file.stat().st_mtime for file in files if file.is_file())


def find_run(path: Path | None) -> Path:
    """The run folder at `path`, or the newest below ./runs.

    Raises:
        RunError: there is none; the message names the place.
    """
    known = [p for p in Path("runs").glob("*") if is_run(p)]
    if path is None:
        if not known:
            raise RunError(
                f"no run found in {os.path.abspath('runs')}; give a run folder, or train one with "
                "`i2ikit run munit`"
            )
        return max(known, key=_last_written)
    if not is_run(path):
        if path.suffix.lower() == ".onnx":
            raise RunError(f"{path} is an exported file; this needs the run folder that it was exported from")
        known_as = [str(p) for p in known]
        hint = did_you_mean(str(path), known_as) or did_you_mean(str(Path("runs", path)), known_as)
        if not os.path.lexists(path):
            raise RunError(f"there is no run {path}{hint}")
        raise RunError(f"{path} is not a run folder: it has no {RESOLVED}{hint}")
    return path

"""A run folder made of the weights of an official repository."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from i2ikit.checkpoints import save_checkpoint, save_weights
from i2ikit.errors import WeightsError, printable
from i2ikit.exchange.assembly import Assembly, OfficialFile
from i2ikit.exchange.repositories import bicyclegan, cyclegan, munit
from i2ikit.official.files import read_weights_file
from i2ikit.packages.recipes import find_recipe
from i2ikit.recipe import Recipe, checked_recipe, finished_recipe
from i2ikit.recipe_text import RecipeText, read_recipe
from i2ikit.run import Run, create_run
from i2ikit.state import load_some
from i2ikit.training import build, new_accelerator, new_translator
from i2ikit.translator import ImageSpec

__all__ = ["Imported", "import_weights"]

EPOCH = re.compile(r"(?:latest|iter_(\d{1,12})|(\d{1,12}))_net_|(?:gen|dis)_(\d{1,12})\.")
"""The beginning of the name of an official file."""

PROJECTION = re.compile(r"(?:module\.)?mlp_\d+\.")
USUAL_SIZE = 256
READABLE = (1, 3)
"""Numbers of channels of the images in folders."""


@dataclass(frozen=True)
class Imported:
    """An imported run, and what is to be said about it.

    Args:
        name: what the files were, in words.
        taken: what each file is.
        fresh: the networks that start with random weights, for training on.
        notes: what the files do not say, and the licence.
    """

    run: Run
    name: str
    taken: Mapping[Path, str]
    fresh: Sequence[str]
    notes: Sequence[str]


def import_weights(
    files: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    data_root: str | Path | None = None,
    size: int | None = None,
    old_unet: bool = False,
) -> Imported:
    """Make a run folder of the weights of an official MUNIT, BicycleGAN, CycleGAN, pix2pix or CUT.

    What they are is found out from the names and shapes of their tensors. The run can be translated with and
    exported; with images, it can be measured and trained on by `resume`, which starts at step 0 with new
    optimizers.

    Args:
        files: .pth or .pt files of one model, or the folder that holds them; and the YAML of a MUNIT.
        out: a new run folder; runs/NAME-TIME by default.
        data_root: folder with trainA, trainB, testA and testB; by default ./data, which need not exist.
        size: side of the images in pixels; by default that of MUNIT's YAML, or 256, the official default.
        old_unet: the files are of a U-Net from before 2017-09-22, which concatenates in another order. Names
            and shapes do not show it.

    Raises:
        WeightsError: a file cannot be read, or what does not fit is listed.
        RunError: the folder exists, or cannot be written.
        RecipeError: `data_root` does not hold such images, or the size does not suit the networks.
    """
    paths = [Path(file) for file in ([files] if isinstance(files, str | Path) else files)]
    found = _assembled(_listed_files(paths), old_unet)
    if not set(found.channels.values()) <= set(READABLE):
        raise WeightsError(
            f"the model has images of {_listed(found.channels)} channels; i2ikit reads folders of images "
            f"with {' or '.join(map(str, READABLE))}"
        )
    recipe = _recipe(
        found, Path("data") if data_root is None else Path(data_root), size, data_root is not None
    )
    images = ImageSpec(dict(found.channels), recipe.data.options["size"])
    translator = new_translator(recipe, images)
    side = translator.size_required_by(*translator.networks).enlarged(images.size)
    if side != images.size:
        advice = f"training on needs images of another size than {images.size} px: --size {side}"
        found = dataclasses.replace(found, notes=[*found.notes, advice])
    load_some(translator, found.tensors)
    folder = create_run(None if out is None else Path(out), recipe, imported=_record(found))
    state = build(
        translator,
        recipe.optimizers,
        new_accelerator("fp32"),
        recipe.training.steps,
        range(recipe.training.batch_size),
        recipe.training.batch_size,
    )
    save_checkpoint(folder, 0, state, recipe.training.keep)
    save_weights(state.ema, images, 0, folder)
    return Imported(Run(folder), found.name, found.taken, found.fresh, [*found.notes, found.licence])


def _listed_files(paths: Sequence[Path]) -> list[Path]:
    """The files; of a folder, those of the latest epoch, and the YAML of the training.

    Raises:
        WeightsError: a folder holds no weights, or a file is given twice.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(path.iterdir())
        weights = [file for file in inside if file.suffix in (".pth", ".pt")]
        if not weights:
            raise WeightsError(f"{path}/ contains no .pth or .pt file")
        newest = max(map(_epoch, weights))
        found += [file for file in weights if _epoch(file) == newest]
        found += [file for file in inside if file.suffix in munit.ENDINGS]
    if len({file.resolve() for file in found}) < len(found):
        raise WeightsError("a file is given twice")
    return found


def _epoch(file: Path) -> tuple[bool, int]:
    """A key to sort files by their epoch or iteration; "latest" is the last one, and no epoch the first."""
    found = EPOCH.match(file.name)
    number = "" if found is None else found[1] or found[2] or found[3] or ""
    return bool(found) and not number, int(number or -1)


def _assembled(paths: Sequence[Path], old_unet: bool) -> Assembly:
    """The translator in these files.

    Raises:
        WeightsError: a file cannot be read, or is not of a network that i2ikit has; or these networks do not
            make up a translator.
    """
    configs = [munit.read_config(path) for path in paths if path.suffix in munit.ENDINGS]
    files = [
        OfficialFile(path, read_weights_file(path)) for path in paths if path.suffix not in munit.ENDINGS
    ]
    files, unused = _without_projections(files)
    if not files:
        raise WeightsError("none of these files is a generator, without which nothing can be translated")
    made = _assemble(files, configs, old_unet)
    epochs = {_epoch(file.path) for file in files}
    notes = [f"{path.name} is not used: only training by CUT needs it" for path in unused]
    if len(epochs) > 1:
        notes.append("these files are of different epochs, as their names say")
    return dataclasses.replace(made, notes=[*made.notes, *notes])


def _without_projections(files: Sequence[OfficialFile]) -> tuple[list[OfficialFile], list[Path]]:
    """The files, and those that hold the projection F of CUT."""
    unused = [file.path for file in files if all(PROJECTION.match(key) for key in file.content)]
    return [file for file in files if file.path not in unused], unused


def _assemble(files: Sequence[OfficialFile], configs: Sequence[dict[str, Any]], old_unet: bool) -> Assembly:
    if any(isinstance(x, Mapping) for file in files for x in file.content.values()):
        return munit.assemble(files, configs[0] if configs else None)
    if bicyclegan.is_bicyclegan(files):
        return bicyclegan.assemble(files)
    return cyclegan.assemble(files, old_unet)


def _recipe(found: Assembly, root: Path, size: int | None, has_images: bool) -> Recipe:
    """The recipe of the published options, with these networks and images."""
    base = read_recipe(find_recipe(found.recipe))
    paired = bool(base.table["data"].get("paired", False))
    data = {"name": "folders", "root": str(root), "paired": paired, "size": USUAL_SIZE}
    data |= {f"channels_{domain}": number for domain, number in found.channels.items()}
    data |= found.options.get("data", {}) | ({} if size is None else {"size": size})
    base.table["training"].pop("workers", None)  # for a machine with many cores
    table = {**base.under({k: v for k, v in found.options.items() if k != "data"}).table, "data": data}
    source = Path(f"{found.name.lower().replace(' ', '-')}.toml")
    text = RecipeText(source, table)
    recipe = checked_recipe(text, 1) if has_images else finished_recipe(table, source)
    return dataclasses.replace(recipe, text=f"{_heading(found)}\n{tomli_w.dumps(table)}")


def _heading(found: Assembly) -> str:
    """The comment above the recipe: where it came from, and what may be done with it."""
    files = "".join(f"#   {printable(path.name)}: {what}\n" for path, what in found.taken.items())
    fresh = f"# New, with random weights: {', '.join(found.fresh)}.\n" if found.fresh else ""
    return (
        f"# {found.name}, imported from weights of the official repository:\n{files}{fresh}"
        f"# Its other options are those of recipes/{found.recipe}.toml.\n"
        f"# Licence: {found.licence}.\n"
    )


def _record(found: Assembly) -> dict[str, Any]:
    """The table [imported] of resolved.toml."""
    files = [
        {"name": printable(path.name), "sha256": _sha256(path), "is": what}
        for path, what in found.taken.items()
    ]
    return {"model": found.name, "fresh": list(found.fresh), "licence": found.licence, "files": files}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _listed(channels: Mapping[str, int]) -> str:
    return " and ".join(f"{number} ({domain})" for domain, number in channels.items())

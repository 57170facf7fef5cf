"""The styles that images are translated in: random ones, those of exemplars, or those of a file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from i2ikit.errors import RunError
from i2ikit.model import Model
from i2ikit.output_folder import cut, folded, readable
from i2ikit.style_codes import AboutCodes, check_codes_file, read_codes, write_codes
from i2ikit.translator import Direction

__all__ = ["STYLES", "Style", "Styles", "check_saved", "chosen_styles", "save_styles"]

STYLES = 8
"""Random styles if no number is given."""
ENDS = 2
"""Random styles between which to interpolate if no number is given."""
STEM_BYTES = 60  # of an exemplar's name, or that of a file of codes, in the name of a translation


@dataclass(frozen=True)
class Style:
    """How the translation in one style is named, what heads its column, and what the index says about it."""

    label: str
    heading: str
    origin: Mapping[str, Any]


@dataclass(frozen=True)
class Styles:
    """Style codes, and how files are named after them.

    Args:
        direction: of the translations.
        codes: (K, style_dim); (1, 0) for a deterministic translator.
        each: the style of each code.
        label: what all of them are called in the name of a file.
        sheet: how the sheet of all translations is named.
        about: what a file of these codes says; None for a deterministic translator.
        notes: what the user should know about them.
    """

    direction: Direction
    codes: Tensor
    each: tuple[Style, ...]
    label: str
    sheet: Style
    about: AboutCodes | None
    notes: tuple[str, ...] = ()


def chosen_styles(
    model: Model,
    *,
    count: int | None = None,
    seed: int | None = None,
    exemplars: Sequence[Path] = (),
    codes: Path | None = None,
    source: str | None = None,
    to: str | None = None,
    interpolated: bool = False,
) -> Styles:
    """The styles that a command asks for.

    Args:
        count: number of random styles; by default 8, or 2 if it is interpolated between them. A deterministic
            translator makes one translation.
        seed: for the random styles; 0 by default.
        exemplars: images of domain `to` whose styles are used instead.
        codes: a file of style codes that are used instead, see `style_codes.read_codes`.
        source, to: domains of the direction; if one or both are None, the translator's first that fits.
        interpolated: whether it is interpolated between them; then there must be two or more.

    Raises:
        RunError: the translator cannot translate in this direction, has no styles where they are needed, or
            options exclude each other.
        DataError: an exemplar or the file of codes cannot be read.
    """
    direction = model.direction(source, to)
    deterministic = model.translator.is_deterministic(direction.to)
    if deterministic and (interpolated or codes is not None):
        option = "--interpolate" if interpolated else "--codes"
        raise RunError(
            f"{model.path}: its translator makes one translation of each image and has no styles; leave "
            f"{option} out"
        )
    if codes is not None:
        given = {"--styles": count is not None, "--seed": seed is not None, "--style-from": bool(exemplars)}
        if others := [option for option, is_given in given.items() if is_given]:
            raise RunError(f"--codes gives the styles; leave {' and '.join(others)} out")
        found = _of_file(model, direction, codes)
    elif exemplars:
        found = _of_exemplars(model, direction, exemplars)
    elif deterministic:
        found = _only_one(model, direction)
    else:
        found = _random(
            model, direction, (ENDS if interpolated else STYLES) if count is None else count, seed or 0
        )
    if interpolated and len(found.codes) < ENDS:
        wanted = "--style-from twice or more" if exemplars else "--styles 2 or more"
        option = "a file with two codes or more" if codes else wanted
        raise RunError(f"--interpolate goes from one style to another, and there is only one; give {option}")
    return found


def check_saved(styles: Styles, path: Path) -> None:
    """Check that `save_styles` can write the codes to a file.

    Raises:
        RunError: there are none, one cannot write there, or the file has other content.
    """
    if styles.about is None:
        raise RunError("the translator has no style codes to save; leave --save-codes out")
    check_codes_file(path, styles.codes.shape[1])


def save_styles(styles: Styles, path: Path) -> None:
    """Write the codes to a .safetensors or .npy file that passes `check_saved`; see `style_codes`.

    Raises:
        RunError: it cannot be written.
    """
    assert styles.about is not None
    write_codes(path, styles.codes, styles.about)


def _start(model: Model, direction: Direction) -> tuple[str, dict[str, Any]]:
    """The beginning of labels, and what the index says about all results."""
    origin = {"weights": "best" if model.best else "last", "direction": str(direction)}
    return f"{direction}{'-best' if model.best else ''}", origin


def _about(model: Model, direction: Direction, **facts: Any) -> AboutCodes:
    return AboutCodes(domain=direction.to, weights_sha256=model.sha256, step=model.step, **facts)


def _random(model: Model, direction: Direction, count: int, seed: int) -> Styles:
    codes = model.codes(count, None, direction.to, seed)
    start, origin = _start(model, direction)
    start, origin = f"{start}-seed{seed}", {**origin, "seed": seed}
    each = [
        Style(
            f"{start}-style-{n}-of-{count}",
            f"style {int(n)}",
            {**origin, "style": int(n), "styles": count},  # another number gives other styles
        )
        for n in _numbers(count)
    ]
    sheet = Style(f"{start}-sheet-of-{count}", "", {**origin, "sheet": count})
    about = _about(model, direction, seed=seed)
    return Styles(direction, codes, tuple(each), f"{start}-{count}-styles", sheet, about)


def _of_exemplars(model: Model, direction: Direction, exemplars: Sequence[Path]) -> Styles:
    codes = model.codes(1, exemplars, direction.to, 0)
    start, origin = _start(model, direction)
    names = [cut(readable(path.stem), STEM_BYTES) for path in exemplars]
    label = f"{names[0]}-and-{len(codes) - 1}-more" if len(codes) > 1 else names[0]
    *names, all_of_them = _distinct([*names, f"{label}-sheet"])
    paths = [os.path.abspath(path) for path in exemplars]
    each = [
        Style(f"{start}-as-{name}", f"as {name}", {**origin, "exemplar": path})
        for name, path in zip(names, paths, strict=True)
    ]
    sheet = Style(f"{start}-as-{all_of_them}", "", {**origin, "sheet": paths})
    about = _about(model, direction, exemplars=[path.name for path in exemplars])
    return Styles(direction, codes, tuple(each), f"{start}-as-{label}", sheet, about)


def _of_file(model: Model, direction: Direction, path: Path) -> Styles:
    found = read_codes(path)
    length = model.translator.style_length(direction.to)
    if found.codes.shape[1] != length:
        raise RunError(
            f"{path}: its style codes have {found.codes.shape[1]} values, but this translator needs {length}"
        )
    if found.about is not None and found.about.domain != direction.to:
        raise RunError(
            f"{path}: its style codes are for translations into {found.about.domain}, not into {direction.to}"
        )
    start, origin = _start(model, direction)
    count, stem = len(found.codes), cut(readable(path.stem), STEM_BYTES)
    origin |= {"codes": os.path.abspath(path), "codes_sha256": found.sha256}
    each = [
        Style(f"{start}-{stem}-code-{n}-of-{count}", f"code {int(n)}", {**origin, "code": int(n)})
        for n in _numbers(count)
    ]
    sheet = Style(f"{start}-{stem}-sheet-of-{count}", "", {**origin, "sheet": count})
    notes = []
    if found.about is not None and found.about.weights_sha256 != model.sha256:
        notes = [f"{path}: its style codes were saved with other weights; styles may look different"]
    about = _about(model, direction, codes_sha256=found.sha256)
    codes = model.codes(found.codes, None, direction.to, 0)
    return Styles(direction, codes, tuple(each), f"{start}-{stem}-{count}-codes", sheet, about, tuple(notes))


def _only_one(model: Model, direction: Direction) -> Styles:
    start, origin = _start(model, direction)
    only = Style(start, "translation", origin)
    codes = model.codes(1, None, direction.to, 0)
    return Styles(direction, codes, (only,), start, Style(f"{start}-sheet", "", {**origin, "sheet": 1}), None)


def _numbers(count: int) -> Iterator[str]:
    """The numbers from 1, all with as many digits as the last one."""
    return (f"{n:0{len(str(count))}}" for n in range(1, count + 1))


def _distinct(names: Sequence[str]) -> list[str]:
    """The names; repeated ones are numbered."""
    found: list[str] = []
    taken = {folded(name) for name in names}
    used: set[str] = set()
    for name in names:
        chosen, number = name, 1
        while folded(chosen) in used or (number > 1 and folded(chosen) in taken):
            number += 1
            chosen = f"{name}-{number}"
        used.add(folded(chosen))
        found.append(chosen)
    return found

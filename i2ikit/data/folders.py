"""Datasets of image files: a folder for each split and domain, or files with both images side by side."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from i2ikit.data.dataset import SPLITS, Split
from i2ikit.data.images import LoadSide, Side, cropped_to_square, too_large_a_crop
from i2ikit.data.reading import (
    IMAGE_ENDINGS,
    dim_16_bit,
    image_files,
    images_below,
    inspect,
    left_out,
    read_image,
)
from i2ikit.errors import DataError, did_you_mean
from i2ikit.paths import FilePath
from i2ikit.registry import Setting
from i2ikit.translator import ImageSpec

__all__ = ["Folders", "SideBySide"]

SHAPE_TOLERANCE = 1.02


class Folders:
    """Two folders of images for each split, or a folder for each of any number of domains.

    The folders are trainA, trainB, testA, testB, for the domains a and b; or train/NAME and test/NAME for
    domains with names of their own (val/ is used if there is no test/).

    Training: shorter side resized to `load_size`, a random crop of size x size, a random flip.
    Test: shorter side resized to `size`, centre crop. Transparent images are blended with white; EXIF
    rotation is applied. Values: 8-bit channels to [-1, 1].

    Args:
        root: the folder that contains these; relative to the working directory.
        domains: which domains to use, in this order; by default all, sorted by name. The first direction of
            translation is from the first domain into the second.
        paired: files of the same name (without ending) show the same thing and share their crop
            and flip; otherwise the domains are shuffled independently.
        size: side in pixels of the images that the networks get.
        load_size: shorter side before the random crop; `size` when not given.
        flip: mirror training images with probability 0.5.
        channels_a, channels_b: 3, or 1 for grey (ITU-R 601 luma), for the domains a and b.
        channels: the same for domains of any name; 3 for those that are not named.

    Raises:
        DataError: a folder is missing or contains no image; an image cannot be read; in paired data, an
            image has no partner or one of another aspect ratio. The message names the file or folder.
    """

    def __init__(
        self,
        *,
        root: FilePath,
        domains: Annotated[list[str], Field(min_length=2)] | None = None,
        paired: bool = False,
        size: Side = 256,
        load_size: LoadSide | None = None,
        flip: bool = True,
        channels_a: Literal[1, 3] = 3,
        channels_b: Literal[1, 3] = 3,
        channels: Mapping[str, Literal[1, 3]] | None = None,
    ) -> None:
        names = _domains(Path(root), domains)
        given = {"a": channels_a, "b": channels_b, **(channels or {})}
        self.root = Path(root)
        self.images = ImageSpec({name: given.get(name, 3) for name in names}, size)
        self.aligned = self.paired = paired
        self.load_size = load_size or size
        self.flip = flip
        self._files: dict[tuple[Split, str], list[Path]] = {}

    @staticmethod
    def problems(options: Mapping[str, Any], setting: Setting) -> Iterable[str]:
        """Report missing or empty folders, files without a partner and crops larger than the image."""
        root = Path(options["root"])
        names = _domains(root, options["domains"])
        folders = _folders(root, names)
        missing = _missing(root, folders.values())
        yield from missing
        yield from too_large_a_crop(options)
        for name in options["channels"] or ():
            if name not in names:
                known = ", ".join(names)
                yield f"channels names '{name}', which is not a domain{did_you_mean(name, names)} ({known})"
        if options["paired"] and not missing:
            for (split, _), folder in folders.items():
                first = folders[split, names[0]]
                if unmatched := _unmatched(image_files(first), image_files(folder)):
                    yield unmatched

    @staticmethod
    def image_spec(options: Mapping[str, Any]) -> ImageSpec:
        """Domains, channels and size of the images."""
        given = {"a": options["channels_a"], "b": options["channels_b"], **(options["channels"] or {})}
        names = _domains(Path(options["root"]), options["domains"])
        return ImageSpec({name: given.get(name, 3) for name in names}, options["size"])

    def files(self, split: Split, domain: str) -> Sequence[Path]:
        """The files of a folder, listed at its first use; in paired data in the order of the first domain."""
        if (split, domain) not in self._files:
            files = _listed(self.root, _folders(self.root, [*self.images.channels])[split, domain])
            first = next(iter(self.images.channels))
            if self.paired:
                files = _matched(files if domain == first else self.files(split, first), files)
            self._files[split, domain] = files
        return self._files[split, domain]

    def count(self, split: Split, domain: str) -> int:
        """Number of files."""
        return len(self.files(split, domain))

    def remarks(self) -> Iterable[str]:
        """What was left out of the folders, and whether 16-bit images are nearly black."""
        return _remarks(self.files(split, d) for split in SPLITS for d in self.images.channels)

    def name(self, split: Split, domain: str, index: int) -> str:
        """The file's name."""
        return self.files(split, domain)[index].name

    def inspect(self, split: Split, domain: str, index: int) -> None:
        """Check the header of a file; of a pair also that its shape is that of the first domain's image."""
        path = self.files(split, domain)[index]
        inspect(path, self.images.channels[domain])
        first = next(iter(self.images.channels))
        if self.paired and domain != first:
            _check_shapes(path, self.files(split, first)[index])

    def image(self, split: Split, domain: str, index: int, rng: np.random.Generator | None = None) -> Tensor:
        """(C, size, size) in [-1, 1]; random crop and flip with `rng`, centre crop without it."""
        path = self.files(split, domain)[index]
        if self.paired:
            first, second, *_ = self.images.channels
            _check_shapes(path, self.files(split, second if domain == first else first)[index])
        picture = read_image(path, self.images.channels[domain])
        return cropped_to_square(picture, self.images.size, self.load_size, self.flip, rng)


class SideBySide:
    """Pairs as files with both images side by side, a on the left (pix2pix's layout): train/, test/.

    Without test/, val/ is used as the test split. Sizes, crops and flips as in `folders`.

    Args:
        root: the folder that contains the two; relative to the working directory.
        paired: both halves of a file share an index, a crop and a flip; otherwise both domains are
            shuffled independently.
        size: side in pixels of the images that the networks get.
        load_size: shorter side of one image before the random crop; `size` when not given.
        flip: mirror training images with probability 0.5.
        channels_a, channels_b: 3, or 1 for grey (ITU-R 601 luma).

    Raises:
        DataError: a folder is missing or contains no image; a file cannot be read or halved. The
            message names the file or folder.
    """

    aligned = True

    def __init__(
        self,
        *,
        root: FilePath,
        paired: bool = True,
        size: Side = 256,
        load_size: LoadSide | None = None,
        flip: bool = True,
        channels_a: Literal[1, 3] = 3,
        channels_b: Literal[1, 3] = 3,
    ) -> None:
        self.root = Path(root)
        self.images = ImageSpec({"a": channels_a, "b": channels_b}, size)
        self.paired = paired
        self.load_size = load_size or size
        self.flip = flip
        self._files: dict[Split, list[Path]] = {}

    @staticmethod
    def problems(options: Mapping[str, Any], setting: Setting) -> Iterable[str]:
        """Report missing or empty folders and crops larger than the image."""
        root = Path(options["root"])
        yield from _missing(root, [root / name for name in _split_folders(root).values()])
        yield from too_large_a_crop(options)

    @staticmethod
    def image_spec(options: Mapping[str, Any]) -> ImageSpec:
        """Channels and size of the images."""
        return ImageSpec({"a": options["channels_a"], "b": options["channels_b"]}, options["size"])

    def files(self, split: Split, domain: str) -> Sequence[Path]:
        """The files of a folder, listed at its first use; the same for both domains."""
        if split not in self._files:
            self._files[split] = _listed(self.root, self.root / _split_folders(self.root)[split])
        return self._files[split]

    def count(self, split: Split, domain: str) -> int:
        """Number of files."""
        return len(self.files(split, domain))

    def remarks(self) -> Iterable[str]:
        """What was left out of the folders, and whether 16-bit images are nearly black."""
        return _remarks(self.files(split, "a") for split in SPLITS)

    def name(self, split: Split, domain: str, index: int) -> str:
        """The file's name."""
        return self.files(split, domain)[index].name

    def inspect(self, split: Split, domain: str, index: int) -> None:
        """Check the header of a file, and that it can be halved."""
        path = self.files(split, domain)[index]
        _check_halves(path, inspect(path, self.images.channels[domain])[0])

    def image(self, split: Split, domain: str, index: int, rng: np.random.Generator | None = None) -> Tensor:
        """(C, size, size) in [-1, 1]; random crop and flip with `rng`, centre crop without it."""
        path = self.files(split, domain)[index]
        both = read_image(path, self.images.channels[domain])
        _check_halves(path, both.width)
        half = both.width // 2
        left = 0 if domain == "a" else half
        picture = both.crop((left, 0, left + half, both.height))
        return cropped_to_square(picture, self.images.size, self.load_size, self.flip, rng)


def _split_folders(root: Path) -> dict[Split, str]:
    """The folder of each split: many of pix2pix's datasets have val/ but no test/."""
    only_val = (root / "val").is_dir() and not (root / "test").is_dir()
    return {"train": "train", "test": "val" if only_val else "test"}


def _domains(root: Path, wanted: Sequence[str] | None) -> list[str]:
    """The domains to use: those wanted, or a and b, or the folders' names in train/ (or test/, val/)."""
    if wanted:
        return list(wanted)
    named = _folder_of_names(root)
    if named is None:
        return ["a", "b"]
    return sorted(path.name for path in named.iterdir() if path.is_dir() and path.name[0] != ".")


def _folder_of_names(root: Path) -> Path | None:
    """The folder whose folders are named after domains; None where trainA, trainB and the like are."""
    for split in ("train", "test", "val"):  # the held-out images alone are enough to evaluate
        if any((root / f"{split}{letter}").is_dir() for letter in "AB"):
            return None
        if (root / split).is_dir():
            return root / split
    return None


def _folders(root: Path, domains: Sequence[str]) -> dict[tuple[Split, str], Path]:
    """The folder of each split of each domain."""
    if {*domains} <= {"a", "b"} and _folder_of_names(root) is None:
        return {(split, d): root / f"{split}{d.upper()}" for split in SPLITS for d in domains}
    return {(split, d): root / name / d for split, name in _split_folders(root).items() for d in domains}


def _listed(root: Path, folder: Path) -> list[Path]:
    """The images in a folder below a root.

    Raises:
        DataError: the root or the folder is missing, or contains no image.
    """
    files = image_files(folder)
    if not files:
        raise DataError(_missing(root, [folder])[0])
    return files


def _matched(first: Sequence[Path], files: Sequence[Path]) -> list[Path]:
    """The partner of each file of the first domain, in its order.

    Raises:
        DataError: they do not match one to one by name.
    """
    if unmatched := _unmatched(first, files):
        raise DataError(unmatched)
    partners = {_key(path): path for path in files}
    return [partners[_key(path)] for path in first]


def _check_halves(path: Path, width: int) -> None:
    if width % 2:
        raise DataError(f"{path} is {width} px wide: it cannot be cut into two equal halves")


def _missing(root: Path, folders: Iterable[Path]) -> list[str]:
    """Problems with folders below a root."""
    if not root.is_dir():
        return [f"root = '{root}' is not a folder (working directory: {Path.cwd()})"]
    found = []
    for folder in folders:
        if not folder.is_dir():
            found.append(f"root = '{root}' contains no folder {folder.relative_to(root)}/")
        elif not image_files(folder):
            found.append(_empty(folder))
    return found


def _unmatched(a: Sequence[Path], b: Sequence[Path]) -> str | None:
    """The problem if the files of two folders do not match one to one by name, or None."""
    for files, partners in ((a, b), (b, a)):
        stems = [_key(path) for path in files]
        twice = [stem for stem, times in Counter(stems).items() if times > 1]
        if twice:
            return f"{files[0].parent}/ contains several images named {twice[0]!r}; pairs are matched by name"
        alone = sorted(set(stems) - {_key(path) for path in partners})
        if alone:
            more = f" and {len(alone) - 3} more" if len(alone) > 3 else ""
            listed = ", ".join(map(repr, alone[:3]))
            return f"no partner in {partners[0].parent}/ for {listed}{more} of {files[0].parent}/"
    return None


def _key(path: Path) -> str:
    """The name by which pairs are matched; macOS writes accents as separate characters."""
    return unicodedata.normalize("NFC", path.stem)


def _remarks(listed: Iterable[Sequence[Path]]) -> Iterable[str]:
    """What was left out of each folder, and which seem to have another range of values."""
    for files in listed:
        for remark in (left_out(files[0].parent), dim_16_bit(files)):
            if remark:
                yield remark


def _check_shapes(path: Path, partner: Path) -> None:
    """Pairs may differ in resolution, not in aspect ratio: a common crop would show different parts.

    Raises:
        DataError: they differ in aspect ratio; names both files.
    """
    (width, height), (other_width, other_height) = inspect(path, 3), inspect(partner, 3)
    ratio = width * other_height / (height * other_width)
    if not 1 / SHAPE_TOLERANCE < ratio < SHAPE_TOLERANCE:
        raise DataError(
            f"{path} ({width}x{height} px) and its partner {partner} ({other_width}x{other_height} px) "
            "differ in aspect ratio"
        )


def _empty(folder: Path) -> str:
    if below := images_below(folder):
        return f"{folder}/ contains no image itself, but {below}: move them into it; sub-folders are not read"
    rest = left_out(folder)
    return f"{folder}/ contains no image ({', '.join(IMAGE_ENDINGS)})" + (f"; {rest}" if rest else "")

"""A dataset of tar files, for data larger than a disk: each process streams its own tar files.

The layout is that of webdataset: a sample consists of the files with the same name and different endings.
Tar files are read sequentially, so network file systems and mounted buckets work.
"""

from __future__ import annotations

import functools
import io
import itertools
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from i2ikit.data.dataset import SPLITS, Split
from i2ikit.data.images import LoadSide, Side, cropped_to_square, too_large_a_crop
from i2ikit.data.reading import IMAGE_ENDINGS, left_out, read_image
from i2ikit.data.tar_files import MOST_BYTES, Place, contents, places, read_at
from i2ikit.data.tar_names import grouped
from i2ikit.draws import counted_generator
from i2ikit.errors import DataError, in_one_line
from i2ikit.finite import names
from i2ikit.paths import FilePath
from i2ikit.pretrained.cache import progress_over
from i2ikit.registry import Setting
from i2ikit.translator import ImageSpec

__all__ = ["Shards"]

SIZES = "sizes.json"

Sample = tuple[str, Mapping[str, bytes]]
"""A key, and the encoded images by their endings."""


class Shards:
    """Tar files in the folders trainA, trainB, testA, testB; with `paired` in train and test.

    Each place of a batch has its own tar files, redistributed in every epoch; there must be at least as
    many tar files as images in a batch. The images of a place depend only on (seed, epoch, place), not on
    the number of processes, and a process reads only the tar files of its places. Within a tar file,
    `shuffle` samples at a time are shuffled. Sizes, crops and flips as in `folders`.

    A sample is one image, such as `0042.jpg`; for pairs two, `0042.a.jpg` and `0042.b.jpg`. Names may contain
    dots and folders; files such as `0042.mask.png` next to `0042.jpg` belong to its sample and are not read,
    nor are hidden files. A sample has at most 100 MB. Compressed tar files may unpack to 100 times their
    size; finding a held-out image in one is slow.

    A folder may contain `sizes.json`, `{"0000.tar": 1000, ...}`: the number of samples in each tar file.
    Without it they are counted at the start, which reads every header of every tar file.

    Args:
        root: the folder that contains these; relative to the working directory.
        paired: samples contain both images of a pair, which share their crop and flip.
        shuffle: samples of a tar file that are kept in memory, undecoded, and shuffled together; fewer if
            they have more than 100 MB.
        size: side in pixels of the images that the networks get.
        load_size: shorter side before the random crop; `size` when not given.
        flip: mirror training images with probability 0.5.
        channels_a, channels_b: 3, or 1 for grey (ITU-R 601 luma).

    Raises:
        DataError: a folder is missing or contains no tar file; a tar file or an image in it cannot be
            read (names both); there are fewer tar files than images in a batch.
    """

    def __init__(
        self,
        *,
        root: FilePath,
        paired: bool = False,
        shuffle: Annotated[int, Field(ge=1, le=100_000)] = 100,
        size: Side = 256,
        load_size: LoadSide | None = None,
        flip: bool = True,
        channels_a: Literal[1, 3] = 3,
        channels_b: Literal[1, 3] = 3,
    ) -> None:
        self.images = ImageSpec({"a": channels_a, "b": channels_b}, size)
        self.aligned = self.paired = paired
        self.shuffle = shuffle
        self.load_size = load_size or size
        self.flip = flip
        self._kept: dict[Path, list[tuple[Path, str, Mapping[str, Place]]]] = {}
        self.root = Path(root)
        self._listed: dict[Path, list[Path]] = {}

    @staticmethod
    def problems(options: Mapping[str, Any], setting: Setting) -> Iterable[str]:
        """Report folders without tar files, too few tar files for a batch and crops larger than the image."""
        yield from too_large_a_crop(options)
        for split, domain in itertools.product(SPLITS, "a" if options["paired"] else "ab"):
            try:
                tars = _tar_files(_folder(Path(options["root"]), split, domain, options["paired"]))
                if split == "train":
                    _check_enough(tars, setting.batch_size)
            except DataError as error:
                yield str(error)

    @staticmethod
    def image_spec(options: Mapping[str, Any]) -> ImageSpec:
        """Channels and size of the images."""
        return ImageSpec({"a": options["channels_a"], "b": options["channels_b"]}, options["size"])

    def remarks(self) -> Iterable[str]:
        """What was left out of the folders."""
        folders = dict.fromkeys(_folder(self.root, split, d, self.paired) for split in SPLITS for d in "ab")
        return filter(None, (left_out(folder, (".tar",), (SIZES,)) for folder in folders))

    def count(self, split: Split, domain: str) -> int:
        """Number of samples."""
        tars = self._tars(split, domain)
        return sum(
            _size(tar, self.paired) for tar in progress_over(tars, len(tars), f"Counting {tars[0].parent}")
        )

    def name(self, split: Split, domain: str, index: int) -> str:
        """The sample's name (its key in webdataset)."""
        _, key, _ = self._held_out(domain)[index]
        return key

    def image(self, split: Split, domain: str, index: int, rng: np.random.Generator | None = None) -> Tensor:
        """(C, size, size) in [-1, 1]: a held-out image.

        Raises:
            DataError: `split` is "train"; training images are streamed.
        """
        if split == "train":
            raise DataError("training images in tar files have no index: use stream()")
        tar, key, found = self._held_out(domain)[index]
        ending = self._ending(found, domain, key, tar)
        name = f"{key}.{ending}"
        return self._decoded(read_at(tar, found[ending], name), domain, f"{tar}: {name}", rng)

    def stream(self, seed: int, place: int, places: int, first: int) -> Iterator[dict[str, Tensor]]:
        """Endless training images for one place in a batch, starting with its image number `first`."""
        if self.paired:
            yield from self._stream("ab", "pair", seed, place, places, first)
        else:
            # Unpaired domains are shuffled independently, so that an outline does not meet its own drawing.
            apart = [self._stream(domain, domain, seed, place, places, first) for domain in "ab"]
            for a, b in zip(*apart, strict=True):
                yield {**a, **b}

    def _tars(self, split: Split, domain: str) -> list[Path]:
        """The tar files of a folder, listed at its first use."""
        folder = _folder(self.root, split, domain, self.paired)
        if folder not in self._listed:
            self._listed[folder] = _tar_files(folder)
        return self._listed[folder]

    def _stream(
        self, domains: str, kind: str, seed: int, place: int, places: int, first: int
    ) -> Iterator[dict[str, Tensor]]:
        """Images of these domains, from the same tar files."""
        tars = self._tars("train", domains[0])
        _check_enough(tars, places)
        for epoch in itertools.count():
            order = counted_generator(seed, "order", kind, epoch).permutation(len(tars))
            for tar in (tars[index] for index in order[place::places]):
                size = _size(tar, self.paired)
                if first >= size:
                    first -= size
                    continue
                mixed = self._mixed(tar, counted_generator(seed, "shards", kind, epoch, tar.name))
                number = 0
                for number, (key, files) in enumerate(mixed, 1):
                    if number <= first:
                        continue
                    own = (seed, "augmentation", kind, epoch, tar.name, key)
                    images = {}
                    for domain in domains:
                        ending = self._ending(files, domain, key, tar)
                        name = f"{tar}: {key}.{ending}"
                        images[domain] = self._decoded(files[ending], domain, name, counted_generator(*own))
                    yield images
                if number != size:  # resuming relies on these numbers
                    raise DataError(
                        f"{tar} contains {number} samples, not {size}: {SIZES} is wrong, or the files of a "
                        "sample are not adjacent"
                    )
                first = 0

    def _mixed(self, tar: Path, rng: np.random.Generator) -> Iterator[Sample]:
        """The samples of a tar file, shuffled in blocks of `shuffle`, or fewer if they are large."""
        samples = _samples(tar, self.paired)
        while block := list(_block(samples, self.shuffle)):
            for index in rng.permutation(len(block)):
                yield block[index]

    def _ending(self, files: Collection[str], domain: str, key: str, tar: Path) -> str:
        """The ending of the file in a sample that is the image of a domain."""
        prefix = f"{domain}." if self.paired else ""
        wanted = [f"{prefix}{ending[1:]}" for ending in IMAGE_ENDINGS]
        held = [ending for ending in wanted if ending in files]
        if not held:
            raise DataError(f"{tar}: sample {key!r} has {names(files)}, but none of {', '.join(wanted)}")
        return held[0]

    def _decoded(self, content: bytes, domain: str, name: str, rng: np.random.Generator | None) -> Tensor:
        picture = read_image(io.BytesIO(content), self.images.channels[domain], name)
        return cropped_to_square(picture, self.images.size, self.load_size, self.flip, rng)

    def _held_out(self, domain: str) -> list[tuple[Path, str, Mapping[str, Place]]]:
        """All held-out samples: their tar files, keys and the places of their files, found once."""
        tars = self._tars("test", domain)
        folder = tars[0].parent  # one for both domains of pairs
        if folder not in self._kept:
            self._kept[folder] = [(tar, *sample) for tar in tars for sample in _places(tar, self.paired)]
        return self._kept[folder]


def _block(samples: Iterator[Sample], count: int) -> Iterator[Sample]:
    """The next `count` samples, or fewer if they are large."""
    size = 0
    for key, files in itertools.islice(samples, count):
        yield key, files
        size += sum(map(len, files.values()))
        if size >= MOST_BYTES:
            return


def _check_enough(tars: Sequence[Path], places: int) -> None:
    """Check that each place in a batch can have its own tar files."""
    if len(tars) < places:
        raise DataError(
            f"{tars[0].parent}/ contains {len(tars)} tar file{'s' * (len(tars) > 1)}, fewer than the "
            f"{places} images of a batch, each of which needs its own: make more, smaller tar files"
        )


def _folder(root: Path, split: str, domain: str, paired: bool) -> Path:
    return root / (split if paired else f"{split}{domain.upper()}")


def _tar_files(folder: Path) -> list[Path]:
    found = sorted(p for p in folder.glob("*.tar") if p.name[0] != "." and p.is_file())
    if not found:
        raise DataError(f"{folder}/ contains no tar file" if folder.is_dir() else f"no folder {folder}/")
    return found


def _samples(tar: Path, paired: bool) -> Iterator[Sample]:
    """The samples in a tar file, with their encoded images."""
    try:
        yield from grouped(contents(tar), paired, MOST_BYTES)
    except ValueError as error:
        raise DataError(f"{tar}: {error}") from error


def _places(tar: Path, paired: bool) -> Iterator[tuple[str, Mapping[str, Place]]]:
    """The samples in a tar file, with the places of their images."""
    try:
        yield from grouped(places(tar), paired, MOST_BYTES)
    except ValueError as error:
        raise DataError(f"{tar}: {error}") from error


@functools.cache
def _size(tar: Path, paired: bool) -> int:
    """Number of samples in a tar file: from sizes.json if listed there, else counted from the headers."""
    listed = _listed_sizes(tar.parent)
    if tar.name in listed:
        return listed[tar.name]
    keys = {key for key, _ in _places(tar, paired)}
    if not keys:
        raise DataError(f"{tar} contains no sample")
    return len(keys)


@functools.cache
def _listed_sizes(folder: Path) -> Mapping[str, int]:
    path = folder / SIZES
    if not path.is_file():
        return {}
    try:
        sizes = json.loads(path.read_text("utf-8"))
    except (OSError, RecursionError, ValueError) as error:
        raise DataError(f"{path}: not JSON ({in_one_line(error)})") from error
    if not (isinstance(sizes, dict) and all(type(n) is int and n > 0 for n in sizes.values())):
        raise DataError(f"{path}: expected an object that maps each tar file's name to its number of samples")
    return sizes

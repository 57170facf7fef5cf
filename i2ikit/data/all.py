"""Datasets, and batches in counted order.

A dataset holds images of two domains in two splits. The order in which training sees them, and how
each is augmented, depends on (seed, domain, epoch, index) alone (see `draws`): batches of one step can
be made without those of the steps before.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from PIL import Image, ImageOps
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from torch.utils.data import Dataset as TorchDataset

from i2ikit.draws import counted_generator
from i2ikit.errors import DataError
from i2ikit.registry import Setting, Slot
from i2ikit.translator import ImageSpec, other

__all__ = [
    "DATA",
    "IMAGE_ENDINGS",
    "SPLITS",
    "Dataset",
    "Folders",
    "LoadSide",
    "Side",
    "SideBySide",
    "Split",
    "Streamed",
    "load_image",
    "prepared",
    "read_image",
    "shares",
    "to_picture",
    "to_tensor",
    "too_large_a_crop",
    "training_batches",
]

T = TypeVar("T")
Split = Literal["train", "test"]
Side = Annotated[int, Field(ge=8, le=4096)]
LoadSide = Annotated[int, Field(ge=8, le=8192)]
SPLITS: tuple[Split, ...] = ("train", "test")
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
MOST_PIXELS = 64_000_000
SHAPE_TOLERANCE = 1.02
ORIENTATION = 0x0112  # EXIF; from 5 on, the picture lies on its side


@runtime_checkable
class Dataset(Protocol):
    """Images of two domains, "a" and "b", in two splits.

    `aligned`: index i of "a" and of "b" show the same thing, so that a translation has a target.
    `paired`: training gets such pairs; augmentation must then be a function of the random generator
    alone, so that both are augmented alike. It is an option, or known of the class. Data can be
    aligned without being paired: pairs that training does not use, and metrics do.
    """

    images: ImageSpec
    aligned: bool
    paired: bool

    def count(self, split: Split, domain: str) -> int:
        """How many images; at least 1."""
        ...

    def image(self, split: Split, domain: str, index: int, rng: np.random.Generator | None = None) -> Tensor:
        """(C, size, size) in [-1, 1]; augmented by `rng`, or plain without one."""
        ...

    def name(self, split: Split, domain: str, index: int) -> str:
        """What a person calls this image: a file's name, say."""
        ...


DATA = Slot("datasets", (), like=Dataset)
"""The place of a recipe's [data]."""


@runtime_checkable
class Streamed(Protocol):
    """A dataset whose training images can only be had one after the other."""

    def stream(self, seed: int, place: int, places: int, first: int) -> Iterator[dict[str, Tensor]]:
        """Training images for one of `places` in a batch, from its number `first` on, without end.

        `{"a": (C, size, size), "b": ...}`, values in [-1, 1]; a function of the arguments alone.
        """
        ...


class Folders:
    """Two folders of images of each split: trainA, trainB, testA, testB.

    Training: shorter side resized to `load_size`, a random crop of size x size, a random flip.
    Test: shorter side resized to `size`, centre crop. Transparency is put on white; EXIF rotation
    is applied. Values: 8-bit channels to [-1, 1].

    Args:
        root: the folder that holds the four; relative to where the command is run.
        paired: files of the same name (endings aside) show the same thing, and share their crop
            and flip; otherwise both folders are shuffled on their own.
        size: side in pixels of what the networks see.
        load_size: shorter side before the random crop; `size` when not given.
        flip: mirror every other training image.
        channels_a, channels_b: 3, or 1 for grey (ITU-R 601 luma).

    Raises:
        DataError: a folder is missing or holds no image; an image cannot be read, or has no partner
            of the same shape where it needs one (named).
    """

    def __init__(
        self,
        *,
        root: str,
        paired: bool = False,
        size: Side = 256,
        load_size: LoadSide | None = None,
        flip: bool = True,
        channels_a: Literal[1, 3] = 3,
        channels_b: Literal[1, 3] = 3,
    ) -> None:
        self.images = ImageSpec({"a": channels_a, "b": channels_b}, size)
        self.aligned = self.paired = paired
        self.load_size = load_size or size
        self.flip = flip
        self._files: dict[tuple[Split, str], list[Path]] = {}
        for split in SPLITS:
            for domain in "ab":
                folder = Path(root) / f"{split}{domain.upper()}"
                self._files[split, domain] = files = image_files(folder)
                if not files:
                    raise DataError(_empty(folder))
            if paired and (unmatched := _unmatched(self._files[split, "a"], self._files[split, "b"])):
                raise DataError(unmatched)

    @staticmethod
    def problems(options: Mapping[str, Any], setting: Setting) -> Iterable[str]:
        """Folders that are missing or empty, files without a partner, crops larger than the image."""
        root = Path(options["root"])
        missing = _missing(root, [f"{split}{d}" for split in SPLITS for d in "AB"])
        yield from missing
        yield from too_large_a_crop(options)
        if options["paired"] and not missing:
            for split in SPLITS:
                a, b = (image_files(root / f"{split}{d}") for d in "AB")
                if unmatched := _unmatched(a, b):
                    yield unmatched

    def count(self, split: Split, domain: str) -> int:
        """How many files."""
        return len(self._files[split, domain])

    def name(self, split: Split, domain: str, index: int) -> str:
        """The file's name."""
        return self._files[split, domain][index].name

    def image(self, split: Split, domain: str, index: int, rng: np.random.Generator | None = None) -> Tensor:
        """(C, size, size) in [-1, 1]; cropped and flipped by `rng`, centre crop without one."""
        path = self._files[split, domain][index]
        if self.paired:
            _check_shapes(path, self._files[split, other(domain)][index])
        picture = read_image(path, self.images.channels[domain])
        return prepared(picture, self.images.size, self.load_size, self.flip, rng)


class SideBySide:
    """Pairs as files with both images side by side, a on the left (pix2pix's layout): train/, test/.

    Where there is no test/, val/ is held out. Sizes, crops and flips as in `folders`.

    Args:
        root: the folder that holds the two; relative to where the command is run.
        paired: both halves of a file share an index, a crop and a flip; otherwise both domains are
            shuffled on their own.
        size: side in pixels of what the networks see.
        load_size: shorter side of one image before the random crop; `size` when not given.
        flip: mirror every other training image.
        channels_a, channels_b: 3, or 1 for grey (ITU-R 601 luma).

    Raises:
        DataError: a folder is missing or holds no image; a file cannot be read or halved (named).
    """

    aligned = True

    def __init__(
        self,
        *,
        root: str,
        paired: bool = True,
        size: Side = 256,
        load_size: LoadSide | None = None,
        flip: bool = True,
        channels_a: Literal[1, 3] = 3,
        channels_b: Literal[1, 3] = 3,
    ) -> None:
        self.images = ImageSpec({"a": channels_a, "b": channels_b}, size)
        self.paired = paired
        self.load_size = load_size or size
        self.flip = flip
        self._files: dict[Split, list[Path]] = {}
        for split, name in _split_folders(Path(root)).items():
            self._files[split] = image_files(Path(root) / name)
            if not self._files[split]:
                raise DataError(_empty(Path(root) / name))

    @staticmethod
    def problems(options: Mapping[str, Any], setting: Setting) -> Iterable[str]:
        """Folders that are missing or empty, and crops larger than what they are cut from."""
        root = Path(options["root"])
        yield from _missing(root, _split_folders(root).values())
        yield from too_large_a_crop(options)

    def count(self, split: Split, domain: str) -> int:
        """How many files."""
        return len(self._files[split])

    def name(self, split: Split, domain: str, index: int) -> str:
        """The file's name."""
        return self._files[split][index].name

    def image(self, split: Split, domain: str, index: int, rng: np.random.Generator | None = None) -> Tensor:
        """(C, size, size) in [-1, 1]; cropped and flipped by `rng`, centre crop without one."""
        path = self._files[split][index]
        both = read_image(path, self.images.channels[domain])
        half, odd = divmod(both.width, 2)
        if odd:
            raise DataError(f"{path} is {both.width} px wide: it cannot be cut into two images side by side")
        left = 0 if domain == "a" else half
        picture = both.crop((left, 0, left + half, both.height))
        return prepared(picture, self.images.size, self.load_size, self.flip, rng)


def prepared(
    picture: Image.Image, size: int, load_size: int, flip: bool, rng: np.random.Generator | None
) -> Tensor:
    """(C, size, size) in [-1, 1]: for training a random crop and flip, the centre without `rng`.

    The same `rng` cuts the same part out of pictures of the same shape, whatever their resolution.
    """
    picture = resize_shorter(picture, size if rng is None else load_size)
    room = [extent - size for extent in picture.size]
    if rng is None:
        left, top = (extra // 2 for extra in room)
    else:
        left, top = (int(part * (extra + 1)) for part, extra in zip(rng.random(2), room, strict=True))
    picture = picture.crop((left, top, left + size, top + size))
    if rng is not None and flip and rng.random() < 0.5:
        picture = ImageOps.mirror(picture)
    return to_tensor(picture)


def _split_folders(root: Path) -> dict[Split, str]:
    """Where each split is: many of pix2pix's data sets have val/ but no test/."""
    only_val = (root / "val").is_dir() and not (root / "test").is_dir()
    return {"train": "train", "test": "val" if only_val else "test"}


def _missing(root: Path, folders: Iterable[str]) -> list[str]:
    """What is wrong with the folders below a root."""
    if not root.is_dir():
        return [f"root = '{root}' is not a folder (looked in {Path.cwd()})"]
    found = []
    for folder in (root / name for name in folders):
        if not folder.is_dir():
            found.append(f"root = '{root}' holds no folder {folder.name}/")
        elif not image_files(folder):
            found.append(_empty(folder))
    return found


def too_large_a_crop(options: Mapping[str, Any]) -> Iterable[str]:
    """A problem if a crop cannot be cut out of what `load_size` leaves."""
    if (options["load_size"] or options["size"]) < options["size"]:
        yield f"load_size = {options['load_size']} is smaller than size = {options['size']}"


def _unmatched(a: Sequence[Path], b: Sequence[Path]) -> str | None:
    """What is wrong if the files of two folders do not match one to one by their names."""
    for files, partners in ((a, b), (b, a)):
        stems = [path.stem for path in files]
        twice = [stem for stem, times in Counter(stems).items() if times > 1]
        if twice:
            return f"{files[0].parent}/ holds several images named {twice[0]!r}; pairs are matched by name"
        alone = sorted(set(stems) - {path.stem for path in partners})
        if alone:
            more = f" and {len(alone) - 3} more" if len(alone) > 3 else ""
            listed = ", ".join(map(repr, alone[:3]))
            return f"no partner in {partners[0].parent}/ for {listed}{more} of {files[0].parent}/"
    return None


def _check_shapes(path: Path, partner: Path) -> None:
    """Pairs may differ in resolution, not in shape: a common crop would cut different things out.

    Raises:
        DataError: names both.
    """
    (width, height), (other_width, other_height) = _upright_size(path), _upright_size(partner)
    ratio = width * other_height / (height * other_width)
    if not 1 / SHAPE_TOLERANCE < ratio < SHAPE_TOLERANCE:
        raise DataError(
            f"{path} ({width}x{height} px) and its partner {partner} ({other_width}x{other_height} px) "
            "differ in shape"
        )


def _upright_size(path: Path) -> tuple[int, int]:
    """Width and height as a person sees them, without decoding the picture."""
    try:
        with Image.open(path) as opened:
            turned = opened.getexif().get(ORIENTATION, 1) >= 5
            return (opened.height, opened.width) if turned else opened.size
    except Exception as error:  # as in read_image
        raise DataError(f"{path}: not a readable image ({type(error).__name__}: {error})") from error


def image_files(folder: Path) -> list[Path]:
    """Every image in a folder (not below it), sorted by name; empty if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_ENDINGS and p.is_file())


def _empty(folder: Path) -> str:
    return f"{folder}/ holds no image ({', '.join(IMAGE_ENDINGS)})"


def read_image(file: Path | BinaryIO, channels: int, name: str | None = None) -> Image.Image:
    """A picture from a file: upright, without transparency, 8 bits, RGB or grey.

    Args:
        name: what errors call it; the path if not given.

    Raises:
        DataError: no such file, not an image, or more than 64 megapixels; the file is named.
    """
    name = name or str(file)
    try:
        with Image.open(file) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise DataError(
                    f"{name}: {opened.width}x{opened.height} px are more than "
                    f"{MOST_PIXELS // 1_000_000} megapixels"
                )
            picture = ImageOps.exif_transpose(opened)
            if picture.mode.startswith("I;16"):  # 16-bit grey, which convert("L") would clip to white
                wide = np.asarray(picture, dtype=np.float32)
                picture = Image.fromarray((wide / 257).round().astype(np.uint8))
            if picture.has_transparency_data:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            return picture.convert("RGB" if channels == 3 else "L")
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds
        raise DataError(f"{name}: not a readable image ({type(error).__name__}: {error})") from error


def resize_shorter(picture: Image.Image, side: int) -> Image.Image:
    """The picture with its shorter side `side` pixels long (bilinear, antialiased)."""
    if min(picture.size) == side:
        return picture
    scale = side / min(picture.size)
    width, height = (max(side, round(extent * scale)) for extent in picture.size)
    return picture.resize((width, height), Image.Resampling.BILINEAR)


def to_tensor(picture: Image.Image) -> Tensor:
    """(C, H, W) in [-1, 1] from an 8-bit RGB or grey picture."""
    pixels = np.array(picture)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 127.5 - 1


def to_picture(image: Tensor) -> Image.Image:
    """An 8-bit picture from (C, H, W) in [-1, 1]; values outside are clipped."""
    pixels = ((image.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    array = pixels.permute(1, 2, 0).numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def load_image(path: Path, channels: int, size: int) -> Tensor:
    """(C, H, W) in [-1, 1] from a file, its shorter side `size` pixels, its shape kept."""
    return to_tensor(resize_shorter(read_image(path, channels), size))


class _Positions(TorchDataset[dict[str, Tensor]]):
    """Training images by their position in the endless counted order."""

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        return {domain: self._image(domain, position) for domain in "ab"}

    def _image(self, domain: str, position: int) -> Tensor:
        # Unpaired domains are shuffled on their own: an outline and its drawing must not meet.
        stream = "pair" if self.dataset.paired else domain
        epoch, place = divmod(position, self.dataset.count("train", domain))
        index = _order(self.seed, stream, epoch, self.dataset.count("train", domain))[place]
        rng = counted_generator(self.seed, "augmentation", stream, epoch, index)
        return self.dataset.image("train", domain, index, rng)


@functools.lru_cache(maxsize=8)
def _order(seed: int, stream: str, epoch: int, count: int) -> list[int]:
    """A permutation of range(count), for this epoch of this stream."""
    return counted_generator(seed, "order", stream, epoch).permutation(count).tolist()


def shares(batch_size: int, parts: int, accumulation: int, processes: int) -> list[list[list[int]]]:
    """How the places of a batch are shared out: by micro-batch, by process, to places.

    Each share gets the same number of places from each part of the batch, in order; shares may
    differ in size by one such set. The images of a micro-batch are the same whatever the number of
    processes.

    Args:
        batch_size: a multiple of `parts`, and at least parts * accumulation * processes; a batch
            that is not shared out can have any size.
        parts: of the batch, which play different roles (`Translator.batch_parts`).

    Raises:
        DataError: a share would be empty, or parts uneven.
    """
    if accumulation == processes == 1:
        return [[list(range(batch_size))]]
    if batch_size < parts * accumulation * processes or batch_size % parts:
        raise DataError(
            f"a batch of {batch_size} in {parts} part{'s' * (parts > 1)} cannot be shared out to {processes} "
            f"processes and {accumulation} micro-batches"
        )
    sets = np.arange(batch_size).reshape(parts, -1)
    micro_batches = np.array_split(sets, accumulation, axis=1)
    return [
        [share.ravel().tolist() for share in np.array_split(micro_batch, processes, axis=1)]
        for micro_batch in micro_batches
    ]


def training_batches(
    dataset: Dataset,
    seed: int,
    first_step: int,
    last_step: int,
    batch_size: int,
    places: Sequence[int],
    num_workers: int = 0,
) -> Iterator[dict[str, Tensor]]:
    """The batches of steps first_step to last_step (not included).

    Args:
        batch_size: global: step t covers positions t * batch_size and on.
        places: which of a batch's places this process reads.

    Yields:
        `{"a": (len(places), C, size, size), "b": ...}`, values in [-1, 1].
    """
    loader: DataLoader[dict[str, Tensor]]
    if isinstance(dataset, Streamed):
        num_workers = min(num_workers, len(places))
        source = _Streams(dataset, seed, first_step, last_step, batch_size, places)
        loader = DataLoader(
            source, None, num_workers=num_workers, worker_init_fn=_leave_signals_to_the_main_process
        )
        parts = _plainly(loader)  # of each batch one from each worker, in turn
        for step_parts in zip(*[parts] * max(1, num_workers), strict=True):
            yield {d: torch.cat([part[d] for part in step_parts]) for d in "ab"}
        return
    steps = ([t * batch_size + place for place in places] for t in range(first_step, last_step))
    loader = DataLoader(
        _Positions(dataset, seed),
        batch_sampler=steps,
        num_workers=num_workers,
        worker_init_fn=_leave_signals_to_the_main_process,
    )
    yield from _plainly(loader)


def _plainly(loader: Iterable[T]) -> Iterator[T]:
    """What a loader yields; a worker's error without the traceback that torch puts into its message."""
    try:
        yield from loader
    except DataError as error:
        message = str(error).rpartition(f"{DataError.__name__}: ")[2].strip()
        raise DataError(message) from error


class _Streams(IterableDataset[dict[str, Tensor]]):
    """The images of some places in each batch; a worker's are its part of these places."""

    def __init__(
        self, dataset: Streamed, seed: int, first: int, last: int, batch_size: int, places: Sequence[int]
    ) -> None:
        self.dataset = dataset
        self.seed = seed
        self.first, self.last = first, last
        self.batch_size = batch_size
        self.places = places

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker else (0, 1)
        mine = np.array_split(np.asarray(self.places), count)[number].tolist()
        streams = [self.dataset.stream(self.seed, place, self.batch_size, self.first) for place in mine]
        for _ in range(self.first, self.last):
            images = [next(stream) for stream in streams]
            yield {d: torch.stack([both[d] for both in images]) for d in "ab"}


def _leave_signals_to_the_main_process(worker: int) -> None:
    """Ctrl-C, and torchrun's SIGTERM, go to the whole group: workers must stay until all is saved.

    They do not ignore SIGTERM, by which they are ended.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        os.setpgrp()

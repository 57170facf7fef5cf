"""FID and KID, against their definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.linalg
import torch
from safetensors.torch import load_file
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchvision.models import alexnet, vgg16

from i2ikit.errors import DataError, WeightsError
from i2ikit.metrics import fidelity
from i2ikit.metrics.fidelity import FID, KID
from i2ikit.metrics.subject import Subject
from i2ikit.pretrained.weights import INCEPTION
from tests.metrics.stand_ins import FourFeatures


@pytest.fixture
def small_network(monkeypatch: pytest.MonkeyPatch, tmp_path) -> str:
    """Four features instead of Inception's; the file that the metric then asks for."""
    monkeypatch.setattr(fidelity, "_inception", lambda weights, device: FourFeatures())
    file = tmp_path / "any.pth"
    torch.save({"weight": torch.zeros(1)}, file)
    return str(file)


@torch.no_grad()
def sets(subject, num_styles: int) -> list[np.ndarray]:
    """Features of the painter's translations, and of the real greys."""
    made = torch.cat([subject.case(index, num_styles).outputs for index in subject.inputs(100)])
    real = torch.stack([subject.target(index) for index in subject.targets(100)])
    pixels = [((x + 1) * 127.5).round().to(torch.uint8) for x in (made, real)]
    return [FourFeatures()(x)[0].double().numpy() for x in pixels]


@torch.no_grad()
def test_fid_equals_its_definition(outlines, subject, small_network) -> None:
    found = FID(num_styles=5, weights=small_network).measure(subject(outlines))
    made, real = sets(subject(outlines), 5)
    # (AB)^(1/2) has the trace of (A^(1/2) B A^(1/2))^(1/2), whose arguments are symmetric.
    half = scipy.linalg.sqrtm(np.cov(made.T)).real
    root = np.sqrt(np.linalg.eigvalsh(half @ np.cov(real.T) @ half).clip(0))
    expected = ((made.mean(0) - real.mean(0)) ** 2).sum() - 2 * root.sum()
    expected += np.trace(np.cov(made.T)) + np.trace(np.cov(real.T))
    assert expected > 0.01
    assert found.values["fid"] == pytest.approx(expected, rel=1e-3)
    assert (found.facts["num_translations"], found.facts["num_real"]) == (55, 12)
    assert "fewer than the 2048 features" in found.notes[0]


@torch.no_grad()
def test_kid_equals_its_definition(outlines, subject, small_network) -> None:
    """The mean over all subsets, of which there are twelve here."""
    metric = KID(num_subsets=3000, subset_size=11, weights=small_network)
    values = metric.measure(subject(outlines)).values
    x, real = sets(subject(outlines), 1)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def off_diagonal_mean(k: np.ndarray) -> float:
        return (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1))

    each = []
    for chosen in itertools.combinations(range(12), 11):
        y = real[list(chosen)]
        mmd = off_diagonal_mean(kernel(x, x)) + off_diagonal_mean(kernel(y, y)) - 2 * kernel(x, y).mean()
        each.append(mmd)
    assert values["kid"] == pytest.approx(np.mean(each), rel=0.05)
    assert values["kid_std"] == pytest.approx(np.std(each), rel=0.05)


def test_a_subset_is_never_larger_than_the_sets(outlines, subject, small_network) -> None:
    found = KID(subset_size=1000, num_subsets=2, weights=small_network).measure(subject(outlines))
    assert found.facts["subset_size"] == 11


@torch.no_grad()
def test_the_seed_decides_and_decides_again(outlines, subject, small_network) -> None:
    metric = KID(num_subsets=2, subset_size=5, weights=small_network)
    once, again = (metric.measure(subject(outlines)).values for _ in range(2))
    assert once == again != metric.measure(subject(outlines, seed=1)).values


@torch.no_grad()
def test_the_network_has_the_weights_that_it_was_given(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(
        "torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *a, **k: {}
    )
    monkeypatch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, tensors: None)
    network = FeatureExtractorInceptionV3("random", ["2048"])
    monkeypatch.undo()
    torch.save(network.state_dict(), tmp_path / "inception.pth")
    weights = fidelity.load_weights(INCEPTION, tmp_path / "inception.pth")
    ours = fidelity._inception(weights, torch.device("cpu")).state_dict()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in network.state_dict().items())


def test_weights_of_another_network_are_refused(tmp_path, outlines, subject) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="does not hold the weights of inception-2015-12-05"):
        FID(weights=str(tmp_path / "other.pth")).measure(subject(outlines))


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize(("name", "layers"), [("vgg16", 30), ("alexnet", 12)])
def test_with_another_network_it_is_the_same_distance_of_other_features(
    name: str, layers: int, large_outlines, subject, vgg_file, alexnet_file
) -> None:
    file = vgg_file if name == "vgg16" else alexnet_file
    metric = KID(num_subsets=3, subset_size=5, network=name, weights=file)
    found = metric.measure(subject(large_outlines))
    assert list(found.values) == ["kernel_distance", "kernel_distance_std", "kernel_distance_se"]
    assert f"{name}: not comparable with KID" in found.notes[0]
    x = torch.rand(2, 3, 36, 36) * 2 - 1
    pixels = ((x + 1) * 127.5).round().to(torch.uint8)
    network = {"vgg16": vgg16, "alexnet": alexnet}[name](weights=None).features
    network.load_state_dict({k.removeprefix("features."): v for k, v in load_file(file).items()})
    colours = (torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225]))
    mean, std = (c[:, None, None] for c in colours)
    expected = network[:layers]((pixels / 255 - mean) / std).mean((2, 3))
    torch.testing.assert_close(fidelity._deepest_means(name, file, pixels)[0], expected)


def test_the_standard_error_is_the_jackknife_of_the_distance() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 4)), rng.normal(0.5, 1, size=(7, 4))

    def distance(x: np.ndarray, y: np.ndarray) -> float:
        def mean(a: np.ndarray, b: np.ndarray, same: bool) -> float:
            pairs = [
                (a[i] @ b[j] / 4 + 1) ** 3 for i in range(len(a)) for j in range(len(b)) if i != j or not same
            ]
            return float(np.mean(pairs))

        return mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)

    variance = 0.0
    for without in (
        [distance(np.delete(x, i, 0), y) for i in range(9)],
        [distance(x, np.delete(y, i, 0)) for i in range(7)],
    ):
        n = len(without)
        variance += (n - 1) / n * ((np.array(without) - np.mean(without)) ** 2).sum()
    found = fidelity.kernel_distance_error(torch.from_numpy(x), torch.from_numpy(y))
    assert found == pytest.approx(variance**0.5, rel=1e-9)


def test_the_standard_error_is_the_spread_of_distances_of_other_samples() -> None:
    """200 pairs of samples: their distances spread as much as the mean standard error says, to a fifth."""
    torch.manual_seed(3)
    distances, errors = [], []
    for _ in range(200):
        x, y = torch.randn(60, 4).double(), torch.randn(80, 4).double() + 0.5
        kernels = [fidelity._kernel(a, b) for a, b in ((x, x), (y, y), (x, y))]
        within = [(k.sum() - k.trace()) / (len(k) * (len(k) - 1)) for k in kernels[:2]]
        distances.append(float(sum(within) - 2 * kernels[2].mean()))
        errors.append(fidelity.kernel_distance_error(x, y))
    assert np.mean(errors) == pytest.approx(np.std(distances), rel=0.2)


def test_one_translation_has_no_kernel_distance(outlines, subject, small_network, monkeypatch) -> None:
    monkeypatch.setattr(Subject, "inputs", lambda self, most: [0])
    with pytest.raises(DataError, match="only one translation"):
        KID(weights=small_network).measure(subject(outlines))

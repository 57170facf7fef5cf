"""What every registered component promises: ours, and whatever else is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from i2ikit.metrics import fidelity
from i2ikit.registry import registries
from i2ikit.testing import check_component
from tests.image_files import make_folders, side_by_side, write_tars
from tests.metrics.stand_ins import DarkOrLight, FourFeatures, saved_as_onnx

NETWORKS = ("encoders", "decoders", "norms", "discriminators")


def registered(*kinds: str) -> list[tuple[str, str]]:
    return [(kind, name) for kind in kinds for name in registries[kind].names()]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), registered(*NETWORKS))
def test_every_network_keeps_its_contract(kind: str, name: str, alexnet_file: str) -> None:
    check_component(kind, name, **({"weights": alexnet_file} if name == "projected" else {}))


@pytest.mark.parametrize("name", registries["losses"].names())
def test_every_loss_keeps_its_contract(name: str, vgg_file: str) -> None:
    check_component("losses", name, **({"weights": vgg_file} if name == "vgg-perceptual" else {}))


@pytest.mark.parametrize("options", [{}, {"norm": "none"}, {"num_downsample": 3, "norm": "bn"}], ids=str)
def test_options_do_not_break_a_contract(options: dict[str, Any]) -> None:
    check_component("encoders", "munit-content", width=4, num_residual=1, **options)


def dataset_options(name: str, folder: Path) -> list[dict[str, Any]]:
    """What our own datasets need to be told."""
    if name == "folders":
        root = str(make_folders(folder / "own"))
        return [{"root": root, "paired": paired, "size": 64} for paired in (False, True)]
    if name == "side-by-side":
        return [{"root": str(side_by_side(folder / "own")), "size": 64, "channels_a": 1}]
    if name == "shards":
        roots = [(str(write_tars(folder / str(paired), paired=paired)), paired) for paired in (False, True)]
        return [{"root": root, "paired": paired, "size": 64} for root, paired in roots]
    return [{}]


@pytest.mark.parametrize("name", registries["datasets"].names())
def test_every_dataset_keeps_its_contract(name: str, tmp_path: Path) -> None:
    for options in dataset_options(name, tmp_path):
        check_component("datasets", name, **options)


@pytest.fixture
def metric_options(
    tmp_path: Path, alexnet_file: str, vgg_file: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, dict[str, Any]]:
    """Files instead of what would have to be fetched, and four features instead of Inception's."""
    monkeypatch.setattr(fidelity, "_inception", lambda weights, device: FourFeatures())
    any_file = tmp_path / "any.pth"
    torch.save({"weight": torch.zeros(1)}, any_file)
    classifier = saved_as_onnx(DarkOrLight(), tmp_path / "classifier.onnx", 64)
    return {
        "lpips-diversity": {"weights": alexnet_file},
        "lpips-to-target": {"weights": alexnet_file},
        "fid": {"weights": str(any_file), "num_styles": 3},
        "kid": {"weights": vgg_file, "network": "vgg16"},
        "conditional-inception": {"classifier": str(classifier), "num_samples": 3},
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", registries["metrics"].names())
def test_every_metric_keeps_its_contract(name: str, metric_options: dict[str, dict[str, Any]]) -> None:
    check_component("metrics", name, **metric_options.get(name, {}))

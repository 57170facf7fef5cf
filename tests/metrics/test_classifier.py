"""Conditional inception score."""

from __future__ import annotations

import math
import pickle
import random
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from i2ikit.errors import WeightsError
from i2ikit.metrics.classifier import ConditionalInception
from tests.metrics.stand_ins import DarkOrLight, saved_as_onnx


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(saved_as_onnx(DarkOrLight(), tmp_path_factory.mktemp("onnx") / "classifier.onnx", 16))


def entropy(p: Tensor) -> Tensor:
    return -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p))


@torch.no_grad()
def test_a_certain_classifier_gives_the_entropy_of_the_kinds(outlines, subject, classifier) -> None:
    """KL(p(y|x), q) of a certain p is -log q(y): its mean is the entropy of q."""
    found = ConditionalInception(classifier=classifier, num_samples=60).measure(subject(outlines))
    inputs = subject(outlines).inputs(100)
    light = torch.stack([(subject(outlines).styles(60, n) > 0).double().mean() for n in inputs])
    assert found.values["cis"] == pytest.approx(entropy(light).mean().item(), abs=1e-6)
    assert found.values["is"] == pytest.approx(entropy(light.mean()).item(), abs=1e-6)
    assert found.values["cis"] <= found.values["is"] <= math.log(2)
    assert found.facts["classes"] == 2


@torch.no_grad()
def test_one_kind_of_translation_scores_0(outlines, subject, classifier) -> None:
    metric = ConditionalInception(classifier=classifier, num_samples=10)
    values = metric.measure(subject(outlines, deaf=True)).values
    assert values["cis"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x07" * 200, b"PK\x03\x04"])
def test_a_file_that_is_no_model_is_named(tmp_path: Path, content: bytes) -> None:
    """With what to save instead; so is a file that is not there."""
    with pytest.raises(WeightsError, match=r"no such classifier file: nowhere\.onnx"):
        ConditionalInception(classifier="nowhere.onnx")
    file = tmp_path / "other.onnx"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=r"other\.onnx is not an ONNX model .* torch\.onnx\.export"):
        ConditionalInception(classifier=str(file))


def test_each_damaged_model_is_an_error_or_works(tmp_path: Path, classifier: str) -> None:
    """Cut anywhere, or with a flipped byte: a message with the file's name, if anything."""
    whole = Path(classifier).read_bytes()
    rng = random.Random(0)
    places = rng.sample(range(len(whole)), 40)
    damaged = [whole[:place] for place in places]
    damaged += [whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :] for place in places]
    file = tmp_path / "damaged.onnx"
    refusals = []
    for content in damaged:
        file.write_bytes(content)
        try:
            ConditionalInception(classifier=str(file))._classify(torch.zeros(2, 3, 16, 16))
        except WeightsError as error:
            refusals.append(str(error))
    assert len(refusals) > 40
    assert all("damaged.onnx" in message for message in refusals)


class Canary:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["pickle", "torch", "exported"])
def test_no_file_runs_code(tmp_path: Path, kind: str) -> None:
    """Pickles, alone, in torch's files, and as the sample inputs of an exported program."""
    alive, file = tmp_path / "alive", tmp_path / "classifier.pt2"
    evil = pickle.dumps(Canary(alive))
    if kind == "pickle":
        file.write_bytes(evil)
    elif kind == "torch":
        torch.save(Canary(alive), file)
    else:
        program = torch.export.export(DarkOrLight(), (torch.zeros(2, 3, 16, 16),))
        torch.export.save(program, file)
        with zipfile.ZipFile(file) as opened:
            members = {name: opened.read(name) for name in opened.namelist()}
        with zipfile.ZipFile(file, "w") as written:
            for name, content in members.items():
                written.writestr(name, evil if "sample_inputs" in name else content)
    with pytest.raises(WeightsError, match=r"\.pt2\) are not read: they can run code"):
        ConditionalInception(classifier=str(file))
    assert not alive.exists()


@torch.no_grad()
def test_a_classifier_of_other_images_is_named(tmp_path: Path, outlines: Any, subject: Any) -> None:
    """Of another size, or with maps instead of classes."""
    file = saved_as_onnx(DarkOrLight(), tmp_path / "large.onnx", 20)
    with pytest.raises(WeightsError, match=r"does not accept images \(\d+, 3, 16, 16\)"):
        ConditionalInception(classifier=str(file)).measure(subject(outlines))
    maps = saved_as_onnx(nn.AvgPool2d(8), tmp_path / "maps.onnx", 16)
    with pytest.raises(WeightsError, match=r"should return numbers \(N, classes\) .*, got float32 \("):
        ConditionalInception(classifier=str(maps)).measure(subject(outlines))


def test_without_onnxruntime_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, classifier: str
) -> None:
    """It is an extra."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(WeightsError, match=r'pip install "i2ikit\[export\]"'):
        ConditionalInception(classifier=classifier)

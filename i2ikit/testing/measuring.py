"""Contracts of datasets and metrics, and what a metric is tried on."""

from __future__ import annotations

import itertools
import json
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from i2ikit.data.dataset import SPLITS, Dataset, Streamed
from i2ikit.draws import counted_generator
from i2ikit.metrics.subject import Measured, Metric, Subject
from i2ikit.testing.networks import require
from i2ikit.translator import ImageSpec, Phase, Translator

__all__ = ["Drawings", "Tinting", "check_dataset", "check_metric"]


class Drawings:
    """A dataset of generated pairs: black shapes on white (a), and the same in one colour (b)."""

    aligned = True
    paired = True

    def __init__(self, size: int = 64, count: int = 12) -> None:
        self.images = ImageSpec({"a": 3, "b": 3}, size)
        self.total = count

    def count(self, split: str, domain: str) -> int:
        """As many of each."""
        return self.total

    def image(self, split: str, domain: str, index: int, rng: np.random.Generator | None = None) -> Tensor:
        """(3, size, size) in [-1, 1]: a frame whose place and colour depend on the index."""
        size = self.images.size
        random = counted_generator("drawings", split, index)
        top, left = random.integers(2, size // 3, 2)
        x = torch.ones(3, size, size)
        colour = torch.from_numpy(random.uniform(-1, 1, 3)).float()[:, None, None]
        if domain == "b":
            x[:, top : size - left, left : size - top] = colour
        for row in (slice(top, top + 2), slice(size - left - 2, size - left)):
            x[:, row, left : size - top] = -1
        for column in (slice(left, left + 2), slice(size - top - 2, size - top)):
            x[:, top : size - left, column] = -1
        return x

    def name(self, split: str, domain: str, index: int) -> str:
        """Its number."""
        return str(index)


class Tinting(Translator):
    """A method that needs no training: mixes the colour that a style names into the light parts."""

    generative = ("tint",)
    adversarial = ()

    def __init__(self) -> None:
        super().__init__({"tint": nn.Linear(1, 1)}, {})

    def phases(self) -> tuple[Phase, ...]:
        """None."""
        return ()

    def translate(self, x: Tensor, style: Tensor, to: str) -> Tensor:
        """x (N, 3, H, W) with style (N, 3)."""
        colour = torch.tanh(style)[:, :, None, None]
        return torch.where(x > 0, 0.5 * x + 0.5 * colour, x)

    def encode_style(self, x: Tensor, domain: str) -> Tensor:
        """The colour of the corner: (N, 3)."""
        return torch.atanh((2 * x[:, :, 0, 0] - 1).clamp(-0.99, 0.99))

    def reconstruct(self, x: Tensor, domain: str) -> Tensor:
        """Nearly x."""
        return 0.9 * x

    def sample_style(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """(n, 3)."""
        return torch.randn(n, 3, generator=generator)


def check_dataset(make: Callable[[], Dataset]) -> None:
    """Check a dataset: counts, shapes, values, names, and augmentation that its generator decides.

    Raises:
        AssertionError: says what is wrong.
    """
    data = make()
    spec = data.images
    require(isinstance(spec, ImageSpec), f"images: should be an ImageSpec, is {type(spec).__name__}")
    require(isinstance(data.paired, bool), f"paired: should be a bool, is {data.paired!r}")
    require(isinstance(data.aligned, bool), f"aligned: should be a bool, is {data.aligned!r}")
    require(data.aligned or not data.paired, "paired, but not aligned: training pairs are pairs")
    splits = ("test",) if isinstance(data, Streamed) else SPLITS
    for split, domain in itertools.product(splits, "ab"):
        where = f"{split}, domain {domain}"
        count = operator.index(data.count(split, domain))
        require(count >= 1, f"{where}: count() is {count}; 1 or more is asked")
        for index in {0, count // 2, count - 1}:
            _check_image(data, split, domain, index, spec)
        require(data.name(split, domain, 0), f"{where}: an image has no name")
    if data.aligned:
        counts = [data.count("test", domain) for domain in "ab"]
        require(counts[0] == counts[1], f"aligned, but {counts[0]} and {counts[1]} held-out images")
    if isinstance(data, Streamed):
        _check_stream(data, spec)


def _check_image(data: Any, split: str, domain: str, index: int, spec: ImageSpec) -> None:
    where = f"{split}, domain {domain}, image {index}"
    plain = data.image(split, domain, index)
    _check_values(plain, domain, spec, where)
    require(torch.equal(plain, data.image(split, domain, index)), f"{where}: it is another one each time")
    augmented = [data.image(split, domain, index, np.random.default_rng(seed)) for seed in (1, 1)]
    _check_values(augmented[0], domain, spec, f"{where}, augmented")
    same = torch.equal(augmented[0], augmented[1])
    require(same, f"{where}: its augmentation depends on more than the generator that it is given")


def _check_values(x: Tensor, domain: str, spec: ImageSpec, where: str) -> None:
    expected = (spec.channels[domain], spec.size, spec.size)
    require(tuple(x.shape) == expected, f"{where}: shape {tuple(x.shape)}, where {expected} is expected")
    require(x.dtype == torch.float32, f"{where}: {x.dtype}, where torch.float32 is expected")
    require(x.abs().max() <= 1, f"{where}: values from {x.min():.3g} to {x.max():.3g}; [-1, 1] is asked")


def _check_stream(data: Streamed, spec: ImageSpec) -> None:
    first = list(itertools.islice(data.stream(0, 0, 2, 0), 3))
    for domain in "ab":
        _check_values(first[0][domain], domain, spec, f"stream, domain {domain}")
    later = next(iter(data.stream(0, 0, 2, 2)))
    same = all(torch.equal(first[2][domain], later[domain]) for domain in "ab")
    require(same, "stream: image 2 is another one when the stream starts there, so runs cannot resume")


def check_metric(make: Callable[[], Metric], size: int = 64) -> None:
    """Check a metric on a method and pairs that are made for it: finite, repeatable, fit for JSON.

    Raises:
        AssertionError: says what is wrong.
    """
    torch.manual_seed(0)
    metric = make()
    subject = Subject(Tinting().eval(), Drawings(size), "b", seed=0)
    with torch.no_grad():
        found, again = metric.measure(subject), metric.measure(subject)
    require(isinstance(found, Measured), f"measure() should return Measured, returns {type(found).__name__}")
    require(found.values, "measure() returns no values")
    for name, value in found.values.items():
        number = isinstance(value, int | float) and value is not True and math.isfinite(value)
        require(number, f"'{name}' is {value!r}, where a finite number is expected")
    require(found.values == again.values, "measured twice, with one seed, it gives other numbers")
    require(not subject.translator.training, "it leaves the translator in training mode")
    try:
        json.dumps(dict(found.facts), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"its facts are no JSON: {error}") from error

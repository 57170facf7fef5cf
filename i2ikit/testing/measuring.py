"""Contract checks of datasets and metrics, and the translator and dataset used to check metrics."""

from __future__ import annotations

import itertools
import json
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from i2ikit.data.dataset import SPLITS, Dataset, Filed, Split, Streamed
from i2ikit.draws import counted_generator
from i2ikit.metrics.subject import Measured, Metric, Subject, better_values
from i2ikit.testing.networks import require
from i2ikit.translator import Direction, ImageSpec, Phase, Translator

__all__ = ["Drawings", "Tinting", "check_dataset", "check_metric"]


class Drawings:
    """A dataset of generated pairs: black frames on white (a), and the same filled with one colour (b)."""

    aligned = True
    paired = True

    def __init__(self, size: int = 64, count: int = 12) -> None:
        self.images = ImageSpec({"a": 3, "b": 3}, size)
        self.total = count

    def count(self, split: str, domain: str) -> int:
        """The same number for every split and domain."""
        return self.total

    def image(self, split: str, domain: str, index: int, rng: np.random.Generator | None = None) -> Tensor:
        """(3, size, size) in [-1, 1]: a frame; its position and colour depend on the index."""
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
        """The index."""
        return str(index)


class Tinting(Translator):
    """A translator without training: blends the colour that the style encodes into light pixels."""

    generative = ("tint",)
    adversarial = ()

    def __init__(self) -> None:
        super().__init__(ImageSpec({"a": 3, "b": 3}, 64), {"tint": nn.Linear(1, 1)}, {})

    def phases(self) -> tuple[Phase, ...]:
        """There are no phases."""
        return ()

    def translate(self, x: Tensor, style: Tensor, *, source: str, to: str) -> Tensor:
        """Translate x (N, 3, H, W) with style (N, 3)."""
        colour = torch.tanh(style)[:, :, None, None]
        return torch.where(x > 0, 0.5 * x + 0.5 * colour, x)

    def encode_style(self, x: Tensor, domain: str) -> Tensor:
        """Encode the colour of the top left pixel: (N, 3)."""
        return torch.atanh((2 * x[:, :, 0, 0] - 1).clamp(-0.99, 0.99))

    def reconstruct(self, x: Tensor, domain: str) -> Tensor:
        """Return x, scaled by 0.9."""
        return 0.9 * x

    def sample_style(self, n: int, to: str, generator: torch.Generator | None = None) -> Tensor:
        """Draw n style codes (n, 3)."""
        return torch.randn(n, 3, generator=generator)


def check_dataset(make: Callable[[], Dataset]) -> None:
    """Check a dataset: counts, shapes, values, names, and augmentation that only its generator determines.

    Raises:
        AssertionError: the dataset breaks its contract.
    """
    data = make()
    spec = data.images
    require(isinstance(spec, ImageSpec), f"images: expected an ImageSpec, got {type(spec).__name__}")
    require(isinstance(data.paired, bool), f"paired: expected a bool, got {data.paired!r}")
    require(isinstance(data.aligned, bool), f"aligned: expected a bool, got {data.aligned!r}")
    require(data.aligned or not data.paired, "paired, but not aligned: paired data must be aligned")
    splits = ("test",) if isinstance(data, Streamed) else SPLITS
    for split, domain in itertools.product(splits, spec.channels):
        where = f"{split}, domain {domain}"
        count = operator.index(data.count(split, domain))
        require(count >= 1, f"{where}: count() is {count}; expected at least 1")
        for index in {0, count // 2, count - 1}:
            _check_image(data, split, domain, index, spec)
        require(data.name(split, domain, 0), f"{where}: name() is empty for image 0")
        if isinstance(data, Filed):
            _check_files(data, split, domain, count)
    if data.aligned:
        counts = [data.count("test", domain) for domain in spec.channels]
        numbers = " and ".join(map(str, counts))
        require(len(set(counts)) == 1, f"aligned, but with {numbers} held-out images")
    if isinstance(data, Streamed):
        _check_stream(data, spec)


def _check_files(data: Filed, split: Split, domain: str, count: int) -> None:
    where = f"{split}, domain {domain}"
    files = data.files(split, domain)
    require(len(files) == count, f"{where}: files() has {len(files)} files, but count() is {count}")
    data.inspect(split, domain, count - 1)


def _check_image(data: Any, split: str, domain: str, index: int, spec: ImageSpec) -> None:
    where = f"{split}, domain {domain}, image {index}"
    plain = data.image(split, domain, index)
    _check_values(plain, domain, spec, where)
    require(torch.equal(plain, data.image(split, domain, index)), f"{where}: differs from call to call")
    augmented = [data.image(split, domain, index, np.random.default_rng(seed)) for seed in (1, 1)]
    _check_values(augmented[0], domain, spec, f"{where}, augmented")
    same = torch.equal(augmented[0], augmented[1])
    require(same, f"{where}: its augmentation depends on more than the given generator")


def _check_values(x: Tensor, domain: str, spec: ImageSpec, where: str) -> None:
    expected = (spec.channels[domain], spec.size, spec.size)
    require(tuple(x.shape) == expected, f"{where}: expected shape {expected}, got {tuple(x.shape)}")
    require(x.dtype == torch.float32, f"{where}: expected torch.float32, got {x.dtype}")
    require(x.abs().max() <= 1, f"{where}: values from {x.min():.3g} to {x.max():.3g}; expected [-1, 1]")


def _check_stream(data: Streamed, spec: ImageSpec) -> None:
    first = list(itertools.islice(data.stream(0, 0, 2, 0), 3))
    for domain in spec.channels:
        _check_values(first[0][domain], domain, spec, f"stream, domain {domain}")
    later = next(iter(data.stream(0, 0, 2, 2)))
    same = all(torch.equal(first[2][domain], later[domain]) for domain in spec.channels)
    require(same, "stream: image 2 differs when the stream starts there, so runs cannot resume")


def check_metric(make: Callable[[], Metric], size: int = 64) -> None:
    """Check a metric on a toy translator and dataset: its values are finite, repeatable and valid JSON.

    Raises:
        AssertionError: the metric breaks its contract.
    """
    torch.manual_seed(0)
    metric = make()
    subject = Subject(Tinting().eval(), Drawings(size), Direction("a", "b"), seed=0)
    with torch.no_grad():
        found, again = metric.measure(subject), metric.measure(subject)
    require(isinstance(found, Measured), f"measure(): expected a Measured, got {type(found).__name__}")
    require(found.values, "measure() returns no values")
    for name, value in found.values.items():
        number = isinstance(value, int | float) and value is not True and math.isfinite(value)
        require(number, f"'{name}' is {value!r}; expected a finite number")
    require(found.values == again.values, "two measurements with the same seed give different numbers")
    _check_better(better_values(type(metric)), found.values)
    require(not subject.translator.training, "measure() leaves the translator in training mode")
    try:
        json.dumps(dict(found.facts), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"its facts cannot be written as JSON: {error}") from error


def _check_better(declared: object, values: Mapping[str, float]) -> None:
    """Check `higher_is_better`; names that only other options return are allowed, but not alone."""
    name = "higher_is_better"
    require(isinstance(declared, Mapping), f"{name} should be a mapping of value names, got {declared!r}")
    judged: Mapping[Any, Any] = declared if isinstance(declared, Mapping) else {}
    for key, higher in judged.items():
        require(isinstance(higher, bool), f"{name}['{key}'] should be True or False, got {higher!r}")
    names, known = ", ".join(map(str, judged)), ", ".join(values)
    require(
        not judged or not judged.keys().isdisjoint(values),
        f"{name} names {names}; expected values that measure() returns: {known}",
    )

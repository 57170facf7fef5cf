"""What a method is: networks by role, phases that return named losses, and inference.

A method (MUNIT, BicycleGAN, yours) subclasses `Translator`. The training loop knows nothing else:
it runs each `Phase` in order, weighs the losses, and steps the networks that the phase trains.
"""

from __future__ import annotations

import contextlib
import functools
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from i2ikit.errors import RunError, TrainingError
from i2ikit.registry import Slot, built_from
from i2ikit.sizes import SizeRequirement, own_requirement

__all__ = [
    "TRANSLATOR_SLOT",
    "Batch",
    "Draws",
    "Handed",
    "ImageSpec",
    "Losses",
    "Phase",
    "PhaseFunction",
    "Reconstructing",
    "StyleEncoding",
    "Translator",
    "chosen_target",
    "direction",
    "frozen",
    "other",
    "weighted_total",
]

Batch = Mapping[str, Tensor]
"""Images of one step by domain: `{"a": (N, C, H, W), "b": ...}`, values in [-1, 1]."""

Draws = Mapping[str, Tensor]
"""Random draws of one phase by name: standard normal, (N, *shape)."""

Handed = Mapping[str, Tensor]
"""Detached tensors that earlier phases of the same step handed on, by name."""

Losses = Mapping[str, Tensor]
"""Unweighted scalar losses by `name` or `name/part`."""

PhaseFunction = Callable[[Batch, Draws, Handed], tuple[Losses, Handed]]
"""Losses of one phase, and what it hands on; a function of its arguments and the parameters only."""


@dataclass(frozen=True)
class ImageSpec:
    """What the images of a run look like.

    Args:
        channels: by domain, 1 or 3.
        size: side in pixels that the networks are trained at.
    """

    channels: Mapping[str, int]
    size: int


@dataclass(frozen=True)
class Phase:
    """One part of a training step: some losses, and the networks that they move.

    Args:
        name: key of its losses in weights and logs.
        losses: the function; it is called once per micro-batch, in each process with its share. Every
            loss is a mean over samples, so that the mean of shares is that of the whole.
        trains: the networks whose optimizers step afterwards; all others are frozen meanwhile.
        draws: standard normal draws that it needs, as shape per sample.
        every: run it at every n-th step only.
    """

    name: str
    losses: PhaseFunction
    trains: tuple[nn.Module, ...]
    draws: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    every: int = 1


class Translator(nn.Module, ABC):
    """A method: build the networks, name the phases, and translate.

    One that can follow an exemplar is also `StyleEncoding`, one that can take an image apart and
    put it together again `Reconstructing`: by having the method, nothing else.

    The constructor takes the wired parameter `images: ImageSpec`, then the recipe's options, among
    them `weights: LossWeights = ...` whose default names every loss. It passes the networks on:
    `super().__init__(networks, weights)`.

    Args:
        networks: one module for each role; each gets one optimizer, `[optimizer.<role>]`.
        weights: one weight per loss name, by phase.
    """

    generative: ClassVar[tuple[str, ...]]
    """Roles that inference needs; they have an EMA copy and are saved in weights.safetensors."""

    adversarial: ClassVar[tuple[str, ...]]
    """Roles that only training needs."""

    batch_parts: ClassVar[int] = 1
    """Parts of a batch, one after the other, that play different roles; a batch is then shared out to
    processes so that each gets as much of every part."""

    targets: tuple[str, ...] = ("b", "a")
    """Domains that it translates into, the usual one first; a method of one direction sets its own."""

    def __init__(self, networks: Mapping[str, nn.Module], weights: Mapping[str, Mapping[str, float]]) -> None:
        super().__init__()
        if set(networks) != {*self.generative, *self.adversarial}:
            raise TypeError(
                f"{type(self).__name__}: networks {sorted(networks)} are not those it declares: "
                f"{sorted((*self.generative, *self.adversarial))}"
            )
        self.networks = nn.ModuleDict(networks)
        self.weights = weights
        self._size_requirements = {role: _requirement_of(network) for role, network in networks.items()}

    @abstractmethod
    def phases(self) -> tuple[Phase, ...]:
        """The phases of one training step, in order."""

    @abstractmethod
    def translate(self, x: Tensor, style: Tensor, to: str) -> Tensor:
        """Images of the other domain, translated into domain `to`.

        Shapes: x (N, C, H, W) of any side, style (N, style_dim) -> (N, C of `to`, H, W)
        Values: [-1, 1] in and out.
        """

    @abstractmethod
    def sample_style(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n random codes, (n, style_dim), on the CPU: all that differs between translations."""

    def weight(self, phase: str, name: str) -> float:
        """Weight of a loss; a phase function skips the losses of weight 0."""
        return self.weights[phase][name]

    def size_required_by(self, *roles: str) -> SizeRequirement:
        """What the components of these networks, or of all generative ones, need of an image's sides.

        `translate` pads by it, so that images of any size can be translated.
        """
        needs = (self._size_requirements[role] for role in roles or self.generative)
        return functools.reduce(operator.and_, needs, SizeRequirement())


def _requirement_of(network: nn.Module) -> SizeRequirement:
    specs = filter(None, map(built_from, network.modules()))
    return functools.reduce(operator.and_, map(own_requirement, specs), SizeRequirement())


TRANSLATOR_SLOT = Slot("translators", ("images",), like=Translator)
"""The place of a recipe's [translator]."""


@runtime_checkable
class StyleEncoding(Protocol):
    """A method that hears the style of an image, so that translations can follow an exemplar."""

    def encode_style(self, x: Tensor, domain: str) -> Tensor:
        """Style codes of images of `domain`, one of its targets: (N, C, H, W) -> (N, style_dim)."""
        ...


@runtime_checkable
class Reconstructing(Protocol):
    """A method that makes an image again from its own codes."""

    def reconstruct(self, x: Tensor, domain: str) -> Tensor:
        """Images of `domain` from their own codes: (N, C, H, W) -> same."""
        ...


def chosen_target(translator: Translator, to: str | None) -> str:
    """The domain to translate into: `to`, or the method's first one.

    Raises:
        RunError: the method does not translate into `to`.
    """
    if to is not None and to not in translator.targets:
        raise RunError(f"this run translates into domain {' and '.join(translator.targets)} only, not {to}")
    return to or translator.targets[0]


def other(domain: str) -> str:
    """The domain that `domain` is not."""
    return "a" if domain == "b" else "b"


def direction(to: str) -> str:
    """What a translation into domain `to` is called: a2b or b2a."""
    return f"{other(to)}2{to}"


def weighted_total(losses: Losses, weights: Mapping[str, float]) -> Tensor:
    """SUM of weight * loss; `name/part` has the weight of `name`.

    Raises:
        TrainingError: a loss without a weight, or a weight (other than 0) without a loss.
    """
    names = {key.partition("/")[0] for key in losses}
    wanted = {name for name, weight in weights.items() if weight != 0}
    if names != wanted:
        raise TrainingError(
            f"losses {sorted(names - wanted)} have no weight and "
            f"weights {sorted(wanted - names)} have no loss: names must be on both sides"
        )
    return torch.stack([weights[key.partition("/")[0]] * loss for key, loss in losses.items()]).sum()


@contextlib.contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Within: the modules' parameters get no gradient, though gradients flow through them."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)

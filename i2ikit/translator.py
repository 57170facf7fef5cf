"""The translator interface: networks by role, phases that return named losses, and inference.

A translator (MUNIT, BicycleGAN, yours) subclasses `Translator`. The training loop knows no other
interface: it runs each `Phase` in order, weights the losses, and steps the optimizers of the networks
that the phase trains.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2ikit.checking import own_requirement
from i2ikit.errors import RunError, TrainingError
from i2ikit.registry import Slot, built_from
from i2ikit.sizes import SizeRequirement

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
    "at_any_size",
    "chosen_target",
    "direction",
    "frozen",
    "other",
    "padded",
    "weighted_total",
]

Batch = Mapping[str, Tensor]
"""The images of one step by domain: `{"a": (N, C, H, W), "b": ...}`, values in [-1, 1]."""

Draws = Mapping[str, Tensor]
"""The noise of one phase by name: standard normal, (N, *shape)."""

Handed = Mapping[str, Tensor]
"""Detached tensors returned by earlier phases of the same step, by name."""

Losses = Mapping[str, Tensor]
"""Unweighted scalar losses by `name` or `name/part`."""

PhaseFunction = Callable[[Batch, Draws, Handed], tuple[Losses, Handed]]
"""Returns the losses of one phase and the tensors for later phases; depends on its arguments and the
network parameters only."""


@dataclass(frozen=True)
class ImageSpec:
    """Channels and size of the images of a run.

    Args:
        channels: 1 or 3, by domain.
        size: side length in pixels of the training images.
    """

    channels: Mapping[str, int]
    size: int


@dataclass(frozen=True)
class Phase:
    """One part of a training step: some losses, and the networks that they update.

    Args:
        name: key of its losses in weights and logs.
        losses: computes the losses; each process calls it once per micro-batch, with its share. Every
            loss must be a mean over samples, so that the weighted mean over shares is the batch mean.
        trains: networks whose optimizers step afterwards; all other networks are frozen during the phase.
        draws: shape per sample of each standard normal tensor that it needs, by name.
        every: run the phase at every n-th step only.
    """

    name: str
    losses: PhaseFunction
    trains: tuple[nn.Module, ...]
    draws: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    every: int = 1


class Translator(nn.Module, ABC):
    """Base class of translators: builds the networks, defines the phases, and translates.

    Optional protocols, matched structurally: define `encode_style` for `StyleEncoding` (translations
    that follow an exemplar), `reconstruct` for `Reconstructing`.

    The constructor takes the wired parameter `images: ImageSpec`, then the recipe's options. One of
    them is `weights: LossWeights = ...`; its default names every loss. The constructor must call
    `super().__init__(networks, weights)`.

    Args:
        networks: one module for each role; each gets its own optimizer, `[optimizer.<role>]`.
        weights: one weight per loss name, by phase.
    """

    generative: ClassVar[tuple[str, ...]]
    """Roles needed for inference; they have an EMA copy and are saved in weights.safetensors."""

    adversarial: ClassVar[tuple[str, ...]]
    """Roles needed only for training."""

    batch_parts: ClassVar[int] = 1
    """Number of consecutive parts of a batch that are used differently; each process's share then
    takes equally from every part."""

    targets: tuple[str, ...] = ("b", "a")
    """Target domains, the default first; a translator of one direction overrides this."""

    def __init__(self, networks: Mapping[str, nn.Module], weights: Mapping[str, Mapping[str, float]]) -> None:
        super().__init__()
        if set(networks) != {*self.generative, *self.adversarial}:
            raise TypeError(
                f"{type(self).__name__}: got networks {sorted(networks)}, but the class declares "
                f"{sorted((*self.generative, *self.adversarial))}; make them match"
            )
        self.networks = nn.ModuleDict(networks)
        self.weights = _with_default_weights(type(self), weights)
        self._size_requirements = {role: _requirement_of(network) for role, network in networks.items()}

    @abstractmethod
    def phases(self) -> tuple[Phase, ...]:
        """The phases of one training step, in order."""

    @abstractmethod
    def translate(self, x: Tensor, style: Tensor, to: str) -> Tensor:
        """Translate images of the other domain into domain `to`.

        Shapes: x (N, C, H, W) of any side, style (N, style_dim) -> (N, C of `to`, H, W)
        Values: [-1, 1] in and out.
        """

    @abstractmethod
    def sample_style(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n random codes, (n, style_dim), on the CPU; translations of one image differ only by them."""

    def weight(self, phase: str, name: str) -> float:
        """Weight of a loss; phase functions must skip losses of weight 0."""
        return self.weights[phase][name]

    def size_required_by(self, *roles: str) -> SizeRequirement:
        """Image sizes accepted by the components of these networks (by default all generative ones).

        `translate` pads images to such a size, so that images of any size can be translated.
        """
        needs = (self._size_requirements[role] for role in roles or self.generative)
        return functools.reduce(operator.and_, needs, SizeRequirement())


def _with_default_weights(
    translator_class: type[Translator], weights: Mapping[str, Mapping[str, float]]
) -> Mapping[str, Mapping[str, float]]:
    """`weights`, completed by those of the constructor's default, so that callers name only what differs."""
    parameter = inspect.signature(translator_class).parameters.get("weights")
    default = parameter.default if parameter and isinstance(parameter.default, Mapping) else {}
    phases = {**default, **weights}
    return {phase: {**default.get(phase, {}), **weights.get(phase, {})} for phase in phases}


def _requirement_of(network: nn.Module) -> SizeRequirement:
    specs = filter(None, map(built_from, network.modules()))
    return functools.reduce(operator.and_, map(own_requirement, specs), SizeRequirement())


TRANSLATOR_SLOT = Slot("translators", ("images",), like=Translator)
"""The slot of a recipe's [translator]."""


@runtime_checkable
class StyleEncoding(Protocol):
    """A translator that can encode the style of an image, so that translations can follow an exemplar."""

    def encode_style(self, x: Tensor, domain: str) -> Tensor:
        """Style codes of images of `domain`, one of its targets: (N, C, H, W) -> (N, style_dim)."""
        ...


@runtime_checkable
class Reconstructing(Protocol):
    """A translator that can reconstruct an image from its own codes."""

    def reconstruct(self, x: Tensor, domain: str) -> Tensor:
        """Reconstruct images of `domain` from their own codes: (N, C, H, W) -> same."""
        ...


def padded(x: Tensor, sides: SizeRequirement) -> Tensor:
    """x (N, C, H, W) enlarged to accepted sides by repeating its right and lower edge."""
    height, width = x.shape[2:]
    more = sides.enlarged(width) - width, sides.enlarged(height) - height
    return F.pad(x, (0, more[0], 0, more[1]), mode="replicate") if any(more) else x


def at_any_size(network: Callable[[Tensor], Tensor], x: Tensor, sides: SizeRequirement) -> Tensor:
    """`network(x)` for x (N, C, H, W) of any size: x is padded and the output is cropped to the size of x."""
    return network(padded(x, sides))[:, :, : x.shape[2], : x.shape[3]]


def chosen_target(translator: Translator, to: str | None) -> str:
    """The domain to translate into: `to`, or the translator's default one.

    Raises:
        RunError: the translator does not translate into `to`.
    """
    if to is not None and to not in translator.targets:
        raise RunError(f"this run translates into domain {' and '.join(translator.targets)} only, not {to}")
    return to or translator.targets[0]


def other(domain: str) -> str:
    """The other one of the two domains."""
    return "a" if domain == "b" else "b"


def direction(to: str) -> str:
    """Name of the direction of translation into domain `to`: a2b or b2a."""
    return f"{other(to)}2{to}"


def weighted_total(losses: Losses, weights: Mapping[str, float]) -> Tensor:
    """SUM of weight * loss; a loss `name/part` has the weight of `name`.

    Raises:
        TrainingError: a loss without a weight, or a weight (other than 0) without a loss.
    """
    names = {key.partition("/")[0] for key in losses}
    wanted = {name for name, weight in weights.items() if weight != 0}
    if names != wanted:
        raise TrainingError(
            f"losses {sorted(names - wanted)} have no weight and "
            f"weights {sorted(wanted - names)} have no loss: use the same names for both"
        )
    return torch.stack([weights[key.partition("/")[0]] * loss for key, loss in losses.items()]).sum()


@contextlib.contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Within the context, the modules' parameters get no gradients; gradients still flow through them."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)

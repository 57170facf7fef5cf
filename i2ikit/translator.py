"""The translator interface: networks by role, phases that return named losses, and inference.

A translator (MUNIT, BicycleGAN, yours) subclasses `Translator`. The training loop knows no other
interface: it runs each `Phase` in order, weights the losses, and steps the optimizers of the networks
that the phase trains.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2ikit.checking import own_requirement
from i2ikit.draws import Draw
from i2ikit.errors import DataError, RunError
from i2ikit.loss_weights import Weight, Weights, weights_at
from i2ikit.registry import Slot, built_from
from i2ikit.sizes import SizeRequirement

__all__ = [
    "TRANSLATOR_SLOT",
    "Direction",
    "Drawing",
    "Given",
    "ImageSpec",
    "Kept",
    "Phase",
    "PhaseFunction",
    "Reconstructing",
    "Result",
    "StyleEncoding",
    "Tensors",
    "Translator",
    "at_any_size",
    "chosen_direction",
    "draws_of",
    "few_at_once",
    "frozen",
    "one_per_target",
    "padded",
    "repeated",
]

Tensors = Mapping[str, Tensor]
"""Tensors by name."""

PIXELS_AT_ONCE = 2**20
PIXELS_AT_ONCE_ON_CPU = 2**16
"""One translation of 256 x 256 pixels: on CPUs, larger feature maps leave the caches, and take longer."""

LONGEST_NAME = 64
"""Characters of a domain: files are named after two of them, and a name has 255 bytes at most."""


@dataclass(frozen=True)
class ImageSpec:
    """The domains of a run, and the channels and size of their images.

    Args:
        channels: number of channels by domain, in the order in which domains are shown; names consist of
            letters, digits, `-` and `_`, 64 at most.
        size: side length in pixels of the training images.

    Raises:
        DataError: fewer than two domains, a name that cannot be used, or a number of channels below 1.
    """

    channels: Mapping[str, int]
    size: int

    def __post_init__(self) -> None:
        if len(self.channels) < 2:
            raise DataError(f"two or more domains are needed, got {', '.join(self.channels) or 'none'}")
        networks = nn.ModuleDict()  # often holds networks by domain, and refuses its own attributes
        for domain, number in self.channels.items():
            if not re.fullmatch(r"[\w-]+", domain, re.ASCII) or hasattr(networks, domain):
                raise DataError(
                    f"'{domain}' cannot name a domain; use letters, digits, - and _, and no name that "
                    "torch reserves, such as 'train' or 'keys'"
                )
            if len(domain) > LONGEST_NAME:
                raise DataError(
                    f"'{domain}' cannot name a domain; {len(domain)} characters are more than the limit of "
                    f"{LONGEST_NAME}"
                )
            if number < 1:
                raise DataError(f"domain {domain} has {number} channels; 1 or more are needed")


class Direction(NamedTuple):
    """A direction of translation: from the domain `source` into the domain `to`."""

    source: str
    to: str

    def __str__(self) -> str:
        short = len(self.source) == len(self.to) == 1
        return f"{self.source}2{self.to}" if short else f"{self.source}-to-{self.to}"


@dataclass(frozen=True)
class Given:
    """The input of a phase: its share of one micro-batch, N images of each domain.

    Args:
        images: by domain, (N, C, H, W) in [-1, 1].
        draws: the draws that the phase declares, by name: (N, *shape).
        handed: detached tensors that earlier phases of the same step returned, by name.
        kept: the tensors that the phase keeps, as it returned them at the previous step: (N, *shape).
        weights: the weights of its losses at this step; the phase skips losses of weight 0.
        step: number of this step, from 0.
        steps: number of all steps.
    """

    images: Tensors
    draws: Tensors = field(default_factory=dict)
    handed: Tensors = field(default_factory=dict)
    kept: Tensors = field(default_factory=dict)
    weights: Weights = field(default_factory=lambda: Weights({}))
    step: int = 0
    steps: int = 1

    def drawing(self, call: str, network: nn.Module, part: slice = slice(None)) -> Callable[..., Any]:
        """The network, with the draws of this call if it draws (see `draws_of`).

        Args:
            part: the images of the share that it is called with.
        """
        prefix = f"{call}/"
        own = {
            name.removeprefix(prefix): x[part] for name, x in self.draws.items() if name.startswith(prefix)
        }
        return functools.partial(network, draws=own) if own else network


@dataclass(frozen=True)
class Result:
    """The output of a phase.

    Args:
        losses: unweighted scalars by `name` or `name/part`; each is a mean over samples, so that the mean
            over shares, weighted by their sizes, is the mean over the batch.
        handed: detached tensors for later phases of the same step, by name.
        kept: new values of everything that the phase keeps, detached, (N, *shape).
        notes: scalars to log, not weighted, such as the mean score of real images; means over samples.
    """

    losses: Tensors
    handed: Tensors = field(default_factory=dict)
    kept: Tensors = field(default_factory=dict)
    notes: Tensors = field(default_factory=dict)


PhaseFunction = Callable[[Given], Result]
"""Computes the losses of one phase; depends on its argument and the networks only."""


@dataclass(frozen=True)
class Kept:
    """A tensor that a phase keeps from step to step, one for each place in the batch.

    It is saved with checkpoints, divided among the processes by place, and restored when an update is
    skipped. A tensor belongs to a place, not to a process, so that the number of processes changes nothing.

    Args:
        shape: shape for one place.
        start: value of every element before the first step.
        divided: the first number of `shape` is for the whole batch; each place keeps its share, rounded up.
    """

    shape: tuple[int, ...] = ()
    dtype: torch.dtype = torch.float32
    start: float = 0.0
    divided: bool = False

    def at_start(self, places: int, batch_size: int, device: torch.device | None = None) -> Tensor:
        """The tensor before the first step, (places, *shape), for some places of a batch."""
        first = [-(-self.shape[0] // max(1, batch_size))] if self.divided else self.shape[:1]
        shape = (places, *first, *self.shape[1:])
        return torch.full(shape, self.start, dtype=self.dtype, device=device)


@dataclass(frozen=True)
class Phase:
    """One part of a training step: some losses, and the networks that they update.

    Args:
        name: key of its losses in weights and logs.
        losses: computes the losses; each process calls it once per micro-batch, with its share.
        trains: roles of the networks whose optimizers step afterwards; all others are frozen in the phase.
        draws: the random tensors that it needs, by name.
        keeps: the tensors that it keeps from step to step, by name; it returns all of them every time.
    """

    name: str
    losses: PhaseFunction
    trains: tuple[str, ...]
    draws: Mapping[str, Draw] = field(default_factory=dict)
    keeps: Mapping[str, Kept] = field(default_factory=dict)


@runtime_checkable
class Drawing(Protocol):
    """A component that needs random numbers in training.

    It takes them as a keyword of forward, `draws`, by name, and does without them in eval mode.
    """

    def draws(self, size: int) -> Mapping[str, Draw]:
        """What one call needs for images of `size` x `size` px, by name; empty if nothing."""
        ...


def draws_of(size: int, networks: Mapping[str, nn.Module], *calls: str) -> dict[str, Draw]:
    """The draws that networks need in a phase, for `Phase.draws`: one set for each call of each network.

    `given.drawing("KEY/CALL", network)` passes the set of a call. Networks that draw nothing are left out.

    Args:
        size: side of the images in pixels.
        networks: by any key, such as the domain.
        calls: a name for each call of each network in the phase, such as "fake" and "real".
    """
    return {
        f"{key}/{call}/{name}": draw
        for key, network in networks.items()
        if isinstance(network, Drawing)
        for call in calls
        for name, draw in network.draws(size).items()
    }


class Translator(nn.Module, ABC):
    """Base class of translators: builds the networks, defines the phases, and translates.

    Optional protocols, matched structurally: define `encode_style` for `StyleEncoding` (translations
    that follow an exemplar), `reconstruct` for `Reconstructing`.

    The constructor takes the wired parameter `images: ImageSpec`, then the recipe's options. One of
    them is `weights: LossWeights = ...`; its default names every loss. The constructor must call
    `super().__init__(images, networks, weights)`.

    Args:
        images: channels and size of the images.
        networks: one module for each role. Each has its own optimizer, `[optimizer.<role>]`, unless none of
            its parameters is trained; such a network needs no phase.
        weights: one weight per loss name, by phase; those that are missing have their default.
    """

    generative: ClassVar[tuple[str, ...]]
    """Roles needed for inference; they have an EMA copy and are saved in weights.safetensors."""

    adversarial: ClassVar[tuple[str, ...]]
    """Roles needed only for training."""

    batch_parts: ClassVar[int] = 1
    """Number of consecutive parts of a batch that are used differently; each process's share then
    takes equally from every part."""

    num_domains: ClassVar[int | None] = 2
    """Number of domains that the translator needs; None for any number from two."""

    optimizer_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Tables by role, which change a recipe's [optimizer]; its [optimizer.<role>] changes them."""

    directions: tuple[Direction, ...]
    """Directions of translation, the default one first; all pairs of domains, unless a subclass sets it."""

    def __init__(
        self,
        images: ImageSpec,
        networks: Mapping[str, nn.Module],
        weights: Mapping[str, Mapping[str, Weight]],
    ) -> None:
        super().__init__()
        self.images = images
        self.domains = tuple(images.channels)
        self.directions = tuple(Direction(*pair) for pair in itertools.permutations(self.domains, 2))
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
    def translate(self, x: Tensor, style: Tensor, *, source: str, to: str) -> Tensor:
        """Translate images of domain `source` into domain `to`, one of its `directions`.

        Shapes: x (N, C of `source`, H, W) of any side, style (N, style_dim) -> (N, C of `to`, H, W)
        Values: [-1, 1] in and out.
        """

    def translate_with_each(self, x: Tensor, styles: Tensor, *, source: str, to: str) -> Tensor:
        """Translate one image with each of several styles, as `translate` does with copies of the image.

        A translator that encodes the image apart from the style may do it once here. It decodes
        `few_at_once`, because K may be large.

        Shapes: x (1, C of `source`, H, W) of any side, styles (K, style_dim) -> (K, C of `to`, H, W)
        """

        def translated(part: Tensor) -> Tensor:
            return self.translate(repeated(x, part), part, source=source, to=to)

        return few_at_once(translated, styles, x)

    def sample_style(self, n: int, to: str, generator: torch.Generator | None = None) -> Tensor:
        """n random codes for translations into `to`, (n, style_dim), on the CPU.

        Translations of one image differ only by them. Here style_dim is 0: the translator is deterministic.
        """
        return torch.empty(n, 0)

    def is_deterministic(self, to: str) -> bool:
        """Whether an image has only one translation into `to`, because style codes have length 0."""
        return self.style_length(to) == 0

    def style_length(self, to: str) -> int:
        """The length of style codes of translations into `to`."""
        return self.sample_style(1, to, torch.Generator()).shape[1]

    def weights_at(self, phase: str, step: int, steps: int) -> Weights:
        """The weights of a phase at step `step` (from 0) of `steps`; its own are `given.weights`."""
        return weights_at(self.weights[phase], step, steps)

    def size_required_by(self, *roles: str) -> SizeRequirement:
        """Image sizes accepted by the components of these networks (by default all generative ones).

        `translate` pads images to such a size, so that images of any size can be translated.
        """
        needs = (self._size_requirements[role] for role in roles or self.generative)
        return functools.reduce(operator.and_, needs, SizeRequirement())


def _with_default_weights(
    translator_class: type[Translator], weights: Mapping[str, Mapping[str, Weight]]
) -> Mapping[str, Mapping[str, Weight]]:
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
        """Style codes of images of `domain`, into which it translates: (N, C, H, W) -> (N, style_dim)."""
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
    if torch.compiler.is_exporting():
        return _resized(x, sides.enlarged(height), sides.enlarged(width))
    more = sides.enlarged(width) - width, sides.enlarged(height) - height
    return F.pad(x, (0, more[0], 0, more[1]), mode="replicate") if any(more) else x


def at_any_size(network: Callable[[Tensor], Tensor], x: Tensor, sides: SizeRequirement) -> Tensor:
    """`network(x)` for x (N, C, H, W) of any size: x is padded and the output is cropped to the size of x."""
    height, width = x.shape[2:]
    y = network(padded(x, sides))
    return _resized(y, height, width) if torch.compiler.is_exporting() else y[:, :, :height, :width]


def _resized(x: Tensor, height: int, width: int) -> Tensor:
    """x (N, C, H, W) cropped, or enlarged by repeating its right and lower edge, in exported programs.

    They are for any sides, so they cannot depend on whether there is something to pad or to crop.
    """
    rows, columns = (
        torch.arange(new, device=x.device).clamp(max=old - 1)
        for new, old in ((height, x.shape[2]), (width, x.shape[3]))
    )
    return x.index_select(2, rows).index_select(3, columns)


def few_at_once(translate: Callable[[Tensor], Tensor], styles: Tensor, x: Tensor) -> Tensor:
    """`translate(styles)` for one image in K styles, a few at a time, to save time and memory.

    Args:
        translate: (k, style_dim) -> (k, C, H, W), for any k from 1 to K.
        x: the image, (1, C, H, W); its size and device decide how many are a few.
    """
    most = PIXELS_AT_ONCE_ON_CPU if x.device.type == "cpu" else PIXELS_AT_ONCE
    if torch.compiler.is_exporting():
        return translate(styles)
    parts = torch.split(styles, max(1, most // x[0, 0].numel()))
    return torch.cat([translate(part) for part in parts])


def repeated(x: Tensor, styles: Tensor) -> Tensor:
    """x (1, ...), an image or its code, once for each of the styles (K, style_dim): (K, ...).

    An exported program is for any number N of images: it gives style i to image i modulo N.
    """
    if torch.compiler.is_exporting():
        places = torch.arange(styles.shape[0], device=x.device)
        # By a tensor, because torch.onnx cannot express the remainder of a division by a size.
        return x.index_select(0, places % torch.full_like(places, x.shape[0]))
    return x.expand(len(styles), *x.shape[1:])


def chosen_direction(translator: Translator, source: str | None, to: str | None) -> Direction:
    """The first direction of a translator with this source and target; None leaves them open.

    Raises:
        RunError: there is none; the message lists the directions.
    """
    for direction in translator.directions:
        if source in (None, direction.source) and to in (None, direction.to):
            return direction
    wanted = " ".join(f"{word} {domain}" for word, domain in (("from", source), ("to", to)) if domain)
    known = ", ".join(f"{d.source} to {d.to}" for d in translator.directions)
    raise RunError(f"this translator does not translate {wanted}; it translates {known}")


def one_per_target(translator: Translator) -> list[Direction]:
    """The first direction into each target domain, the default one first."""
    found: dict[str, Direction] = {}
    for direction in translator.directions:
        found.setdefault(direction.to, direction)
    return list(found.values())


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

"""A translator whose networks, weights and phases a test gives, on images of 8 px."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from i2ikit.loss_weights import Weight
from i2ikit.optimizer_options import OptimizerOptions, ScheduleOptions
from i2ikit.registry import Spec
from i2ikit.state import TrainingState
from i2ikit.training import MicroBatch, build, counted_draw, new_accelerator, train_step
from i2ikit.translator import Given, ImageSpec, Phase, Result, Translator

IMAGES = ImageSpec({"a": 1, "b": 1}, 8)


class Toy(Translator):
    """Networks by role, all of them generative; the default phase of a test is one line."""

    adversarial = ()

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        phases: Sequence[Phase],
        weights: Mapping[str, Mapping[str, Weight]],
    ) -> None:
        self.generative = tuple(networks)
        super().__init__(IMAGES, networks, weights)
        self.given_phases = tuple(phases)

    def phases(self) -> tuple[Phase, ...]:
        return self.given_phases

    def translate(self, x: Tensor, style: Tensor, *, source: str, to: str) -> Tensor:
        return x


class Numbers(nn.Module):
    """A network of some numbers, each of them a parameter of its own."""

    def __init__(self, **numbers: float) -> None:
        super().__init__()
        for name, number in numbers.items():
            setattr(self, name, nn.Parameter(torch.tensor(number)))


def new_toy(
    networks: Mapping[str, nn.Module],
    phases: Sequence[Phase],
    weights: Mapping[str, Mapping[str, Weight]],
    *,
    optimizer: str = "sgd",
    schedule: Mapping[str, Any] | None = None,
    steps: int = 10,
    batch_size: int = 2,
    places: Sequence[int] | None = None,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> TrainingState:
    """Training state of a toy; every network has the same optimizer, with a learning rate of 0.1."""
    own = OptimizerOptions(
        Spec("optimizers", optimizer, {"lr": 0.1, **options}), ScheduleOptions(**(schedule or {}))
    )
    translator = Toy(networks, phases, weights).to(dtype)
    places = range(batch_size) if places is None else places
    accelerator = new_accelerator("fp32")
    return build(translator, dict.fromkeys(networks, own), accelerator, steps, places, batch_size)


def images(number: int = 2, fill: float | None = None, step: int = 0) -> dict[str, Tensor]:
    """Images of both domains: all pixels `fill`, or other random numbers at each step."""
    if fill is not None:
        return {d: torch.full((number, 1, 8, 8), fill) for d in "ab"}
    generator = torch.Generator().manual_seed(step)
    return {d: torch.rand(number, 1, 8, 8, generator=generator) * 2 - 1 for d in "ab"}


def toy_step(state: TrainingState, step: int = 0, x: Mapping[str, Tensor] | None = None) -> dict[str, float]:
    """One step on these images, in one micro-batch; its losses and notes."""
    x = images(len(state.places), step=step) if x is None else x
    logged = train_step(state, step, [MicroBatch(x, state.places)], counted_draw(0, step))
    return {name: value.item() for name, value in logged.items()}


def number(state: TrainingState, role: str, name: str) -> float:
    """The value of a parameter of `Numbers`."""
    return state.translator.networks[role].get_parameter(name).item()


def phase(
    name: str, losses: Callable[[Given], Mapping[str, Tensor] | Result], *trains: str, **declared: Any
) -> Phase:
    """A phase from a function that returns losses only, or a whole result."""

    def found(given: Given) -> Result:
        result = losses(given)
        return result if isinstance(result, Result) else Result(result)

    return Phase(name, found, trains, **declared)

"""The mutable state of training, as one object that checkpoints save and load."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from i2ikit.errors import ComponentError
from i2ikit.finite import names, not_finite
from i2ikit.loss_sums import LossSums
from i2ikit.optimizer_options import ScheduleOptions
from i2ikit.processes import ALONE, Processes
from i2ikit.translator import Phase, Tensors, Translator
from i2ikit.validation import BestSoFar

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = [
    "TrainingState",
    "load_networks",
    "load_optimizer",
    "load_some",
    "network_tensors",
    "optimizer_tensors",
]


@dataclass
class TrainingState:
    """Networks, their EMA copies, and their optimizers.

    Args:
        ema: the averaged weights; only the generative networks are updated.
        optimizers: by the role of the network that each one trains.
        schedules: learning rate schedule of each network, by role.
        steps: total number of steps, for learning rates that end at 0.
        kept: the tensors that phases keep, by phase and name, for the images of this process: (N, *shape).
        places: place in the batch of each of these images.
        batch_size: number of places of all processes.
        skips: number of consecutive updates that were not finite.
        validation: the best value so far; unchanged if the recipe has no [validation].
        validated: the step of the last validation.
        losses: sums since the last line of the log.
    """

    accelerator: Accelerator
    translator: Translator
    ema: Translator
    phases: tuple[Phase, ...]
    optimizers: Mapping[str, torch.optim.Optimizer]
    schedules: Mapping[str, ScheduleOptions]
    steps: int
    kept: dict[str, dict[str, Tensor]]
    places: Sequence[int] = ()
    batch_size: int = 0
    skips: int = 0
    validation: BestSoFar = field(default_factory=BestSoFar)
    validated: int = 0
    losses: LossSums = field(default_factory=LossSums)
    not_finite_at_start: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        # A running minimum may start at inf.
        self.not_finite_at_start = frozenset(not_finite(self._tensors()))

    def newly_not_finite(self, tensors: Tensors | None = None) -> list[str]:
        """The names of tensors that hold NaN or inf, but did not before the first step; `ema.role.name`.

        Args:
            tensors: those of a checkpoint, as `group.name`; by default those of this state in this process.
        """
        found = not_finite(self._tensors() if tensors is None else tensors)
        return [name for name in found if name not in self.not_finite_at_start]

    def _tensors(self) -> dict[str, Tensor]:
        """All tensors of the state, by the names that a checkpoint gives them; not copied."""
        networks = {"networks": dict(self.translator.networks), "ema": self.averaged()}
        tensors = {
            f"{group}.{role}.{name}": tensor
            for group, by_role in networks.items()
            for role, network in by_role.items()
            for name, tensor in network.state_dict().items()
        }
        for role, optimizer in self.optimizers.items():
            for name, parameter in self.translator.networks[role].named_parameters():
                for key, value in optimizer.state.get(parameter, {}).items():
                    if isinstance(value, Tensor | float):
                        tensors[f"optimizers.{role}.{name}:{key}"] = torch.as_tensor(value)
        for phase, kept in self.kept.items():
            tensors.update({f"kept.{phase}.{name}": tensor for name, tensor in kept.items()})
        return tensors

    def averaged(self) -> dict[str, nn.Module]:
        """The EMA copies of the generative networks, by role."""
        return {role: self.ema.networks[role] for role in self.ema.generative}

    def save(
        self, kept: Tensors, losses: Sequence[Mapping[str, Any]] = ()
    ) -> tuple[dict[str, Tensors], dict[str, Any]]:
        """Tensors by the names of their groups, and JSON values.

        These are the loss scale (fp16 only), the number of skipped updates, the state of validation, the
        losses since the last line of the log, and the names of the tensors that are plain numbers in their
        optimizers.

        Args:
            kept: from `gathered_kept`.
            losses: from `losses.save`.
        """
        scaler = self.accelerator.scaler
        optimizers, numbers = self._optimizer_tensors()
        tensors = {
            "networks": network_tensors(dict(self.translator.networks)),
            "ema": network_tensors(self.averaged()),
            "optimizers": optimizers,
            "kept": kept,
        }
        filled = {name: group for name, group in tensors.items() if group or name != "kept"}
        plain = {
            "scaler": scaler and scaler.state_dict(),
            "skips": self.skips,
            "validation": dataclasses.asdict(self.validation),
            "validated": self.validated,
            "losses": list(losses),
            "numbers": numbers,
        }
        return filled, plain

    def gathered_kept(self, group: Processes) -> dict[str, Tensor]:
        """What phases keep for all places of the batch, as `phase.name`: (batch_size, *shape). Collective."""
        gathered = {}
        for phase, tensors in self.kept.items():
            for name, tensor in tensors.items():
                parts = group.gather([(self.places, tensor.cpu())])
                order = torch.tensor([place for places, _ in parts for place in places])
                gathered[f"{phase}.{name}"] = torch.cat([part for _, part in parts])[order.argsort()]
        return gathered

    def load(
        self, tensors: Mapping[str, Tensors], plain: Mapping[str, Any], group: Processes = ALONE
    ) -> None:
        """Load the state that `save` returned, in a process of the group.

        Raises:
            KeyError, RuntimeError: the state is from other networks, or from a batch of another size.
        """
        self._load_kept(tensors.get("kept", {}))
        load_networks(dict(self.translator.networks), tensors["networks"])
        load_networks(self.averaged(), tensors["ema"])
        for role, optimizer in self.optimizers.items():
            own = _with_prefix(tensors["optimizers"], f"{role}.")
            numbers = [name.removeprefix(f"{role}.") for name in plain.get("numbers", ())]
            load_optimizer(self.translator.networks[role], optimizer, own, numbers)
        if self.accelerator.scaler is not None and plain.get("scaler"):
            self.accelerator.scaler.load_state_dict(plain["scaler"])
        # Earlier checkpoints have none of these.
        self.skips = plain.get("skips", 0)
        self.validation = BestSoFar(**plain.get("validation", {}))
        self.validated = plain.get("validated", plain.get("step", 0))
        self.losses.load(plain.get("losses", ()), group, self.accelerator.device)

    def _load_kept(self, tensors: Tensors) -> None:
        for phase, kept in self.kept.items():
            for name, mine in kept.items():
                saved = tensors.get(f"{phase}.{name}")
                if saved is None:
                    raise RuntimeError(f"it has no '{name}', which phase '{phase}' keeps")
                if saved.shape != (self.batch_size, *mine.shape[1:]):
                    raise RuntimeError(
                        f"phase '{phase}' keeps '{name}' with shape {tuple(saved.shape)}, but this run needs "
                        f"{(self.batch_size, *mine.shape[1:])}; the batch size of a run cannot change"
                    )
                kept[name] = saved[list(self.places)].to(mine)

    def _optimizer_tensors(self) -> tuple[dict[str, Tensor], list[str]]:
        """What all optimizers keep, as `role.parameter:key`; and the names of plain numbers among them."""
        tensors, numbers = {}, []
        for role, optimizer in self.optimizers.items():
            try:
                found, plain = optimizer_tensors(self.translator.networks[role], optimizer)
            except ComponentError as error:
                raise ComponentError(f"the optimizer of '{role}' {error}") from None
            tensors.update({f"{role}.{name}": tensor for name, tensor in found.items()})
            numbers += [f"{role}.{name}" for name in plain]
        return tensors, numbers


def optimizer_tensors(
    network: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], list[str]]:
    """What an optimizer keeps, such as Adam's moments and step counts, as `parameter:key`.

    Returns:
        Copies on the CPU, and the names of those that are plain numbers in the optimizer.

    Raises:
        ComponentError: it keeps something else; the message continues "the optimizer ...".
    """
    tensors, numbers = {}, []
    states = optimizer.state_dict()["state"]
    for index, (name, _) in enumerate(network.named_parameters()):
        for key, value in states.get(index, {}).items():
            if value is None:  # SGD without momentum
                continue
            if not isinstance(value, Tensor | int | float):
                raise ComponentError(
                    f"keeps '{key}' of type {type(value).__name__}; "
                    "checkpoints save only tensors and numbers by parameter"
                )
            if not isinstance(value, Tensor):
                numbers.append(f"{name}:{key}")
                # Python's floats have 64 bits.
                value = torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else None)
            tensors[f"{name}:{key}"] = value.detach().cpu().clone().contiguous()
    return tensors, numbers


def network_tensors(networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Copies of all parameters and buffers on the CPU, as `role.name`."""
    return {
        f"{role}.{name}": tensor.detach().cpu().clone().contiguous()
        for role, network in networks.items()
        for name, tensor in network.state_dict().items()
    }


def load_networks(networks: Mapping[str, nn.Module], tensors: Tensors) -> None:
    """Load the tensors that `network_tensors` returned.

    Raises:
        ValueError: names or shapes do not match; counts them, and names a few.
    """
    wanted = {f"{role}.{name}": x for role, own in networks.items() for name, x in own.state_dict().items()}
    if wrong := list(_differences(wanted, tensors, networks)):
        raise ValueError(names(wrong))
    for role, network in networks.items():
        network.load_state_dict(_with_prefix(tensors, f"{role}."))


def _differences(wanted: Tensors, found: Tensors, roles: Collection[str]) -> Iterator[str]:
    """What differs in the names and the shapes of these roles' tensors, one phrase for each."""
    for name, x in wanted.items():
        if name not in found:
            yield f"{name} is missing"
        elif found[name].shape != x.shape:
            yield f"{name} is {_shape(found[name])} and should be {_shape(x)}"
    unknown = (name for name in found if name not in wanted and name.partition(".")[0] in roles)
    yield from (f"{name} is not known" for name in unknown)


def _shape(x: Tensor) -> str:
    return "x".join(map(str, x.shape)) or "a number"


def load_some(translator: Translator, tensors: Tensors) -> None:
    """Load some tensors, by `role.name`; the others stay."""
    for role, network in translator.networks.items():
        network.load_state_dict(_with_prefix(tensors, f"{role}."), strict=False)


def _with_prefix(tensors: Tensors, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def load_optimizer(
    network: nn.Module, optimizer: torch.optim.Optimizer, tensors: Tensors, numbers: Collection[str] = ()
) -> None:
    """Load what `optimizer_tensors` returned."""
    state: dict[int, dict[str, Any]] = {}
    for index, (name, _) in enumerate(network.named_parameters()):
        own = _with_prefix(tensors, f"{name}:")
        if own:
            state[index] = own
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    # torch gives all tensors the type of their parameter; some optimizers keep integers or few bits.
    for name, parameter in network.named_parameters():
        loaded = optimizer.state.get(parameter, {})
        for key, saved in _with_prefix(tensors, f"{name}:").items():
            if f"{name}:{key}" in numbers:
                loaded[key] = saved.item()
            elif saved.shape == parameter.shape:
                # Fused optimizers read tensors in the order of memory, and files hold them contiguous.
                loaded[key] = torch.empty_like(parameter, dtype=saved.dtype).copy_(saved)
            elif loaded[key].dtype != saved.dtype:
                loaded[key] = saved.to(loaded[key].device)

"""The mutable state of training, as one object that checkpoints save and load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from i2ikit.recipe import OptimizerOptions
from i2ikit.translator import Phase, Translator

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Tensors", "TrainingState", "load_networks", "network_tensors"]

Tensors = dict[str, Tensor]


@dataclass
class TrainingState:
    """Networks, their EMA copies, and their optimizers.

    Args:
        ema: the averaged weights; only the generative networks are updated.
        optimizers: by the role of the network that each one trains.
        schedules: learning rate schedule of each network, by role.
        steps: total number of steps, for learning rates that end at 0.
        skips: number of consecutive updates whose gradients were not finite.
    """

    accelerator: Accelerator
    translator: Translator
    ema: Translator
    phases: tuple[Phase, ...]
    optimizers: Mapping[str, torch.optim.Optimizer]
    schedules: Mapping[str, OptimizerOptions]
    steps: int
    skips: int = 0

    def roles(self, phase: Phase) -> list[str]:
        """The roles of the networks that a phase trains."""
        return [role for role, net in self.translator.networks.items() if any(net is t for t in phase.trains)]

    def averaged(self) -> dict[str, nn.Module]:
        """The EMA copies of the generative networks, by role."""
        return {role: self.ema.networks[role] for role in self.ema.generative}

    def save(self) -> tuple[dict[str, Tensors], dict[str, Any]]:
        """Tensors by the names of their groups, and JSON values: the loss scale (fp16 only)."""
        scaler = self.accelerator.scaler
        tensors = {
            "networks": network_tensors(dict(self.translator.networks)),
            "ema": network_tensors(self.averaged()),
            "optimizers": self._optimizer_tensors(),
        }
        return tensors, {"scaler": scaler and scaler.state_dict()}

    def load(self, tensors: Mapping[str, Tensors], plain: Mapping[str, Any]) -> None:
        """Load the state that `save` returned.

        Raises:
            KeyError, RuntimeError: the state is from other networks.
        """
        load_networks(dict(self.translator.networks), tensors["networks"])
        load_networks(self.averaged(), tensors["ema"])
        for role, optimizer in self.optimizers.items():
            own = _with_prefix(tensors["optimizers"], f"{role}.")
            _load_optimizer(self.translator.networks[role], optimizer, own)
        if self.accelerator.scaler is not None and plain.get("scaler"):
            self.accelerator.scaler.load_state_dict(plain["scaler"])

    def _optimizer_tensors(self) -> Tensors:
        """Adam's moments and step counts, by the names of their parameters."""
        tensors = {}
        for role, optimizer in self.optimizers.items():
            states = optimizer.state_dict()["state"]
            for index, (name, _) in enumerate(self.translator.networks[role].named_parameters()):
                for key, value in states.get(index, {}).items():
                    tensors[f"{role}.{name}:{key}"] = torch.as_tensor(value).detach().cpu().contiguous()
        return tensors


def network_tensors(networks: Mapping[str, nn.Module]) -> Tensors:
    """Copies of all parameters and buffers on the CPU, as `role.name`."""
    return {
        f"{role}.{name}": tensor.detach().cpu().clone().contiguous()
        for role, network in networks.items()
        for name, tensor in network.state_dict().items()
    }


def load_networks(networks: Mapping[str, nn.Module], tensors: Mapping[str, Tensor]) -> None:
    """Load the tensors that `network_tensors` returned.

    Raises:
        RuntimeError: a name or a shape does not match.
    """
    for role, network in networks.items():
        network.load_state_dict(_with_prefix(tensors, f"{role}."))


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> Tensors:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _load_optimizer(
    network: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    state: dict[int, dict[str, Any]] = {}
    for index, (name, _) in enumerate(network.named_parameters()):
        own = _with_prefix(tensors, f"{name}:")
        if own:
            state[index] = own
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})

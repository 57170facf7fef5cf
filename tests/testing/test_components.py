"""The kit's checks of optimizers: what they keep goes through a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from i2ikit.packages.templates.optimizers import MyPlugin
from i2ikit.testing import check_optimizer


class Counting(Optimizer):
    """Divides the learning rate by a count, which it keeps somewhere."""

    def __init__(self, parameters: Sequence[Parameter], first: Any, *, in_group: bool) -> None:
        super().__init__(parameters, {"lr": 0.1, "count": first})
        self.first, self.in_group = first, in_group

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                own = group if self.in_group else self.state[parameter]
                own["count"] = own.get("count", self.first) + 1
                parameter -= group["lr"] / float(own["count"]) * parameter.grad


class Factory:
    """Makes `Counting`."""

    def __init__(self, first: Any, *, in_group: bool) -> None:
        self.first, self.in_group, self.lr = first, in_group, 0.1

    def optimizer(self, parameters: Sequence[Parameter]) -> Optimizer:
        return Counting(parameters, self.first, in_group=self.in_group)


@pytest.mark.parametrize("first", [0, 0.1, torch.tensor(5), torch.tensor(1, dtype=torch.uint8)])
def test_an_optimizer_may_keep_numbers_and_tensors_of_every_type(first: float | Tensor) -> None:
    check_optimizer(lambda: Factory(first, in_group=False))


def test_an_optimizer_that_keeps_something_for_a_group_is_found_out() -> None:
    """Checkpoints hold what is kept by parameter only."""
    with pytest.raises(
        AssertionError, match="continues differently; checkpoints hold what it keeps by param"
    ):
        check_optimizer(lambda: Factory(0, in_group=True))


def test_the_optimizer_of_new_plugin_is_accepted() -> None:
    """It changes all that it keeps in place: what was saved must not change with it."""
    check_optimizer(MyPlugin)

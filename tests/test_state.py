"""What checkpoints save and load: optimizers of every kind, and tensors that phases keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from i2ikit.checkpoints import load_checkpoint, newest_checkpoint, save_checkpoint
from i2ikit.errors import ComponentError, RunError
from i2ikit.processes import ALONE
from i2ikit.state import TrainingState, load_optimizer, optimizer_tensors
from i2ikit.translator import Given, Kept, Result
from tests.toy import images, new_toy, phase, toy_step

KEEPS = {
    "mean": Kept((3,)),
    "count": Kept((), torch.int64, start=2),
    "queue": Kept((5, 1, 8, 8), divided=True),
    "low": Kept((2,), torch.float64, start=1.0),
}


class Net(nn.Module):
    """Of its parameters, one is reached by no loss, and one by the loss of odd steps only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3)
        self.idle, self.odd = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(1.0))
        self.norm = nn.BatchNorm2d(1)


def toy(optimizer: str = "adam", batch_size: int = 2, places: Any = None, **options: Any) -> TrainingState:
    """A loss that depends on everything that is kept."""
    network = Net()

    def losses(given: Given) -> Result:
        x, kept = given.images["a"], given.kept
        y = (
            network.norm(network.conv(x)).mean((1, 2, 3))
            + kept["mean"].mean(1)
            + kept["queue"].mean((1, 2, 3, 4))
        )
        y = y * (network.odd if given.step % 2 else 1) + kept["count"] * 0.1 + kept["low"].mean(1).float()
        new = {
            "mean": 0.5 * kept["mean"] + 0.5 * x.mean((1, 2, 3))[:, None],
            "count": kept["count"] + 1,
            "queue": torch.cat([kept["queue"][:, 1:], x[:, None]], 1),
            "low": kept["low"] * 0.9,
        }
        return Result({"x": y.square().mean()}, kept=new)

    return new_toy(
        {"n": network}, [phase("p", losses, "n", keeps=KEEPS)], {"p": {"x": 1.0}},
        optimizer=optimizer, batch_size=batch_size, places=places, **options,
    )  # fmt: skip


def numbers(state: TrainingState) -> dict[str, Tensor]:
    tensors, _ = state.save(state.gathered_kept(ALONE))
    return {f"{group}/{name}": tensor for group, own in tensors.items() for name, tensor in own.items()}


OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("adam", {}),
    ("adamw", {"weight_decay": 0.1}),
    ("sgd", {}),
    ("sgd", {"momentum": 0.9}),
    ("sgd", {"momentum": 0.9, "nesterov": True}),
    ("rmsprop", {}),
    ("rmsprop", {"momentum": 0.5}),
]


@pytest.mark.parametrize("stop", [1, 2, 3])
@pytest.mark.parametrize(("optimizer", "options"), OPTIMIZERS)
def test_resuming_is_bit_equal_with_every_optimizer_and_what_is_kept(
    tmp_path: Path, optimizer: str, options: dict[str, Any], stop: int
) -> None:
    """Through the files of a checkpoint, into another state; also where a gradient comes at a later step."""
    torch.manual_seed(0)
    whole = toy(optimizer, **options)
    for step in range(stop):
        toy_step(whole, step)
    save_checkpoint(tmp_path, stop, whole, keep=1)
    torch.manual_seed(9)
    parts = toy(optimizer, **options)
    assert load_checkpoint(newest_checkpoint(tmp_path), parts) == stop
    for step in range(stop, 5):
        assert toy_step(whole, step) == toy_step(parts, step)
    one, two = numbers(whole), numbers(parts)
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    assert whole.skips == parts.skips == 0
    assert one["kept/p.count"].tolist() == [7, 7]


def test_a_checkpoint_holds_what_an_optimizer_keeps_by_the_names_of_parameters() -> None:
    """Nothing for plain SGD, and nothing for a parameter that no loss reached."""
    names = {}
    for optimizer, options in (("sgd", {}), ("sgd", {"momentum": 0.9}), ("rmsprop", {})):
        state = toy(optimizer, **options)
        toy_step(state)
        names[optimizer, bool(options)] = set(state.save({})[0]["optimizers"])
    own = ("conv.weight", "conv.bias", "norm.weight", "norm.bias")
    assert names["sgd", False] == set()
    assert names["sgd", True] == {f"n.{name}:momentum_buffer" for name in own}
    assert names["rmsprop", False] == {f"n.{name}:{key}" for name in own for key in ("step", "square_avg")}


def test_what_is_kept_is_saved_for_all_places_of_the_batch_in_their_order(tmp_path: Path) -> None:
    """Whatever the order in which a process has its places."""
    state = toy(batch_size=4, places=[2, 0, 3, 1])
    x = images(4)
    mine = {d: x[d][[2, 0, 3, 1]] for d in x}
    toy_step(state, 0, mine)
    path = save_checkpoint(tmp_path, 1, state, keep=1)
    kept = load_file(path / "kept.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in kept.items()} == {
        "p.mean": (4, 3),
        "p.count": (4,),
        "p.queue": (4, 2, 1, 8, 8),
        "p.low": (4, 2),
    }
    assert torch.equal(kept["p.queue"][:, 1], x["a"])
    assert (kept["p.count"].dtype, kept["p.low"].dtype) == (torch.int64, torch.float64)
    for places in ([0, 1, 2, 3], [3, 1]):
        other = toy(batch_size=4, places=places)
        load_checkpoint(path, other)
        assert torch.equal(other.kept["p"]["queue"][:, 1], x["a"][places])


def test_without_anything_kept_a_checkpoint_has_no_file_for_it(tmp_path: Path) -> None:
    """And a checkpoint from before is read as it was."""
    network = Net()
    plain = phase("p", lambda given: {"x": network.conv(given.images["a"]).mean()}, "n")
    state = new_toy({"n": network}, [plain], {"p": {"x": 1.0}})
    path = save_checkpoint(tmp_path, 1, state, keep=1)
    assert sorted(file.stem for file in path.glob("*.safetensors")) == ["ema", "networks", "optimizers"]
    for batch_size in (2, 3):
        other = new_toy({"n": Net()}, [plain], {"p": {"x": 1.0}}, batch_size=batch_size)
        assert load_checkpoint(path, other) == 1


@pytest.mark.parametrize(
    ("batch_size", "shapes"),
    [(4, r"\(2, 3\), but this run needs \(4, 3\)"), (1, r"\(2, 3\), but this run needs \(1, 3\)")],
)
def test_a_batch_of_another_size_is_refused_when_something_is_kept(
    tmp_path: Path, batch_size: int, shapes: str
) -> None:
    """The message names the phase and what it keeps; nothing of the state has changed."""
    path = save_checkpoint(tmp_path, 1, toy(), keep=1)
    other = toy(batch_size=batch_size)
    before = numbers(other)
    message = rf"does not fit the recipe: phase 'p' keeps 'mean' with shape {shapes}; the batch size of a run cannot change"
    with pytest.raises(RunError, match=message):
        load_checkpoint(path, other)
    assert all(torch.equal(tensor, before[name]) for name, tensor in numbers(other).items())


def test_a_checkpoint_without_what_is_kept_is_refused_with_its_name(tmp_path: Path) -> None:
    """As where the translator has changed since."""
    network = Net()
    plain = phase("p", lambda given: {"x": network.conv(given.images["a"]).mean()}, "n")
    path = save_checkpoint(tmp_path, 1, new_toy({"n": network}, [plain], {"p": {"x": 1.0}}), keep=1)
    with pytest.raises(RunError, match=r"does not fit the recipe: it has no 'mean', which phase 'p' keeps"):
        load_checkpoint(path, toy())


def test_an_optimizer_whose_state_is_not_by_parameter_is_refused() -> None:
    """A checkpoint could not hold it."""
    state = toy()
    toy_step(state)
    (first, *_) = state.optimizers["n"].state.values()
    first["history"] = [1, 2]
    with pytest.raises(ComponentError, match="the optimizer of 'n' keeps 'history' of type list"):
        state.save({})


def test_numbers_that_an_optimizer_keeps_are_saved() -> None:
    """Some count their steps in Python."""
    state = toy()
    toy_step(state)
    for own in state.optimizers["n"].state.values():
        own["python"] = 3
    assert state.save({})[0]["optimizers"]["n.conv.weight:python"].item() == 3


@pytest.mark.parametrize(
    "value", [3, 2**24 + 1, True, 0.1, torch.tensor(2**24 + 1), torch.ones(3, 3, dtype=torch.uint8)]
)
def test_what_an_optimizer_keeps_is_loaded_with_its_type_and_all_its_digits(
    tmp_path: Path, value: Any
) -> None:
    """torch itself would give it the type of the parameter."""
    state, other = toy(), toy()
    toy_step(state)
    parameter = state.translator.networks["n"].get_parameter("conv.weight")
    state.optimizers["n"].state[parameter]["own"] = value
    save_checkpoint(tmp_path, 1, state, keep=1)
    load_checkpoint(newest_checkpoint(tmp_path), other)
    parameter = other.translator.networks["n"].get_parameter("conv.weight")
    found = other.optimizers["n"].state[parameter]["own"]
    assert type(found) is type(value)
    if isinstance(value, Tensor):
        assert found.dtype == value.dtype
        assert torch.equal(found, value)
    else:
        assert found == value


@pytest.mark.parametrize(
    ("kept", "places", "batch_size", "shape"),
    [
        (Kept(), 3, 5, (3,)),
        (Kept((2, 4)), 3, 5, (3, 2, 4)),
        (Kept((50,), divided=True), 3, 4, (3, 13)),
        (Kept((8, 2), divided=True), 1, 4, (1, 2, 2)),
        (Kept((8, 2)), 0, 4, (0, 8, 2)),
    ],
)
def test_what_is_kept_starts_with_its_shape_for_each_place(
    kept: Kept, places: int, batch_size: int, shape: tuple[int, ...]
) -> None:
    """`divided` is the only thing that depends on the batch size."""
    assert kept.at_start(places, batch_size).shape == shape


def test_what_is_kept_starts_with_its_value_and_type() -> None:
    """0 in float32, unless it says otherwise."""
    assert Kept((2,)).at_start(1, 1).dtype == torch.float32
    assert Kept((2,), torch.int64, start=-1).at_start(2, 2).tolist() == [[-1, -1]] * 2
    assert Kept((), torch.bool, start=True).at_start(2, 2).tolist() == [True, True]


@pytest.mark.parametrize("fused", [True, False])
def test_moments_are_loaded_in_the_memory_format_of_their_weights(fused: bool) -> None:
    """Fused optimizers read tensors in the order of memory; the next update is that of the original."""
    x = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))

    def new(weight: Tensor) -> tuple[nn.Conv2d, torch.optim.Adam]:
        conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        conv.load_state_dict({"weight": weight, "bias": torch.zeros(4)})
        return conv, torch.optim.Adam(conv.parameters(), fused=fused)

    def update(conv: nn.Conv2d, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        conv(x).square().sum().backward()
        optimizer.step()

    first = new(torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(1)))
    update(*first)
    second = new(first[0].weight.detach())
    second[0].load_state_dict(first[0].state_dict())
    load_optimizer(*second, *optimizer_tensors(*first))
    assert second[1].state[second[0].weight]["exp_avg"].stride() == second[0].weight.stride()
    for conv, optimizer in (first, second):
        update(conv, optimizer)
    assert torch.equal(first[0].weight, second[0].weight)

"""One training step on networks of a few numbers: what moves, what is kept, and what a skip restores."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from i2ikit.components.image_pool import POOL_DRAW, pool_keeps, pooled
from i2ikit.components.norms import BatchNorm
from i2ikit.errors import ComponentError, TrainingError
from i2ikit.state import TrainingState
from i2ikit.training import MicroBatch, counted_draw, train_step
from i2ikit.translator import Given, Kept, Phase, Result
from tests.toy import Numbers, images, new_toy, number, phase, toy_step

OFF_AT_2 = {"start": 2.0, "end": 0.0, "steps": 2}


def everything(state: TrainingState) -> dict[str, Any]:
    """Copies of all parameters, buffers, moments and kept tensors."""
    return copy.deepcopy(
        {
            "networks": dict(state.translator.state_dict()),
            "optimizers": {role: o.state_dict()["state"] for role, o in state.optimizers.items()},
            "kept": state.kept,
        }
    )


def assert_same(one: Any, two: Any) -> None:
    torch.testing.assert_close(one, two, rtol=0, atol=0)


# Weights that are 0


def two_phases(weight: Any, calls: list[tuple[str, bool, set[str]]]) -> TrainingState:
    """Phase "first" hands on its number times 3, which "second" uses; both note each call."""

    def first(given: Given) -> Result:
        (x,) = (net.translator.networks["one"].x for net in [state])
        calls.append(("first", torch.is_grad_enabled(), set(given.handed)))
        losses = {"square": x.square()} if given.weights["square"] else {}
        return Result(losses, {"three": 3 * x.detach()}, notes={"value": x.detach()})

    def second(given: Given) -> Result:
        x = state.translator.networks["two"].x
        calls.append(("second", torch.is_grad_enabled(), set(given.handed)))
        return Result({"distance": (x - given.handed["three"]).square()} if given.weights["distance"] else {})

    phases = [phase("first", first, "one"), phase("second", second, "two")]
    weights = {"first": {"square": weight}, "second": {"distance": 1.0}}
    networks = {"one": Numbers(x=1.0), "two": Numbers(x=1.0)}
    state = new_toy(networks, phases, weights, optimizer="adam", lr=0.5)
    return state


def test_a_phase_of_weight_0_at_a_step_moves_nothing_and_hands_on_what_a_later_one_needs() -> None:
    """Its parameters and Adam's moments stay; the later phase moves towards what it hands on."""
    calls: list[tuple[str, bool, set[str]]] = []
    state = two_phases(OFF_AT_2, calls)
    logged = [toy_step(state, step) for step in range(2)]
    assert set(logged[1]) == {"first/square", "first/value", "second/distance"}
    before, target = everything(state), 3 * number(state, "one", "x")
    distances = []
    for step in range(2, 5):
        calls.clear()
        found = toy_step(state, step)
        assert calls == [("first", False, set()), ("second", True, {"three"})]
        assert set(found) == {"first/value", "second/distance"}
        distances.append(found["second/distance"])
    assert_same(everything(state)["optimizers"]["one"], before["optimizers"]["one"])
    assert 3 * number(state, "one", "x") == target
    assert distances == sorted(distances, reverse=True)
    assert number(state, "two", "x") != before["networks"]["networks.two.x"].item()
    assert state.skips == 0


def test_adam_counts_only_the_steps_that_it_takes() -> None:
    """After five steps of which three have weight 0, its own count is 2."""
    state = two_phases(OFF_AT_2, [])
    for step in range(5):
        toy_step(state, step)
    counts = {role: [s["step"].item() for s in o.state.values()] for role, o in state.optimizers.items()}
    assert counts == {"one": [2], "two": [5]}


def test_a_phase_of_weight_0_is_not_run_if_no_later_phase_is_trained() -> None:
    """What it would hand on has no use; its losses and notes are absent."""
    calls: list[tuple[str, bool, set[str]]] = []
    state = two_phases(1.0, calls)
    state.translator.weights = {"first": {"square": 1.0}, "second": {"distance": 0.0}}
    before = everything(state)
    assert set(toy_step(state)) == {"first/square", "first/value"}
    assert [name for name, *_ in calls] == ["first"]
    assert number(state, "two", "x") == before["networks"]["networks.two.x"].item()
    state.translator.weights = {"first": {"square": 0.0}, "second": {"distance": 0.0}}
    before = everything(state)
    assert toy_step(state) == {}
    assert_same(everything(state), before)


@pytest.mark.parametrize(("schedule", "steps"), [({"steps": 4}, 6), ({}, 4)], ids=["own steps", "all steps"])
def test_the_weight_of_this_step_multiplies_the_gradient(schedule: dict[str, int], steps: int) -> None:
    """SGD by hand: x falls by lr * weight(step) * dx; the weight falls from 2 to 0 within four steps."""
    losses = phase("p", lambda given: {"x": state.translator.networks["n"].x + 0.0}, "n")
    weights = {"p": {"x": {"start": 2.0, "end": 0.0, **schedule}}}
    state = new_toy({"n": Numbers(x=1.0)}, [losses], weights, steps=steps)
    found = []
    for step in range(steps):
        toy_step(state, step)
        found.append(number(state, "n", "x"))
    by_hand, x = [], 1.0
    for weight in (2.0, 1.5, 1.0, 0.5, 0.0, 0.0)[:steps]:
        x -= 0.1 * weight
        by_hand.append(x)
    assert found == pytest.approx(by_hand, abs=1e-6)


def test_losses_that_are_switched_off_part_by_part_move_nothing() -> None:
    """A name of weight 1 whose parts all have weight 0: the phase returns no loss, and nothing moves."""
    losses = phase("p", lambda given: {}, "n")
    weights = {"p": {"x": 1.0, "x/a": 0.0, "x/b": 0.0}}
    state = new_toy({"n": Numbers(x=1.0)}, [losses], weights, optimizer="adamw", weight_decay=0.1)
    assert toy_step(state) == {}
    assert number(state, "n", "x") == 1


@pytest.mark.parametrize(
    ("weights", "losses", "message"),
    [
        ({"x": 1.0, "x/zebra": 2.0}, ("x",), r"weights \['x/zebra'\] have no loss"),
        ({"x": 1.0, "x/a": 0.0}, ("x/a",), r"losses \['x/a'\] have no weight"),
        ({"x": 1.0, "y": 0.0}, ("x", "y"), r"losses \['y'\] have no weight"),
        ({"x": 1.0, "x/a": 2.0}, ("x/b",), r"weights \['x/a'\] have no loss"),
    ],
)
def test_a_part_without_a_loss_and_a_loss_without_a_weight_are_errors(
    weights: dict[str, float], losses: tuple[str, ...], message: str
) -> None:
    """A part that the translator does not have is found at the first step."""
    one = phase("p", lambda given: dict.fromkeys(losses, 1 * state.translator.networks["n"].x), "n")
    state = new_toy({"n": Numbers(x=1.0)}, [one], {"p": weights})
    with pytest.raises(TrainingError, match=message):
        toy_step(state)


# Roles


def test_a_role_without_trainable_parameters_needs_no_optimizer_and_no_phase() -> None:
    """It is part of the forward pass, is saved like the others, and does not move."""
    fixed = nn.Linear(8, 8).requires_grad_(False)

    def losses(given: Given) -> dict[str, Tensor]:
        networks = state.translator.networks
        return {"x": (networks["fixed"](given.images["a"]) * networks["n"].x).square().mean()}

    state = new_toy(
        {"n": Numbers(x=1.0), "fixed": fixed, "empty": nn.Identity()},
        [phase("p", losses, "n")],
        {"p": {"x": 1.0}},
    )
    assert set(state.optimizers) == {"n"}
    before = copy.deepcopy(fixed.state_dict())
    toy_step(state)
    assert_same(dict(fixed.state_dict()), dict(before))
    assert number(state, "n", "x") != 1
    assert not any(parameter.requires_grad for parameter in fixed.parameters())
    assert {"fixed.weight", "fixed.bias"} <= set(state.save({})[0]["networks"])


@pytest.mark.parametrize(
    ("trains", "message"),
    [
        ("generatr", "Toy, phase 'p': it trains 'generatr', which is not a network; did you mean 'generator'? (known: generator, fixed)"),
        ("xyz", "Toy, phase 'p': it trains 'xyz', which is not a network (known: generator, fixed)"),
        ("fixed", "Toy, phase 'p': it trains 'fixed', which has no trainable parameter"),
    ],
)  # fmt: skip
def test_a_phase_that_trains_what_cannot_be_trained_is_refused(trains: str, message: str) -> None:
    """Before the first step, with the known roles."""
    networks = {"generator": Numbers(x=1.0), "fixed": nn.Linear(1, 1).requires_grad_(False)}
    with pytest.raises(ComponentError) as caught:
        new_toy(networks, [phase("p", lambda given: {}, trains)], {"p": {"x": 1.0}})
    assert str(caught.value) == message


# Gradients


def quadratic(state: list[TrainingState], *names: str) -> Phase:
    """The loss sum(c^2 / 2 * n), whose gradient is c * n: 1 * c for the first name, 2 * c for the second."""

    def losses(given: Given) -> dict[str, Tensor]:
        network = state[0].translator.networks["n"]
        terms = [n * network.get_parameter(name).square() / 2 for n, name in enumerate(names, 1)]
        return {"x": torch.stack(terms).sum()}

    return phase("p", losses, "n")


@pytest.mark.parametrize(("most", "factor"), [(1.0, 1 / 5), (4.9, 4.9 / 5), (5.1, 1.0), (None, 1.0)])
def test_gradients_are_scaled_down_to_the_largest_norm(most: float | None, factor: float) -> None:
    """Gradients (3, 4) have norm 5; SGD's update is lr * factor * (3, 4)."""
    states: list[TrainingState] = []
    networks = {"n": Numbers(x=3.0, y=2.0)}
    states.append(
        new_toy(
            networks,
            [quadratic(states, "x", "y")],
            {"p": {"x": 1.0}},
            schedule={"max_grad_norm": most},
            dtype=torch.float64,
        )
    )
    toy_step(states[0])
    moved = 3.0 - number(states[0], "n", "x"), 2.0 - number(states[0], "n", "y")
    assert moved == pytest.approx((0.1 * factor * 3, 0.1 * factor * 4), rel=1e-5)
    assert math.hypot(*moved) / 0.1 <= (most or math.inf) + 1e-12


def test_each_network_is_clipped_by_its_own_norm() -> None:
    """A network with small gradients is not scaled down by the large ones of another."""

    def losses(given: Given) -> dict[str, Tensor]:
        networks = state.translator.networks
        return {"x": 300 * networks["large"].x + 0.5 * networks["small"].x}

    networks = {"large": Numbers(x=0.0), "small": Numbers(x=0.0)}
    state = new_toy(
        networks, [phase("p", losses, "large", "small")], {"p": {"x": 1.0}}, schedule={"max_grad_norm": 1.0}
    )
    toy_step(state)
    assert (number(state, "large", "x"), number(state, "small", "x")) == pytest.approx((-0.1, -0.05))


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "rmsprop"])
def test_a_parameter_that_no_loss_reached_stays_in_spite_of_weight_decay(optimizer: str) -> None:
    """Its gradient is None, which is not 0: then weight decay would move it."""
    states: list[TrainingState] = []
    networks = {"n": Numbers(x=3.0, idle=2.0)}
    states.append(
        new_toy(networks, [quadratic(states, "x")], {"p": {"x": 1.0}}, optimizer=optimizer, weight_decay=0.5)
    )
    for step in range(3):
        toy_step(states[0], step)
    assert number(states[0], "n", "x") != 3
    assert number(states[0], "n", "idle") == 2
    assert states[0].translator.networks["n"].idle.grad is None


@pytest.mark.parametrize("options", [{"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {}])
def test_a_parameter_may_be_reached_for_the_first_time_at_a_later_step(options: dict[str, Any]) -> None:
    """As with a branch for each label; its momentum then starts, and equals torch's formula."""

    def losses(given: Given) -> dict[str, Tensor]:
        network = state.translator.networks["n"]
        return {"x": network.x + (network.y if given.step >= 2 else 0)}

    state = new_toy({"n": Numbers(x=0.0, y=0.0)}, [phase("p", losses, "n")], {"p": {"x": 1.0}}, **options)
    for step in range(4):
        toy_step(state, step)
    momentum, nesterov = options.get("momentum", 0.0), options.get("nesterov", False)

    def after(updates: int) -> float:
        x = velocity = 0.0
        for _ in range(updates):
            velocity = momentum * velocity + 1
            x -= 0.1 * (1 + momentum * velocity if nesterov else velocity)
        return x

    assert (number(state, "n", "x"), number(state, "n", "y")) == pytest.approx((after(4), after(2)))


# Skipped updates


class Idle(nn.Module):
    """A generative network with batch norm, of which another phase than its own uses the output."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) * self.scale


def with_idle_encoder(norm: Callable[[], nn.Module]) -> TrainingState:
    """The critic's phase runs the encoder, which it does not train, on images."""

    def losses(given: Given) -> dict[str, Tensor]:
        networks = state.translator.networks
        return {"x": (networks["encoder"](given.images["a"]) * networks["critic"].x).square().mean()}

    networks = {"encoder": Idle(norm()), "critic": Numbers(x=1.0)}
    state = new_toy(networks, [phase("critic", losses, "critic")], {"critic": {"x": 1.0}}, optimizer="adam")
    return state


def with_pixel(value: float) -> dict[str, Tensor]:
    x = images()
    x["a"][0, 0, 0, 0] = value
    return x


@pytest.mark.parametrize("norm", [lambda: BatchNorm(1), lambda: nn.BatchNorm2d(1)], ids=["own", "torch's"])
@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_running_statistics_of_an_idle_network_stay_finite(
    norm: Callable[[], nn.Module], value: float
) -> None:
    """A NaN gives NaN gradients; 1e30 gives finite ones, but an infinite running_var. Both are skipped.

    Statistics, parameters and moments are those from before.
    """
    state = with_idle_encoder(norm)
    toy_step(state)
    before = everything(state)
    toy_step(state, 1, with_pixel(value))
    assert state.skips == 1
    assert_same(everything(state), before)
    toy_step(state, 2)
    assert state.skips == 0
    assert number(state, "critic", "x") != before["networks"]["networks.critic.x"].item()
    assert all(buffer.isfinite().all() for buffer in state.translator.buffers())


def test_a_pixel_of_1e30_has_finite_gradients() -> None:
    """So that the test above is about running statistics: without looking at them, nothing would be wrong."""
    norm, x = nn.BatchNorm2d(1), with_pixel(1e30)["a"]
    scale = nn.Parameter(torch.tensor(1.0))
    (norm(x) * scale).square().mean().backward()
    assert scale.grad is not None
    assert scale.grad.isfinite()
    assert norm.running_var is not None
    assert norm.running_var.isinf().all()


def test_a_buffer_that_starts_at_infinity_is_no_reason_to_skip() -> None:
    """Such as a running minimum; only what was finite has to stay finite."""

    def losses(given: Given) -> dict[str, Tensor]:
        network = state.translator.networks["n"]
        network.lowest.copy_(torch.minimum(network.lowest, given.images["a"].min()))
        return {"x": network.x + 0.0}

    network = Numbers(x=1.0)
    network.register_buffer("lowest", torch.tensor([math.inf, math.inf]))
    network.lowest[1] = -math.inf
    state = new_toy({"n": network}, [phase("p", losses, "n")], {"p": {"x": 1.0}})
    toy_step(state)
    assert state.skips == 0
    assert network.lowest.tolist() == [images()["a"].min().item(), -math.inf]


def counting(given: Given) -> Result:
    """Counts its steps in `count`, and keeps the last image in `last`; the loss is that image's mean."""
    x = given.images["a"].mean((1, 2, 3))
    kept = {"count": given.kept["count"] + 1, "last": given.images["a"][:, 0, :1]}
    return Result({"x": (x * COUNTED[0].translator.networks["n"].x).mean()}, kept=kept)


COUNTED: list[TrainingState] = []


def counted_state(**keeps: Kept) -> TrainingState:
    keeps = {"count": Kept((), torch.int64, start=5), "last": Kept((1, 8)), **keeps}
    COUNTED[:] = [new_toy({"n": Numbers(x=1.0)}, [phase("p", counting, "n", keeps=keeps)], {"p": {"x": 1.0}})]
    return COUNTED[0]


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_what_a_phase_keeps_is_that_from_before_a_skipped_update(value: float) -> None:
    """Also a count, which is finite, and whatever the place whose image was at fault."""
    state = counted_state()
    toy_step(state)
    assert state.kept["p"]["count"].tolist() == [6, 6]
    assert torch.equal(state.kept["p"]["last"], images()["a"][:, 0, :1])
    before = everything(state)
    toy_step(state, 1, with_pixel(value))
    assert_same(everything(state), before)
    toy_step(state, 2)
    assert state.kept["p"]["count"].tolist() == [7, 7]
    assert torch.equal(state.kept["p"]["last"], images(step=2)["a"][:, 0, :1])


def test_a_kept_tensor_that_is_not_finite_is_skipped_though_gradients_are() -> None:
    """Otherwise a NaN in a pool would come back many steps later."""
    value = [1.0]

    def losses(given: Given) -> Result:
        return Result({"x": state.translator.networks["n"].x + 0.0}, kept={"k": given.kept["k"] + value[0]})

    state = new_toy(
        {"n": Numbers(x=1.0)}, [phase("p", losses, "n", keeps={"k": Kept((2,))})], {"p": {"x": 1.0}}
    )
    for step, (value[0], kept) in enumerate([(1.0, 1.0), (math.nan, 1.0), (math.inf, 1.0), (2.0, 3.0)]):
        toy_step(state, step)
        assert state.kept["p"]["k"].tolist() == [[kept, kept]] * 2
    assert number(state, "n", "x") == pytest.approx(1 - 2 * 0.1)


def test_a_kept_tensor_may_start_at_infinity() -> None:
    """As a lowest value so far does; like a buffer, it has to stay finite only where it was."""

    def losses(given: Given) -> Result:
        lowest = torch.minimum(given.kept["lowest"], given.images["a"].amin((1, 2, 3)))
        return Result(
            {"x": state.translator.networks["n"].x + 0.0}, kept={"lowest": lowest, "free": given.kept["free"]}
        )

    keeps = {"lowest": Kept((), start=math.inf), "free": Kept((3,), start=math.inf)}
    state = new_toy({"n": Numbers(x=1.0)}, [phase("p", losses, "n", keeps=keeps)], {"p": {"x": 1.0}})
    toy_step(state)
    assert state.skips == 0
    assert torch.equal(state.kept["p"]["lowest"], images()["a"].amin((1, 2, 3)))


def test_a_phase_that_returns_another_shape_than_it_keeps_is_an_error() -> None:
    """The message has both."""
    wrong = phase(
        "p",
        lambda given: Result({"x": state.translator.networks["n"].x + 0.0}, kept={"k": torch.zeros(2, 4)}),
        "n",
        keeps={"k": Kept((3,))},
    )
    state = new_toy({"n": Numbers(x=1.0)}, [wrong], {"p": {"x": 1.0}})
    with pytest.raises(TrainingError, match=r"phase 'p' keeps .*\(2, 3\).* but it returned .*\(2, 4\)"):
        toy_step(state)


def test_a_pool_is_not_filled_by_a_skipped_update() -> None:
    """Neither the images in it, nor their number."""
    pool, filled = pool_keeps(4, 1, 8)

    def losses(given: Given) -> Result:
        shown, *kept = pooled(given.images["a"], given.kept["pool"], given.kept["filled"], given.draws["d"])
        loss = (shown * state.translator.networks["n"].x).mean()
        return Result({"x": loss}, kept=dict(zip(("pool", "filled"), kept, strict=True)))

    one = phase("p", losses, "n", draws={"d": POOL_DRAW}, keeps={"pool": pool, "filled": filled})
    state = new_toy({"n": Numbers(x=1.0)}, [one], {"p": {"x": 1.0}})
    toy_step(state)
    before = everything(state)
    assert before["kept"]["p"]["filled"].tolist() == [1, 1]
    toy_step(state, 1, with_pixel(math.nan))
    assert_same(everything(state), before)
    toy_step(state, 2)
    assert state.kept["p"]["filled"].tolist() == [2, 2]
    assert torch.equal(state.kept["p"]["pool"][:, 1], images(step=2)["a"])


def test_what_is_kept_follows_its_place_through_micro_batches() -> None:
    """Two micro-batches, or one: the same values at the same places."""
    found = []
    for cut in ([(0, 2), (1, 3)], [(0, 2, 1, 3)]):
        places = [place for here in cut for place in here]

        network = Numbers(x=1.0)

        def losses(given: Given, network: Numbers = network) -> Result:
            total = given.kept["total"] + given.images["a"].mean((1, 2, 3))
            return Result({"x": (total * network.x).mean()}, kept={"total": total})

        one = phase("p", losses, "n", keeps={"total": Kept()})
        state = new_toy({"n": network}, [one], {"p": {"x": 1.0}}, batch_size=4, places=places)
        for step in range(2):
            x = images(4, step=step)
            micro = [MicroBatch({d: x[d][list(here)] for d in x}, here, len(here) / 4) for here in cut]
            train_step(state, step, micro, counted_draw(0, step))
        found.append(dict(zip(places, state.kept["p"]["total"].tolist(), strict=True)))
        expected = sum(images(4, step=step)["a"].mean((1, 2, 3)) for step in range(2))
        assert [found[-1][place] for place in range(4)] == pytest.approx(expected.tolist(), abs=1e-6)
    assert found[0] == pytest.approx(found[1], abs=1e-6)


# Loss scaling, as for fp16


def scaled(state: TrainingState, scale: float = 2.0**10) -> TrainingState:
    state.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    return state


def test_a_phase_of_weight_0_leaves_the_loss_scale_alone() -> None:
    """It has no gradients from which the scale could be judged; the first phase of all included."""
    state = scaled(two_phases({"start": 0.0, "end": 2.0, "steps": 2}, []))
    for step in range(3):
        toy_step(state, step)
        assert state.skips == 0
    assert state.accelerator.scaler is not None
    assert state.accelerator.scaler.get_scale() == 2.0**10
    assert number(state, "one", "x") != 1


def test_statistics_that_overflow_count_as_skips_whatever_the_loss_scale() -> None:
    """Halving the scale would not help: the gradients are finite."""
    state = scaled(with_idle_encoder(lambda: nn.BatchNorm2d(1)))
    toy_step(state)
    toy_step(state, 1, with_pixel(1e30))
    assert state.skips == 1
    for step in range(2, 20):
        toy_step(state, step, with_pixel(1e30))
    with pytest.raises(
        TrainingError, match=r"phase 'critic': gradients or running statistics were not finite"
    ):
        toy_step(state, 20, with_pixel(1e30))

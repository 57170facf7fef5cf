"""What a translator declares: domains, directions, weights, draws of components."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from i2ikit.draws import Draw, counted_draws
from i2ikit.errors import DataError, RunError
from i2ikit.translator import (
    Direction,
    Given,
    ImageSpec,
    Translator,
    chosen_direction,
    draws_of,
    frozen,
    one_per_target,
)


class Domains(Translator):
    """A translator between any domains, whose network is one scale."""

    generative = ("scale",)
    adversarial = ()
    num_domains = None

    def __init__(self, *names: str, style_dim: Mapping[str, int] | None = None) -> None:
        super().__init__(ImageSpec(dict.fromkeys(names, 3), 8), {"scale": nn.Linear(1, 1)}, {"p": {"x": 1.0}})
        self.style_dim = style_dim or {}

    def phases(self) -> tuple[Any, ...]:
        return ()

    def translate(self, x: Tensor, style: Tensor, *, source: str, to: str) -> Tensor:
        return x

    def sample_style(self, n: int, to: str, generator: torch.Generator | None = None) -> Tensor:
        if to in self.style_dim:
            return torch.randn(n, self.style_dim[to], generator=generator)
        return super().sample_style(n, to, generator)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "two or more domains are needed, got none"),
        (("cat",), "two or more domains are needed, got cat"),
        (("cat", "wild cat"), "'wild cat' cannot name a domain; use letters, digits, - and _"),
        (("cat", "a/b"), "'a/b' cannot name a domain"),
        (("cat", "dog.x"), "'dog.x' cannot name a domain"),
        (("cat", ""), "'' cannot name a domain"),
        (("cat", "köter"), "'köter' cannot name a domain"),
        (("cat", "dog\n"), "' cannot name a domain"),
        (("cat", "keys"), "'keys' cannot name a domain; .* and no name that torch reserves, such as 'train'"),
        (("train", "dog"), "'train' cannot name a domain"),
        (("cat", "d" * 65), "'d+' cannot name a domain; 65 characters are more than the limit of 64"),
    ],
)
def test_domains_that_cannot_be_used_are_refused(names: tuple[str, ...], message: str) -> None:
    """With the name and what is possible instead."""
    with pytest.raises(DataError, match=message):
        ImageSpec(dict.fromkeys(names, 3), 8)


@pytest.mark.parametrize("number", [0, -1])
def test_a_domain_needs_a_channel(number: int) -> None:
    """The message has the domain and the number."""
    with pytest.raises(DataError, match=f"domain dog has {number} channels; 1 or more are needed"):
        ImageSpec({"cat": 1, "dog": number}, 8)


@pytest.mark.parametrize("name", ["a", "cat", "wild-2", "T1_weighted", "0", "_x", "-"])
def test_a_domain_may_have_any_other_name_and_networks_by_it(name: str) -> None:
    """Also in an nn.ModuleDict, and any number of channels."""
    spec = ImageSpec({"other": 13, name: 1}, 8)
    assert list(spec.channels) == ["other", name]
    assert nn.ModuleDict({domain: nn.Identity() for domain in spec.channels})[name] is not None


def test_a_name_that_torch_reserves_is_refused_here_and_not_in_a_network() -> None:
    """For every attribute that a module has, whatever the version of torch."""
    reserved = {*dir(nn.ModuleDict()), "training"}
    for name in reserved:
        with pytest.raises(DataError, match="cannot name a domain"):
            ImageSpec({name: 3, "dog": 3}, 8)


@pytest.mark.parametrize(
    ("direction", "text"),
    [
        (Direction("a", "b"), "a2b"),
        (Direction("b", "a"), "b2a"),
        (Direction("0", "_"), "02_"),
        (Direction("cat", "dog"), "cat-to-dog"),
        (Direction("a", "dog"), "a-to-dog"),
        (Direction("wild-2", "b"), "wild-2-to-b"),
    ],
)
def test_a_direction_has_a_short_text_for_letters_and_a_long_one_for_words(
    direction: Direction, text: str
) -> None:
    """It stands in file names and reports; earlier runs have a2b."""
    assert str(direction) == f"{direction}" == text
    source, to = direction
    assert (source, to) == (direction.source, direction.to)


def test_a_translator_has_every_direction_between_its_domains() -> None:
    """In the order of its domains; the first is the default."""
    assert Domains("b", "a").directions == (("b", "a"), ("a", "b"))
    three = Domains("cat", "dog", "wild")
    assert [str(direction) for direction in three.directions] == [
        "cat-to-dog", "cat-to-wild", "dog-to-cat", "dog-to-wild", "wild-to-cat", "wild-to-dog",
    ]  # fmt: skip
    assert one_per_target(three) == [("cat", "dog"), ("cat", "wild"), ("dog", "cat")]
    assert len(Domains(*"abcde").directions) == 20


@pytest.mark.parametrize(
    ("source", "to", "expected"),
    [
        (None, None, ("cat", "dog")),
        (None, "cat", ("dog", "cat")),
        (None, "wild", ("cat", "wild")),
        ("wild", None, ("wild", "cat")),
        ("wild", "dog", ("wild", "dog")),
    ],
)
def test_the_first_direction_that_fits_is_chosen(
    source: str | None, to: str | None, expected: tuple[str, str]
) -> None:
    """What is not given is open."""
    assert chosen_direction(Domains("cat", "dog", "wild"), source, to) == expected


@pytest.mark.parametrize(
    ("source", "to", "wanted"),
    [
        ("cat", "cat", "from cat to cat"),
        (None, "bird", "to bird"),
        ("bird", None, "from bird"),
        ("dog", "bird", "from dog to bird"),
    ],
)
def test_a_direction_that_is_not_there_is_answered_with_those_that_are(
    source: str | None, to: str | None, wanted: str
) -> None:
    """In words, not as a2b."""
    with pytest.raises(RunError) as caught:
        chosen_direction(Domains("cat", "dog"), source, to)
    known = "it translates cat to dog, dog to cat"
    assert str(caught.value) == f"this translator does not translate {wanted}; {known}"


def test_a_translator_of_one_direction_says_so() -> None:
    """A subclass may have fewer directions than pairs of domains."""
    one = Domains("a", "b")
    one.directions = (Direction("a", "b"),)
    with pytest.raises(RunError, match="does not translate to a; it translates a to b"):
        chosen_direction(one, None, "a")
    assert one_per_target(one) == [("a", "b")]


def test_a_translator_without_styles_is_deterministic_for_each_target_of_its_own() -> None:
    """Styles of length 0, in any number."""
    mixed = Domains("a", "b", style_dim={"b": 4})
    assert (mixed.is_deterministic("a"), mixed.is_deterministic("b")) == (True, False)
    assert mixed.sample_style(3, "a").shape == (3, 0)
    assert mixed.sample_style(3, "b").shape == (3, 4)


def test_networks_that_do_not_match_the_roles_are_an_error() -> None:
    """It names both."""

    class Wrong(Domains):
        generative = ("scale", "shift")

    with pytest.raises(
        TypeError, match=r"Wrong: got networks \['scale'\], but the class declares \['scale', 'shift'\]"
    ):
        Wrong("a", "b")


class Noisy(nn.Module):
    """Adds noise from its draws."""

    def draws(self, size: int) -> Mapping[str, Draw]:
        return {"noise": Draw((1, size, size)), "shift": Draw((), "uniform")}

    def forward(self, x: Tensor, draws: Mapping[str, Tensor] | None = None) -> Tensor:
        return x if draws is None else x + draws["noise"] + draws["shift"][:, None, None, None]


def test_a_component_has_a_set_of_draws_for_each_call() -> None:
    """Named by key, call and draw; networks that draw nothing are left out."""
    networks = {"a": Noisy(), "b": nn.Identity()}
    declared = draws_of(8, networks, "fake", "real")
    assert declared == {
        f"a/{call}/{name}": draw for call in ("fake", "real") for name, draw in Noisy().draws(8).items()
    }
    assert draws_of(8, networks) == {}
    draws = counted_draws(0, 0, "p", {**declared, "z": Draw((2,))}, range(4))
    given = Given({"a": torch.zeros(4, 1, 8, 8)}, draws)
    x = torch.zeros(4, 1, 8, 8)
    fake, real = (given.drawing(f"a/{call}", networks["a"])(x) for call in ("fake", "real"))
    expected = draws["a/fake/noise"] + draws["a/fake/shift"][:, None, None, None]
    assert torch.equal(fake, expected)
    assert not torch.equal(fake, real)
    assert given.drawing("b/fake", networks["b"]) is networks["b"]
    half = given.drawing("a/fake", networks["a"], slice(2, 4))(x[2:])
    assert torch.equal(half, fake[2:])


def test_a_call_whose_name_starts_like_another_has_its_own_draws() -> None:
    """As "fake" and "fake2"."""
    networks = {"a": Noisy()}
    draws = counted_draws(0, 0, "p", draws_of(8, networks, "fake", "fake2"), [0])
    given, x = Given({}, draws), torch.zeros(1, 1, 8, 8)
    found = given.drawing("a/fake", networks["a"])(x)
    assert torch.equal(found, draws["a/fake/noise"] + draws["a/fake/shift"][:, None, None, None])


def test_frozen_networks_pass_gradients_on_and_get_none() -> None:
    """Parameters that were frozen before stay so afterwards."""
    network, fixed = nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False)
    x = torch.ones(1, 2, requires_grad=True)
    with frozen(network, fixed):
        fixed(network(x)).sum().backward()
    assert x.grad is not None
    assert network.weight.grad is None
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not any(parameter.requires_grad for parameter in fixed.parameters())
    with pytest.raises(RuntimeError, match="stop"), frozen(network):
        raise RuntimeError("stop")
    assert all(parameter.requires_grad for parameter in network.parameters())

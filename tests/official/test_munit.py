"""MUNIT's weights in the official layout: recognition, conversion both ways, and what does not fit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from i2ikit.errors import WeightsError
from i2ikit.official.munit import (
    DiscriminatorStructure,
    GeneratorStructure,
    Structure,
    components,
    constants,
    names,
    recognise,
    shapes,
    to_official,
    to_ours,
)
from i2ikit.translator import ImageSpec
from i2ikit_munit import Munit

TINY = GeneratorStructure(3, 2, 4, 5, 1, 1)


def structures() -> Iterator[Structure]:
    """Generators and discriminators of several widths, channels, depths, code lengths and norms."""
    for channels, width, style_dim, mlp_width, down, blocks in (
        (3, 2, 8, 16, 2, 4),
        (1, 3, 1, 4, 2, 1),
        (4, 1, 3, 7, 0, 2),
        (3, 2, 16, 3, 1, 3),
        (3, 1, 8, 4, 3, 11),
    ):
        yield GeneratorStructure(channels, width, style_dim, mlp_width, down, blocks)
    for halvings in (1, 2, 6):
        yield replace(TINY, num_style_downsample=halvings)
    yield replace(TINY, content_norm="batch", style_norm="batch")
    yield replace(TINY, content_norm="layer", style_norm="layer", up_norm="batch")
    for channels, width, layers, scales in ((3, 2, 4, 3), (1, 3, 1, 1), (6, 1, 2, 2), (3, 1, 5, 4)):
        yield DiscriminatorStructure(channels, width, layers, scales)
    yield DiscriminatorStructure(3, 2, 3, 2, "batch")
    yield DiscriminatorStructure(3, 2, 3, 2, "layer")


def random_state(structure: Structure) -> dict[str, Tensor]:
    """An official state dict of random numbers, with the official constants."""
    state = {
        key: torch.tensor(7) if key.endswith("num_batches_tracked") else torch.rand(shape)
        for key, shape in shapes(structure).items()
    }
    return state | constants(structure)


def networks(structure: Structure) -> dict[str, nn.Module]:
    """Our networks, by the names of the translator's options."""
    made = components(structure)
    if isinstance(structure, DiscriminatorStructure):
        return {"discriminator": made["discriminator"](structure.channels)}
    s = structure
    content = made["content_encoder"](s.channels)
    wired = content.out_channels, s.channels, s.style_dim, content.num_downsample
    return {
        "content_encoder": content,
        "style_encoder": made["style_encoder"](s.channels, s.style_dim),
        "decoder": made["decoder"](*wired),
    }


def identity(structure: Structure) -> str:
    return "-".join(str(value) for value in vars(structure).values())


@pytest.mark.parametrize("structure", list(structures()), ids=identity)
def test_official_weights_are_recognised_and_come_back_bit_for_bit(structure: Structure) -> None:
    """official -> ours -> official gives the same tensors, and ours load into our components."""
    state = random_state(structure)
    assert recognise(state) == structure
    ours = to_ours(state)
    made = networks(structure)
    assert made.keys() == ours.keys()
    for option, network in made.items():
        network.load_state_dict(ours[option])
    again = to_official({option: network.state_dict() for option, network in made.items()}, structure)
    assert again.keys() == state.keys()
    for key, tensor in state.items():
        assert torch.equal(again[key], tensor), key
        assert again[key].dtype == tensor.dtype, key


def test_every_official_tensor_has_its_own_name_in_ours() -> None:
    for structure in structures():
        table = names(structure)
        assert len(set(table.values())) == len(table)
        assert shapes(structure).keys() == table.keys() | constants(structure).keys()


def test_the_keys_of_the_generator_are_the_official_ones() -> None:
    """All keys of the official configuration, and its number of parameters."""
    modules = [f"enc_style.model.{n}.conv" for n in range(5)] + ["enc_style.model.6"]
    modules += [f"enc_content.model.{n}.conv" for n in range(3)]
    halves = [f"model.{n}.model.{m}" for n in range(4) for m in range(2)]
    modules += [f"enc_content.model.3.{half}.conv" for half in halves]
    modules += [f"dec.model.0.{half}.conv" for half in halves]
    modules += [f"dec.model.{n}.conv" for n in (2, 4, 5)] + [f"mlp.model.{n}.fc" for n in range(3)]
    expected = {f"{module}.{tensor}" for module in modules for tensor in ("weight", "bias")}
    expected |= {f"dec.model.{n}.norm.{tensor}" for n in (2, 4) for tensor in ("gamma", "beta")}
    dummies = {f"dec.model.0.{half}.norm.running_{tensor}" for half in halves for tensor in ("mean", "var")}
    found = shapes(GeneratorStructure(3, 64, 8, 256, 2, 4))
    assert found.keys() == expected | dummies
    assert {found[key] for key in dummies} == {(256,)}
    assert found["enc_style.model.6.weight"] == (8, 256, 1, 1)
    assert found["mlp.model.2.fc.weight"] == (4096, 256)
    assert sum(torch.Size(found[key]).numel() for key in expected) == 15_026_187


def test_the_keys_of_the_discriminator_are_the_official_ones() -> None:
    """All keys of the official configuration, and its number of parameters."""
    modules = [f"cnns.{scale}.{n}{'.conv' if n < 4 else ''}" for scale in range(3) for n in range(5)]
    found = shapes(DiscriminatorStructure(3, 64, 4, 3))
    assert found.keys() == {f"{module}.{tensor}" for module in modules for tensor in ("weight", "bias")}
    assert sum(torch.Size(shape).numel() for shape in found.values()) == 8_271_171


def test_the_dummies_are_written_as_the_official_code_initialises_them() -> None:
    written = to_official(to_ours(random_state(TINY)), TINY)
    norm = "dec.model.0.model.0.model.1.norm"
    assert torch.equal(written[f"{norm}.running_mean"], torch.zeros(4))
    assert torch.equal(written[f"{norm}.running_var"], torch.ones(4))
    wide = {option: {k: x.double() for k, x in part.items()} for option, part in to_ours(written).items()}
    assert to_official(wide, TINY)[f"{norm}.running_var"].dtype == torch.float64


def test_prefixes_legacy_statistics_and_dummies_are_left_out() -> None:
    """Files of PyTorch 0.3 hold statistics of instance norms; dummies may have any values, or be missing."""
    state = random_state(TINY)
    legacy = {f"module.{key}": x for key, x in state.items() if key not in constants(TINY)}
    for norm in ("enc_content.model.0", "enc_content.model.2.model.0.model.1", "dec.model.0.model.0.model.0"):
        legacy |= {f"module.{norm}.norm.running_mean": torch.rand(9)}
        legacy |= {f"module.{norm}.norm.running_var": torch.rand(9)}
    assert recognise(legacy) == TINY
    ours, expected = to_ours(legacy), to_ours(state)
    for option, part in expected.items():
        assert ours[option].keys() == part.keys()
        assert all(torch.equal(ours[option][key], x) for key, x in part.items())


def test_counters_of_batch_norm_may_be_missing() -> None:
    """Files of PyTorch 0.4.0 have none; they start at 0."""
    state = random_state(replace(TINY, content_norm="batch"))
    early = {key: x for key, x in state.items() if not key.endswith("num_batches_tracked")}
    assert to_ours(early)["content_encoder"]["layers.0.norm.norm.num_batches_tracked"] == 0


def test_a_discriminator_with_instance_norm_looks_like_one_without() -> None:
    """Instance norm has no tensors; `replace` states what the file does not show."""
    plain = DiscriminatorStructure(3, 2, 3, 2)
    normed = replace(plain, norm="instance")
    assert shapes(normed) == shapes(plain)
    assert recognise(random_state(normed)) == plain
    assert components(normed)["discriminator"].options["norm"].name == "in"


def test_components_are_options_of_the_translator() -> None:
    """The networks of a translator built with them load the converted weights."""
    judge = DiscriminatorStructure(3, 2, 2, 2)
    options = components(TINY) | components(judge)
    translator = Munit(ImageSpec({"a": 3, "b": 3}, 32), style_dim=TINY.style_dim, **options)
    ours = to_ours(random_state(TINY)) | to_ours(random_state(judge))
    for option, part in ours.items():
        translator.networks[f"{option}s"]["b"].load_state_dict(part)


def test_what_does_not_fit_is_listed_key_by_key() -> None:
    state = random_state(GeneratorStructure(3, 2, 4, 5, 2, 2))
    del state["enc_content.model.1.conv.weight"]
    del state["mlp.model.1.fc.bias"]
    state["dec.model.2.norm.gamma"] = torch.rand(5)
    state["dec.model.9.strange"] = torch.rand(1)
    with pytest.raises(WeightsError) as refused:
        to_ours(state)
    assert str(refused.value).splitlines() == [
        "4 tensors do not fit the network:",
        "  missing: enc_content.model.1.conv.weight",
        "  missing: mlp.model.1.fc.bias",
        "  unexpected: dec.model.9.strange",
        "  wrong shape: dec.model.2.norm.gamma is (5,), not (4,)",
    ]
    ours = to_ours(random_state(TINY))
    del ours["decoder"]["head.weight"]
    del ours["style_encoder"]
    with pytest.raises(WeightsError, match=r"missing: style_encoder\.head\.bias(.|\n)*decoder\.head\.weight"):
        to_official(ours, TINY)


@pytest.mark.parametrize("tensor", ["weight_bar", "weight_u", "weight_v"])
def test_spectral_norm_is_refused_by_name(tensor: str) -> None:
    with pytest.raises(WeightsError, match=r"the weights have spectral norm .* which is not supported"):
        recognise({f"cnns.0.1.conv.module.{tensor}": torch.rand(4)})


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "it has no 'enc_content.model.0.conv.weight'"),
        ({"enc_content.model.0.conv.weight": (2,)}, "has 1 dimensions, not 4"),
        (
            {"enc_content.model.0.conv.weight": (2, 3, 7, 7)},
            "it has no residual blocks 'enc_content.model.1.model....'",
        ),
        (
            {
                "enc_content.model.0.conv.weight": (2, 3, 7, 7),
                "enc_content.model.1.model.0.model.0.conv.bias": (2,),
                "enc_style.model.4.conv.weight": (8, 8, 4, 4),
            },
            "it has no 'enc_style.model.6.weight'",
        ),
        ({"cnns.0.0.weight": (2, 3, 4, 4)}, "it has no 'cnns.0.0.conv.weight'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_state_dicts_are_refused(state: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(WeightsError, match=re.escape(message)) as refused:
        recognise({key: torch.zeros(shape) for key, shape in state.items()})
    assert str(refused.value).startswith("not a state dict of a generator or discriminator of the MUNIT")

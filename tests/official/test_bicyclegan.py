"""BicycleGAN's weights in the official layout: recognition, conversion both ways, and what does not fit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from i2ikit.errors import WeightsError
from i2ikit.official import resnet_unet
from i2ikit.official.bicyclegan import (
    DiscriminatorStructure,
    EncoderStructure,
    GeneratorStructure,
    Structure,
    component,
    names,
    recognise,
    shapes,
    to_official,
    to_ours,
)
from i2ikit.official.tables import Norm
from i2ikit.translator import ImageSpec
from i2ikit_bicyclegan import BicycleGAN

NORMS: tuple[Norm, ...] = ("instance", "batch")
INJECTIONS: tuple[Literal["all", "input"], ...] = ("all", "input")


def structures() -> Iterator[Structure]:
    """Networks of both norms, and of several widths, channels, depths and code lengths."""
    for norm in NORMS:
        for inject in INJECTIONS:
            for given, made, latent, width, levels in ((1, 3, 8, 2, 8), (3, 1, 2, 3, 7), (4, 5, 1, 1, 5)):
                yield GeneratorStructure(given, made, latent, width, levels, inject, norm)
            yield GeneratorStructure(3, 3, 8, 2, 2, inject, "instance")
        for channels, latent, width, blocks in ((3, 8, 2, 4), (1, 2, 3, 5), (4, 16, 1, 1)):
            yield EncoderStructure(channels, latent, width, blocks, norm)
        for channels, width, layers, scales in ((3, 8, 3, 2), (1, 6, 3, 1), (4, 7, 1, 3), (3, 2, 4, 2)):
            yield DiscriminatorStructure(channels, width, layers, scales, norm)


def random_state(structure: Structure) -> dict[str, Tensor]:
    """An official state dict of random numbers."""
    return {
        key: torch.tensor(7) if key.endswith("num_batches_tracked") else torch.rand(shape)
        for key, shape in shapes(structure).items()
    }


def network(structure: Structure) -> nn.Module:
    """Our network of this structure."""
    made = component(structure)
    if isinstance(structure, GeneratorStructure):
        return made(structure.in_channels, structure.out_channels, structure.latent_dim)
    if isinstance(structure, EncoderStructure):
        return made(structure.in_channels, structure.latent_dim)
    return made(structure.in_channels)


def identity(structure: Structure) -> str:
    return "-".join([type(structure).__name__, *(str(value) for value in vars(structure).values())])


@pytest.mark.parametrize("structure", list(structures()), ids=identity)
def test_official_weights_are_recognised_and_come_back_bit_for_bit(structure: Structure) -> None:
    """official -> ours -> official gives the same tensors, and ours load into our component."""
    state = random_state(structure)
    # A file of add_to_input does not show the length of the code.
    assert recognise(state, latent_dim=getattr(structure, "latent_dim", 8)) == structure
    made = network(structure)
    made.load_state_dict(to_ours(state))
    again = to_official(made.state_dict(), structure)
    assert again.keys() == state.keys()
    for key, tensor in state.items():
        assert torch.equal(again[key], tensor), key
        assert again[key].dtype == tensor.dtype, key


def test_every_official_tensor_has_its_own_name_in_ours() -> None:
    for structure in structures():
        table = names(structure)
        assert len(set(table.values())) == len(table)
        assert shapes(structure).keys() == table.keys()


def parameters(structure: Structure) -> int:
    return sum(torch.Size(shape).numel() for shape in shapes(structure).values())


def both(modules: list[str]) -> set[str]:
    """Weights and biases of modules."""
    return {f"{module}.{tensor}" for module in modules for tensor in ("weight", "bias")}


def test_the_keys_of_the_generators_are_the_official_ones() -> None:
    """All keys of add_to_all with 8 levels, and the numbers of parameters of both."""
    levels = ["model." + "submodule." * n for n in range(8)]
    expected = ["model.down.0", *(f"{level}down.1" for level in levels[1:])]
    expected += [f"{level}up.1" for level in levels]
    everywhere = GeneratorStructure(1, 3, 8, 64, 8)
    assert shapes(everywhere).keys() == both(expected)
    assert shapes(everywhere)["model.submodule.down.1.weight"] == (128, 72, 4, 4)
    assert shapes(everywhere)["model.submodule.up.1.weight"] == (256, 64, 4, 4)
    assert parameters(everywhere) == 54_792_579
    assert parameters(replace(everywhere, inject="input")) == 54_415_747


def test_add_to_input_has_the_names_of_pix2pix() -> None:
    """Only the order of the channels that up convolutions get differs: ours is that of BicycleGAN."""
    for norm in NORMS:
        here = GeneratorStructure(1, 3, 8, 2, 8, "input", norm)
        there = resnet_unet.Structure("unet", 9, 3, 2, 8, norm)  # type: ignore[arg-type]
        found, expected = names(here), resnet_unet.names(there)
        # Before batch norm, the convolutions of pix2pix have no bias.
        assert {key: name for key, name in found.items() if key in expected} == expected
        assert {key.rpartition(".")[2] for key in found.keys() - expected.keys()} <= {"bias"}
    key = "model.model.3.weight"
    state = random_state(replace(here, norm="instance"))
    assert torch.equal(to_ours(state)["up.0.weight"], state[key])
    assert torch.equal(resnet_unet.to_ours(state)["up.0.weight"], torch.cat([state[key][2:], state[key][:2]]))


def test_the_keys_of_encoder_and_discriminator_are_the_official_ones() -> None:
    """All keys of the official defaults, and their numbers of parameters."""
    blocks = [f"conv.{n}.{m}" for n in range(1, 5) for m in ("conv.2", "conv.5.0", "shortcut.1")]
    encoder = EncoderStructure(3, 8, 64, 4)
    assert shapes(encoder).keys() == both(["conv.0", *blocks, "fc.0", "fcVar.0"])
    assert parameters(encoder) == 2_590_032
    discriminator = DiscriminatorStructure(3, 64, 3, 2)
    positions = [f"model_{scale}.{n}" for scale in (0, 1) for n in (0, 2, 5, 8, 11)]
    assert shapes(discriminator).keys() == both(positions)
    assert shapes(discriminator)["model_1.0.weight"] == (32, 3, 4, 4)
    assert parameters(discriminator) == 3_458_978


def test_the_length_of_the_code() -> None:
    """Shapes show it, except those of add_to_input, which show its sum with the channels of the image."""
    everywhere = random_state(GeneratorStructure(3, 1, 5, 2, 5))
    assert recognise(everywhere) == recognise(everywhere, latent_dim=2) == GeneratorStructure(3, 1, 5, 2, 5)
    at_input = random_state(GeneratorStructure(1, 3, 8, 2, 5, "input"))
    assert recognise(at_input) == GeneratorStructure(1, 3, 8, 2, 5, "input")
    assert recognise(at_input, latent_dim=6) == GeneratorStructure(3, 3, 6, 2, 5, "input")
    with pytest.raises(WeightsError, match=r"9 input channels, too few for an image and a code of length 9"):
        recognise(at_input, latent_dim=9)


@pytest.mark.parametrize(
    ("structure", "statistics"),
    [
        (GeneratorStructure(1, 3, 8, 2, 5), "model.submodule.down.2"),
        (GeneratorStructure(1, 3, 8, 2, 5, "input"), "model.model.1.model.2"),
        (EncoderStructure(3, 8, 2, 4), "conv.1.conv.0"),
        (DiscriminatorStructure(3, 2, 3, 2), "model_0.3"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_prefixes_and_legacy_statistics_are_left_out(structure: Structure, statistics: str) -> None:
    """Instance norms of PyTorch 0.3 have running statistics."""
    state = random_state(structure)
    legacy = {f"module.{key}": x for key, x in state.items()}
    legacy |= {f"module.{statistics}.running_mean": torch.rand(4)}
    legacy |= {f"module.{statistics}.running_var": torch.rand(4)}
    assert recognise(legacy) == structure
    ours, expected = to_ours(legacy), to_ours(state)
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[key], x) for key, x in expected.items())


def test_components_are_options_of_the_translator() -> None:
    """The networks of a translator built with them load the converted weights."""
    generator, encoder = GeneratorStructure(1, 3, 4, 2, 5), EncoderStructure(3, 4, 2, 2)
    discriminator = DiscriminatorStructure(3, 2, 2, 2)
    translator = BicycleGAN(
        ImageSpec({"a": 1, "b": 3}, 64),
        latent_dim=generator.latent_dim,
        generator=component(generator),
        encoder=component(encoder),
        discriminator=component(discriminator),
    )
    translator.generator.load_state_dict(to_ours(random_state(generator)))
    translator.encoder.load_state_dict(to_ours(random_state(encoder)))
    for judge in translator.discriminators.values():
        judge.load_state_dict(to_ours(random_state(discriminator)))


def test_what_does_not_fit_is_listed_key_by_key() -> None:
    structure = GeneratorStructure(1, 3, 8, 2, 5)
    state = random_state(structure)
    del state["model.submodule.submodule.down.1.bias"]
    state["model.submodule.up.1.weight"] = torch.rand(8, 2, 3, 3)
    state["model.submodule.strange"] = torch.rand(1)
    with pytest.raises(WeightsError) as refused:
        to_ours(state)
    assert str(refused.value).splitlines() == [
        "3 tensors do not fit the network:",
        "  missing: model.submodule.submodule.down.1.bias",
        "  unexpected: model.submodule.strange",
        "  wrong shape: model.submodule.up.1.weight is (8, 2, 3, 3), not (8, 2, 4, 4)",
    ]
    ours = to_ours(random_state(structure))
    del ours["up.3.weight"]
    with pytest.raises(WeightsError, match=r"missing: up\.3\.weight"):
        to_official(ours, structure)


def test_batch_norm_needs_biases_before_it_but_no_counters() -> None:
    state = random_state(DiscriminatorStructure(3, 2, 1, 1, "batch"))
    early = {key: x for key, x in state.items() if not key.endswith("num_batches_tracked")}
    assert to_ours(early)["scales.0.3.norm.num_batches_tracked"] == 0
    del early["model_0.2.bias"]
    with pytest.raises(WeightsError, match=r"missing: model_0\.2\.bias"):
        to_ours(early)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "it has no 'model.model.0.weight'"),
        ({"model.down.0.weight": (2, 9, 4, 4)}, "it has no 'model.submodule.down.1.weight'"),
        (
            {"model.down.0.weight": (2, 9, 4, 4), "model.submodule.down.1.weight": (4, 1, 4, 4)},
            "too few for an image and a code of length -1",
        ),
        (
            {"model.model.0.weight": (2, 9, 4, 4), "model.model.3.weight": (4, 3, 4, 4)},
            "it is a U-Net with one level",
        ),
        (
            {
                "model.down.0.weight": (2, 9, 4, 4),
                "model.up.1.weight": (4, 3, 4, 4),
                "model.submodule.down.1.weight": (4, 2, 4, 4),
                f"model.{'submodule.' * 16}up.1.weight": (4, 2, 4, 4),
            },
            "it is a U-Net with too many levels",
        ),
        ({"model.model.0.weight": (2, 3, 4, 4)}, "too few for an image and a code of length 8"),
        ({"model.up.3.weight": (3, 4, 3, 3)}, "a U-Net with bilinear upsampling, which i2ikit does not have"),
        ({"model.model.5.weight": (3, 4, 3, 3)}, "a U-Net with bilinear upsampling"),
        ({"model.0.weight": (2, 3, 4, 4)}, "a PatchGAN of one scale, which has the layout of pix2pix"),
        ({"fc.0.weight": (8, 2)}, "it has no 'conv.0.weight'"),
        (
            {"fc.0.weight": (8, 2), "conv.0.weight": (2, 3, 4, 4), "conv.1.0.weight": (4, 2, 4, 4)},
            "an encoder without residual blocks",
        ),
        ({"model_0.0.weight": (2, 3, 4, 4)}, "the last layer of its first scale is 'model_0.0'"),
        ({"model_0.0.weight": (2,)}, "'model_0.0.weight' has 1 dimensions, not 4"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_state_dicts_are_refused(state: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(WeightsError, match=re.escape(message)):
        recognise({key: torch.zeros(shape) for key, shape in state.items()})

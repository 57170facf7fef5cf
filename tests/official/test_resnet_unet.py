"""Weights in official layouts: recognition, conversion both ways, and what does not fit."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from i2ikit.errors import WeightsError
from i2ikit.official.resnet_unet import (
    Structure,
    cleaned,
    component,
    constants,
    names,
    recognise,
    shapes,
    to_official,
    to_ours,
)

NORMS = ("instance", "batch", "none")


def structures() -> Iterator[Structure]:
    """ResNets, U-Nets and PatchGANs of every norm, and of several depths, widths and channels."""
    for norm, down, up, dropout in itertools.product(NORMS, (False, True), (False, True), (False, True)):
        for blocks, width, given, made in ((1, 3, 1, 3), (6, 2, 3, 1), (9, 4, 4, 5)):
            yield Structure("resnet", given, made, width, blocks, norm, down, up, dropout)  # type: ignore[arg-type]
    for norm, levels in itertools.product(NORMS, (5, 6, 7, 8)):
        for width, given, made in ((2, 1, 3), (3, 3, 2)):
            yield Structure("unet", given, made, width, levels, norm)  # type: ignore[arg-type]
    for norm, depth in itertools.product(NORMS, (1, 2, 3, 4, 5)):
        for width, given in ((2, 1), (3, 6)):
            yield Structure("patchgan", given, 1, width, depth, norm)  # type: ignore[arg-type]


def random_state(structure: Structure) -> dict[str, Tensor]:
    """An official state dict of random numbers, with the official constants."""
    state = {
        key: torch.tensor(7) if key.endswith("num_batches_tracked") else torch.rand(shape)
        for key, shape in shapes(structure).items()
    }
    return state | constants(structure)


def network(structure: Structure, weights: dict[str, Tensor] | None = None) -> nn.Module:
    """Our network, with the weights of an official state dict if there are any."""
    made = component(structure)
    if structure.arch == "patchgan":
        module: nn.Module = made(structure.in_channels)
    else:
        module = made(structure.in_channels, structure.out_channels, 0)
    if weights is not None:
        module.load_state_dict(to_ours(weights))
    return module.eval()


def called(module: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        found = module(x) if hasattr(module, "scales") else module(x, x.new_zeros(len(x), 0))
    return found[0] if isinstance(found, list) else found


def identity(structure: Structure) -> str:
    return "-".join(str(value) for value in vars(structure).values())


@pytest.mark.parametrize("structure", list(structures()), ids=identity)
def test_official_weights_are_recognised_and_come_back_bit_for_bit(structure: Structure) -> None:
    """official -> ours -> official gives the same tensors, and ours load into our component."""
    state = random_state(structure)
    # A file does not show the dropout of a U-Net.
    assert recognise(state) == structure
    ours = to_ours(state)
    network(structure).load_state_dict(ours)
    again = to_official(ours, structure)
    assert again.keys() == state.keys()
    for key, tensor in state.items():
        assert torch.equal(again[key], tensor), key
        assert again[key].dtype == tensor.dtype, key


def test_every_official_tensor_has_its_own_name_in_ours() -> None:
    for structure in structures():
        table = names(structure)
        assert len(set(table.values())) == len(table)
        assert {key for key in shapes(structure) if not key.endswith(".filt")} == set(table)


def test_the_keys_are_those_of_the_official_networks() -> None:
    """Positions from the tables of the official modules; nine blocks."""
    strided = shapes(Structure("resnet", 3, 3, 64, 9, "instance"))
    assert strided["model.1.weight"] == (64, 3, 7, 7)
    assert strided["model.7.weight"] == (256, 128, 3, 3)
    assert strided["model.18.conv_block.5.weight"] == (256, 256, 3, 3)
    assert strided["model.19.weight"] == (256, 128, 3, 3)
    assert strided["model.26.weight"] == (3, 64, 7, 7)
    blurred = shapes(Structure("resnet", 3, 3, 64, 9, "instance", True, True))
    kernels = {"model.7.filt", "model.11.filt", "model.21.filt", "model.25.filt"}
    assert {key for key in blurred if key.endswith("filt")} == kernels
    assert blurred["model.30.weight"] == (3, 64, 7, 7)
    assert blurred["model.22.weight"] == (128, 256, 3, 3)
    unet = shapes(Structure("unet", 3, 3, 64, 8, "batch"))
    assert unet["model.model.1.model.3.model.5.weight"] == (512, 128, 4, 4)
    assert sum(torch.Size(shape).numel() for key, shape in unet.items() if "running" not in key) == (
        54_413_955 + 13  # the counters of 13 batch norms
    )


def test_prefixes_legacy_statistics_and_constants_are_left_out() -> None:
    structure = Structure("resnet", 3, 3, 2, 2, "instance", True, True)
    state = random_state(structure)
    legacy = {f"module.{key}": x for key, x in state.items()}
    legacy |= {"module.model.2.running_mean": torch.rand(2), "module.model.2.running_var": torch.rand(2)}
    assert recognise(legacy) == structure
    assert cleaned(legacy).keys() == state.keys()
    ours = to_ours(legacy)
    assert all(torch.equal(ours[key], x) for key, x in to_ours(state).items())
    without = {key: x for key, x in state.items() if not key.endswith(".filt")}
    assert recognise(without) == structure
    assert to_ours(without).keys() == ours.keys()


def test_early_batch_norm_files_have_biases_and_no_counters() -> None:
    """Both are accepted: the biases are kept, the counters start at 0."""
    structure = Structure("resnet", 3, 3, 2, 1, "batch")
    state = random_state(structure)
    early = {key: x for key, x in state.items() if not key.endswith("num_batches_tracked")}
    early["model.1.bias"] = torch.rand(2)
    ours = to_ours(early)
    assert torch.equal(ours["stem.conv.bias"], early["model.1.bias"])
    assert ours["stem.norm.norm.num_batches_tracked"] == 0
    assert not ours["down.0.conv.bias"].any()


def test_a_u_net_of_before_the_swap_keeps_its_order() -> None:
    state = random_state(Structure("unet", 3, 3, 2, 5, "instance"))
    key, ours = "model.model.3.weight", "up.0.weight"
    assert torch.equal(to_ours(state, skip_first=False)[ours], state[key])
    assert torch.equal(to_ours(state)[ours], torch.cat([state[key][2:], state[key][:2]]))


@pytest.mark.parametrize("arch", ["resnet", "patchgan"])
def test_biases_before_batch_norm_move_into_the_running_mean(arch: str) -> None:
    """The official network has none; its function in eval mode is that of ours."""
    structure = Structure(arch, 3, 1, 2, 2, "batch")  # type: ignore[arg-type]
    ours = network(structure, random_state(structure))
    for name, parameter in ours.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    official = to_official(ours.state_dict(), structure)
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    torch.testing.assert_close(called(network(structure, official), x), called(ours, x))


def test_biases_that_the_official_layout_cannot_hold_are_named() -> None:
    """Without a norm, and at both ends of a U-Net's path down, where no batch norm follows."""
    for structure, expected in (
        (Structure("resnet", 3, 3, 2, 1, "none"), ["stem.conv.bias", "down.1.conv.bias"]),
        (Structure("unet", 3, 3, 2, 5, "batch"), ["down.0.bias", "down.4.bias"]),
    ):
        ours = to_ours(random_state(structure))
        for key in expected:
            ours[key] = torch.ones_like(ours[key])
        found = f"ours is not 0: {', '.join(expected)}; with norm '{structure.norm}'"
        with pytest.raises(WeightsError, match=re.escape(found)):
            to_official(ours, structure)


def test_what_does_not_fit_is_listed_key_by_key() -> None:
    structure = Structure("resnet", 3, 3, 2, 2, "instance")
    state = random_state(structure)
    del state["model.4.bias"]
    state["model.7.weight"] = torch.rand(8, 4, 5, 5)
    state["model.30.strange"] = torch.rand(1)
    with pytest.raises(WeightsError) as refused:
        to_ours(state)
    assert str(refused.value).splitlines() == [
        "3 tensors do not fit the network:",
        "  missing: model.4.bias",
        "  unexpected: model.30.strange",
        "  wrong shape: model.7.weight is (8, 4, 5, 5), not (8, 4, 3, 3)",
    ]
    ours = to_ours(random_state(structure))
    del ours["head.weight"]
    with pytest.raises(WeightsError, match=r"missing: head\.weight"):
        to_official(ours, structure)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "its names are not those of a ResNet, U-Net, PatchGAN or PixelGAN"),
        ({"weight": (3, 3)}, "its names are not those"),
        ({"model.1.conv_block.1.weight": (2, 2, 3, 3)}, "it has no 'model.1.weight'"),
        ({"model.1.weight": (2,), "model.10.conv_block.1.weight": (2, 2, 3, 3)}, "has 1 dimensions, not 4"),
        (
            {"model.1.weight": (2, 3, 7, 7), "model.11.conv_block.1.weight": (2, 2, 3, 3)},
            "its residual blocks begin at model.11",
        ),
        ({"model.0.weight": (2, 3, 7, 7), "model.9.conv_block.0.weight": (2, 2, 3, 3)}, "before 2017-07-05"),
        ({"model.model.0.weight": (2, 3, 4, 4)}, "a U-Net of one level"),
        (
            {"model.model.0.weight": (2, 3, 4, 4), "model.model.1.model.1.weight": (2, 2, 4, 4)},
            "it has no 'model.model.3.weight'",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_state_dicts_are_refused(state: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(WeightsError, match=re.escape(message)):
        recognise({key: torch.zeros(shape) for key, shape in state.items()})


def test_networks_that_i2ikit_does_not_have_are_named() -> None:
    """They are recognised: the message says what they are."""
    pixel = {"net.0.weight": torch.rand(4, 3, 1, 1), "net.2.bias": torch.rand(8)}
    assert recognise(pixel) == Structure("pixelgan", 3, 1, 4, 1, "instance")
    with pytest.raises(WeightsError, match="a PixelGAN, which i2ikit does not have"):
        to_ours(pixel)
    blurred = {f"model.{n}.weight": torch.rand(2, 2, 4, 4) for n in (0, 3, 7, 11, 14)}
    assert recognise(blurred) == Structure("patchgan", 2, 2, 2, 3, "none", True)
    with pytest.raises(WeightsError, match="a PatchGAN with antialiasing, which i2ikit does not have"):
        to_ours(blurred)
    with pytest.raises(WeightsError, match="PixelGAN"):
        component(recognise(pixel))

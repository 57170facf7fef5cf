"""Generators and discriminators against outputs of the official ones, in float64.

Weights and images come from formulas, and weights pass through i2ikit.official, as those of a file do.
`pytest tests/reference --golden FILE` runs another file of the same shape.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from i2ikit.official.resnet_unet import Structure, cleaned, component, recognise, shapes, to_ours
from tests.reference.formulas import figures, image, official_state

HERE = Path(__file__).parent
NOT_OURS = {"pixel": "PixelGAN", "patchgan": "PatchGAN with antialiasing"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each case and each state dict of the file; an empty file would pass by testing nothing."""
    path = metafunc.config.getoption("golden") or HERE / "networks.json"
    golden = json.loads(path.read_text())
    kind = "cases" if "case" in metafunc.fixturenames else "state_dicts"
    if "cases" not in golden:  # a file of a translator
        names = []
    elif not (names := list(golden[kind])):
        raise pytest.UsageError(f"{path} holds no {kind}")
    fixture = "case" if kind == "cases" else "listed"
    metafunc.parametrize(("golden", fixture), [(golden, name) for name in names], ids=names)


def structure_of(config: dict[str, Any]) -> Structure:
    """From official options."""
    arch = config["arch"]
    return Structure(
        arch,
        config.get("input_nc", 3),
        1 if arch == "patchgan" else config.get("output_nc", 3),
        config.get("ngf") or config["ndf"],
        {"resnet": config.get("n_blocks"), "unet": config.get("num_downs")}.get(arch, config.get("n_layers")),
        config["norm"],
        config.get("antialias_down", False),
        config.get("antialias_up", False),
        config.get("use_dropout", False),
    )


def built(structure: Structure, state: dict[str, Tensor]) -> nn.Module:
    """Our network with the weights of an official state dict."""
    made = component(structure)
    if structure.arch == "patchgan":
        network = made(structure.in_channels)
    else:
        network = made(structure.in_channels, structure.out_channels, 0)
    network.double().load_state_dict(to_ours(state))
    return network


def output(network: nn.Module, called: str, structure: Structure, mode: str) -> Tensor:
    """Of the image that a case names, such as `image(1,3,32,32,0)`, in eval or train mode."""
    count, channels, side, width, domain = map(int, re.findall(r"\d+", called))
    assert side == width
    x = image(count, channels, side, domain)
    network.train(mode == "train")
    with torch.no_grad():
        if structure.arch == "patchgan":
            (scores,) = network(x)
            return scores
        return network(x, x.new_zeros(count, 0))


def agrees(found: Tensor, expected: dict[str, Any], places: list[list[int]]) -> None:
    assert list(found.shape) == expected["shape"]
    for name, value in figures(found).items():
        assert value == pytest.approx(expected[name], rel=1e-8, abs=1e-12), name
    pixels = [found[tuple(n % size for n, size in zip(p, found.shape, strict=True))].item() for p in places]
    assert pixels == pytest.approx(expected["pixels"], rel=1e-8, abs=1e-12)


def modes(outputs: dict[str, Any]) -> list[str]:
    found = [mode for mode in ("eval", "train") if mode in outputs]
    assert found
    return found


def test_every_output_equals_the_official_one(golden: dict[str, Any], case: str) -> None:
    """Statistics and pixels of the output, and the number of parameters that official weights set."""
    expected = golden["cases"][case]
    config = expected["config"]
    if config["arch"] == "pixel" or (config["arch"] == "patchgan" and config["antialias_down"]):
        pytest.skip(f"i2ikit has no {NOT_OURS[config['arch']]}")
    structure = structure_of(config)
    state = official_state(shapes(structure), statistics=True)
    assert recognise(state) == structure
    network = built(structure, state)
    for mode in modes(expected["output"]):
        before = {name: x.clone() for name, x in network.named_buffers()}
        found = output(network, expected["input"], structure, mode)
        agrees(found, expected["output"][mode], golden["pixel_coordinates_bchw"])
        network.load_state_dict(before, strict=False)
    parameters = [key for key in state if key.endswith((".weight", ".bias"))]
    assert sum(state[key].numel() for key in parameters) == expected["parameters"]


def test_every_state_dict_is_recognised_and_has_the_official_outputs(
    golden: dict[str, Any], listed: str
) -> None:
    """Also with the prefix `module.`, statistics of instance norms and constants, which are left out."""
    expected = golden["state_dicts"][listed]
    state = official_state({k: tuple(shape) for k, shape in expected["keys"].items()}, statistics=True)
    told = {key: value for key, value in expected["expect"].items() if key != "drop"}
    structure = recognise(state)
    assert structure == structure_of(told)
    parameters = {key: x for key, x in cleaned(state).items() if key.endswith((".weight", ".bias"))}
    total = sum(x.sum().item() for x in parameters.values())
    assert total == pytest.approx(expected["sum_of_all_parameters"], rel=1e-8)
    network = built(structure, state)
    for mode in modes(expected["output"]):
        found = output(network, expected["input"], structure, mode)
        agrees(found, expected["output"][mode], golden["pixel_coordinates_bchw"])

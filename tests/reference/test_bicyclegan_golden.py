"""BicycleGAN against numbers of the official code, in float64, over several updates of all networks.

As in test_munit_golden; `pytest tests/reference --golden FILE` runs another file of the same shape.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from i2ikit.official.bicyclegan import (
    DiscriminatorStructure,
    EncoderStructure,
    GeneratorStructure,
    Structure,
    component,
    recognise,
    shapes,
    to_official,
    to_ours,
)
from i2ikit.optimizer_options import OptimizerOptions
from i2ikit.registry import Spec
from i2ikit.state import TrainingState
from i2ikit.training import DrawFunction, MicroBatch, build, train_step
from i2ikit.translator import ImageSpec
from i2ikit_bicyclegan import BicycleGAN
from tests.reference.formulas import image, noise, official_state

HERE = Path(__file__).parent
SIDE = 256
LEVELS, NUM_BLOCKS, NUM_LAYERS = 8, 4, 3
"""Of `unet_256`, `resnet_256` and `basic_256_multi`."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each case of the golden file; a file without steps would pass by testing nothing."""
    path = metafunc.config.getoption("golden") or HERE / "bicyclegan.json"
    golden = json.loads(path.read_text())
    if "nz" not in golden.get("config", {}):  # a file of another translator
        metafunc.parametrize(("golden", "case"), [])
        return
    cases = [name for name, case in golden.items() if isinstance(case, dict) and case.get("steps")]
    if not cases:
        raise pytest.UsageError(f"{path} holds no case with steps")
    metafunc.parametrize(
        ("golden", "case"),
        [(golden, name) for name in cases],
        ids=lambda value: value if isinstance(value, str) else "",
    )


def start(network: nn.Module, structure: Structure, factor: float) -> None:
    """Give a network the formula's weights, through the official layout and back."""
    state = official_state(shapes(structure), factor)
    assert recognise(state, latent_dim=getattr(structure, "latent_dim", 0)) == structure
    ours = to_ours(state)
    network.load_state_dict(ours)
    written = to_official(ours, structure)
    assert written.keys() == state.keys()
    assert all(torch.equal(written[key], x) for key, x in state.items())


def is_shared(config: dict[str, Any], case: str) -> bool:
    """From the file's configuration, or from the case's name."""
    return config["use_same_D"] or bool(re.search(r"same|shared", case, re.IGNORECASE))


def batch_size(config: dict[str, Any], case: str) -> int:
    """From the case's name (`batch4...`), else from the configuration."""
    named = re.search(r"batch_?(\d+)", case)
    return int(named[1]) if named else config["batch_size"]


def assemble(config: dict[str, Any], pairs: int, shared: bool) -> TrainingState:
    """The official architecture and optimizers from our components, in float64.

    Args:
        pairs: of the encoded half; the official KL is their sum, ours their mean.
    """
    source, target, latent_dim = config["input_nc"], config["output_nc"], config["nz"]
    unet = GeneratorStructure(source, target, latent_dim, config["ngf"], LEVELS, config["where_add"])
    resnet = EncoderStructure(target, latent_dim, config["nef"], NUM_BLOCKS)
    patchgan = DiscriminatorStructure(target, config["ndf"], NUM_LAYERS, config["num_Ds"])
    weights = {
        "generator": {
            "adversarial_encoded": config["lambda_GAN"],
            "adversarial_random": config["lambda_GAN2"],
            "image_recon": config["lambda_L1"],
            "latent_recon": config["lambda_z"],
            "kl": config["lambda_kl"] * pairs,
        },
        "discriminator": {"adversarial_encoded": 1.0, "adversarial_random": 1.0},
    }
    translator = BicycleGAN(
        ImageSpec({"a": source, "b": target}, SIDE),
        latent_dim=latent_dim,
        shared_discriminator=shared,
        generator=component(unet),
        encoder=component(resnet),
        discriminator=component(patchgan),
        adversarial_loss=Spec("losses", config["gan_mode"]),
        weights=weights,
    ).double()
    start(translator.generator, unet, 1.0)
    start(translator.encoder, resnet, 1.0)
    start(translator.discriminators["encoded"], patchgan, 1.0)
    if not shared:
        start(translator.discriminators["random"], patchgan, 0.9)
    adam = OptimizerOptions(
        Spec("optimizers", "adam", {"lr": config["lr"], "betas": (config["beta1"], 0.999)})
    )
    return build(translator, dict.fromkeys(translator.networks, adam), Accelerator(cpu=True), steps=3)


OFFICIAL = {
    "G_GAN": "generator/adversarial_encoded",
    "G_GAN2": "generator/adversarial_random",
    "G_L1": "generator/image_recon",
    "kl": "generator/kl",
    "z_L1": "generator/latent_recon",
    "D": "discriminator/adversarial_encoded",
    "D2": "discriminator/adversarial_random",
}


def norm(network: nn.Module) -> float:
    return torch.nn.utils.get_total_norm(list(network.parameters())).item()


def test_every_loss_and_weight_equals_the_official_one(golden: dict[str, Any], case: str) -> None:
    """Weighted losses of each iteration, and norms and first weights after it, agree to 1e-8."""
    figures = golden[case]
    config = {**golden["config"], **figures.get("config", {})}
    count = batch_size(config, case)
    pairs, shared = count // 2, is_shared(config, case)
    state = assemble(config, pairs, shared)
    translator = state.translator
    batch = {"a": image(count, config["input_nc"], SIDE, 0), "b": image(count, config["output_nc"], SIDE, 1)}
    draws = noise(pairs, config["nz"])
    draw: DrawFunction = lambda phase, places: {name: next(draws) for name in phase.draws}  # noqa: E731
    if "E.mu" in figures:
        with torch.no_grad():
            mean, log_variance = translator.encoder(batch["b"][: len(figures["E.mu"]) // config["nz"]])
        assert mean.flatten().tolist() == pytest.approx(figures["E.mu"], abs=1e-8)
        assert log_variance.flatten().tolist() == pytest.approx(figures["E.logvar"], abs=1e-8)
    for step, expected in enumerate(figures["steps"]):
        losses = train_step(state, step, [MicroBatch(batch, range(len(batch["a"])))], draw)
        for official, ours in OFFICIAL.items():
            if official in expected:
                phase, name = ours.split("/")
                weighted = translator.weights[phase][name] * losses[ours].item()
                assert weighted == pytest.approx(expected[official], abs=1e-8), official
        judge = translator.discriminators["encoded"]
        for name, network in (("G", translator.generator), ("E", translator.encoder), ("D", judge)):
            assert norm(network) == pytest.approx(expected[f"l2_{name}"], abs=1e-8), name
        first = translator.generator.down[0].weight.flatten()[0].item()
        assert first == pytest.approx(expected["G.model.down.0.weight[0]"], abs=1e-8)
        first = translator.encoder.mean.weight.flatten()[0].item()
        assert first == pytest.approx(expected["E.fc.0.weight[0]"], abs=1e-8)

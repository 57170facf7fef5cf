"""MUNIT against numbers of the official code, in float64, over several updates of both networks.

Weights, images and noise come from formulas, so the figures in munit.json pin every layer, reduction,
optimizer setting and the order of updates without any code of the official project.
`pytest tests/reference --golden FILE` runs another file of the same shape.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from i2ikit.official.munit import (
    DiscriminatorStructure,
    GeneratorStructure,
    Structure,
    components,
    recognise,
    shapes,
    to_official,
    to_ours,
)
from i2ikit.optimizer_options import OptimizerOptions, ScheduleOptions
from i2ikit.registry import Spec
from i2ikit.state import TrainingState
from i2ikit.training import DrawFunction, MicroBatch, build, train_step
from i2ikit.translator import ImageSpec
from i2ikit_munit import Munit
from tests.reference.formulas import image, noise, official_state

HERE = Path(__file__).parent


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each case of the golden file; a file without steps would pass by testing nothing."""
    path = metafunc.config.getoption("golden") or HERE / "munit.json"
    golden = json.loads(path.read_text())
    if "gen" not in golden.get("config", {}):  # a file of another translator
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


def structures(config: dict[str, Any], channels: int) -> tuple[GeneratorStructure, DiscriminatorStructure]:
    """Of the networks of one domain, from official options."""
    gen, dis = config["gen"], config["dis"]
    sizes = gen["style_dim"], gen["mlp_dim"], gen["n_downsample"], gen["n_res"]
    generator = GeneratorStructure(channels, gen["dim"], *sizes)
    return generator, DiscriminatorStructure(channels, dis["dim"], dis["n_layer"], dis["num_scales"])


def start(translator: Munit, d: str, structure: Structure, factor: float) -> None:
    """Give the networks of domain d the formula's weights, through the official layout and back."""
    state = official_state(shapes(structure), factor)
    assert recognise(state) == structure
    ours = to_ours(state)
    for option, part in ours.items():
        translator.networks[f"{option}s"][d].load_state_dict(part)
    written = to_official(ours, structure)
    assert written.keys() == state.keys()
    assert all(torch.equal(written[key], x) for key, x in state.items())


def cycle_weight(config: dict[str, Any], case: str) -> float:
    """From the case's name (`..._cyc10`), else from the file's configuration."""
    named = re.search(r"cyc(\d+(?:\.\d+)?)", case)
    return float(named[1]) if named else config["recon_x_cyc_w"]


def assemble(config: dict[str, Any], size: int, cycle: float) -> TrainingState:
    """The official architecture and optimizers from our components, in float64."""
    gen, dis = config["gen"], config["dis"]
    assert config["vgg_w"] == 0, "the perceptual loss is not part of these cases"
    weights = {
        "discriminator": {"adversarial": config["gan_w"]},
        "generator": {
            "adversarial": config["gan_w"],
            "image_recon": config["recon_x_w"],
            "style_recon": config["recon_s_w"],
            "content_recon": config["recon_c_w"],
            "cycle_recon": cycle,
            "perceptual": 0.0,  # the official one needs Caffe's weights
            "smoothness": 0.0,  # not in the official code
        },
    }
    channels = {"a": config["input_dim_a"], "b": config["input_dim_b"]}
    parts = {d: structures(config, count) for d, count in channels.items()}
    translator = Munit(
        ImageSpec(channels, size),
        style_dim=gen["style_dim"],
        order="discriminator-first",
        adversarial_loss=Spec("losses", dis["gan_type"]),
        weights=weights,
        **components(parts["a"][0]),
        **components(parts["a"][1]),
    ).double()
    for d, factor in (("a", 1.0), ("b", 0.9)):
        for structure in parts[d]:
            start(translator, d, structure, factor)
    betas = (config["beta1"], config["beta2"])
    options = {"lr": config["lr"], "betas": betas, "weight_decay": config["weight_decay"]}
    schedule = ScheduleOptions(decay="step", decay_steps=config["step_size"], decay_factor=config["gamma"])
    adam = OptimizerOptions(Spec("optimizers", "adam", options), schedule)
    return build(translator, dict.fromkeys(translator.networks, adam), Accelerator(cpu=True), steps=3)


OFFICIAL = {
    "loss_dis_a": "discriminator/adversarial/a",
    "loss_dis_b": "discriminator/adversarial/b",
    "loss_gen_adv_a": "generator/adversarial/a",
    "loss_gen_adv_b": "generator/adversarial/b",
    "loss_gen_recon_x_a": "generator/image_recon/a",
    "loss_gen_recon_x_b": "generator/image_recon/b",
    "loss_gen_recon_s_a": "generator/style_recon/a",
    "loss_gen_recon_s_b": "generator/style_recon/b",
    "loss_gen_recon_c_a": "generator/content_recon/a",
    "loss_gen_recon_c_b": "generator/content_recon/b",
    "loss_gen_cycrecon_x_a": "generator/cycle_recon/a",
    "loss_gen_cycrecon_x_b": "generator/cycle_recon/b",
}


def test_every_loss_of_every_update_equals_the_official_one(golden: dict[str, Any], case: str) -> None:
    """Single losses and weighted totals agree to 1e-8 before and after the weights have moved."""
    figures = golden[case]
    count, side = figures["c_a"]["shape"][0], figures["x_a_recon"]["shape"][-1]
    state = assemble(golden["config"], side, cycle_weight(golden["config"], case))
    weights = state.translator.weights
    channels = golden["config"]["input_dim_a"], golden["config"]["input_dim_b"]
    batch = {d: image(count, channels[n], side, n) for n, d in enumerate("ab")}
    draws = noise(count, golden["config"]["gen"]["style_dim"])
    draw: DrawFunction = lambda phase, places: {name: next(draws) for name in phase.draws}  # noqa: E731
    with torch.no_grad():
        content = state.translator.content_encoders["a"](batch["a"])
        assert content.norm().item() == pytest.approx(figures["c_a"]["l2"], abs=1e-8)
        style = state.translator.encode_style(batch["a"], "a")
        assert style.norm().item() == pytest.approx(figures["s_a"]["l2"], abs=1e-8)
    for step, expected in enumerate(figures["steps"]):
        losses = train_step(state, step, [MicroBatch(batch, range(len(batch["a"])))], draw)
        totals = dict.fromkeys(("discriminator", "generator"), 0.0)
        for key, loss in losses.items():
            phase, name, _ = key.split("/")
            totals[phase] += weights[phase][name] * loss.item()
        assert totals["discriminator"] == pytest.approx(expected["loss_dis_total"], abs=1e-8)
        assert totals["generator"] == pytest.approx(expected["loss_gen_total"], abs=1e-8)
        for official, ours in OFFICIAL.items():
            if ours in losses:
                assert losses[ours].item() == pytest.approx(expected[official], abs=1e-8)
        first = state.translator.content_encoders["a"].layers[0].conv.weight.flatten()[0].item()
        assert first == pytest.approx(expected["gen_a.enc_content.model.0.conv.weight[0]"], abs=1e-8)

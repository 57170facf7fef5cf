"""CycleGAN and pix2pix against numbers of the official code, in float64, over several updates of all networks.

As in test_munit_golden; `pytest tests/reference --golden FILE` runs another file of the same shape.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from i2ikit.components.image_pool import pooled
from i2ikit.components.norms import statistics_unchanged
from i2ikit.official.resnet_unet import Structure, component, names, shapes, to_official, to_ours
from i2ikit.optimizer_options import OptimizerOptions
from i2ikit.registry import Spec
from i2ikit.state import TrainingState
from i2ikit.training import DrawFunction, MicroBatch, build, train_step
from i2ikit.translator import ImageSpec, Translator
from i2ikit_cyclegan import CycleGAN
from i2ikit_pix2pix import Pix2Pix
from tests.reference.formulas import figures, image, official_state

HERE = Path(__file__).parent
STEPS = 1000
"""More than any case has, and without a schedule."""

LOSSES = {"lsgan": "lsgan", "vanilla": "nsgan"}
"""Our names of the official `gan_mode`."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each case of the golden file; a file without steps would pass by testing nothing."""
    path = metafunc.config.getoption("golden") or HERE / "cyclegan.json"
    golden = json.loads(path.read_text())
    if golden.get("config", {}).get("model") not in ("cycle_gan", "pix2pix"):  # a file of another translator
        metafunc.parametrize(metafunc.fixturenames, [])
        return
    if "trace" in metafunc.fixturenames:
        metafunc.parametrize("trace", [golden["image_pool_trace"]] if "image_pool_trace" in golden else [])
        return
    cases = [name for name, case in golden.items() if isinstance(case, dict) and case.get("steps")]
    if not cases:
        raise pytest.UsageError(f"{path} holds no case with steps")
    metafunc.parametrize(("golden", "case"), [(golden, name) for name in cases], ids=cases)


def settings(golden: dict[str, Any], case: str) -> dict[str, Any]:
    """The settings of a case: those of the file, and what the case changes."""
    return {**golden["config"], **golden[case].get("config", {}), "batch_size": golden[case]["batch"]}


def generator_structure(config: Mapping[str, Any], in_channels: int, out_channels: int) -> Structure:
    """A ResNet in CycleGAN, a U-Net in pix2pix."""
    arch, depth = ("resnet", "n_blocks") if config["model"] == "cycle_gan" else ("unet", "num_downs")
    return Structure(arch, in_channels, out_channels, config["ngf"], config[depth], config["norm"])  # type: ignore[arg-type]


def discriminator_structure(config: Mapping[str, Any], in_channels: int) -> Structure:
    if config["netD"] == "pixel":
        pytest.skip("i2ikit has no PixelGAN")
    depth = 3 if config["netD"] == "basic" else config["n_layers_D"]
    return Structure("patchgan", in_channels, 1, config["ndf"], depth, config["norm"])


def new_cyclegan(config: Mapping[str, Any]) -> tuple[Translator, dict[str, tuple[nn.Module, Structure]]]:
    """The translator, and by official name its networks with their structures."""
    a, b = config["input_nc"], config["output_nc"]
    lambdas = {"a": config["lambda_A"], "b": config["lambda_B"]}
    weights: dict[str, dict[str, float]] = {
        "discriminator": {"adversarial": 0.5},
        "generator": {"adversarial": 1.0, "cycle_recon": config["lambda_A"], "identity": 0.0},
    }
    for d, weight in lambdas.items():
        weights["generator"][f"cycle_recon/{d}"] = weight
        weights["generator"][f"identity/{d}"] = weight * config["lambda_identity"]
    of_a, of_b = generator_structure(config, a, b), discriminator_structure(config, b)
    translator = CycleGAN(
        ImageSpec({"a": a, "b": b}, config["side"]),
        noise_dim=0,
        pool_size=config["pool_size"],
        generator=component(of_a),
        discriminator=component(of_b),
        adversarial_loss=Spec("losses", LOSSES[config["gan_mode"]]),
        weights=weights,
    )
    networks = {
        "G_A": (translator.generators["b"], of_a),
        "G_B": (translator.generators["a"], generator_structure(config, b, a)),
        "D_A": (translator.discriminators["b"], of_b),
        "D_B": (translator.discriminators["a"], discriminator_structure(config, a)),
    }
    return translator, networks


def new_pix2pix(config: Mapping[str, Any]) -> tuple[Translator, dict[str, tuple[nn.Module, Structure]]]:
    """The translator, and by official name its networks with their structures."""
    a, b = config["input_nc"], config["output_nc"]
    generator, discriminator = generator_structure(config, a, b), discriminator_structure(config, a + b)
    translator = Pix2Pix(
        ImageSpec({"a": a, "b": b}, config["side"]),
        generator=component(generator),
        discriminator=component(discriminator),
        adversarial_loss=Spec("losses", LOSSES[config["gan_mode"]]),
        weights={
            "discriminator": {"adversarial": 0.5},
            "generator": {"adversarial": 1.0, "image_recon": config["lambda_L1"]},
        },
    )
    networks = {
        "G": (translator.generator, generator),
        "D": (translator.discriminator, discriminator),
    }
    return translator, networks


def start(network: nn.Module, structure: Structure, factor: float) -> None:
    """The formula's weights; biases that the official network lacks stay 0."""
    network.load_state_dict(to_ours(official_state(shapes(structure), factor)))
    official = set(names(structure).values())
    for key, parameter in network.named_parameters():
        parameter.requires_grad_(key in official)


def assemble(
    config: Mapping[str, Any],
) -> tuple[TrainingState, dict[str, tuple[nn.Module, Structure]]]:
    """The official networks and optimizers from our components, in float64."""
    assert config["no_dropout"], "dropout of the official code draws from torch's generator"
    translator, networks = (new_cyclegan if config["model"] == "cycle_gan" else new_pix2pix)(config)
    translator.double()
    for name, (network, structure) in networks.items():
        start(network, structure, config["factor_B"] if name.endswith("_B") else 1.0)
    betas = (config["beta1"], config["beta2"])
    adam = OptimizerOptions(Spec("optimizers", "adam", {"lr": config["lr"], "betas": betas}))
    optimizers = dict.fromkeys(translator.networks, adam)
    count = config["batch_size"]
    state = build(translator, optimizers, Accelerator(cpu=True), STEPS, range(count), count)
    return state, networks


CYCLEGAN_LOSSES = {
    "D_A": "discriminator/adversarial/b",
    "D_B": "discriminator/adversarial/a",
    "G_A": "generator/adversarial/b",
    "G_B": "generator/adversarial/a",
    "cycle_A": "generator/cycle_recon/a",
    "cycle_B": "generator/cycle_recon/b",
    "idt_A": "generator/identity/b",
    "idt_B": "generator/identity/a",
}
PIX2PIX_LOSSES = {
    "D": "discriminator/adversarial",
    "G_GAN": "generator/adversarial",
    "G_L1": "generator/image_recon",
}


def weighted(state: TrainingState, step: int, losses: Mapping[str, Tensor]) -> dict[str, float]:
    """Losses by our names, times their weights."""
    found = {}
    for key, loss in losses.items():
        phase, _, name = key.partition("/")
        found[key] = state.translator.weights_at(phase, step, state.steps)[name] * loss.item()
    return found


def first_outputs(
    networks: Mapping[str, tuple[nn.Module, Structure]], x: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Outputs before the first step, by the names in the golden files; running statistics stay as they are."""

    def called(name: str, *images: Tensor) -> Tensor:
        network, structure = networks[name]
        given = torch.cat(images, dim=1)
        with torch.no_grad(), statistics_unchanged(network):
            if structure.arch == "patchgan":
                (scores,) = network(given)
                return scores
            return network(given, given.new_zeros(len(given), 0))

    if "G" in networks:
        return {"G(A)": called("G", x["a"]), "D(A,B)": called("D", x["a"], x["b"])}
    fake = called("G_A", x["a"])
    return {
        "G_A(A)": fake,
        "G_B(B)": called("G_B", x["b"]),
        "D_A(B)": called("D_A", x["b"]),
        "D_A(G_A(A))": called("D_A", fake),
        "D_B(A)": called("D_B", x["a"]),
    }


def figures_of(name: str, network: nn.Module, structure: Structure) -> dict[str, float]:
    """Norms of weights and gradients, and sums of running statistics, by the names in the golden files."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    found = {
        f"l2_{name}": torch.nn.utils.get_total_norm(parameters).item(),
        f"grad_l2_{name}": torch.nn.utils.get_total_norm([p.grad for p in parameters]).item(),
    }
    if structure.norm == "batch":
        buffers = dict(network.named_buffers())
        for statistic in ("running_mean", "running_var"):
            sums = [x.sum().item() for key, x in buffers.items() if key.endswith(statistic)]
            found[f"{name}.sum_{statistic}"] = sum(sums)
        (counted,) = {x.item() for key, x in buffers.items() if key.endswith("num_batches_tracked")}
        found[f"{name}.num_batches_tracked"] = counted
    return found


def single_weight(key: str, networks: Mapping[str, tuple[nn.Module, Structure]]) -> float:
    """The weight that a key names, such as `G_A.model.1.weight[0]`."""
    name, _, rest = key.partition(".")
    tensor, _, index = rest.removesuffix("]").partition("[")
    network, structure = networks[name]
    return to_official(network.state_dict(), structure)[tensor].flatten()[int(index)].item()


def close(value: float) -> Any:
    return pytest.approx(value, rel=1e-8, abs=1e-10)


def test_every_loss_and_weight_equals_the_official_one(golden: dict[str, Any], case: str) -> None:
    """Every number of the file: outputs before the first step; losses, norms and weights of each step."""
    expected, config = golden[case], settings(golden, case)
    state, networks = assemble(config)
    count, side = config["batch_size"], config["side"]
    x = {"a": image(count, config["input_nc"], side, 0), "b": image(count, config["output_nc"], side, 1)}
    for name, found in first_outputs(networks, x).items():
        assert list(found.shape) == expected[name]["shape"], name
        for figure, value in figures(found).items():
            assert value == close(expected[name][figure]), f"{name} {figure}"
    for name, (network, _) in networks.items():
        number = sum(p.numel() for p in network.parameters() if p.requires_grad)
        assert number == expected["parameters"][name], name
    # Numbers for the pool; with 0, a pool that is full never returns an earlier image.
    draw: DrawFunction = lambda phase, places: {  # noqa: E731
        name: torch.zeros(len(places), *draw.shape) for name, draw in phase.draws.items()
    }
    official = CYCLEGAN_LOSSES if config["model"] == "cycle_gan" else PIX2PIX_LOSSES
    for step, figures_expected in enumerate(expected["steps"]):
        losses = weighted(state, step, train_step(state, step, [MicroBatch(x, range(count))], draw))
        found = {name: losses.get(ours, 0.0) for name, ours in official.items()}
        found["G"] = sum(loss for name, loss in losses.items() if name.startswith("generator/"))
        for name, (network, structure) in networks.items():
            found |= figures_of(name, network, structure)
        for name, value in figures_expected.items():
            if "[" in name:
                assert single_weight(name, networks) == close(value), name
            elif name not in ("D_real", "D_fake"):  # ours is their sum, "D" its half
                assert found[name] == close(value), name


def test_the_pool_returns_what_the_official_one_does(trace: dict[str, Any]) -> None:
    """One image after the other, with the official random draws."""
    uniform, index = iter(trace["uniform_draws"]), iter(trace["index_draws"])
    size = trace["pool_size"]
    pool, filled = torch.zeros(1, size, 1, 1, 1), torch.zeros(1, dtype=torch.long)
    returned = []
    for number in trace["images"]:
        swap = next(uniform) if filled.item() == size else 0.0
        chosen = (next(index) + 0.5) / size if swap > 0.5 else 0.0
        draws = torch.tensor([[swap, chosen]])
        shown, pool, filled = pooled(torch.full((1, 1, 1, 1), float(number)), pool, filled, draws)
        returned.append(int(shown.item()))
    assert returned == trace["returned"]
    assert pool.flatten().tolist() == trace["kept"]
    assert [len(list(uniform)), len(list(index))] == trace["draws_left_over"]

"""Exported files compute what the trained translator does, for any size, number of images and styles."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from torch import Tensor, nn

from i2ikit.checkpoints import save_weights
from i2ikit.errors import ExportError, RunError, WeightsError
from i2ikit.exchange.agreement import example_images
from i2ikit.exchange.export import Exported, export
from i2ikit.recipe import load_recipe
from i2ikit.registry import registries
from i2ikit.run import Run
from tests.image_files import make_folders
from tests.tiny import NARROW, tiny_recipe, untrained

pytest.importorskip("onnxruntime", reason="needs the extra i2ikit[export]")

SIZES = [(64, 64), (65, 71), (33, 128), (5, 3), (96, 40)]
HERE = str(Path(__file__).parents[2])


def agrees(file: Path, run: Path, seed: int = 0) -> float:
    """The largest difference between a file and the run, over five sizes, two batches and three styles."""
    model = Run(run, "cpu").model
    ((source, to), *_) = model.translator.directions
    program = runner(file)
    generator = torch.Generator().manual_seed(seed)
    worst = 0.0
    for (height, width), batch in itertools.product(SIZES, (1, 2)):
        x = example_images(batch, model.images.channels[source], height, width, generator)
        for styles in model.translator.sample_style(3 * batch, to, generator).chunk(3):
            expected = model.translator.translate(x, styles, source=source, to=to)
            found = program(x, styles) if styles.shape[1] else program(x)
            assert found.shape == expected.shape
            worst = max(worst, (found - expected).abs().max().item())
    return worst


def runner(file: Path) -> Callable[..., Tensor]:
    """An exported program, run as another program would run it."""
    if file.suffix == ".pt2":
        module: Callable[..., Tensor] = torch.export.load(file).module()
        return module
    import onnxruntime

    session = onnxruntime.InferenceSession(file)
    names = [each.name for each in session.get_inputs()]
    return lambda *given: torch.from_numpy(
        session.run(None, {name: x.numpy() for name, x in zip(names, given, strict=True)})[0]
    )


@pytest.mark.slow
def test_munit_as_onnx_agrees_on_sizes_batches_and_styles(munit_run: Path, munit_onnx: Exported) -> None:
    assert [file.name for file in munit_onnx.files] == ["munit-a2b.onnx", "munit-a2b-style-encoder.onnx"]
    assert munit_onnx.difference < 1e-4
    assert agrees(munit_onnx.files[0], munit_run) < 1e-4


@pytest.mark.slow
def test_each_style_may_go_with_its_own_image_or_all_with_one(munit_run: Path, munit_onnx: Exported) -> None:
    """Style i is given to image i modulo the number of images."""
    program = runner(munit_onnx.files[0])
    x, styles = torch.randn(2, 3, 30, 50).tanh(), torch.randn(6, 4)
    together = program(x, styles)
    apart = torch.cat([program(x[n % 2][None], styles[n][None]) for n in range(6)])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_constant_image_is_translated_as_by_the_translator(munit_run: Path, munit_onnx: Exported) -> None:
    """The instance norm of a map without variance is 0 in both, not rounding errors times 316."""
    model = Run(munit_run, "cpu").model
    styles = torch.randn(2, 4)
    for level in (-1.0, 0.3, 1.0):
        x = torch.full((1, 3, 64, 64), level)
        expected = model.translator.translate_with_each(x, styles, source="a", to="b")
        torch.testing.assert_close(runner(munit_onnx.files[0])(x, styles), expected, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_a_file_describes_itself_and_names_no_folder_of_this_machine(
    munit_run: Path, munit_onnx: Exported
) -> None:
    import onnx

    model = onnx.load(munit_onnx.files[0])
    (entry,) = model.metadata_props
    about = json.loads(entry.value)
    assert entry.key == "i2ikit"
    assert about["domains"] == [{"name": "a", "channels": 3}, {"name": "b", "channels": 3}]
    assert (about["source"], about["to"], about["values"]) == ("a", "b", [-1.0, 1.0])
    assert (about["minimum"], about["multiple_of"], about["size"]) == (16, 4, 64)
    assert about["style"]["length"] == 4
    assert about["style"]["encoder"] == "munit-a2b-style-encoder.onnx"
    assert about["licence"] == "CC-BY-4.0"
    assert about["weights_sha256"] == Run(munit_run).sha256
    assert set(about["versions"]) == {"i2ikit", "python", "torch"}
    assert [each.name for each in model.graph.input] == ["image", "style"]
    assert [each.name for each in model.graph.output] == ["translation"]
    for file in munit_onnx.files:
        assert HERE.encode() not in file.read_bytes()
        assert b"site-packages" not in file.read_bytes()


@pytest.mark.slow
def test_pt2_with_half_weights(tmp_path: Path) -> None:
    """BicycleGAN; a file has the weights of the networks that it uses, and no others."""
    recipe = load_recipe("bicyclegan", list(NARROW["bicyclegan"]))
    run = untrained(recipe, tmp_path / "bicyclegan")
    half = export(run, "pt2", precision="fp16")
    assert half.files[0].name == "bicyclegan-a2b-fp16.pt2"
    assert agrees(half.files[0], run) < 4e-2
    extra = {"i2ikit.json": ""}
    held = torch.export.load(half.files[0], extra_files=extra).state_dict.values()
    assert {x.dtype for x in held} == {torch.float16}
    generator = Run(run).translator.networks["generator"]
    assert sum(x.numel() for x in held) == sum(x.numel() for x in generator.parameters())
    assert json.loads(extra["i2ikit.json"])["precision"] == "fp16"
    assert HERE.encode() not in half.files[0].read_bytes()


def test_safetensors_hold_the_generative_networks_of_all_directions(munit_run: Path, tmp_path: Path) -> None:
    (file,) = export(munit_run, out=tmp_path / "weights.safetensors", precision="fp16").files
    with safetensors.safe_open(file, "pt") as opened:
        about = json.loads(opened.metadata()["i2ikit"])
        found = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    assert about["graph"] == "weights"
    assert about["source"] is None
    assert about["licence"] == "not stated"
    translator = Run(munit_run, "cpu").translator
    expected = {
        f"{role}.{name}": x.half() if x.is_floating_point() else x
        for role in translator.generative
        for name, x in translator.networks[role].state_dict().items()
    }
    torch.testing.assert_close(found, expected, atol=0, rtol=0)


class Reshaped(nn.Module):
    """Instance norm as MUNIT's official code has it: ONNX files of it give other pictures, without a word."""

    channels_last = True

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        ones = torch.ones(n * c)
        y = nn.functional.batch_norm(x.reshape(1, n * c, h, w), 0 * ones, ones, None, None, True)
        return y.reshape(n, c, h, w)


class Counting(Reshaped):
    """Another result for each call."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


class Measuring(Reshaped):
    """A number that depends on the image."""

    def forward(self, x: Tensor) -> Tensor:
        return x / float(x.abs().max())


class ForWide(Reshaped):
    """Another result for wide images."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.shape[3] < 9 * x.shape[2] else 2 * x


class ForSmall(Reshaped):
    """Another result for large images."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.shape[3] < 500 else 2 * x


@pytest.mark.slow
@pytest.mark.parametrize(
    ("norm", "file_format", "reason"),
    [
        (Reshaped, "onnx", r"its results differ by \d"),
        (Measuring, "pt2", "GuardOnDataDependentSymNode"),
        (ForSmall, "pt2", "depends on the number or the size of the images"),
        (ForWide, "pt2", "depends on the number or the size of the images"),
        pytest.param(Counting, "pt2", r"its results differ by \d", marks=pytest.mark.long),
    ],
)
def test_a_component_that_exports_wrongly_is_named(
    norm: Any, file_format: str, reason: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written then, and torch prints nothing."""
    registries["norms"].register("mine", norm)
    try:
        recipe = tiny_recipe(make_folders(tmp_path / "data"), "translator.content_encoder.norm={name='mine'}")
        run = untrained(recipe, tmp_path / "run")
        with pytest.raises(ExportError, match=rf"translation cannot be exported.*: norm 'mine': .*{reason}"):
            export(run, file_format, to="b")
    finally:
        registries["norms"].unregister("mine")
    assert not (run / "export").exists()
    assert capfd.readouterr() == ("", "")


def test_a_run_that_went_wrong_is_not_exported(munit_run: Path, tmp_path: Path) -> None:
    run = untrained(Run(munit_run).recipe, tmp_path / "run")
    translator = Run(run, "cpu").translator
    with torch.no_grad():
        for weight in translator.networks["decoders"].parameters():
            weight.fill_(1e30)
    save_weights(translator, Run(run).images, 1, run)
    with pytest.raises(RunError, match="the translation is not finite"):
        export(run, "pt2", to="b")


@pytest.mark.parametrize("file_format", ["onnx", "pt2", "safetensors"])
def test_weights_beyond_fp16_are_named(file_format: str, munit_run: Path, tmp_path: Path) -> None:
    run = untrained(Run(munit_run).recipe, tmp_path / "run")
    translator = Run(run, "cpu").translator
    with torch.no_grad():
        translator.networks["decoders"]["b"].head.weight[0, 0, 0, 0] = 1e5
    save_weights(translator, Run(run).images, 1, run)
    with pytest.raises(ExportError, match=r"decoders\.b\.head\.weight has the value 1e\+05, above 65504"):
        export(run, file_format, precision="fp16")


def test_what_is_asked_for_wrongly_is_said_before_anything_is_computed(
    munit_run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "folder.onnx"
    folder.mkdir()
    for options, message in (
        ({"out": "x.png"}, r"x.png: the name of the file should end in one of onnx, pt2, safetensors"),
        ({"out": "x.onnx", "file_format": "pt2"}, r"x.onnx: the name of the file should end in .pt2"),
        ({"file_format": "coreml"}, "the format 'coreml' is not known; choose one of onnx, pt2, safetensors"),
        ({"to": "c"}, "does not translate to c; it translates a to b, b to a"),
        ({"out": tmp_path, "file_format": "onnx"}, "the name of the file should end in .onnx"),
        ({"out": folder}, "folder.onnx is a folder; --out is the name of a file"),
        ({"out": tmp_path / "a\\b.onnx"}, "the file cannot have the name"),
        ({"licence": "\udcff"}, "the licence is not text that can be printed"),
        (
            {"file_format": "official", "precision": "fp16"},
            "the official layout has fp32 weights and no licence",
        ),
        (
            {"file_format": "official", "licence": "MIT"},
            "the official layout has fp32 weights and no licence",
        ),
        ({"out": munit_run / "resolved.toml" / "x.pt2"}, "there is a file where a folder should be"),
    ):
        with pytest.raises(RunError, match=message):
            export(munit_run, **options)


def test_without_onnx_the_message_says_what_to_install(
    munit_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(WeightsError, match=r'export to ONNX needs onnx: pip install "i2ikit\[export\]"'):
        export(munit_run, "onnx", out=tmp_path / "x.onnx")


ANTIALIASED = ("translator.generator.antialias_down=true", "translator.generator.antialias_up=true")
EVERY = {
    "munit": ("munit", NARROW["munit"]),
    "bicyclegan": ("bicyclegan", NARROW["bicyclegan"]),
    "unit": ("unit", NARROW["unit"]),
    "cyclegan-noise": ("cyclegan-noise", NARROW["cyclegan"]),
    "cyclegan": ("cyclegan", NARROW["cyclegan"]),
    "cyclegan-antialiased": ("cyclegan", (*NARROW["cyclegan"], *ANTIALIASED)),
    "pix2pix": ("pix2pix", NARROW["pix2pix"]),
}


@pytest.mark.long
@pytest.mark.parametrize("file_format", ["onnx", "pt2"])
@pytest.mark.parametrize("name", EVERY)
def test_every_translator_agrees_in_every_format(name: str, file_format: str, tmp_path: Path) -> None:
    recipe_name, narrow = EVERY[name]
    recipe = load_recipe(recipe_name, list(narrow))
    run = untrained(recipe, tmp_path / name)
    found = export(run, file_format)
    assert agrees(found.files[0], run) < 1e-4

"""An exported ONNX file is used as the run is: same names, same options, same pictures."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import i2ikit
from i2ikit.cli.main import app
from i2ikit.errors import ExportError, I2IKitError, RunError, WeightsError
from i2ikit.exchange.export import Exported
from i2ikit.model import Model
from i2ikit.run import Run

onnx = pytest.importorskip("onnx", reason="needs the extra i2ikit[export]")
pytestmark = pytest.mark.slow


@pytest.fixture
def model(munit_onnx: Exported) -> Model:
    found = i2ikit.load(munit_onnx.files[0])
    assert isinstance(found, Model)
    return found


@pytest.fixture
def copy(munit_onnx: Exported, tmp_path: Path) -> tuple[Path, Path]:
    """Copies of the translation and of its style encoder."""
    one, two = (Path(shutil.copy(file, tmp_path)) for file in munit_onnx.files)
    return one, two


def picture(path: Path, side: tuple[int, int] = (90, 71)) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (9, 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(side).save(path)
    return path


def test_pictures_are_those_of_the_run(munit_run: Path, model: Model, tmp_path: Path) -> None:
    """To 1e-3 in [0, 1], for a path, an array and a tensor, random styles, exemplars and codes."""
    run = Run(munit_run, "cpu")
    file = picture(tmp_path / "x.png")
    array = np.random.default_rng(1).random((67, 80, 3)).astype(np.float32)
    exemplars = [picture(tmp_path / "y.png", (50, 64)), array]
    for image, options in (
        (array, {"styles": 3, "seed": 4}),
        (array, {"exemplars": exemplars}),
        (torch.rand(3, 21, 130) * 2 - 1, {"styles": np.full((2, 4), 0.5, np.float32)}),
    ):
        expected, found = run.translate(image, **options), model.translate(image, **options)
        assert type(found) is type(expected)
        np.testing.assert_allclose(found, expected, atol=1e-3)
    for one, two in zip(run.translate(file), model.translate(file), strict=True):
        assert np.abs(np.asarray(one, int) - np.asarray(two, int)).max() <= 1
    np.testing.assert_allclose(model.encode_style(file), run.encode_style(file), atol=1e-4)


def test_it_has_the_facts_of_the_run(munit_run: Path, model: Model, munit_onnx: Exported) -> None:
    run = Run(munit_run, "cpu")
    assert model.images == run.images
    assert model.direction() == run.direction()
    assert (model.step, model.sha256) == (run.step, run.sha256)
    assert repr(model) == f"Model({munit_onnx.files[0]}: step 1, 64 px)"
    assert (model.path, run.model.path) == (munit_onnx.files[0], munit_run)


def test_the_command_writes_files_of_the_same_names(
    munit_run: Path, copy: tuple[Path, Path], tmp_path: Path
) -> None:
    """By default beside the file, whose run folder may be gone."""
    image = str(picture(tmp_path / "x.png"))
    for options in (["--styles", "2", "--seed", "3"], ["--style-from", image]):
        for given, out in ((munit_run, ["--out", str(tmp_path / "run")]), (copy[0], [])):
            result = CliRunner().invoke(app, ["translate", str(given), image, *options, *out])
            assert result.exit_code == 0, result.output
    made = {file.name: file for file in (tmp_path / "run").glob("*.png")}
    found = {file.name: file for file in (tmp_path / "translations").glob("*.png")}
    assert made.keys() == found.keys()
    assert len(made) == 2 + 1 + 1 + 1  # two styles and a sheet, one exemplar and a sheet
    for name in made:
        one, two = (np.asarray(Image.open(file), int) for file in (made[name], found[name]))
        assert np.abs(one - two).max() <= 1


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (
            lambda m: m.translate(torch.zeros(3, 64, 64), to="a"),
            "does not translate to a; it translates a to b",
        ),
        (lambda m: m.translate(torch.zeros(3, 64, 64), precision="bf16"), "computes in fp32, not in bf16"),
        (lambda m: m.translate(torch.zeros(3, 64, 64), styles=torch.zeros(2, 5)), r"should be \(N, 4\)"),
        (lambda m: m.encode_style(torch.zeros(3, 64, 64), "a"), "does not translate to a"),
        (lambda m: i2ikit.load(m.path, "cuda"), "'cuda' cannot be used by this onnxruntime; it has cpu"),
        (lambda m: i2ikit.load(m.path, "mps:0"), "'mps:0' cannot be used by this onnxruntime; it has cpu"),
        (lambda m: list(i2ikit.evaluate(m.path)), "exported file; this needs the run folder"),
        (lambda m: i2ikit.load(m.path.with_name("no.onnx")), "cannot read .*no.onnx: No such file"),
        (lambda m: i2ikit.load(m.path.with_stem(f"{m.path.stem}-style-encoder")), "is a style encoder"),
    ],
)
def test_what_it_cannot_do_is_said(use: Callable[[Model], Any], message: str, model: Model) -> None:
    with pytest.raises(I2IKitError, match=message):
        use(model)


def test_a_style_encoder_that_is_missing_or_another_is_named(copy: tuple[Path, Path]) -> None:
    file, encoder = copy
    exemplar = torch.zeros(3, 64, 64)
    encoder.write_bytes(encoder.read_bytes() + b"\0")
    with pytest.raises(ExportError, match=f"{encoder} is not the style encoder of {file.name}; export both"):
        i2ikit.load(file).translate(exemplar, exemplars=exemplar)
    encoder.unlink()
    with pytest.raises(
        ExportError, match=f"cannot read {encoder}, the style encoder of {file.name}: No such"
    ):
        i2ikit.load(file).translate(exemplar, exemplars=exemplar)
    assert len(i2ikit.load(file).translate(exemplar, styles=2)) == 2


def changed(file: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The file with changed metadata."""
    model = onnx.load(file)
    about = json.loads(model.metadata_props[0].value)
    change(about)
    model.metadata_props[0].value = json.dumps(about)
    onnx.save(model, file)
    return file


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about: about.clear(), "its metadata 'i2ikit' cannot be used: graph: Field required"),
        (lambda about: about.update(size="64"), "cannot be used: size: Input should be a valid integer"),
        (lambda about: about.update(size=10**9), "cannot be used: size"),
        (lambda about: about.update(format=2), "cannot be used: format"),
        (lambda about: about["style"].update(encoder="../../secret.onnx"), "cannot be used: style.encoder"),
        (lambda about: about["style"].update(encoder="."), "cannot be used: style.encoder"),
        (lambda about: about["style"].update(encoder=".."), "cannot be used: style.encoder"),
        (lambda about: about["style"].update(length=2**24), "cannot be used: style.length"),
        (lambda about: about["style"].update(length=5), "does not match its graph"),
        (lambda about: about["domains"].pop(), "names no direction between two of its domains"),
        (
            lambda about: about["domains"].reverse() or about["domains"][0].update(channels=1),
            "channels|expected",
        ),
        (lambda about: about.update(source="b", to="b"), "names no direction between two of its domains"),
    ],
)
def test_metadata_that_do_not_fit_are_named(
    change: Callable[[dict[str, Any]], object], message: str, copy: tuple[Path, Path]
) -> None:
    file = changed(copy[0], change)
    with pytest.raises(ExportError, match=message):
        i2ikit.load(file).translate(torch.zeros(3, 64, 64))


def test_styles_of_an_unknown_distribution_must_be_given(copy: tuple[Path, Path]) -> None:
    file = changed(copy[0], lambda about: about["style"].update(distribution=None))
    model = i2ikit.load(file)
    with pytest.raises(ExportError, match="does not say how random styles are distributed; give exemplars"):
        model.translate(torch.zeros(3, 64, 64))
    assert len(model.translate(torch.zeros(3, 64, 64), styles=torch.zeros(2, 4))) == 2


def test_damaged_and_foreign_files_are_named(copy: tuple[Path, Path], tmp_path: Path) -> None:
    file, _ = copy
    content = file.read_bytes()
    for damaged in (b"", b"x", content[:100], content[: len(content) // 2], content[1:]):
        file.write_bytes(damaged)
        with pytest.raises(WeightsError, match=f"{file} is not an ONNX model"):
            i2ikit.load(file)
    model = onnx.load_from_string(content)
    del model.metadata_props[:]
    onnx.save(model, file)
    with pytest.raises(ExportError, match=f"{file} was not exported by i2ikit: it has no metadata 'i2ikit'"):
        i2ikit.load(file)
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(RunError, match=r"cannot read .*: Is a directory"):
        i2ikit.load(tmp_path / "folder.onnx")


def test_flipped_bits_never_give_a_traceback(
    copy: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    """In the metadata and the graph, before the weights."""
    file, _ = copy
    content = file.read_bytes()
    rng = np.random.default_rng(0)
    for place in (*rng.integers(0, 4000, 30), *rng.integers(len(content) - 4000, len(content), 30)):
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(changed)
        with contextlib.suppress(I2IKitError):
            i2ikit.load(file).translate(torch.zeros(3, 16, 16), styles=torch.zeros(1, 4))
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("kind", ["sequence", "other type"])
def test_a_result_that_is_no_picture_is_named(kind: str, copy: tuple[Path, Path]) -> None:
    file, _ = copy
    model = onnx.load(file)
    name = model.graph.output[0].name
    del model.graph.output[:]
    if kind == "sequence":
        model.graph.node.append(onnx.helper.make_node("SequenceConstruct", [name], ["made"]))
        value = onnx.helper.make_tensor_sequence_value_info("made", onnx.TensorProto.FLOAT, None)
    else:
        model.graph.node.append(onnx.helper.make_node("Cast", [name], ["made"], to=onnx.TensorProto.DOUBLE))
        value = onnx.helper.make_tensor_value_info("made", onnx.TensorProto.DOUBLE, None)
    model.graph.output.append(value)
    onnx.save(model, file)
    with pytest.raises(
        ExportError, match=r"gives (list|float64 .*), but float32 \(8, 3, 64, 64\) was expected"
    ):
        i2ikit.load(file).translate(torch.zeros(3, 64, 64))


def test_a_model_that_gives_other_shapes_is_named(copy: tuple[Path, Path]) -> None:
    """Whatever its metadata say."""
    file, _ = copy
    model = onnx.load(file)
    image = model.graph.input[0]
    del model.graph.node[:]
    del model.graph.initializer[:]
    model.graph.node.append(onnx.helper.make_node("Neg", ["image"], ["translation"]))
    model.graph.output[0].CopyFrom(image)
    model.graph.output[0].name = "translation"
    del model.graph.value_info[:]
    onnx.save(model, file)
    with pytest.raises(
        ExportError, match=r"gives float32 \(1, 3, 64, 64\), but float32 \(8, 3, 64, 64\) was"
    ):
        i2ikit.load(file).translate(torch.zeros(3, 64, 64))

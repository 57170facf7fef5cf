"""Official weights become a run, and go back."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import i2ikit
from i2ikit.cli.main import app
from i2ikit.errors import ExportError, RecipeError, RunError, WeightsError
from i2ikit.exchange.export import export
from i2ikit.exchange.import_run import Imported, import_weights
from i2ikit.official import bicyclegan as official_bicyclegan
from i2ikit.official import munit as official_munit
from i2ikit.official.resnet_unet import Structure, constants, shapes
from tests.image_files import make_folders
from tests.reference.formulas import figures, image, official_state
from tests.tiny import NARROW, QUIET, untrained

GOLDEN = json.loads((Path(__file__).parents[1] / "reference" / "networks.json").read_text())
RESNET = Structure("resnet", 3, 3, 4, 2, "instance")
PATCHGAN = Structure("patchgan", 3, 1, 4, 3, "instance")


def state_of(structure: Structure, seed: int = 0) -> dict[str, Tensor]:
    """A state dict as the official code saves it."""
    generator = torch.Generator().manual_seed(seed)
    state = {
        key: torch.tensor(7)
        if key.endswith("tracked")
        else 0.1 + 0.1 * torch.rand(shape, generator=generator)
        for key, shape in shapes(structure).items()
    }
    return state | constants(structure)


def saved(state: Mapping[str, Any], file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state), file)
    return file


def cyclegan(
    folder: Path, *, generator: Structure = RESNET, discriminator: Structure | None = PATCHGAN
) -> Path:
    """The files of a CycleGAN; those of another epoch lie beside them."""
    for n, name in enumerate(("G_A", "G_B", "D_A", "D_B")):
        structure = generator if name.startswith("G") else discriminator
        if structure is not None:
            saved(state_of(structure, n), folder / f"latest_net_{name}.pth")
            saved(state_of(structure, n + 10), folder / f"100_net_{name}.pth")
    return folder


def pix2pix(folder: Path) -> Path:
    saved(state_of(Structure("unet", 1, 3, 2, 5, "batch")), folder / "latest_net_G.pth")
    saved(state_of(Structure("patchgan", 4, 1, 2, 3, "batch"), 1), folder / "latest_net_D.pth")
    return folder


def imported(files: Path, tmp_path: Path, **options: Any) -> Imported:
    return import_weights(files, tmp_path / "run", size=64, **options)


@pytest.mark.parametrize("name", GOLDEN["state_dicts"])
def test_pictures_are_those_of_the_official_code(name: str, tmp_path: Path) -> None:
    """A CycleGAN ResNet with statistics of instance norms, a pix2pix U-Net, and CUT's antialiased ResNet."""
    golden = GOLDEN["state_dicts"][name]
    state = official_state({key: tuple(shape) for key, shape in golden["keys"].items()}, statistics=True)
    floats = {key: x.float() if x.is_floating_point() else x for key, x in state.items()}
    found = imported(saved(floats, tmp_path / "latest_net_G.pth"), tmp_path)
    assert found.fresh == ["discriminator"]
    run = found.run
    channels = golden["expect"]["input_nc"]
    assert run.images.channels == {"a": channels, "b": golden["expect"]["output_nc"]}
    made = run.translator.translate(image(1, channels, 32, 0).float(), torch.empty(1, 0), source="a", to="b")
    expected = golden["output"]["eval"]
    for figure in ("mean", "std", "first", "last"):
        assert figures(made.double())[figure] == pytest.approx(expected[figure], abs=2e-5), figure


def test_a_folder_of_a_cyclegan_is_recognised(tmp_path: Path) -> None:
    """G_A translates a to b, and D_A judges images of b; only the latest epoch is taken."""
    folder = cyclegan(tmp_path / "files")
    found = imported(folder, tmp_path)
    assert found.name == "CycleGAN"
    assert found.fresh == []
    assert {path.name: what for path, what in found.taken.items()} == {
        "latest_net_G_A.pth": "generator a to b",
        "latest_net_G_B.pth": "generator b to a",
        "latest_net_D_A.pth": "discriminator of b",
        "latest_net_D_B.pth": "discriminator of a",
    }
    networks = found.run.translator.networks["generators"].state_dict()
    first = torch.load(folder / "latest_net_G_A.pth")["model.1.weight"]
    assert torch.equal(networks["b.stem.conv.weight"], first)
    text = (found.run.folder / "recipe.toml").read_text()
    assert text.startswith("# CycleGAN, imported from weights of the official repository:\n")
    assert "# Licence: the official code is under a BSD licence" in text
    assert i2ikit.load_recipe(
        found.run.folder / "recipe.toml", f"data.root={make_folders(tmp_path / 'data')}"
    )


@pytest.mark.slow
def test_an_imported_cyclegan_trains_on_and_resumes(tmp_path: Path) -> None:
    """20 steps at once equal 12 and 8 more, from the imported weights of all networks."""
    data = make_folders(tmp_path / "data")
    folder = cyclegan(tmp_path / "files")
    steps = ["training.log_every=1", "training.checkpoint_every=100"]
    once = import_weights(folder, tmp_path / "once", data_root=data, size=64).run
    i2ikit.resume(once, [*steps, "training.steps=20"], console=QUIET)
    twice = import_weights(folder, tmp_path / "twice", size=64).run
    i2ikit.resume(twice, [*steps, f"data.root={data}", "training.steps=12"], console=QUIET)
    i2ikit.resume(twice, "training.steps=20", console=QUIET)
    last = "checkpoints/step-000000020"
    for file in ("networks.safetensors", "ema.safetensors", "optimizers.safetensors"):
        assert (once.folder / last / file).read_bytes() == (twice.folder / last / file).read_bytes()


def test_a_translator_without_an_official_layout_is_named(munit_run: Path, tmp_path: Path) -> None:
    """A U-Net with noise is none of the CycleGAN repository's."""
    recipe = i2ikit.load_recipe("cyclegan-noise", [*NARROW["cyclegan"], "translator.noise_dim=3"])
    run = untrained(recipe, tmp_path / "noise")
    with pytest.raises(ExportError, match="noise cannot be written in the official layout: "):
        export(run, "official")
    assert not (run / "export").exists()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["D_A"], "none of these files is a generator"),
        (["G_A", "D_A", "G_B"], "a CycleGAN has two discriminators, but latest_net_D_A.pth is one"),
    ],
)
def test_files_that_make_no_translator(names: list[str], message: str, tmp_path: Path) -> None:
    folder = cyclegan(tmp_path / "files")
    with pytest.raises(WeightsError, match=message):
        import_weights([folder / f"latest_net_{name}.pth" for name in names], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_latest_epoch_of_a_folder_is_taken(tmp_path: Path) -> None:
    """Also without files of the epoch "latest", and by number, not by name."""
    for epoch in (5, 10):
        for n, name in enumerate(("G_A", "G_B", "D_A", "D_B")):
            saved(
                state_of(RESNET if n < 2 else PATCHGAN, n + epoch),
                tmp_path / "files" / f"{epoch}_net_{name}.pth",
            )
    found = imported(tmp_path / "files", tmp_path)
    assert {path.name for path in found.taken} == {
        f"10_net_{name}.pth" for name in ("G_A", "G_B", "D_A", "D_B")
    }
    one = tmp_path / "one"
    for epoch in (9, 10):
        saved(state_of(RESNET, epoch), one / f"{epoch}_net_G.pth")
    assert [path.name for path in import_weights(one, tmp_path / "second").taken] == ["10_net_G.pth"]


def test_files_that_cannot_be_told_apart(tmp_path: Path) -> None:
    folder = cyclegan(tmp_path / "files")
    a, b, other = (folder / f"{name}.pth" for name in ("latest_net_G_A", "latest_net_G_B", "100_net_G_A"))
    for files, message in (
        ([a, a], "a file is given twice"),
        (
            [a, other],
            "the names of these files do not say which is which: latest_net_G_A.pth, 100_net_G_A.pth",
        ),
        ([a, b, *(folder / f"{n}_net_D_A.pth" for n in ("latest", "100"))], "do not say which is which"),
    ):
        with pytest.raises(WeightsError, match=message):
            import_weights(files, tmp_path / "run")
    found = import_weights([a, folder / "100_net_G_B.pth"], tmp_path / "mixed", size=64)
    assert "these files are of different epochs, as their names say" in found.notes
    plain = [saved(state_of(RESNET, n), tmp_path / f"{name}.pth") for n, name in enumerate(("G_B", "G_A"))]
    swapped = import_weights(plain, tmp_path / "plain", size=64)
    assert {path.name: what for path, what in swapped.taken.items()}["G_A.pth"] == "generator a to b"


def test_a_discriminator_that_sees_both_images_is_not_that_of_a_cyclegan(tmp_path: Path) -> None:
    folder = cyclegan(tmp_path / "files", discriminator=Structure("patchgan", 6, 1, 4, 3, "instance"))
    with pytest.raises(WeightsError, match=r"latest_net_D_A.pth judges 6 channels, but images of b have 3"):
        imported(folder, tmp_path)


def test_the_projection_of_cut_is_left_out_and_its_kernels_are_checked(tmp_path: Path) -> None:
    structure = Structure("resnet", 3, 3, 4, 2, "instance", True, True)
    state = state_of(structure)
    file = saved(state, tmp_path / "files" / "latest_net_G.pth")
    saved(
        {"mlp_0.0.weight": torch.zeros(4, 3), "mlp_0.0.bias": torch.zeros(4)},
        file.with_name("latest_net_F.pth"),
    )
    assert (
        "latest_net_F.pth is not used: only training by CUT needs it" in imported(file.parent, tmp_path).notes
    )
    for wrong in (3 * state["model.7.filt"], torch.ones(8, 1, 4, 4)):
        saved({**state, "model.7.filt": wrong}, file)
        with pytest.raises(WeightsError, match=r"kernels are not those of the official code: model.7.filt"):
            import_weights(file, tmp_path / "other")


def test_values_of_a_yaml_that_are_not_used_are_named(tmp_path: Path) -> None:
    folder = munit(tmp_path / "files")
    text = "lr: 1e-4\nlr_policy: constant\ngamma: fast\ncrop_image_height: 64\ncrop_image_width: 128\n"
    (folder / "config.yaml").write_text(text)
    found = import_weights(folder, tmp_path / "run", size=64)
    options = found.run.recipe.optimizers["decoders"].table()
    assert (options["lr"], options["decay"]) == (1e-4, "none")
    assert "these values of the YAML are not numbers, and are not used: gamma" in found.notes
    assert "the YAML has no square crop: the images have the usual size, or that of --size" in found.notes


def test_generators_of_two_models_are_named(tmp_path: Path) -> None:
    one = saved(state_of(RESNET), tmp_path / "x_net_G_A.pth")
    for other, message in (
        (
            Structure("resnet", 3, 3, 4, 3, "instance"),
            "x_net_G_A.pth and y_net_G_B.pth have different structures",
        ),
        (
            Structure("resnet", 3, 1, 4, 2, "instance"),
            "not the two directions of one model: 3 to 3 channels, and 3 to 1",
        ),
    ):
        two = saved(state_of(other), tmp_path / "y_net_G_B.pth")
        with pytest.raises(WeightsError, match=message):
            import_weights([one, two], tmp_path / "run")


def test_what_does_not_fit_is_listed_key_by_key(tmp_path: Path) -> None:
    state = state_of(RESNET)
    del state["model.10.conv_block.5.bias"]
    state["model.4.weight"] = torch.zeros(8, 4, 5, 5)
    state["model.99.extra"] = torch.zeros(1)
    file = saved(state, tmp_path / "latest_net_G.pth")
    with pytest.raises(WeightsError) as caught:
        imported(file, tmp_path)
    for line in (
        f"{file}: 3 tensors do not fit the network:",
        "missing: model.10.conv_block.5.bias",
        "unexpected: model.99.extra",
        "wrong shape: model.4.weight is (8, 4, 5, 5), not (8, 4, 3, 3)",
    ):
        assert line in str(caught.value)


def hostile(folder: Path) -> dict[str, Path]:
    """Files that are not weights, by what is wrong with them."""
    good = saved(state_of(RESNET), folder / "good.pth")
    content = good.read_bytes()
    files = {"empty": b"", "text": b"hello", "half": content[: len(content) // 2]}
    made = {name: folder / f"{name}.pth" for name in files}
    for name, path in made.items():
        path.write_bytes(files[name])
    with (
        zipfile.ZipFile(good) as old,
        zipfile.ZipFile(folder / "packed.pth", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    made["packed"] = folder / "packed.pth"
    shared = torch.zeros(100_000)
    bad: dict[str, Any] = {
        "list": [torch.zeros(1)],
        "number": {"model.1.weight": 3},
        "deep": {"a": {"b": {"c": torch.zeros(1)}}},
        "integer key": {3: torch.zeros(1)},
        "nan": state_of(RESNET) | {"model.1.weight": torch.full((4, 3, 7, 7), torch.nan)},
        "sparse": {"model.1.weight": torch.zeros(2, 2).to_sparse()},
        "expanded": {"model.1.weight": torch.zeros(1).expand(2**40)},
        "aliases": {f"model.{n}.weight": shared for n in range(1000)},
        "float8": {"model.1.weight": torch.zeros(2, dtype=torch.float8_e4m3fn)},
        "beyond fp32": state_of(RESNET)
        | {"model.1.weight": torch.full((4, 3, 7, 7), 1e300, dtype=torch.float64)},
        "long key": {"x" * 100_000: torch.zeros(1)},
        "levels": {
            "model.model.0.weight": torch.zeros(1, 1, 1, 1),
            "model.model.1.model." + "3.model." * 100 + "weight": torch.zeros(1),
        },
        "foreign": {"conv1.weight": torch.zeros(64, 3, 7, 7), "fc.bias": torch.zeros(10)},
    }
    for name, value in bad.items():
        torch.save(value, folder / f"{name}.pth")
        made[name] = folder / f"{name}.pth"
    made["folder"] = folder / "nothing"
    made["folder"].mkdir()
    made["missing"] = folder / "missing.pth"
    return made


def test_files_that_are_not_weights_are_named(tmp_path: Path) -> None:
    for file in hostile(tmp_path / "files").values():
        with pytest.raises(WeightsError, match=str(file)) as caught:
            imported(file, tmp_path)
        assert len(str(caught.value)) < 2000
        assert not (tmp_path / "run").exists()


def test_other_options_that_do_not_fit(tmp_path: Path) -> None:
    folder = cyclegan(tmp_path / "files")
    with pytest.raises(RecipeError, match="is not a folder"):
        imported(folder, tmp_path, data_root=tmp_path / "none")
    five = saved(state_of(Structure("resnet", 5, 3, 4, 2, "instance")), tmp_path / "five_net_G.pth")
    with pytest.raises(
        WeightsError, match=r"images of 5 \(a\) and 3 \(b\) channels; i2ikit reads folders of images"
    ):
        imported(five, tmp_path)
    imported(folder, tmp_path)
    with pytest.raises(RunError, match="already exists"):
        imported(folder, tmp_path)


def test_an_old_unet_gives_other_pictures(tmp_path: Path) -> None:
    """The order of concatenation before 2017-09-22 must be said, because nothing shows it."""
    folder = pix2pix(tmp_path / "files")
    x = image(1, 1, 32, 0).float()
    made = []
    for n, old in enumerate((False, True)):
        run = import_weights(folder, tmp_path / str(n), size=64, old_unet=old).run
        made.append(run.translator.translate(x, torch.empty(1, 0), source="a", to="b"))
    assert not torch.allclose(*made)


def test_the_command_says_what_it_found(tmp_path: Path) -> None:
    file = saved(state_of(RESNET), tmp_path / "horse2zebra.pth")
    result = CliRunner().invoke(app, ["import", str(file), "--out", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    assert f"Imported one generator into {tmp_path / 'run'}:" in result.output
    assert f"{file}: generator a to b" in result.output
    assert "New, with random weights: discriminator; they are needed only for training on." in result.output
    assert f"i2ikit translate {tmp_path / 'run'} YOUR_IMAGE.png" in result.output
    result = CliRunner().invoke(app, ["import", str(tmp_path / "no.pth")])
    assert isinstance(result.exception, WeightsError)
    assert f"cannot read {tmp_path / 'no.pth'}: No such file or directory" in str(result.exception)


def munit(folder: Path, **changes: Any) -> Path:
    """A MUNIT by the formulas of the golden numbers, with the second generator's weights times 0.9."""
    gen = official_munit.GeneratorStructure(3, 8, 8, 16, 2, 2)
    dis = official_munit.DiscriminatorStructure(3, 8, 4, 3)
    for name, structure in (("gen", gen), ("dis", dis)):
        states = {
            domain: {
                key: x.float() for key, x in official_state(official_munit.shapes(structure), factor).items()
            }
            for domain, factor in (("a", 1.0), ("b", 0.9))
        }
        for step in ("00000100", "00001000"):
            saved(states, folder / f"{name}_{step}.pt")
    return folder


def bicyclegan(folder: Path) -> Path:
    networks = {
        "G": official_bicyclegan.GeneratorStructure(1, 3, 4, 2, 5),
        "E": official_bicyclegan.EncoderStructure(3, 4, 2, 3),
        "D": official_bicyclegan.DiscriminatorStructure(3, 4, 3, 2),
        "D2": official_bicyclegan.DiscriminatorStructure(3, 4, 3, 2),
    }
    for n, (name, structure) in enumerate(networks.items()):
        generator = torch.Generator().manual_seed(n)
        state = {
            key: 0.1 + 0.1 * torch.rand(shape, generator=generator)
            for key, shape in official_bicyclegan.shapes(structure).items()
        }
        saved(state, folder / f"latest_net_{name}.pth")
    return folder


YAML = """
max_iter: 5000
batch_size: 2
weight_decay: 0.0002
beta1: 0.4
beta2: 0.99
lr: 0.0003
lr_policy: step
step_size: 1000
gamma: 0.7
gan_w: 2
recon_x_w: 8
recon_s_w: 3
recon_c_w: 4
recon_x_cyc_w: 5
vgg_w: 0
gen: {dim: 8, activ: relu, pad_type: reflect}
dis: {norm: none, activ: lrelu, gan_type: nsgan, pad_type: reflect}
new_size: 72
crop_image_height: 64
crop_image_width: 64
"""


BOMB = "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghijkl", "bcdefghijklz", strict=True)
)
"""9 ** 12 numbers, if they were written out."""


def test_a_munit_has_the_golden_code_and_the_options_of_its_yaml(tmp_path: Path) -> None:
    """The content code of the formula's image has the L2 norm of the official code, 142.4306524607."""
    folder = munit(tmp_path / "files")
    (folder / "config.yaml").write_text(YAML)
    found = import_weights(folder, tmp_path / "run")
    assert (found.name, found.fresh) == ("MUNIT", [])
    assert {path.name for path in found.taken} == {"dis_00001000.pt", "gen_00001000.pt"}
    assert any("non-commercial" in note for note in found.notes)
    networks = found.run.translator.networks
    code = networks["content_encoders"]["a"](image(1, 3, 64, 0).float())
    assert code.norm().item() == pytest.approx(142.4306524607, rel=1e-5)
    recipe = found.run.recipe
    weights = {"adversarial": 2, "image_recon": 8, "style_recon": 3, "content_recon": 4, "cycle_recon": 5}
    assert recipe.translator.options["weights"]["generator"] == {**weights, "perceptual": 0, "smoothness": 0}
    assert recipe.translator.options["weights"]["discriminator"] == {"adversarial": 2}
    assert recipe.translator.options["adversarial_loss"].name == "nsgan"
    assert recipe.optimizers["decoders"].table()["lr"] == 3e-4
    assert (recipe.training.steps, recipe.training.batch_size) == (5000, 2)
    assert (recipe.data.options["size"], recipe.data.options["load_size"]) == (64, 72)
    assert "non-commercial" in (tmp_path / "run" / "recipe.toml").read_text()


def test_a_bicyclegan_is_recognised(tmp_path: Path) -> None:
    found = import_weights(bicyclegan(tmp_path / "files"), tmp_path / "run", size=64)
    assert (found.name, found.fresh) == ("BicycleGAN", [])
    assert {path.name: what for path, what in found.taken.items()} == {
        "latest_net_G.pth": "generator a to b",
        "latest_net_E.pth": "encoder of b",
        "latest_net_D.pth": "discriminator of encoded translations",
        "latest_net_D2.pth": "discriminator of random translations",
    }
    run = found.run
    assert run.images.channels == {"a": 1, "b": 3}
    made = run.translate(torch.zeros(1, 64, 64), styles=2)
    assert made.shape == (2, 3, 64, 64)
    assert run.encode_style(torch.zeros(3, 64, 64)).shape == (1, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gen: {activ: selu}", r"the YAML has gen.activ = 'selu'; i2ikit's MUNIT has only 'relu'"),
        ("dis: {gan_type: wgan}", "the YAML has dis.gan_type = 'wgan'; i2ikit has lsgan, nsgan"),
        ("dis: {gan_type: [lsgan]}", "the YAML has dis.gan_type = "),
        (f"a: &a [1]\n{BOMB}gen: {{activ: *z}}", "the YAML has gen.activ = "),
        ("lr: !!int ''", "config.yaml is not YAML: IndexError"),
        ("lr: !!timestamp x", "config.yaml is not YAML: AttributeError"),
        ("max_iter: 1" + "0" * 400 + "\nlr: -1", "munit.toml: "),
        ("max_iter: .inf\nlr: -1", "munit.toml: "),
        ("a: [1, 2", "config.yaml is not YAML: "),
        ("!!python/object/apply:os.system ['true']", "config.yaml is not YAML: ConstructorError"),
        ("- 1", "config.yaml holds no options"),
        ("", "config.yaml holds no options"),
        ("x: " + "1" * 200_000, "config.yaml has more than 100,000 bytes"),
    ],
)
def test_a_yaml_that_does_not_fit_is_named(text: str, message: str, tmp_path: Path) -> None:
    folder = munit(tmp_path / "files")
    (folder / "config.yaml").write_text(text)
    with pytest.raises((WeightsError, RecipeError), match=message):
        import_weights(folder, tmp_path / "run")


def test_one_domain_of_a_munit_is_not_enough(tmp_path: Path) -> None:
    folder = munit(tmp_path / "files")
    both = torch.load(folder / "gen_00001000.pt")
    one = saved({"a": both["a"]}, tmp_path / "one.pt")
    with pytest.raises(WeightsError, match=r"one.pt: a file of MUNIT holds the state dicts 'a' and 'b'"):
        import_weights(one, tmp_path / "run")
    with pytest.raises(WeightsError, match=r"gen_00001000.pt: give one file of generators"):
        import_weights([folder / "gen_00000100.pt", folder / "gen_00001000.pt"], tmp_path / "run")


@pytest.mark.parametrize("make", [cyclegan, pix2pix, munit, bicyclegan])
def test_back_to_the_same_tensors(make: Any, tmp_path: Path) -> None:
    """Bit for bit, generators and discriminators."""
    folder = make(tmp_path / "files")
    run = imported(folder, tmp_path).run
    files = export(run, "official").files
    assert {file.parent.name for file in files} == {"run-official"}
    latest = {
        file.name.replace("00001000", "00000000")
        for file in folder.iterdir()
        if not file.name.startswith("100_")
    }
    assert {file.name for file in files} == latest - {"gen_00000100.pt", "dis_00000100.pt"}
    for file in files:
        back, given = torch.load(file), torch.load(folder / file.name.replace("00000000", "00001000"))
        for one, two in [(back, given)] if make not in (munit,) else [(back[d], given[d]) for d in "ab"]:
            assert one.keys() == two.keys()
            assert all(torch.equal(one[key], two[key]) for key in two)

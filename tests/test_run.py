"""A run folder as one object."""

from __future__ import annotations

import errno
import io
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import i2ikit
from i2ikit.checkpoints import WEIGHTS_FILE, save_weights
from i2ikit.errors import DataError, RunError
from i2ikit.run import RESOLVED, Run, create_run, is_run
from i2ikit.training import new_translator
from tests.image_files import make_folders
from tests.tiny import NARROW, tiny_recipe

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of initial weights."""
    return untrained(tmp_path_factory.mktemp("run"))


def untrained(root: Path, *overrides: str) -> Path:
    recipe = tiny_recipe(make_folders(root / "data"), *overrides)
    images = recipe.data().images
    run = create_run(root / "run", recipe)
    save_weights(new_translator(recipe, images).eval(), images, 7, run)
    return run


@pytest.fixture
def run(folder: Path) -> Run:
    return i2ikit.load(folder)


def test_it_is_found_by_its_folder_its_weights_or_as_the_newest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for given in (folder, str(folder), folder / WEIGHTS_FILE):
        assert i2ikit.load(given).folder == folder
    (folder.parent / "runs").mkdir()
    (folder.parent / "runs" / "one").symlink_to(folder)
    monkeypatch.chdir(folder.parent)
    assert i2ikit.load().folder == Path("runs/one")
    with pytest.raises(RunError, match=r"there is no run runs/on; did you mean 'runs/one'\?"):
        i2ikit.load("runs/on")


def test_it_says_what_it_is(run: Run) -> None:
    assert (run.step, run.images.size, run.recipe.translator.name, run.data.name) == (
        7,
        64,
        "munit",
        "folders",
    )
    assert repr(run) == f"Run({run.folder}: step 7, 64 px)"
    assert run.dataset() is run.dataset()
    assert run.dataset().count("test", "a") == 3
    assert not run.translator.training
    assert not any(p.requires_grad for p in run.translator.parameters())


def test_each_file_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    opens = io.open

    def noted(file: Any, *rest: Any, **named: Any) -> Any:
        read.append(Path(str(file)).name)
        return opens(file, *rest, **named)

    monkeypatch.setattr(io, "open", noted)  # what pathlib opens files with
    run = Run(folder)
    run.translate(torch.zeros(3, 64, 64), styles=2)
    assert (run.step, run.data.name, len(run.sha256)) == (7, "folders", 64)
    assert run.recipe.training.steps == 2
    list(i2ikit.evaluate(run, ["style-health"], overrides=["style-health.num_inputs=2"]))
    assert read.count(WEIGHTS_FILE) == 1
    assert read.count(RESOLVED) == 1


def test_a_picture_comes_back_in_the_form_in_which_it_was_given(run: Run, tmp_path: Path) -> None:
    picture = Image.new("RGB", (100, 70), "navy")
    picture.save(tmp_path / "x.png")
    made = run.translate(picture, styles=3)
    assert [type(image) for image in made] == [Image.Image] * 3
    assert made[0].size == (91, 64)
    array = run.translate(np.asarray(picture), styles=3)
    assert (array.shape, array.dtype) == ((3, 64, 91, 3), np.uint8)
    for given in (tmp_path / "x.png", str(tmp_path / "x.png")):
        for one, same, other in zip(made, run.translate(given, styles=3), array, strict=True):
            assert np.array_equal(np.asarray(one), np.asarray(same))
            assert np.array_equal(np.asarray(one), other)
    floats = run.translate(np.asarray(picture, dtype=np.float64) / 255, styles=2)
    assert floats.dtype == np.float64
    assert np.abs(floats * 255 - array[:2]).max() <= 1
    assert 0 <= floats.min() <= floats.max() <= 1


def test_a_tensor_keeps_its_size_and_type(run: Run) -> None:
    x = torch.rand(3, 30, 61) * 2 - 1
    made = run.translate(x, styles=2, seed=5)
    assert (made.shape, made.dtype, made.device.type) == ((2, 3, 30, 61), torch.float32, "cpu")
    assert torch.equal(made, run.translate(x, styles=2, seed=5))
    assert not torch.equal(made, run.translate(x, styles=2, seed=6))
    whole = run.translate(((x + 1) * 127.5).round().to(torch.uint8), styles=2, seed=5)
    assert whole.dtype == torch.uint8
    assert (whole / 127.5 - 1 - made).abs().max() < 0.1


def test_all_styles_of_an_image_are_those_of_single_translations(run: Run) -> None:
    """Bit for bit on a CPU; its content is encoded once, also where few styles are decoded at a time."""
    translator = run.translator
    encoded: list[int] = []
    decoded: list[int] = []
    networks = translator.networks
    hooks = [
        networks[role][d].register_forward_hook(lambda layer, inputs, y, calls=calls: calls.append(len(y)))
        for role, d, calls in (("content_encoders", "a", encoded), ("decoders", "b", decoded))
    ]
    for height, width, parts in ((64, 64, [5]), (30, 61, [5]), (150, 200, [2, 2, 1]), (600, 704, [1] * 5)):
        x, styles = torch.rand(3, height, width) * 2 - 1, translator.sample_style(5, "b")
        encoded.clear()
        decoded.clear()
        made = run.translate(x, styles=styles)
        assert (encoded, decoded) == ([1], parts)
        with torch.no_grad():
            single = [translator.translate(x[None], style[None], source="a", to="b") for style in styles]
        assert torch.equal(made, torch.cat(single))
    for hook in hooks:
        hook.remove()


def test_bf16_is_close_and_comes_back_as_fp32(run: Run) -> None:
    """The mean difference is a few of 255 levels, and not nothing."""
    x = torch.rand(3, 64, 64) * 2 - 1
    exact = run.translate(x, styles=2)
    made = run.translate(x, styles=2, precision="bf16")
    assert made.dtype == torch.float32
    assert 0 < (made - exact).abs().mean() * 127.5 < 5


def test_grey_domains_take_and_give_grey_arrays(tmp_path: Path) -> None:
    run = Run(untrained(tmp_path, "data.channels_a=1", "data.channels_b=1"))
    grey = np.full((70, 64), 200, dtype=np.uint8)
    assert run.translate(grey, styles=2).shape == (2, 70, 64)
    assert run.translate(np.dstack([grey] * 3), styles=2).shape == (2, 70, 64, 1)
    assert run.translate(np.dstack([grey] * 3) / 255.0, styles=1).shape == (1, 70, 64, 1)
    assert run.translate(Image.fromarray(grey), styles=1)[0].mode == "L"


def test_translating_leaves_the_random_numbers_of_others_alone(folder: Path) -> None:
    """Training in another thread draws from torch's generator too."""
    before = torch.random.get_rng_state()
    run = Run(folder)
    run.translate(torch.zeros(3, 64, 64), styles=2)
    run.translate(torch.zeros(3, 64, 64), styles=torch.zeros(2, 4))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_styles_are_random_given_or_of_exemplars(run: Run) -> None:
    x, exemplar = torch.rand(3, 64, 64), Image.new("RGB", (64, 64), "red")
    code = run.encode_style(exemplar)
    assert code.shape == (1, 4)
    codes = torch.cat([code, torch.zeros(1, 4), code])
    made = run.translate(x, styles=codes)
    assert torch.equal(made[0], made[2])
    assert not torch.equal(made[0], made[1])
    for one in ([exemplar], exemplar, np.asarray(exemplar)):
        assert torch.equal(run.translate(x, exemplars=one), made[:1])
    assert len(run.translate(x, exemplars=torch.stack([x, -x, x]))) == 3
    assert torch.equal(run.translate(x, styles=codes.numpy()), made)
    assert torch.equal(run.translate(x, styles=np.int64(2)), run.translate(x, styles=2))
    assert run.translate(x, to="a").shape == (8, 3, 64, 64)
    assert torch.equal(run.translate(x, to="a"), run.translate(x, source="b"))


def truncated() -> Image.Image:
    """Opened, but not yet read: half of the file is missing."""
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "png")
    return Image.open(io.BytesIO(file.getvalue()[:2000]))


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (
            torch.zeros(1, 64, 64),
            {},
            r"expected a tensor \(C, H, W\) with 3 channels, got float32 \(1, 64, 64\)",
        ),
        (torch.zeros(64, 64), {}, "with 3 channels, got"),
        (torch.zeros(3, 64, 64, dtype=torch.int64), {}, "of uint8, or of floats in"),
        (torch.full((3, 64, 64), 255.0), {}, r"values are from 255 to 255; expected \[-1, 1\]"),
        (torch.full((3, 64, 64), float("nan")), {}, r"expected \[-1, 1\]"),
        (np.zeros((64, 64, 5)), {}, "with 1, 3 or 4 channels, got float64"),
        (np.full((64, 64), -0.5), {}, r"values are from -0.5 to -0.5; expected \[0, 1\]"),
        (np.zeros((64, 64), dtype=np.uint16), {}, "of uint8, or of floats in"),
        (np.zeros((0, 64)), {}, "expected an array"),
        (b"png", {}, "expected an image as a path, a PIL image, an array or a tensor, got bytes"),
        ("nowhere.png", {}, "nowhere.png"),
        (truncated(), {}, "the PIL image: not a readable image .*truncated"),
        (Image.new("RGB", (0, 5)), {}, "the PIL image: not a readable image .*no pixels"),
        (torch.zeros(3, 64, 64).to_sparse(), {}, "expected a dense tensor of real numbers"),
        (torch.zeros(3, 64, 64, device="meta"), {}, "expected a dense tensor of real numbers"),
        (torch.zeros(3, 64, 64, dtype=torch.complex64), {}, "of uint8, or of floats in"),
        (Image.new("F", (64, 64)), {}, "without a value for black and white"),
        (Image.new("I", (64, 64)), {}, "without a value for black and white"),
        (torch.zeros(3, 64, 64), {"exemplars": torch.zeros(0, 3, 64, 64)}, "exemplars is empty"),
        (torch.zeros(3, 64, 64), {"exemplars": np.zeros((0, 64, 64, 3))}, "exemplars is empty"),
        (torch.zeros(3, 64, 64), {"styles": torch.full((1, 4), torch.nan)}, "should be finite numbers"),
        (torch.zeros(3, 64, 64), {"styles": np.full((1, 4), np.inf)}, "should be finite numbers"),
        (torch.zeros(3, 64, 64), {"styles": np.zeros((1, 4), complex)}, "expected an array of real numbers"),
        (torch.zeros(3, 64, 64), {"styles": np.zeros((1, 4), object)}, "expected an array of real numbers"),
        (
            torch.zeros(3, 64, 64),
            {"styles": torch.zeros(1, 4).to_sparse()},
            "expected a dense tensor of real numbers",
        ),
        (torch.zeros(3, 64, 64), {"styles": 0}, "styles = 0; 1 or more are needed"),
        (torch.zeros(3, 64, 64), {"styles": torch.zeros(2, 3)}, r"should be \(N, 4\), got \(2, 3\)"),
        (torch.zeros(3, 64, 64), {"styles": torch.zeros(0, 4)}, r"should be \(N, 4\), got \(0, 4\)"),
        (torch.zeros(3, 64, 64), {"styles": True}, r"a number, or codes \(N, 4\), got True"),
        (torch.zeros(3, 64, 64), {"styles": 2.0}, r"a number, or codes \(N, 4\), got 2.0"),
        (torch.zeros(3, 64, 64), {"to": "c"}, "does not translate to c; it translates a to b, b to a"),
        (
            torch.zeros(3, 64, 64),
            {"to": "b", "source": "b"},
            "does not translate from b to b; it translates a to b, b to a",
        ),
    ],
)
def test_what_cannot_be_translated_is_said(
    run: Run, image: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises((DataError, RunError), match=message):
        run.translate(image, **options)


def test_codes_and_images_of_any_memory_layout_are_taken(run: Run) -> None:
    """Negative strides, another byte order or precision, read-only arrays: the numbers count."""
    x = torch.rand(3, 64, 64) * 2 - 1
    codes = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    made = run.translate(x, styles=codes)
    locked = codes.copy()
    locked.flags.writeable = False
    same: list[Any] = [codes[::-1].copy()[::-1], codes.astype(">f8"), np.asfortranarray(codes), locked]
    same += [torch.from_numpy(codes).double(), torch.from_numpy(codes).requires_grad_()]
    assert all(torch.equal(run.translate(x, styles=styles), made) for styles in same)
    assert torch.equal(run.translate(x, styles=codes, exemplars=None), made)
    picture = np.random.default_rng(0).random((64, 64, 3), dtype=np.float32)
    made = run.translate(picture, styles=1)
    picture.flags.writeable = False
    assert np.array_equal(run.translate(picture, styles=1), made)
    mirrored = run.translate(picture[:, ::-1], styles=1)
    assert np.array_equal(mirrored, run.translate(picture[:, ::-1].copy(), styles=1))
    eighth = x.to(torch.float8_e4m3fn)
    assert torch.isfinite(run.translate(eighth, styles=1).float()).all()


def test_one_string_is_one_thing_and_a_run_may_be_named_by_its_folder(
    folder: Path, tmp_path: Path, folders: Path
) -> None:
    assert i2ikit.load_recipe("munit", "seed=3").seed == 3
    (found,) = i2ikit.evaluate(str(folder), "l1-diversity", overrides="l1-diversity.num_inputs=2")
    assert found.metric == "l1-diversity"
    run = i2ikit.load(folder, "cpu")
    assert i2ikit.load(run) is run
    assert i2ikit.load(run, "cpu").folder == folder
    for one in (str(folder), folder):
        with pytest.raises(RunError, match="two or more can be compared"):
            i2ikit.compare(one)  # type: ignore[arg-type]
        with pytest.raises(RunError, match="a run is given twice"):
            i2ikit.compare([one, folder / WEIGHTS_FILE])
    recipe = tmp_path / "one.toml"
    recipe.write_text(tiny_recipe(folders).to_toml())
    trained = i2ikit.train(str(recipe), str(tmp_path / "run"), console=QUIET)
    again = i2ikit.resume(i2ikit.load(trained.folder / WEIGHTS_FILE, "cpu"), console=QUIET)
    assert again.chosen_device == torch.device("cpu")


def test_a_run_keeps_the_recipe_as_it_was_read(folders: Path, tmp_path: Path) -> None:
    source = tmp_path / "mine.toml"
    source.write_text(tiny_recipe(folders).to_toml())
    text = source.read_text()
    recipe = i2ikit.load_recipe(source)
    source.unlink()
    assert (create_run(tmp_path / "run", recipe) / "recipe.toml").read_text() == text


def test_a_method_of_one_direction_and_one_without_styles_say_so(tmp_path: Path) -> None:
    data = make_folders(tmp_path / "data")
    own = ("data.name=folders", f'data.root="{data}"', "data.size=64")
    for name, paired in (("bicyclegan", True), ("cyclegan-noise", False)):
        method = i2ikit.load_recipe(name).translator.name
        extra = ["data.paired=true"] * paired
        recipe = i2ikit.load_recipe(name, [*own, *extra, *NARROW[method]])
        images = recipe.data().images
        save_weights(new_translator(recipe, images).eval(), images, 1, create_run(tmp_path / name, recipe))
    x = torch.zeros(3, 64, 64)
    with pytest.raises(RunError, match="does not translate from b; it translates a to b"):
        i2ikit.load(tmp_path / "bicyclegan").translate(x, source="b")
    with pytest.raises(RunError, match="has no style encoder"):
        i2ikit.load(tmp_path / "cyclegan-noise").translate(x, exemplars=[x])


def test_a_device_that_is_not_there_is_named(folder: Path) -> None:
    assert i2ikit.load(folder, "cpu").device == torch.device("cpu")
    for device in ("cuda:99", "xpu", "gpu", "hpu", "meta", True, "privateuseone"):
        with pytest.raises(RunError, match=f"device '{device}' cannot be used; this machine has cpu"):
            i2ikit.load(folder, device)


def test_weights_that_are_missing_damaged_or_of_another_recipe_are_named(tmp_path: Path) -> None:
    folder = untrained(tmp_path)
    weights = folder / WEIGHTS_FILE
    whole = weights.read_bytes()
    resolved = (folder / RESOLVED).read_text()
    (folder / RESOLVED).write_text(resolved.partition("\n")[2].replace("width = 4", "width = 6"))
    with pytest.raises(
        RunError, match=r"does not fit .*resolved\.toml: .* is 4x3x7x7 and should be 6x3x7x7, .* more"
    ):
        _ = Run(folder).translator
    (folder / RESOLVED).write_text(resolved)
    for content in (b"", b"x" * 100, whole[:-5], whole.replace(b"__metadata__", b"__metadatx__")):
        weights.write_bytes(content)
        with pytest.raises(RunError, match="is damaged, or was not written by i2ikit"):
            _ = Run(folder).step
    weights.unlink()
    run = Run(folder)
    with pytest.raises(RunError, match="the run has not saved anything yet"):
        run.translate(torch.zeros(3, 64, 64))
    assert "nothing saved yet" in repr(run)
    weights.write_bytes(b"x" * 100)
    assert "its weights are damaged" in repr(Run(folder))
    assert run.recipe.translator.name == "munit"


def test_training_from_python_gives_a_run_and_resuming_goes_on(folders: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(folders)
    run = i2ikit.train(recipe, tmp_path / "run", console=QUIET)
    assert run.step == 2
    assert (run.folder / "recipe.toml").is_file()
    assert i2ikit.resume(run, "training.steps=3", console=QUIET).step == 3
    with pytest.raises(RunError, match="already exists"):
        i2ikit.train(recipe, tmp_path / "run", console=QUIET)


def test_training_works_outside_the_main_thread(folders: Path, tmp_path: Path) -> None:
    """As in a notebook's worker: Python tells signals to the main thread only."""
    made: list[object] = []

    def work() -> None:
        try:
            made.append(i2ikit.train(tiny_recipe(folders), tmp_path / "run", console=QUIET).step)
        except BaseException as error:
            made.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert made == [2]


def test_the_newest_run_is_the_one_that_logged_last(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older run that has just been resumed is newer than one that was started after it."""
    monkeypatch.chdir(tmp_path)
    for n, name in enumerate(("first", "second")):
        run = i2ikit.train(tiny_recipe(folders), Path("runs") / name, console=QUIET).folder
        for file in ("resolved.toml", "metrics.jsonl"):
            os.utime(run / file, (1000 + n, 1000 + n))
    assert i2ikit.load().folder.name == "second"
    os.utime("runs/first/metrics.jsonl", (2000, 2000))
    assert i2ikit.load().folder.name == "first"


def test_only_a_run_can_be_continued(tmp_path: Path, folders: Path) -> None:
    """The message about a folder that exists offers only what works."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(RunError, match=r"already exists; give --out another folder$"):
        create_run(tmp_path / "other", tiny_recipe(folders))
    run = create_run(tmp_path / "a run", tiny_recipe(folders))
    with pytest.raises(RunError, match=r"or continue it with `i2ikit resume '.*a run'`"):
        create_run(run, tiny_recipe(folders))


def test_a_folder_becomes_a_run_when_all_else_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk or a kill before that leaves a folder that no command takes for a run."""
    recipe = tiny_recipe(make_folders(tmp_path / "data"))

    def full(run: Path, text: str) -> None:
        assert (run / "recipe.toml").read_text("utf-8") == recipe.text
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("i2ikit.run.create_resolved", full)
    with pytest.raises(RunError, match=r"cannot create the run folder .*No space left on device"):
        create_run(tmp_path / "run", recipe)
    assert not is_run(tmp_path / "run")


@pytest.mark.parametrize("existed", [False, True])
def test_a_run_folder_that_cannot_be_filled_is_left_as_it_was(
    existed: bool, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty folder of the user stays, a new one is removed, and no part of a file is left."""
    real = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        real(path, content[:5])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = tmp_path / "out"
    if existed:
        out.mkdir()
    recipe = tiny_recipe(folders)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RunError, match=r"cannot create the run folder .*: No space left on device"):
        create_run(out, recipe)
    assert out.exists() == existed
    assert not existed or os.listdir(out) == []

"""The command: what people type, what they see, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from i2ikit.cli import main as cli
from i2ikit.cli.options import interruptible
from i2ikit.loop import Stopped
from i2ikit.packages.entry import KINDS
from tests.tiny import TINY


def i2ikit(*arguments: str, cwd: Path, code: int = 0) -> str:
    """Run the command in a process of its own; stdout and stderr together."""
    command = [sys.executable, "-m", "i2ikit", *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def small(folders: Path, *overrides: str) -> list[str]:
    """Arguments that make `run munit` small, on the test folders."""
    own = ["data.name=folders", f'data.root="{folders}"', *TINY, "training.precision=fp32"]
    own += ["training.steps=2", "training.batch_size=2", *overrides]
    return [argument for text in own for argument in ("--set", text)]


@pytest.mark.parametrize(("command", "code"), [("list", 0), ("show norm nothing", 2)])
def test_a_closed_pipe_ends_no_command_and_hides_no_error(command: str, code: int) -> None:
    """As in `i2ikit list | head -1`, of which the end is not read."""
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-m", "i2ikit", *command.split()]
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, text=True, check=False, timeout=100)
    os.close(writing)
    assert done.returncode == code
    assert done.stderr.startswith("error: ") == (code == 2)
    assert "Broken pipe" not in done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with one small run in runs/, made by the command from outside the checkout."""
    from tests.image_files import make_folders

    root = tmp_path_factory.mktemp("work")
    make_folders(root / "data")
    said = i2ikit("run", "munit", *small(root / "data"), cwd=root)
    assert "Done: 2 steps" in said
    return root


@pytest.mark.slow
def test_a_run_says_where_its_results_are_and_what_to_type_next(trained: Path) -> None:
    (folder,) = (trained / "runs").iterdir()
    assert {p.name for p in folder.iterdir()} == {
        "recipe.toml",
        "data.json",
        "resolved.toml",
        "weights.safetensors",
        "metrics.jsonl",
        "results.csv",
        "sessions.jsonl",
        "report.html",
        "samples",
        "checkpoints",
        "tensorboard",
        ".lock",
    }
    said = i2ikit("run", str(folder / "resolved.toml"), "--out", "again", cwd=trained)
    assert "i2ikit translate again YOUR_IMAGE.png" in said
    assert "again/samples/step-000002.png" in said
    assert "again/report.html" in said
    assert (trained / "again" / "resolved.toml").read_text() == (folder / "resolved.toml").read_text()


@pytest.mark.slow
def test_translate_uses_the_newest_run_and_is_seeded(trained: Path) -> None:
    Image.new("RGB", (90, 65), "red").save(trained / "mine.png")
    said = i2ikit("translate", "mine.png", "--styles", "3", "--out", "one", cwd=trained)
    assert "one/mine-a2b-seed0-sheet-of-3.png" in said
    styles = {f"mine-a2b-seed0-style-{n}-of-3.png" for n in (1, 2, 3)}
    assert {p.name for p in (trained / "one").glob("*.png")} == {*styles, "mine-a2b-seed0-sheet-of-3.png"}
    with Image.open(trained / "one" / "mine-a2b-seed0-style-1-of-3.png") as picture:
        assert picture.size == (89, 64)
    i2ikit("translate", "mine.png", "--styles", "3", "--out", "two", cwd=trained)
    i2ikit("translate", "mine.png", "--styles", "3", "--seed", "1", "--out", "three", cwd=trained)
    files = ("one/mine-a2b-seed0", "two/mine-a2b-seed0", "three/mine-a2b-seed1")
    one, two, three = ((trained / f"{file}-style-2-of-3.png").read_bytes() for file in files)
    assert one == two != three


def test_translate_takes_a_run_exemplars_and_a_direction(trained: Path) -> None:
    (run,) = (trained / "runs").iterdir()
    images = ["data/testB/0.png", "data/testB/1.png"]
    own = ("--style-from", "data/testA/2.png", "--to", "a", "--device", "cpu")
    said = i2ikit("translate", str(run), *images, *own, cwd=trained)
    assert "translations/0-b2a-as-2-sheet.png" in said
    assert {p.name for p in (run / "translations").glob("*.png")} == {
        "0-b2a-as-2.png",
        "0-b2a-as-2-sheet.png",
        "1-b2a-as-2.png",
        "1-b2a-as-2-sheet.png",
    }


@pytest.mark.slow
def test_translate_takes_patterns_and_saved_codes(trained: Path) -> None:
    (trained / "patterns").mkdir()
    (run,) = (path.resolve() for path in (trained / "runs").iterdir())
    for n in (2, 10):
        Image.new("RGB", (70, 66), "red").save(trained / "patterns" / f"{n}.png")
    given = (str(run), "patterns/*.png", "--contact-sheet", "--interpolate", "3")
    said = i2ikit("translate", *given, "--save-codes", "x.safetensors", "--out", "w", cwd=trained)
    assert "Translated 2 images" in said
    assert "2 animations and 2 strips in w" in said
    assert "Contact sheet: w/contact-sheet-a2b-seed0-2-styles-interpolated-3-page-1.png" in said
    assert "Style codes: x.safetensors" in said
    again = ("translate", *given, "--codes", "x.safetensors", "--size", "original", "--out", "w")
    assert "w/2-a2b-x-2-codes-interpolated-3.webp" in i2ikit(*again, cwd=trained)
    for options, message in (
        (("--codes", "x.safetensors", "--seed", "0"), "--codes gives the styles; leave --seed out"),
        (("--codes", "missing.npy"), "missing.npy: not a readable file of style codes"),
        (("--save-codes", str(run / "weights.safetensors")), "exists and is not a file of"),
        (("--styles", "1"), "there is only one; give --styles 2 or more"),
        (("--size", "huge"), "size = 'huge'; should be 'trained', 'original' or a number"),
        (("--format", "jpg"), "leave --format out"),
    ):
        said = i2ikit("translate", *given, *options, "--out", "none", cwd=trained, code=2)
        assert message in said
    assert not (trained / "none").exists()
    assert "nothing*.png: no file has this name, and as a pattern it matches no file" in i2ikit(
        "translate", str(run), "nothing*.png", cwd=trained, code=2
    )


@pytest.mark.parametrize("command", [("translate", "data/testA/0.png"), ("eval",)])
def test_a_device_that_is_not_there_is_named(trained: Path, command: tuple[str, ...]) -> None:
    said = i2ikit(*command, "--device", "cuda:9", cwd=trained, code=2)
    assert "device 'cuda:9' cannot be used; this machine has cpu" in said


@pytest.mark.slow
def test_eval_prints_and_keeps_every_metric(trained: Path) -> None:
    (run,) = (trained / "runs").iterdir()
    said = i2ikit("eval", str(run), cwd=trained)
    for name in ("l1-diversity", "line-contrast", "style-health", "style_recon", "of_real"):
        assert name in said
    assert {p.name for p in (run / "eval").iterdir()} >= {
        "l1-diversity-a2b-seed0.json",
        "style-health-a2b-seed0.json",
    }
    said = i2ikit("eval", "--metric", "l1-diversity", "--set", "l1-diversity.num_styles=2", cwd=trained)
    assert "3 inputs x 2 translations" in said
    assert "l1-diversity-a2b-seed0-num_styles=2.json" in said
    said = i2ikit("eval", "--metric", "l1-diversty", cwd=trained, code=2)
    assert "did you mean 'l1-diversity'?" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "munit", "--set", "training.stepz=5"], "has no option 'stepz'; did you mean 'steps'?"),
        (["run", "munit", "--set", "data.size=63"], "the nearest size that suits all is 64"),
        (
            ["run", "munit", "--set", "translator.style_encoder.name=munit-stile"],
            "did you mean 'munit-style'?",
        ),
        (["run", "munit", "--set", "translator.content_encoder.width=-1"], "greater than 0, got -1"),
        (["run", "munit", "--set", "training.steps=many"], "valid integer, got 'many'"),
        (["run", "munit", "--set", "training.batch_size=1"], "removes the style"),
        (
            ["run", "munit", "--set", "data.name=folders", "--set", "data.root=empty"],
            "contains no folder trainA",
        ),
        (["run", "unreadable.toml"], "is not UTF-8"),
        (["run", "missing.toml"], "no such file"),
        (["run", "munnit"], "did you mean 'munit'?"),
        (["run", "empty"], "is a folder"),
        (["run", "munit", "--out", "empty/../full"], "already exists"),
        (["run", "munit", "--out", "unreadable.toml/run"], "cannot create the run folder"),
        (["resume"], "no run found"),
        (["resume", "empty"], "is not a run folder"),
        (["translate", "x.png"], "no run found"),
        (["eval", "--metric", "l1-diversity"], "no run found"),
        (["list", "nroms"], "did you mean 'norms'?"),
        (["show", "norm", "bm"], "no norm named 'bm'"),
        (["run", "munit/x"], "no such recipe"),
        (["run", "../munit"], "no such recipe"),
    ],
)
def test_whatever_is_wrong_there_is_a_message_code_2_and_nothing_is_written(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    (tmp_path / "unreadable.toml").write_bytes(b"\xff\xfe")
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    if "--out" in arguments:
        arguments = [*arguments, "--set", "data.name=folders", "--set", f'data.root="{_folders(tmp_path)}"']
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["i2ikit", *arguments])
    with pytest.raises(SystemExit) as exited:
        cli.main()
    said = capsys.readouterr().err
    assert exited.value.code == 2
    assert "Traceback" not in said
    assert message in said.replace("\n", " ")
    assert sorted(tmp_path.rglob("*")) == before


def _folders(tmp_path: Path) -> Path:
    from tests.image_files import make_folders

    return make_folders(tmp_path / "data", (64, 64))


def test_a_file_that_is_no_image_is_named(trained: Path) -> None:
    (trained / "notes.png").write_text("not a picture")
    assert "notes.png: not a readable image" in i2ikit("translate", "notes.png", cwd=trained, code=2)


@pytest.mark.slow
def test_a_bad_image_is_named_and_the_others_are_translated(trained: Path) -> None:
    """The exit code is 1 then, and 2 if none could be translated."""
    (trained / "bad.png").write_text("not a picture")
    good = next((trained / "data" / "testA").iterdir())
    given = ("bad.png", str(good), "missing.png", "--styles", "1", "--out", "mixed")
    said = i2ikit("translate", *given, cwd=trained, code=1)
    assert "error: bad.png: not a readable image" in said
    assert "error: missing.png: no such file or folder" in said
    assert "Translated 1 image" in said
    assert "2 inputs could not be translated, see above" in said
    assert "bad.png" in i2ikit("translate", "bad.png", "missing.png", cwd=trained, code=2)


def test_a_misspelt_run_is_not_taken_for_an_image(trained: Path) -> None:
    (run,) = (trained / "runs").iterdir()
    said = i2ikit("translate", run.name[:-1], "mine.png", cwd=trained, code=2)
    assert f"there is no run {run.name[:-1]}; did you mean 'runs/{run.name}'?" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "munit", "--out", ""],
        ["run", "munit", "--weights-from", ""],
        ["resume", ""],
        ["translate", ""],
        ["translate", "x.png", "--style-from", ""],
        ["eval", "", "--data", "x"],
        ["eval", "x", "--data", ""],
        ["compare", "x", ""],
        ["new-plugin", "x", "--out", ""],
    ],
)
def test_an_empty_path_is_an_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A shell makes it of an unset variable, and Path("") would be the current directory."""
    with pytest.raises(SystemExit) as exited:
        cli.app(arguments)
    assert exited.value.code == 2
    assert "the path is empty; '.' is the current" in capsys.readouterr().err


def test_an_error_of_the_system_is_a_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for error, said in (
        (PermissionError(13, "Permission denied", "/x"), "error: /x: Permission denied"),
        (
            OSError(18, "Invalid cross-device link", "/x", None, b"/y"),
            "error: /x -> /y: Invalid cross-device link",
        ),
        (TimeoutError("timed out"), "error: TimeoutError: timed out"),
    ):

        def fail(error: OSError = error) -> None:
            raise error

        assert cli._guarded(fail) == 2
        assert said in capsys.readouterr().err


def test_a_directory_that_is_gone_is_named(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    words = f"cd gone && rmdir ../gone && {sys.executable} -m i2ikit list"
    done = subprocess.run(words, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the current directory no longer exists; change to another one" in done.stderr


def test_list_shows_names_summaries_and_their_origin(tmp_path: Path) -> None:
    said = i2ikit("list", "norms", cwd=tmp_path)
    assert all(name in said for name in ("adain", "bn", "in", "ln", "none", "i2ikit 0.1.0"))
    assert "removes colour and contrast" in said
    assert "munit-content" not in said
    assert i2ikit("list", "norm", cwd=tmp_path) == said
    recipes = i2ikit("list", "recipes", cwd=tmp_path)
    assert "munit-paper" in recipes
    assert "MUNIT with the published hyper-parameters" in recipes
    assert "adain" not in recipes


def test_list_json_is_read_by_other_programs(tmp_path: Path) -> None:
    found = json.loads(i2ikit("list", "--json", cwd=tmp_path))
    assert found["problems"] == []
    offer = next(offer for offer in found["offers"] if offer["name"] == "bn")
    assert offer["target"] == "i2ikit.components.norms:BatchNorm"
    assert offer["package"] == "i2ikit"
    assert {offer["kind"] for offer in found["offers"]} == {*KINDS, "recipes"}


@pytest.mark.slow
def test_show_says_what_a_component_takes_and_where_it_is(tmp_path: Path) -> None:
    said = i2ikit("show", "norm", "bn", cwd=tmp_path)
    assert "BatchNorm(channels: int, *, momentum: float (> 0, <= 1) = 0.1, local: bool = false)" in said
    assert "float (> 0, <= 1)" in said
    assert "weight of the newest batch in the running statistics." in said
    assert "components/norms.py:" in said
    assert "momentum = 0.1" in said
    assert "did you mean 'bn'?" in i2ikit("show", "norms", "bnn", cwd=tmp_path, code=2)


@pytest.mark.slow
def test_doctor_is_content_with_what_ships(tmp_path: Path) -> None:
    said = i2ikit("doctor", cwd=tmp_path)
    assert "No problems found." in said
    assert "torch" in said


def test_new_plugin_says_what_it_wrote_and_what_to_type_next(tmp_path: Path) -> None:
    said = i2ikit("new-plugin", "my-norm", "--out", "elsewhere", cwd=tmp_path)
    assert "elsewhere/my_norm/recipes/my-norm.toml" in said
    assert "pip install -e elsewhere && python -m pytest elsewhere" in said
    assert "did you mean 'norm'?" in i2ikit("new-plugin", "x", "--kind", "nrm", cwd=tmp_path, code=2)


def test_new_plugin_adds_to_a_package_and_says_that_it_must_be_installed_again(tmp_path: Path) -> None:
    i2ikit("new-plugin", "my-norm", cwd=tmp_path)
    said = i2ikit("new-plugin", "blur", "--kind", "loss", "--into", "my-norm", cwd=tmp_path)
    assert "my-norm/my_norm/recipes/blur-loss.toml" in said
    assert "Install the package again" in said
    assert "pip install -e my-norm && python -m pytest my-norm/tests/test_blur_loss.py" in said
    assert "i2ikit run my-norm/blur-loss" in said
    assert "--into my-norm" in i2ikit("new-plugin", "my-norm", cwd=tmp_path, code=2)
    both = ("new-plugin", "x", "--out", "x", "--into", "my-norm")
    assert "give one of them" in i2ikit(*both, cwd=tmp_path, code=2)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["list"], ["list", "norms", "--json"], ["--version"]]
)
def test_help_and_list_do_not_import_torch(arguments: list[str]) -> None:
    code = (
        "import sys; sys.argv = ['i2ikit', *sys.argv[1:]]\n"
        "from i2ikit.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as e: assert not e.code\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True)


@pytest.mark.slow
def test_ctrl_c_saves_exits_with_130_and_resume_finishes(trained: Path) -> None:
    arguments = small(
        trained / "data", "training.steps=100000", "training.sample_every=0", "training.log_every=1"
    )
    command = [sys.executable, "-m", "i2ikit", "run", "munit", "--out", "stopped", *arguments]
    process = subprocess.Popen(command, cwd=trained, stdout=subprocess.PIPE, text=True)
    lines = trained / "stopped" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (lines.exists() and lines.read_text().count("\n") > 2):
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "i2ikit resume stopped" in said
    step = int(said.split("Stopped after step ")[1].split()[0])
    shorter = ("--set", f"training.steps={step + 2}")
    assert f"Done: {step + 2} steps" in i2ikit("resume", "stopped", *shorter, cwd=trained)


@pytest.mark.slow
def test_the_debug_flag_shows_the_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "i2ikit", "--debug", "run", "munit", "--set", "training.stepz=5"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "RecipeError" in done.stderr
    assert "Traceback" in done.stderr


def test_a_run_that_went_wrong_is_not_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli._farewell(Stopped(3, wrong=["its translations a2b are saturated"]), tmp_path, 1.0, True)
    said = capsys.readouterr().out
    assert "Ended after 3 steps (1 s), but the run went wrong: see the warning above." in said
    assert "Done" not in said


@pytest.mark.slow
def test_other_weights_and_changes_have_options(trained: Path) -> None:
    (source,) = (trained / "runs").iterdir()
    own = ("--weights-from", str(source), "--out", "tuned")
    said = i2ikit("run", "munit", *small(trained / "data"), *own, cwd=trained)
    assert "these start fresh: none" in said
    said = i2ikit("resume", "tuned", "--set", "training.steps=3", "--set", "optimizer.lr=1e-5", cwd=trained)
    assert "from now on, training.steps: 2 -> 3" in said
    assert "Done: 3 steps" in said
    said = i2ikit("resume", "tuned", "--set", "seed=4", cwd=trained, code=2)
    assert "seed: may not change when a run is resumed: the order of the images" in said


@pytest.mark.parametrize(
    ("notes", "said"), [((), "error: interrupted\n"), (("kept",), "error: interrupted\nkept\n")]
)
def test_a_command_that_ctrl_c_ends_says_what_is_kept(
    notes: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(number: int) -> None:
        stop = KeyboardInterrupt()
        for note in notes:
            stop.add_note(note)
        raise stop

    with pytest.raises(KeyboardInterrupt):
        interruptible(command)(3)
    assert capsys.readouterr().err == said

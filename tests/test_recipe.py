"""Recipes: everything wrong is found at once, and what is saved reproduces the run."""

from __future__ import annotations

import itertools
import shutil
import tomllib
from pathlib import Path

import pytest
import tomli_w

from i2ikit.errors import RecipeError
from i2ikit.loss_weights import weights_at
from i2ikit.packages.recipes import find_recipe, recipe_files
from i2ikit.recipe import load_recipe
from i2ikit.recipe_text import overriding
from i2ikit.registry import Spec

RECIPES = sorted(path for name, path in recipe_files().items() if "/" not in name)

SMALL = """
[data]
name = "openmoji"
size = 64
[translator]
name = "munit"
[training]
steps = 5
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(text)
    return path


def problems_of(path: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return str(caught.value)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_that_ships_is_valid_and_starts_with_a_comment(path: Path) -> None:
    assert path.read_text().startswith("#")
    assert load_recipe(path).name == path.stem


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_the_saved_recipe_is_read_back_the_same(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    again = load_recipe(write(tmp_path, recipe.to_toml()))
    assert again.to_toml() == recipe.to_toml()
    assert (again.seed, again.data, again.translator) == (recipe.seed, recipe.data, recipe.translator)
    assert (again.optimizers, again.training) == (recipe.optimizers, recipe.training)


@pytest.mark.parametrize(
    "path", [path for path in RECIPES if not path.stem.endswith("-paper")], ids=lambda p: p.stem
)
def test_another_number_of_steps_needs_no_other_change(path: Path, tmp_path: Path) -> None:
    """Learning rates fall to 0 over the second half, and weights change until the end; also when saved."""
    recipe = load_recipe(path, "training.steps=200")
    for again in (recipe, load_recipe(write(tmp_path, recipe.to_toml()))):
        for options in again.optimizers.values():
            factors = [options.schedule.factor(step, 200) for step in (0, 100, 150, 199)]
            assert factors == pytest.approx([1, 1, 0.5, 0.01])
        for weights in again.translator.options["weights"].values():
            changing = {name: weight for name, weight in weights.items() if isinstance(weight, dict)}
            for step, done in ((0, 0), (50, 0.25), (199, 0.995)):
                expected = {name: w["start"] + done * (w["end"] - w["start"]) for name, w in changing.items()}
                found = weights_at(changing, step, 200)
                assert dict(found) == pytest.approx(expected)


def test_the_saved_recipe_names_the_versions_it_was_run_with(tmp_path: Path) -> None:
    versions = tomllib.loads(load_recipe(write(tmp_path, SMALL)).to_toml())["versions"]
    assert {"i2ikit", "torch", "torchvision", "accelerate", "python"} <= set(versions)


def test_a_recipe_that_ships_is_found_by_name() -> None:
    assert find_recipe("munit").name == "munit.toml"


def test_a_folder_of_the_same_name_does_not_hide_a_recipe_that_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "munit").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_recipe("munit").is_file()


def test_an_unknown_recipe_name_is_answered_with_those_that_ship() -> None:
    with pytest.raises(RecipeError, match=r"did you mean 'munit'\?.*munit-paper"):
        find_recipe("munnit")


@pytest.mark.parametrize(
    ("change", "path", "message"),
    [
        ("training.stepz=5", "training.stepz", "[training] has no option 'stepz'; did you mean 'steps'?"),
        ("training.steps=0", "training.steps", "should be greater than 0, got 0"),
        ("training.steps=five", "training.steps", "should be a valid integer, got 'five'"),
        ("training.steps=5.0", "training.steps", "should be a valid integer, got 5.0"),
        ("data.channels_a=1.0", "data.channels_a", "should be a valid integer"),
        ("training.batch_size=true", "training.batch_size", "valid integer, got True"),
        (
            "training.precision=fp64",
            "training.precision",
            "should be 'auto', 'fp32', 'bf16' or 'fp16', got 'fp64'",
        ),
        ("seed=-1", "seed", "greater than or equal to 0"),
        ("sede=1", "sede", "a recipe has no option 'sede'; did you mean 'seed'?"),
        ("data.name=openmojy", "data.name", "no dataset named 'openmojy'; did you mean 'openmoji'?"),
        (
            "data.size=63",
            "translator.content_encoder",
            "multiples of 4; the nearest size that suits all is 64",
        ),
        (
            "data.size=60",
            "translator.discriminator",
            "needs 61 px or more; the nearest size that suits all is 64",
        ),
        ('data.size="64"', "data.size", "valid integer, got '64'"),
        ("data.szie=64", "data.szie", "did you mean 'size'?"),
        ("data.name=folders", "data.root", "dataset 'folders' needs it"),
        ("translator.name=munnit", "translator.name", "did you mean 'munit'?"),
        ("translator.style_dim=0", "translator.style_dim", "greater than 0"),
        ("translator.order=a-first", "translator.order", "'generator-first' or 'discriminator-first'"),
        (
            "translator.style_encoder=munit-stile",
            "translator.style_encoder.name",
            "did you mean 'munit-style'?",
        ),
        (
            "translator.style_encoder=munit-content",
            "translator.style_encoder.name",
            "is built from (in_channels)",
        ),
        ("translator.decoder.norm=in", "translator.decoder.norm.name", "fit here (needed: adaptive norm)"),
        ("translator.adversarial_loss=l1", "translator.adversarial_loss.name", "(needed: adversarial loss)"),
        ("translator.recon_loss=lsgan", "translator.recon_loss.name", "(needed: reconstruction loss)"),
        (
            "translator.weights.generator.style=1",
            "translator.weights.generator.style",
            "did you mean 'style_recon'",
        ),
        (
            "translator.weights.generatr.style_recon=1",
            "translator.weights.generatr",
            "did you mean 'generator'?",
        ),
        (
            "translator.weights.generator.style_recon=-1",
            "translator.weights.generator.style_recon",
            "greater",
        ),
        (
            "translator.weights.generator={adversarial=0, image_recon=0, content_recon=0, style_recon=0}",
            "translator:",
            "all of [translator.weights.generator] are 0",
        ),
        ("optimizer.decay_steps=0", "optimizer.decay_steps", "greater than 0"),
        ("optimizer.lr=nan", "optimizer.lr", "finite"),
        ("optimizer.betas=[0.5]", "optimizer.betas:", "has too few values, got [0.5]"),
        ("optimizer.decoder.lr=1", "optimizer.decoder", "has no network 'decoder'; did you mean 'decoders'?"),
        ("optimizer.lr={x=1}", "optimizer.lr", "should be a valid number, got {'x': 1}"),
        ("optimizer.decoders=1", "optimizer.decoders", "should be a table"),
        ("optimizer.decoders.rl=1", "optimizer.decoders.rl", "did you mean 'lr'?"),
        (
            "translator.style_encoder.norm=bn",
            "translator.style_encoder.norm",
            "(training.batch_size = 1, training.accumulation = 1) is instance norm",
        ),
        (
            "translator.style_dim.x=1",
            "translator.style_dim",
            "should be a valid integer, got {'x': 1}",
        ),
        ("steps", "--set steps", "should be KEY=VALUE"),
        ("=5", "--set =5", "should be KEY=VALUE"),
        ("a..b=5", "--set a..b=5", "should be KEY=VALUE"),
        ("x=1\ny=2", "--set x=1\ny=2", "holds more than one value"),
    ],
)
def test_a_wrong_recipe_says_where_and_what(tmp_path: Path, change: str, path: str, message: str) -> None:
    text = SMALL.replace('name = "munit"', 'name = "munit"\nstyle_dim = 8\nstyle_encoder = "munit-style"')
    said = problems_of(write(tmp_path, text), change)
    assert f"  {path}" in said
    assert message in said


def test_all_problems_are_in_one_message(tmp_path: Path) -> None:
    said = problems_of(
        write(tmp_path, SMALL), "training.stepz=1", "data.size=62.5", "translator.weigths.x=1", "s=1"
    )
    assert "4 problems" in said
    assert all(word in said for word in ("stepz", "data.size", "weigths", "s:"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"seed = = 1", "is not TOML"),
        (b"[" * 5000, "is not TOML"),
        (b"seed = " + b"9" * 5000, "a number has too many digits"),
        (b"\xff\xfe\x00", "is not UTF-8"),
        (b"", "translator: is missing; it names the translator: bicyclegan, cyclegan, munit"),
        (b"data = 3\ntranslator = 4\noptimizer = 5\ntraining = 6", "optimizer: should be a table"),
        (b"[training]\nsteps = 1979-05-27", 'is a date, which no option is; text is quoted: "1979-05-27"'),
        (b"[data]\nname = 'folders'\nroot = 2024", 'should be text, in quotes: "2024", got 2024'),
        (b"[data]\nname = 'folders'\nroot = true", 'should be text, in quotes: "true", got True'),
        (b'[data]\nname = "folders"\nroot = "C:\\Users\\me"', "write the path in single quotes"),
        (b'[data]\nname = "folders"\nroot = "C:\\data"', "write the path in single quotes"),
        (b'[data]\nname = "folders"\nroot = "C:\\new\\table"', "write a Windows path in single quotes"),
        (b'[data]\nname = "folders"\nroot = ""', "should be a path; '.' is the current directory, got ''"),
        (b"exteds = 'munit'", "did you mean 'extends'?"),
        (b"extends = '" + b"n" * 300 + b"'", "extends: no such recipe"),
        (b"extends = '" + b"n" * 300 + b"/munit'", "extends: no such recipe"),
        (b"extends = '/dev/zero'", "extends: should be the name or file of another recipe"),
        (b"extends = '.'", "extends: should be the name or file of another recipe"),
    ],
)
def test_whatever_is_in_the_file_the_answer_is_a_message(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "odd.toml"
    path.write_bytes(content)
    assert message in problems_of(path)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    assert "no such file" in problems_of(tmp_path / "none.toml")
    (tmp_path / "folder.toml").mkdir()
    assert "is a folder" in problems_of(tmp_path / "folder.toml")


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    path = tmp_path / "bom.toml"
    path.write_bytes(b"\xef\xbb\xbf" + SMALL.encode())
    assert load_recipe(path).training.steps == 5


def test_overrides_reach_every_level_and_the_last_one_wins(tmp_path: Path) -> None:
    recipe = load_recipe(
        write(tmp_path, SMALL),
        [
            "seed=3",
            "seed=4",
            "training.batch_size=4",
            "translator.style_encoder=munit-style",
            "translator.style_encoder.norm=bn",
            "translator.style_encoder.norm.momentum=0.2",
            "translator.weights.generator.cycle_recon=10",
            "optimizer.lr=1e-3",
            "optimizer.discriminators.lr=5e-4",
        ],
    )
    assert recipe.seed == 4
    assert recipe.translator.options["style_encoder"].options["norm"].options == {
        "momentum": 0.2,
        "local": False,
    }
    weights = recipe.translator.options["weights"]["generator"]
    assert (weights["cycle_recon"], weights["image_recon"]) == (10, 10)
    assert recipe.optimizers["decoders"].optimizer.options["lr"] == 1e-3
    assert recipe.optimizers["discriminators"].optimizer.options["lr"] == 5e-4


def test_the_order_of_overrides_does_not_matter(tmp_path: Path, folders: Path) -> None:
    path = write(tmp_path, SMALL)
    changes = (
        "data.name=folders",
        f'data.root="{folders}"',
        "data.size=64",
        "translator.style_encoder.norm.momentum=0.2",
        "translator.style_encoder.norm=bn",
        "translator.discriminator.width=8",
        "translator.discriminator.name=multiscale-patch",
        "training.batch_size=2",
    )
    orders = [changes, changes[::-1], changes[3:] + changes[:3], (*changes[1::2], *changes[::2])]
    assert len({load_recipe(path, order).to_toml() for order in orders}) == 1
    assert (
        load_recipe(path, changes).translator.options["style_encoder"].options["norm"].options["momentum"]
        == 0.2
    )


@pytest.mark.parametrize(
    ("changes", "table"),
    [
        (("a=x", "a={b=1}"), {"a": {"name": "x", "b": 1}}),
        (("a.b.c=1", "a={b={d=2}}"), {"a": {"b": {"c": 1, "d": 2}}}),
        (("a.b.c=1", "a={b='x'}"), {"a": {"b": {"c": 1, "name": "x"}}}),
        (
            ("a.b.c=1", "a={d=3, b={name='x'}}", "a.b.e=2"),
            {"a": {"b": {"c": 1, "name": "x", "e": 2}, "d": 3}},
        ),
        (("a=x", "a.b=1", "a={c={d=1}}"), {"a": {"name": "x", "b": 1, "c": {"d": 1}}}),
    ],
)
def test_tables_and_short_names_meet_in_any_order(changes: tuple[str, ...], table: dict[str, object]) -> None:
    for order in itertools.permutations(changes):
        assert overriding(order) == (table, [])


@pytest.mark.parametrize(
    "order", [("a=5", "a={b=1}"), ("a={b=1}", "a=5"), ("a=[1]", "a.b=2"), ("a.b=2", "a=[1]")]
)
def test_a_value_and_a_table_are_a_problem_in_both_orders(order: tuple[str, ...]) -> None:
    _, problems = overriding(order)
    assert [problem.message for problem in problems] == ["'a' is set as a value and as a table"]


@pytest.mark.parametrize("changes", [("optimizer=3", "optimizer.lr=1"), ("optimizer.lr=1", "optimizer=3")])
def test_a_key_that_is_set_as_value_and_as_table_is_a_problem(
    tmp_path: Path, changes: tuple[str, ...]
) -> None:
    assert "'optimizer' is set" in problems_of(write(tmp_path, SMALL), *changes)


@pytest.mark.parametrize("name", ["unit", "cyclegan", "bicyclegan"])
def test_another_translator_takes_the_place_of_munit(name: str) -> None:
    """Nothing of MUNIT's options is left, and what was meant for its networks is ignored."""
    paired = ["data.paired=true"] if name == "bicyclegan" else []
    recipe = load_recipe("munit", [f"translator.name={name}", "training.steps=1", *paired])
    assert recipe.translator.name == name
    assert recipe.training.batch_size == load_recipe("munit").training.batch_size


def test_options_for_networks_that_are_not_there_any_more_fall_away_with_a_note(tmp_path: Path) -> None:
    base = f"{SMALL}\n[optimizer.style_encoders]\nlr = 1.0\n[optimizer.discriminators]\nlr = 0.5"
    path = write(tmp_path, base)
    recipe = load_recipe(path, ["translator.name=unit"])
    assert recipe.notes == (
        "[optimizer.style_encoders] is ignored: translator 'unit' has no network 'style_encoders'",
    )
    assert recipe.optimizers["discriminators"].optimizer.options["lr"] == 0.5
    extended = extending(tmp_path, '[translator]\nname = "unit"', base)
    assert load_recipe(extended).notes == recipe.notes
    assert load_recipe(extended, ["training.steps=2"]).notes == recipe.notes
    wrong = "optimizer.style_encoders: translator 'unit' has no network 'style_encoders'"
    assert wrong in problems_of(
        write(tmp_path, base), "translator.name=unit", "optimizer.style_encoders.lr=2"
    )
    own = '[translator]\nname = "unit"\n[optimizer.style_encoders]\nlr = 2.0'
    assert wrong in problems_of(extending(tmp_path, own, base))


def test_a_recipe_knows_its_file(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL)
    assert load_recipe(path).source == path
    assert load_recipe("munit").source.is_file()


def test_missing_data_folders_are_found_before_anything_is_built(tmp_path: Path, folders: Path) -> None:
    path = write(tmp_path, SMALL)
    base = ("data.name=folders", "data.size=64")
    assert "is not a folder" in problems_of(path, *base, "data.root=nowhere")
    assert load_recipe(path, [*base, f'data.root="{folders}"']).data.name == "folders"
    for file in (folders / "testB").iterdir():
        file.unlink()
    shutil.rmtree(folders / "trainA")
    said = problems_of(path, *base, f'data.root="{folders}"')
    assert "2 problems" in said
    assert "contains no folder trainA/" in said
    assert "testB/ contains no image" in said


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_any_misspelt_key_of_a_recipe_that_ships_is_found(path: Path, tmp_path: Path) -> None:
    """Every key in turn gets one letter too many."""
    table = tomllib.loads(path.read_text())

    def keys(inner: dict[str, object], at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
        nested = [
            k for key, value in inner.items() if isinstance(value, dict) for k in keys(value, (*at, key))
        ]
        return [(*at, key) for key in inner] + nested

    for key in keys(table):
        wrong = tomllib.loads(path.read_text())
        inner = wrong
        for part in key[:-1]:
            inner = inner[part]
        typo = f"{key[-1]}x"
        inner[typo] = inner.pop(key[-1])
        said = problems_of(write(tmp_path, tomli_w.dumps(wrong)))
        assert typo in said


def extending(tmp_path: Path, text: str, base: str = SMALL) -> Path:
    (tmp_path / "base.toml").write_text(base)
    return write(tmp_path, f'extends = "base.toml"\n{text}')


def test_a_recipe_says_only_what_differs_from_the_one_it_extends(tmp_path: Path) -> None:
    text = "[translator.weights.generator]\nstyle_recon = 0.0\n[translator.style_encoder]\nnorm = 'bn'"
    base = load_recipe(write(tmp_path, SMALL))
    recipe = load_recipe(extending(tmp_path, text + "\n[training]\nbatch_size = 2"))
    assert recipe.training == base.training.model_copy(update={"batch_size": 2})
    weights = {p: dict(w) for p, w in base.translator.options["weights"].items()}
    weights["generator"]["style_recon"] = 0.0
    assert recipe.translator.options["weights"] == weights
    assert recipe.translator.options["style_encoder"].options["norm"].name == "bn"


def test_another_component_replaces_the_extended_one_whole(tmp_path: Path) -> None:
    base = SMALL.replace('name = "munit"', 'name = "munit"\nstyle_dim = 3')
    recipe = load_recipe(extending(tmp_path, '[translator]\nname = "unit"', base))
    assert recipe.translator.name == "unit"
    again = load_recipe(extending(tmp_path, '[translator]\nname = "munit"', base))
    assert again.translator.options["style_dim"] == 3


def test_extended_recipes_that_go_in_circles_or_are_missing_are_named(tmp_path: Path) -> None:
    (tmp_path / "circle.toml").write_text('extends = "small.toml"')
    message = problems_of(write(tmp_path, 'extends = "circle.toml"'))
    assert "extends: extends itself, by way of" in message
    assert "extends: no such recipe; did you mean 'munit'" in problems_of(
        write(tmp_path, 'extends = "munnit"')
    )
    assert "extends: should be the name or file" in problems_of(write(tmp_path, "extends = 5"))


def test_munit_and_bicyclegan_see_the_same_images() -> None:
    munit, bicyclegan = load_recipe("munit"), load_recipe("bicyclegan")
    assert munit.training.precision == bicyclegan.training.precision
    assert munit.seed == bicyclegan.seed
    assert {**munit.data.options, "paired": True} == bicyclegan.data.options


@pytest.mark.parametrize("name", ["image", "content", "style"])
def test_an_ablation_is_munit_with_one_weight_less(name: str) -> None:
    munit, ablated = load_recipe("munit"), load_recipe(f"munit-no-{name}-recon")
    weights = {phase: dict(table) for phase, table in munit.translator.options["weights"].items()}
    weights["generator"][f"{name}_recon"] = 0.0
    assert ablated.translator.options == {**munit.translator.options, "weights": weights}
    assert (ablated.data, ablated.training, ablated.optimizers) == (
        munit.data, munit.training, munit.optimizers,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "overrides", "processes", "message"),
    [
        ("munit", ["training.batch_size=2"], 3, "2 cannot be split over 3 processes"),
        ("munit", ["training.accumulation=5"], 1, "'munit' needs 5 or more"),
        ("munit", ["training.accumulation=0"], 1, "training.accumulation: should be greater than 0, got 0"),
        ("bicyclegan", [], 3, "'bicyclegan' needs 6 or more, in multiples of 2"),
        ("bicyclegan", ["training.batch_size=7"], 2, "needs 4 or more, in multiples of 2"),
        ("munit", ["training.accumulation=4"], 1, "training.accumulation = 4) is instance norm"),
        ("munit", ["translator.style_encoder.norm={name='bn', local=true}"], 3, "use local = false"),
    ],
)
def test_batches_that_cannot_be_shared_out(
    recipe: str, overrides: list[str], processes: int, message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe, overrides, processes)
    assert message in str(caught.value)


def test_an_odd_batch_of_pairs_is_fine_where_nothing_shares_it() -> None:
    assert load_recipe("bicyclegan", ["training.batch_size=3"]).training.batch_size == 3


def test_fp16_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be fp32 in silence, or end in an error of Accelerate's."""
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    with pytest.raises(RecipeError, match=r"training\.precision: 'fp16' needs a GPU, and none was found"):
        load_recipe("munit", ["training.precision=fp16"])
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    assert load_recipe("munit", ["training.precision=fp16"]).training.precision == "fp16"


def test_naming_the_same_component_again_keeps_its_options(tmp_path: Path) -> None:
    base = '[translator]\nname = "munit"\n[translator.style_encoder]\nname = "munit-style"\nnorm = {{ {} }}\n'
    for below in ('name = "bn", momentum = 0.02', 'momentum = 0.02, name = "bn"'):
        file = tmp_path / "base.toml"
        file.write_text(base.format(below) + "[data]\nname='openmoji'\n[training]\nsteps=1\nbatch_size=2\n")
        kept = load_recipe(file, "translator.style_encoder.norm=bn").translator.options["style_encoder"]
        assert kept.options["norm"].options["momentum"] == 0.02
        other = load_recipe(file, "translator.style_encoder.norm=none").translator.options["style_encoder"]
        assert other.options["norm"] == Spec("norms", "none")


def test_naming_the_default_component_of_an_unnamed_table_keeps_its_options(tmp_path: Path) -> None:
    """Naming another one drops them; the default's own nested options stay where nothing is said."""
    file = tmp_path / "base.toml"
    file.write_text(
        "[data]\nname='openmoji'\n[training]\nsteps=1\nbatch_size=2\n[translator]\nname='cyclegan'\n"
        "[translator.discriminator]\nwidth = 8\n[translator.generator]\nwidth = 4\n"
    )

    def options(*changes: str) -> tuple[str, dict[str, object]]:
        spec = load_recipe(file, changes).translator.options["discriminator"]
        return spec.name, spec.options

    for same in ((), ("translator.discriminator.name=patchgan",), ("translator.discriminator=patchgan",)):
        name, found = options(*same)
        assert (name, found["width"], found["num_scales"]) == (
            "patchgan",
            8,
            1,
        )  # 1: the translator's default
    name, found = options("translator.discriminator.name=multiscale-patch")
    assert (name, found["width"], found["num_scales"]) == ("multiscale-patch", 64, 3)
    above = tmp_path / "above.toml"
    above.write_text("extends = 'base.toml'\n[translator]\ndiscriminator = 'multiscale-patch'\n")
    again = load_recipe(above, "translator.discriminator.name=patchgan").translator.options["discriminator"]
    assert again.options["width"] == 8


def test_options_that_stand_before_the_name_of_a_section_are_about_what_is_named(
    folders: Path, tmp_path: Path
) -> None:
    file = tmp_path / "mine.toml"
    own = f"extends = 'base.toml'\n[data]\nroot = '{folders}'\nsize = 64\n"
    (tmp_path / "base.toml").write_text(
        "[translator]\nname = 'munit'\n[training]\nsteps = 1\nbatch_size = 2\n"
    )
    file.write_text(own)
    for change in ("data.name=folders", "data=folders"):
        assert load_recipe(file, change).data.options["root"] == str(folders)


def test_a_key_may_be_quoted_as_in_toml() -> None:
    """A part of a loss has a slash, for which TOML needs quotes."""
    for text in ('w.generator."cycle_recon/a"=5', "w.generator.cycle_recon/a=5"):
        assert overriding([text]) == ({"w": {"generator": {"cycle_recon/a": 5}}}, [])
    for text in ("=5", "a..b=1", '""=1'):
        assert len(overriding([text])[1]) == 1

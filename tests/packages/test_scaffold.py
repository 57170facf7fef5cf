"""`i2ikit new-plugin`: what it writes installs, passes its own tests, and can be extended."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from i2ikit import testing
from i2ikit.errors import ComponentError
from i2ikit.packages.entry import KINDS
from i2ikit.packages.project import with_entry_points
from i2ikit.packages.scaffold import add_to_package, write_package
from i2ikit.packages.survey import survey
from tests.fake_packages import PIP_INSTALL, norm, put

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def plugins(fresh_environment: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of each kind, written by the command and installed: editable, as a person would."""
    folder = tmp_path_factory.mktemp("plugins")
    for word in KINDS.values():
        said = fresh_environment(
            "-m", "i2ikit", "new-plugin", f"own-{word}", "--kind", word, cwd=folder
        ).stdout
        assert f"pip install -e own-{word}" in said
        assert f"i2ikit run own-{word}/own-{word}" in said
    editable = [part for word in KINDS.values() for part in ("-e", f"./own-{word}")]
    fresh_environment(*PIP_INSTALL, *editable, cwd=folder)
    return folder


@pytest.mark.long
@pytest.mark.parametrize("word", KINDS.values())
def test_a_new_plugin_of_each_kind_passes_its_own_test(
    fresh_environment: Run, plugins: Path, word: str
) -> None:
    done = fresh_environment("-W", "error", "-m", "pytest", "-q", f"own-{word}", cwd=plugins)
    assert f"{2 if word == 'translator' else 3} passed" in done.stdout


@pytest.mark.long
def test_new_plugins_are_typed_strictly(fresh_environment: Run, plugins: Path) -> None:
    files = [str(file.relative_to(plugins)) for file in plugins.rglob("*.py")]
    fresh_environment("-m", "mypy", "--strict", *files, cwd=plugins)


@pytest.mark.long
def test_all_of_them_are_listed_and_nothing_is_wrong(fresh_environment: Run, plugins: Path) -> None:
    said = fresh_environment("-m", "i2ikit", "list", cwd=plugins).stdout
    for word in KINDS.values():
        assert f"own-{word} 0.1.0" in said
        assert f"own-{word}/own-{word}" in said
    assert "problem" not in said
    assert "No problems found." in fresh_environment("-m", "i2ikit", "doctor", cwd=plugins).stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("My Norm", "use lower-case letters, digits and hyphens, such as 'my-norm'"),
        ("my_norm", "such as 'my-norm'"),
        ("2norm", "such as 'norm'"),
        ("../norm", "such as 'norm'"),
        ("json", "Python itself uses 'json'"),
        ("tests", "the folder 'tests' of a package contains its tests"),
        ("in", "Python itself uses 'in'"),
        ("bn", "norm 'bn' is i2ikit's own"),
        ("torch", "a package 'torch' can already be imported"),
        ("größe", "use lower-case letters"),
        ("x-", "such as 'x'"),
    ],
)
def test_names_that_cannot_work_are_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        write_package(name, ["norms"], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_name_that_another_package_offers_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "other", norm("grain", "other:Norm"))
    monkeypatch.syspath_prepend(tmp_path)
    survey.cache_clear()
    try:
        with pytest.raises(ComponentError, match=r"norm 'grain' is already offered by other 1\.0"):
            write_package("grain", ["losses", "norms"], tmp_path / "new")
        write_package("grain", ["losses"], tmp_path / "new")
    finally:
        survey.cache_clear()


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    write_package("own", ["norms"], tmp_path / "new")
    with pytest.raises(ComponentError, match=r"new already exists; .* or add to .* with --into .*new$"):
        write_package("other", ["norms"], tmp_path / "new")
    (tmp_path / "file").touch()
    with pytest.raises(ComponentError, match="cannot write"):
        write_package("other", ["norms"], tmp_path / "file" / "new")


def test_names_of_torch_do_not_clash(tmp_path: Path) -> None:
    """The class of a plugin called `tensor` is TensorNorm."""

    def text(name: str) -> str:
        return write_package(name, ["norms"], tmp_path / name).files[1].read_text()

    assert "class TensorNorm(nn.Module)" in text("tensor")
    assert "class WideNorm(nn.Module)" in text("wide-norm")


def test_names_that_look_like_placeholders_are_filled_in_once(tmp_path: Path) -> None:
    files = write_package("my-package", ["norms"], tmp_path / "new").files
    assert 'my-package = "my_package:MyPackageNorm"' in files[0].read_text()
    assert "class MyPackageNorm(nn.Module)" in files[1].read_text()


SEVERAL = ("norm", "discriminator", "loss")


def test_several_kinds_share_a_package_and_a_name(tmp_path: Path) -> None:
    """Each has a module, a recipe and a test, called after the name and the kind; a kind counts once."""
    written = write_package("sharp", ["norms", "discriminators", "losses", "norms"], tmp_path / "sharp")
    tables = tomllib.loads((tmp_path / "sharp" / "pyproject.toml").read_text())
    assert tables["project"]["description"] == "A norm, a discriminator and a loss for i2ikit."
    assert tables["project"]["entry-points"] == {
        "i2ikit.norms": {"sharp": "sharp.sharp_norm:SharpNorm"},
        "i2ikit.discriminators": {"sharp": "sharp.sharp_discriminator:SharpDiscriminator"},
        "i2ikit.losses": {"sharp": "sharp.sharp_loss:SharpLoss"},
    }
    files = {str(file.relative_to(tmp_path / "sharp")) for file in written.files}
    assert files == {"pyproject.toml", "sharp/__init__.py", "sharp/py.typed"} | {
        file
        for word in SEVERAL
        for file in (
            f"sharp/sharp_{word}.py",
            f"sharp/recipes/sharp-{word}.toml",
            f"tests/test_sharp_{word}.py",
        )
    }
    assert written.recipes == [f"sharp/sharp-{word}" for word in SEVERAL]


def test_each_kind_can_be_written_and_added(tmp_path: Path) -> None:
    """Each has a class, a recipe and a check in `i2ikit.testing`, and no placeholder is left."""
    new, old = tmp_path / "new", tmp_path / "old"
    write_package("sharp", list(KINDS), new)
    write_package("old", ["norms"], old)
    add_to_package("sharp", list(KINDS), old)
    for folder, package in ((new, "sharp"), (old, "old")):
        points = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["entry-points"]
        for kind, word in KINDS.items():
            target = f"{package}.sharp_{word}:Sharp{word.capitalize()}"
            assert points[f"i2ikit.{kind}"]["sharp"] == target
            assert f"class Sharp{word.capitalize()}" in (folder / package / f"sharp_{word}.py").read_text()
            assert (folder / package / "recipes" / f"sharp-{word}.toml").is_file()
            checks = re.findall(r"check_\w+", (folder / "tests" / f"test_sharp_{word}.py").read_text())
            assert checks
            assert set(checks) <= set(testing.__all__)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if re.search("(?i)my.?(plugin|package|recipe|kind)", path.read_text())]


def test_a_component_is_added_once(tmp_path: Path) -> None:
    write_package("sharp", ["norms"], tmp_path / "new")
    add_to_package("sharp", ["optimizers"], tmp_path / "new")
    before = contents(tmp_path)
    with pytest.raises(ComponentError, match=r"already has an optimizer 'sharp' .*; choose another name"):
        add_to_package("sharp", ["losses", "optimizers"], tmp_path / "new")
    assert contents(tmp_path) == before


RECIPES_LOAD = "import sys; from i2ikit.recipe import load_recipe; [*map(load_recipe, sys.argv[1:])]"


@pytest.mark.slow
def test_a_package_of_all_kinds_works_after_one_installation(fresh_environment: Run, tmp_path: Path) -> None:
    """Three of its recipes are trained: one with a translator, one with a dataset, one with an optimizer.

    The others exchange a component inside MUNIT, which has its own tests; they are loaded.
    """
    kinds = [part for word in KINDS.values() for part in ("--kind", word)]
    said = fresh_environment("-m", "i2ikit", "new-plugin", "sharp", *kinds, cwd=tmp_path).stdout
    assert "pip install -e sharp && python -m pytest sharp" in said
    fresh_environment(*PIP_INSTALL, "-e", "./sharp", cwd=tmp_path)
    try:
        some = ("-k", "not trains or translator or dataset or optimizer")
        done = fresh_environment("-W", "error", "-m", "pytest", "-q", *some, "sharp", cwd=tmp_path)
        assert f"{2 * len(KINDS) - 1 + 3} passed" in done.stdout
        recipes = [f"sharp/sharp-{word}" for word in KINDS.values()]
        fresh_environment("-c", RECIPES_LOAD, *recipes, cwd=tmp_path)
        said = fresh_environment("-m", "i2ikit", "list", cwd=tmp_path).stdout
        assert said.count("sharp 0.1.0") == 2 * len(KINDS)
        assert all(recipe in said for recipe in recipes)
        assert "problem" not in said
        fresh_environment("-m", "mypy", "--strict", "sharp/sharp", "sharp/tests", cwd=tmp_path)
    finally:
        fresh_environment("-m", "pip", "uninstall", "--yes", "--quiet", "sharp", cwd=tmp_path)


HATCH = """\
# What the package is.
[build-system]
requires = ["hatchling"]  # the backend
build-backend = "hatchling.build"

[project]
name = "Own.Things"
version = "1.0"
dependencies = [
    "i2ikit>=0.1",  # the toolkit
]

[project.entry-points."i2ikit.norms"]
# The first one.
old = "own_code:Old"   # kept

# How it is built.
[tool.hatch.build.targets.wheel]
packages = ["lib/own_code"]
"""

SETUPTOOLS = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "own-things"
version = "1.0"
"""


def package(folder: Path, pyproject: str, *files: str) -> Path:
    """A project with these empty files."""
    folder.mkdir()
    (folder / "pyproject.toml").write_bytes(pyproject.encode())
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    return folder


def contents(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_a_component_is_added_to_a_package_and_nothing_else_changes(tmp_path: Path) -> None:
    folder = package(tmp_path / "own", HATCH, "lib/own_code/__init__.py", "tests/test_old.py")
    before = contents(folder)
    written = add_to_package("blur", ["norms", "losses"], folder)
    after = contents(folder)
    assert [str(file.relative_to(folder)) for file in written.files] == [
        "lib/own_code/blur_norm.py",
        "lib/own_code/recipes/blur-norm.toml",
        "tests/test_blur_norm.py",
        "lib/own_code/blur_loss.py",
        "lib/own_code/recipes/blur-loss.toml",
        "tests/test_blur_loss.py",
    ]
    new = {*written.files, folder / "lib/own_code/recipes", folder / "pyproject.toml"}
    assert {path for path in after if before.get(path, b"new") != after[path]} == new
    assert (folder / "pyproject.toml").read_text() == HATCH.replace(
        "# kept\n",
        """# kept
blur = "own_code.blur_norm:BlurNorm"

[project.entry-points."i2ikit.losses"]
blur = "own_code.blur_loss:BlurLoss"
""",
    )
    test = (folder / "tests/test_blur_norm.py").read_text()
    assert "from own_code.blur_norm import BlurNorm" in test
    assert 'check_recipe("own-things/blur-norm")' in test
    assert written.recipes == ["own-things/blur-norm", "own-things/blur-loss"]
    assert written.advice == [
        f"for type checkers of other packages, add an empty file {folder / 'lib/own_code/py.typed'}"
    ]


@pytest.mark.parametrize(
    ("tool", "files", "expected"),
    [
        ("", ["own_things/__init__.py", "tests/__init__.py"], "own_things"),
        ("", ["src/own_things/__init__.py", "src/other/__init__.py"], "src/own_things"),
        ("", ["src/another_name/__init__.py"], "src/another_name"),
        ('[tool.setuptools]\npackage-dir = {"" = "lib"}', ["lib/own_things/__init__.py"], "lib/own_things"),
        ('[tool.setuptools.packages.find]\nwhere = ["py"]', ["py/x/__init__.py"], "py/x"),
        ('[project.entry-points."i2ikit.losses"]\nx = "flat.a:B"', ["flat/__init__.py"], "flat"),
        (
            '[tool.hatch.build]\npackages = ["a", "Own_Things"]',
            ["a/__init__.py", "Own_Things/__init__.py"],
            "Own_Things",
        ),
        ('[tool.hatch.build]\npackages = ["src/b"]', ["src/a/__init__.py", "src/b/__init__.py"], "src/b"),
    ],
)
def test_the_import_package_is_found_in_every_layout(
    tmp_path: Path, tool: str, files: list[str], expected: str
) -> None:
    folder = package(tmp_path / "own", SETUPTOOLS + tool, *files)
    written = add_to_package("blur", ["norms"], folder)
    assert written.files[0] == folder / expected / "blur_norm.py"
    point = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["entry-points"]["i2ikit.norms"]
    assert point == {"blur": f"{Path(expected).name}.blur_norm:BlurNorm"}


def test_what_a_package_lacks_for_others_is_said(tmp_path: Path) -> None:
    folder = package(tmp_path / "own", SETUPTOOLS, "own_things/__init__.py")
    assert add_to_package("blur", ["norms"], folder).advice == [
        f'add "i2ikit" to the dependencies in {folder / "pyproject.toml"}',
        'for wheels with its recipes, add own_things = ["recipes/*.toml"] to [tool.setuptools.package-data]',
        f"for type checkers of other packages, add an empty file {folder / 'own_things/py.typed'}",
    ]


DYNAMIC = SETUPTOOLS + 'dynamic = ["entry-points"]\n'
INLINE = SETUPTOOLS + 'entry-points = { "i2ikit.losses" = { x = "own_things:X" } }\n'
FLAT = "own_things/__init__.py"


@pytest.mark.parametrize(
    ("pyproject", "files", "message"),
    [
        (SETUPTOOLS, [FLAT, "own_things/blur_norm.py"], r"own_things/blur_norm\.py already exists"),
        (SETUPTOOLS, [FLAT, "own_things/recipes/blur-norm.toml"], r"recipes/blur-norm\.toml already exists"),
        (
            SETUPTOOLS,
            [FLAT, "own_things/blur_norm.py", "own_things/blur_loss.py"],
            r"blur_loss\.py, .*blur_norm\.py already exist;",
        ),
        (SETUPTOOLS, [FLAT, "tests/test_blur_norm.py"], r"tests/test_blur_norm\.py already exists"),
        (SETUPTOOLS, [FLAT, "own_things/blur_norm/__init__.py"], r"own_things/blur_norm already exists"),
        (SETUPTOOLS, [FLAT, "own_things/recipes"], r"cannot write .*recipes/blur-loss\.toml: .*; nothing"),
        (
            SETUPTOOLS,
            [],
            r"the import package of 'own-things' was not found; expected a folder own_things or",
        ),
        (
            SETUPTOOLS,
            ["src/a/__init__.py", "src/b/__init__.py"],
            r"has 2 import packages: src/a, src/b; rename the project or one",
        ),
        (
            SETUPTOOLS + '[project.entry-points."i2ikit.norms"]\nblur = "own_things:Blur"\n',
            [FLAT],
            r"already has a norm 'blur' \(own_things:Blur\)",
        ),
        (
            DYNAMIC,
            [FLAT],
            r"entry points as dynamic, so entry points cannot be added\..*group i2ikit\.norms: blur = PACKAGE\.blur_norm:BlurNorm",
        ),
        (INLINE, [FLAT], r"cannot extend the entry points in .*group i2ikit\.norms: blur = "),
        (
            "[tool.poetry]\nname = 'x'\n",
            [FLAT],
            r"no \[project\] table with a name, so entry points cannot be added",
        ),
        ("[project\n", [FLAT], r"pyproject\.toml cannot be read: .*line 1"),
    ],
)
def test_where_something_is_wrong_nothing_is_written(
    tmp_path: Path, pyproject: str, files: list[str], message: str
) -> None:
    folder = package(tmp_path / "own", pyproject, *files)
    before = contents(folder)
    with pytest.raises(ComponentError, match=f"(?s){message}"):
        add_to_package("blur", ["losses", "norms"], folder)
    assert contents(folder) == before


@pytest.mark.parametrize("file", ["setup.cfg", "setup.py"])
def test_a_package_without_pyproject_gets_an_entry_point_to_copy(tmp_path: Path, file: str) -> None:
    (tmp_path / file).touch()
    message = rf"has a {re.escape(file)} but no pyproject\.toml, so entry points cannot be added\..*BlurNorm"
    with pytest.raises(ComponentError, match=f"(?s){message}"):
        add_to_package("blur", ["norms"], tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(ComponentError, match=r"no pyproject\.toml in .*; give the folder of a package"):
        add_to_package("blur", ["norms"], tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        HATCH,
        HATCH.replace("\n", "\r\n"),
        HATCH.replace(
            '[project.entry-points."i2ikit.norms"]', "[ project . entry-points . 'i2ikit.norms' ]  # x"
        ),
        SETUPTOOLS,
        SETUPTOOLS.rstrip("\n"),
        SETUPTOOLS + '[project.scripts]\nx = "x:main"\n\n\n# tools\n[tool.x]\na = [\n[1],\n  [2]\n]\n',
        '[tool.x]\n[project.entry-points."i2ikit.norms"]\n[project]\nname = "x"',
        '["project"]\nname = "x"\n',
        'project.name = "x"\n[tool.x]\n',
    ],
)
def test_entry_points_are_added_as_lines(text: str) -> None:
    """What was there stays, byte for byte and in order; the file keeps its line ends."""
    added = {"i2ikit.norms": {"new": "x:New"}, "i2ikit.losses": {"new": "x:NewLoss"}}
    changed = with_entry_points(text, added)
    assert changed is not None
    rest = iter(changed.splitlines())
    assert all(line in rest for line in text.splitlines())
    assert "\r\n" not in text or changed.count("\n") == changed.count("\r\n")
    points = tomllib.loads(changed)["project"]["entry-points"]
    assert points["i2ikit.norms"]["new"] == "x:New"
    assert points["i2ikit.losses"] == {"new": "x:NewLoss"}


def test_text_that_only_looks_like_a_table_is_not_extended() -> None:
    """A table in a multi-line string: no line is added to the string."""
    text = '[project]\nname = "x"\n[tool.x]\nt = """\n[project.entry-points."i2ikit.norms"]\n"""\n'
    assert with_entry_points(text, {"i2ikit.norms": {"new": "x:New"}}) is None


@pytest.mark.long
@pytest.mark.parametrize(
    ("pyproject", "root"),
    [(SETUPTOOLS, ""), (SETUPTOOLS, "src/"), (HATCH, "lib/")],
    ids=["flat", "src", "hatch"],
)
def test_what_was_added_to_a_package_passes_its_tests(
    fresh_environment: Run, tmp_path: Path, pyproject: str, root: str
) -> None:
    """With setuptools and hatchling, after the package is installed again."""
    name = "own_code" if pyproject == HATCH else "own_things"
    text = pyproject.replace('old = "own_code:Old"   # kept\n', "")
    folder = package(tmp_path / "own", text, f"{root}{name}/__init__.py")
    install = (*PIP_INSTALL, "-e", "./own")
    # Python 3.11 puts an old setuptools into each new environment; ours is the one that this one has.
    fresh_environment("-m", "pip", "uninstall", "--yes", "--quiet", "setuptools", cwd=tmp_path)
    fresh_environment(*install, cwd=tmp_path)
    try:
        new = ("new-plugin", "blur", "--kind", "norm", "--kind", "dataset", "--into", "own")
        said = fresh_environment("-m", "i2ikit", *new, cwd=tmp_path).stdout
        assert "own/pyproject.toml  (entry points added)" in said
        assert "pip install -e own && python -m pytest own/tests" in said
        fresh_environment(*install, cwd=tmp_path)
        # That recipes train is tested with new packages; here, that they are found.
        tests = ("-m", "pytest", "-q", "-k", "not trains", "tests")
        assert "4 passed" in fresh_environment("-W", "error", *tests, cwd=folder).stdout
        said = fresh_environment("-m", "i2ikit", "list", cwd=tmp_path).stdout
        assert all(f"own-things/blur-{word}" in said for word in ("norm", "dataset"))
        assert "problem" not in said
    finally:
        fresh_environment("-m", "pip", "uninstall", "--yes", "--quiet", "own-things", cwd=tmp_path)


Changes = tuple[tuple[str, str], ...]

TRANSLATOR: Changes = (
    # A falling weight, and the weights of two more losses.
    (
        '"cycle_recon": 10.0}',
        '"cycle_recon": {"start": 10.0, "end": 1.0, "steps": 1000}, "smooth": 0.1, "style_recon": 1.0}',
    ),
    (
        "from i2ikit.draws ",
        "from i2ikit.components.image_pool import POOL_DRAW, pool_keeps, pooled\nfrom i2ikit.draws ",
    ),
    ("import Given, ImageSpec, Phase", "import Given, ImageSpec, Kept, Phase"),
    # Two more roles, one with a network for each domain and one with a single network.
    ('generative = ("generators",)', 'generative = ("generators", "style_encoders", "mapping")'),
    (
        "        networks: dict[str, nn.Module] = {\n",
        """        style_encoders: dict[str, nn.Module] = {d: _style_encoder(channels[d], style_dim) for d in channels}
        mapping = nn.Sequential(nn.Linear(style_dim, style_dim), nn.Tanh())
        networks: dict[str, nn.Module] = {
            "style_encoders": nn.ModuleDict(style_encoders),
            "mapping": mapping,
""",
    ),
    # Another network for the second domain.
    (
        "        discriminators: dict",
        """        generators[b] = nn.Conv2d(channels[a] + style_dim, channels[b], 3, 1, 1)
        discriminators: dict""",
    ),
    (
        "        self.generators = generators\n",
        """        self.generators = generators
        self.style_encoders = style_encoders
        self.mapping = mapping
""",
    ),
    ('self.generator_losses, ("generators",)', "self.generator_losses, self.generative"),
    # A pool for each domain.
    (
        "        return (\n            Phase",
        """        keeps: dict[str, Kept] = {}
        for d in self.domains:
            pool, filled = pool_keeps(50, self.images.channels[d], self.images.size)
            keeps |= {f"pool_{d}": pool, f"filled_{d}": filled}
            judging[f"pool_{d}"] = POOL_DRAW
        return (
            Phase""",
    ),
    ('("discriminators",), judging)', '("discriminators",), judging, keeps)'),
    (
        "        losses = discriminator_losses(",
        """        kept: dict[str, Tensor] = {}
        for d in self.domains:
            pool, filled = given.kept[f"pool_{d}"], given.kept[f"filled_{d}"]
            fake[d], pool, filled = pooled(fake[d], pool, filled, given.draws[f"pool_{d}"])
            kept |= {f"pool_{d}": pool, f"filled_{d}": filled}
        losses = discriminator_losses(""",
    ),
    ("        return Result(losses)\n", "        return Result(losses, kept=kept)\n"),
    # Two more losses, one of which calls a network of the new role.
    (
        '            if weights[f"adversarial/{d}"]:',
        """            if weights[f"smooth/{d}"]:
                losses[f"smooth/{d}"] = translated[d].diff(dim=3).abs().mean()
            if weights[f"style_recon/{d}"]:
                code = self.style_encoders[d](translated[d])
                losses[f"style_recon/{d}"] = self.recon_loss(code, styles[d])
            if weights[f"adversarial/{d}"]:""",
    ),
    ("        maps = style[", "        style = self.mapping(style)\n        maps = style["),
    (
        "    def sample_style",
        """    def encode_style(self, x: Tensor, domain: str) -> Tensor:
        code: Tensor = self.style_encoders[domain](x)
        return code

    def sample_style""",
    ),
    (
        "def _generator(",
        """def _style_encoder(in_channels: int, style_dim: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(in_channels, style_dim, 4, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _generator(""",
    ),
)

OTHERS: dict[str, Changes] = {
    "norm": (
        ("from pydantic", "import torch\nfrom pydantic"),
        ("        # To learn a factor for each channel: ", "        "),
        ("torch.ones(channels, 1, 1)).", "torch.ones(channels, 1, 1))"),
        ("return x -", "return self.gamma * x -"),
    ),
    "discriminator": (
        ("        self.layers = nn.Sequential(", "        one = nn.Sequential("),
        (
            "    @staticmethod",
            """        self.scales = nn.ModuleList([one, nn.Conv2d(in_channels, 1, 8, 8)])

    @staticmethod""",
        ),
        ("return [self.layers(x)]", "return [scale(x) for scale in self.scales]"),
    ),
    "optimizer": (
        (
            "        betas: tuple",
            "        weight_decay: Annotated[float, Field(ge=0)] = 0.0,\n        betas: tuple",
        ),
        ("self.lr = lr\n", "self.lr = lr\n        self.weight_decay = weight_decay\n"),
        ("betas=self.betas)", "betas=self.betas, weight_decay=self.weight_decay)"),
    ),
    "metric": (
        (
            "        values = {",
            "        level = subject.over_inputs(inputs, self.num_styles, _level)\n        values = {",
        ),
        ('"spread_se": standard_error(spread)}', '"level": level.mean().item()}'),
        (
            "def _spread",
            """def _level(case: Case) -> Tensor:
    return case.outputs.mean()


def _spread""",
        ),
    ),
}


OTHER_SORTS: dict[str, Changes] = {
    # An adversarial loss instead of a reconstruction loss.
    "alt/alt_loss.py": (
        ("from typing import", "from collections.abc import Sequence\nfrom typing import"),
        ("from pydantic", "import torch\nfrom pydantic"),
        (
            """    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        \"\"\"The loss of two tensors of the same shape: a scalar.\"\"\"
        # A mean over samples: each process computes the loss of its share, and the results are averaged.
        return ((prediction - target).square() + self.eps**2).sqrt().mean()
""",
            """    def discriminator(self, fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
        pairs = zip(fake, real, strict=True)
        return torch.stack([(self.eps + f).relu().mean() + (1 - r).relu().mean() for f, r in pairs]).mean()

    def generator(self, fake: Sequence[Tensor]) -> Tensor:
        return torch.stack([-f.mean() for f in fake]).mean()
""",
        ),
    ),
    "alt/recipes/alt-loss.toml": (("recon_loss", "adversarial_loss"),),
    "tests/test_alt_loss.py": (
        (", check_reconstruction_loss\n", ", check_adversarial_loss\n"),
        ("    check_reconstruction_loss(", "    check_adversarial_loss("),
    ),
    # A content encoder instead of a style encoder.
    "alt/alt_encoder.py": (
        ("in_channels: int, style_dim: int, *", "in_channels: int, *"),
        (
            "self.head = nn.Linear(4 * width, style_dim)",
            "self.out_channels, self.num_downsample = 4 * width, 2",
        ),
        ("self.head(self.layers(x).mean(dim=(2, 3)))", "self.layers(x)"),
    ),
    "alt/recipes/alt-encoder.toml": (("translator.style_encoder", "translator.content_encoder"),),
    "tests/test_alt_encoder.py": (
        (", check_style_encoder\n", ", check_content_encoder\n"),
        ("    check_style_encoder(", "    check_content_encoder("),
    ),
    # An optimizer of their own instead of torch's.
    "alt/alt_optimizer.py": (
        ("import Annotated\n", "import Annotated, Any\n"),
        (
            "class AltOptimizer:",
            """class Signs(torch.optim.Optimizer):
    def __init__(self, parameters: Sequence[Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                    mean.lerp_(p.grad, 0.1)
                    p.sub_(mean.sign(), alpha=group["lr"])


class AltOptimizer:""",
        ),
        ("torch.optim.NAdam(parameters, lr=self.lr, betas=self.betas)", "Signs(parameters, self.lr)"),
    ),
}


def extend(file: Path, changes: Changes) -> None:
    """Write what the comments of a template suggest."""
    text = file.read_text()
    for old, new in changes:
        assert text.count(old) == 1, f"{old} is {text.count(old)} times in {file}"
        text = text.replace(old, new)
    file.write_text(text)


def check_extended(
    run: Run, folder: Path, name: str, kinds: Sequence[str], changes: Mapping[str, Changes]
) -> str:
    """What the tests of a new package say, after these changes to its files; it also passes mypy --strict."""
    options = [part for word in kinds for part in ("--kind", word)]
    run("-m", "i2ikit", "new-plugin", name, *options, cwd=folder)
    for file, own in changes.items():
        extend(folder / name / file, own)
    run(*PIP_INSTALL, "-e", f"./{name}", cwd=folder)
    try:
        run("-m", "mypy", "--strict", name, "tests", cwd=folder / name)
        return run("-W", "error", "-m", "pytest", "-q", cwd=folder / name).stdout
    finally:
        run("-m", "pip", "uninstall", "--yes", "--quiet", name, cwd=folder)


@pytest.mark.long
def test_what_the_comments_suggest_is_typed_strictly_and_works(
    fresh_environment: Run, tmp_path: Path
) -> None:
    """More losses, roles and networks, a pool and a falling weight, with the settings of the template."""
    kinds = {"translator": TRANSLATOR, **OTHERS}
    changes = {f"grown/grown_{word}.py": own for word, own in kinds.items()}
    assert "14 passed" in check_extended(fresh_environment, tmp_path, "grown", list(kinds), changes)


@pytest.mark.long
def test_the_other_sorts_of_a_kind_are_typed_strictly_and_work(
    fresh_environment: Run, tmp_path: Path
) -> None:
    """Templates also name an adversarial loss, a content encoder and an optimizer with its own update."""
    kinds = ["loss", "encoder", "optimizer"]
    assert "9 passed" in check_extended(fresh_environment, tmp_path, "alt", kinds, OTHER_SORTS)

"""What installed packages offer, and that a bad one is named and spoils nothing for the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from i2ikit.packages.recipes import recipe_files
from i2ikit.packages.survey import Survey, survey
from i2ikit.registry import registries
from tests.fake_packages import BROKEN, DAMAGED, METADATA, NORM, norm, put, put_broken, put_damaged
from tests.image_files import make_folders
from tests.tiny import TINY


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path; `survey` reads it anew."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    survey.cache_clear()
    yield folder
    survey.cache_clear()


def offered(package: str) -> set[str]:
    return {entry.name for entry in survey().entries if entry.package == package}


@pytest.fixture(scope="module")
def bad_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten packages with damaged metadata, and more than ten that are broken otherwise."""
    folder = tmp_path_factory.mktemp("bad")
    put_damaged(folder)
    put_broken(folder)
    return folder


def among_bad(bad_site: Path, *arguments: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the command where all the bad packages are installed."""
    path = os.pathsep.join([str(bad_site), str(bad_site / "later")])
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "i2ikit", *arguments],
        cwd=cwd, env={**os.environ, "PYTHONPATH": path, **more}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_metadata_is_named_with_its_cause_and_the_rest_is_read(site: Path, name: str) -> None:
    raw, cause = DAMAGED[name]
    put(site, name, raw)
    put(site, "sound", norm("sound", "sound:Norm"))
    (fault,) = survey().faults
    assert (fault.package, fault.version) == (name.replace("_", "-") if name[0] != "~" else name, "1.0")
    assert cause in fault.cause
    assert offered("sound") == {"sound"}
    assert {"in", "bn", "munit"} <= offered("i2ikit")


def test_what_can_be_understood_of_an_odd_file_is_offered(site: Path) -> None:
    for name in ("marked", "spaced", "defaulting", "percent"):
        put(site, name, DAMAGED[name][0])
    found = {name: offered(name) for name in ("marked", "spaced", "defaulting", "percent")}
    assert found == {
        "marked": {"marked-x"},
        "spaced": {"spaced-x"},
        "defaulting": {"default-x"},
        "percent": set(),
    }


def test_other_packages_of_this_machine_are_no_fault(site: Path) -> None:
    assert survey().faults == ()


def test_the_first_of_two_versions_on_the_path_counts(site: Path, tmp_path: Path) -> None:
    sys.path.insert(0, str(tmp_path / "earlier"))
    put(tmp_path / "earlier", "doubled", norm("new", "doubled:New"), version="2.0")
    put(site, "doubled", norm("old", "doubled:Old"), version="3.0")
    assert offered("doubled") == {"new"}
    assert "is on the path twice; 2.0 is used" in survey().faults[0].cause


def test_the_higher_of_two_versions_in_one_folder_counts(site: Path) -> None:
    """As an interrupted upgrade leaves them."""
    put(site, "doubled", norm("nine", "doubled:Nine"), version="1.9")
    put(site, "doubled", norm("ten", "doubled:Ten"), version="1.10")
    assert offered("doubled") == {"ten"}


def test_an_editable_install_of_setuptools_is_one_package(site: Path, tmp_path: Path) -> None:
    """It has metadata twice: .dist-info in site-packages, .egg-info beside the source, in another spelling."""
    put(site, "my_dotted_plug", norm("dotted", "plug:Norm"), version="2.0")
    egg = tmp_path / "source" / "My.Dotted_Plug.egg-info"
    egg.mkdir(parents=True)
    (egg / "entry_points.txt").write_text(norm("dotted", "plug:Norm"))
    (egg / "PKG-INFO").write_text(METADATA.format(name="My.Dotted-Plug", version="2.0"))
    sys.path.append(str(egg.parent))
    assert [e.origin for e in survey().entries if e.name == "dotted"] == ["my-dotted-plug 2.0"]
    assert survey().faults == ()


def test_a_wheel_on_the_path_is_read_too(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(site / "wheel.whl", "w") as wheel:
        wheel.writestr("wheeled-1.0.dist-info/entry_points.txt", norm("wheeled", "wheeled:Norm"))
        wheel.writestr("wheeled-1.0.dist-info/METADATA", METADATA.format(name="wheeled", version="1.0"))
        wheel.writestr("wheeled.py", NORM)
    monkeypatch.syspath_prepend(site / "wheel.whl")
    assert offered("wheeled") == {"wheeled"}


def test_recipes_of_a_namespace_belong_to_the_package_inside(site: Path) -> None:
    put(site, "acme_norms", norm("acme", "acme.norms:Norm"))
    for folder in ("acme", "acme/norms"):
        (site / folder / "recipes").mkdir(parents=True)
        (site / folder / "recipes" / f"{folder[-1]}.toml").write_text('extends = "munit"')
    (site / "acme" / "norms" / "__init__.py").write_text("")
    assert {name for name in recipe_files() if "/" in name} == {"acme-norms/s"}


def test_headers_may_have_any_line_ends_and_letters(site: Path) -> None:
    put(
        site,
        "windows",
        norm("w", "windows:Norm"),
        metadata="name: windows\r\nversion: 1.0\r\n\r\nName: other\r\n",
    )
    assert offered("windows") == {"w"}
    assert survey().faults == ()


FATAL = {
    "semicolon": b"[console_scripts]\n; a comment\nfoo = a:b\n",
    "continued": b"[console_scripts]\nfoo = a:b\n   just words\n",
    "separator": "[i2ikit.norms]\nx = a:B\u2028foo\n".encode(),
    "~ilted": b"[x]\njust words\n",
    "-ilted": b"[x]\njust words\n",
    "utf_16": "[i2ikit.norms]\nx = a:B\n".encode("utf-16"),
}


@pytest.mark.parametrize("name", FATAL)
def test_whatever_python_itself_fails_on_is_kept_from_it(site: Path, name: str) -> None:
    put(site, name, FATAL[name])
    bare = [sys.executable, "-c", "import importlib.metadata as m; m.entry_points()"]
    shielded = [
        sys.executable,
        "-c",
        "import i2ikit; import importlib.metadata as m; m.entry_points(); m.version('torch')",
    ]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    assert subprocess.run(bare, env=environment, capture_output=True, check=False).returncode != 0
    subprocess.run(shielded, env=environment, check=True)
    assert survey().faults[0].place.name == f"{name}-1.0.dist-info"


def test_python_is_shielded_from_versions_that_do_not_count_too(site: Path) -> None:
    put(site, "twice", norm("x", "twice:Norm"), version="9.0")
    old = put(site, "twice", b"[x]\njust words\n", version="1.0")
    upper = put(site, "shout", b"[x]\njust words\n")
    upper = upper.rename(site / "shout-1.0.DIST-INFO")
    egg = site / "old.egg" / "EGG-INFO"
    egg.mkdir(parents=True)
    (egg / "entry_points.txt").write_bytes(b"[x]\njust words\n")
    sys.path.append(str(egg.parent))
    assert {Path(str(place)) for place in survey().fatal} == {old, upper, egg}
    assert {Path(str(fault.place)) for fault in survey().faults} == {old, upper, egg}


def test_a_damaged_wheel_and_impossible_folders_on_the_path_are_no_end(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(site / "bad.whl", "w") as wheel:
        wheel.writestr("crc-1.0.dist-info/entry_points.txt", norm("x", "crc:Norm"))
    damaged = (site / "bad.whl").read_bytes().replace(b"x = crc:Norm", b"y = crc:Norm", 1)
    (site / "bad.whl").write_bytes(damaged)
    for entry in (str(site / "bad.whl"), "with\0nul", str(site / "nowhere"), site / "also-nowhere"):
        monkeypatch.setattr(sys, "path", [*sys.path, entry])
    (fault,) = survey().faults
    assert fault.package == "crc"
    assert "BadZipFile" in fault.cause


@pytest.mark.parametrize(
    ("folder", "metadata", "package", "version"),
    [
        ("my_own-1.0", "Name: my-own\nVersion: 1.0\n", "my-own", "1.0"),
        ("my-own-1.0", "Name: my-own\nVersion: 1.0\n", "my-own", "1.0"),
        ("my-own-1.0", "", "my-own", "1.0"),
        ("own-3d-1.0", "Name: own-3d\nVersion: 1.0\n", "own-3d", "1.0"),
        ("My.Own", "Name: My.Own\nVersion: 2.0\n", "my-own", "2.0"),
        ("own-1.0-py3.11", "", "own", "1.0"),
        ("own", "", "own", ""),
    ],
)
def test_name_and_version_are_understood_however_the_folder_is_called(
    site: Path, folder: str, metadata: str, package: str, version: str
) -> None:
    place = site / f"{folder}.dist-info"
    place.mkdir()
    (place / "METADATA").write_text(metadata)
    (place / "entry_points.txt").write_text(norm("x", "own:Norm"))
    (found,) = [entry for entry in survey().entries if entry.name == "x"]
    assert (found.package, found.version) == (package, version)


def test_any_folder_that_an_interrupted_pip_left_is_named(site: Path) -> None:
    for name in ("~wn", "~wn-1.0.dist-info", "~wn.egg-info"):
        (site / name).mkdir()
    assert {fault.package for fault in survey().faults} == {"~wn"}
    assert len(survey().faults) == 3


def test_a_group_in_spaces_is_named(site: Path) -> None:
    put(site, "roomy", "[ i2ikit.norms ]\nx = roomy:Norm\n")
    assert (
        "[ i2ikit.norms ] is not an entry-point group of i2ikit; did you mean 'i2ikit.norms'?"
        in survey().faults[0].cause
    )


def test_names_that_would_be_mistaken_for_qualified_ones_are_left_out(site: Path) -> None:
    put(site, "slashed", norm("i2ikit/in", "slashed:Norm"))
    assert offered("slashed") == set()
    assert "a name cannot contain '/'" in survey().faults[0].cause


def test_the_allowlist_leaves_out_all_other_packages_but_ours(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(site, "wanted", norm("wanted", "wanted:Norm"))
    put(site, "unwanted", norm("unwanted", "unwanted:Norm"))
    monkeypatch.setenv("I2IKIT_PLUGINS", "Wanted, other")
    assert {e.package for e in survey().entries} == {"i2ikit", "wanted"}
    assert {e.package for e in survey().left_out} == {"unwanted"}
    monkeypatch.setenv("I2IKIT_PLUGINS", "")
    survey.cache_clear()
    assert {e.package for e in survey().entries} == {"i2ikit"}


def test_recipes_lie_in_a_folder_of_the_import_package(site: Path) -> None:
    put(site, "stains", norm("stain", "stains.inner:Norm"))
    folder = site / "stains" / "recipes"
    folder.mkdir(parents=True)
    (site / "stains" / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "purple.toml").write_text('extends = "munit"')
    assert recipe_files()["stains/purple"] == folder / "purple.toml"
    assert "munit" in recipe_files()


def test_all_is_cached_and_is_a_value() -> None:
    assert survey() is survey()
    assert isinstance(survey(), Survey)


@pytest.mark.slow
def test_a_recipe_of_ours_runs_among_all_bad_packages(bad_site: Path, tmp_path: Path) -> None:
    """Though Python's own importlib.metadata fails there, and torch and pydantic with it."""
    bare = [sys.executable, "-c", "import torch"]
    environment = {**os.environ, "PYTHONPATH": str(bad_site)}
    assert subprocess.run(bare, env=environment, capture_output=True, check=False).returncode != 0
    folders = make_folders(tmp_path / "data")
    own = ["data.name=folders", f'data.root="{folders}"', *TINY, "training.steps=2", "training.batch_size=2"]
    settings = [argument for text in own for argument in ("--set", text)]
    done = among_bad(bad_site, "run", "munit", *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Done: 2 steps" in done.stdout


@pytest.mark.slow
def test_doctor_names_every_bad_package_and_what_is_wrong(bad_site: Path, tmp_path: Path) -> None:
    done = among_bad(bad_site, "doctor", cwd=tmp_path)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    for package, cause in BROKEN.items():
        assert any(f"  {package} " in line and cause in line for line in lines), (package, done.stdout)
    for name, (_, cause) in DAMAGED.items():
        package = name if name[0] == "~" else name.replace("_", "-")
        assert any(f"  {package} 1.0: " in line and cause in line for line in lines), (name, done.stdout)
    sound = sum(len(registry.entries()) for registry in registries.values())
    assert f"{sound + 8} of {sound + 16} components load" in done.stdout


def test_list_marks_metadata_and_conflicts_and_imports_nothing(bad_site: Path, tmp_path: Path) -> None:
    done = among_bad(bad_site, "list", "--json", cwd=tmp_path)
    found = json.loads(done.stdout)
    problems = {problem["package"] for problem in found["problems"]}
    assert {"no-header", "latin", "thief", "twin-one", "twin-two", "headless"} <= problems
    assert not {"lonely", "exploding", "quitting"} & problems
    rows = {(offer["name"], offer["package"]): offer for offer in found["offers"]}
    assert rows["twin", "twin-one"]["summary"] == "Does nothing, politely."
    assert 'write "thief/in"' in rows["in", "thief"]["conflict"]
    assert rows["in", "i2ikit"]["conflict"] == ""
    assert "I was imported" not in done.stdout + done.stderr


@pytest.mark.slow
def test_list_load_says_what_fails_and_json_stays_json(bad_site: Path, tmp_path: Path) -> None:
    done = among_bad(bad_site, "list", "norms", "--load", "--json", cwd=tmp_path)
    rows = {offer["name"]: offer for offer in json.loads(done.stdout)["offers"]}
    assert "SystemExit: 3" in rows["quitting"]["failure"]
    assert rows["bn"]["failure"] == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lonely", "comes from lonely 1.0 (lonely:Norm), which failed to load: ModuleNotFoundError"),
        ("twin", 'provided by 2 packages; write one of "twin-one/twin", "twin-two/twin"'),
        ("caf", "; the components of latin 1.0, no-equals 1.0, no-header 1.0, "),
        ("numeric", "numeric 1.0 (numeric:Norm), which is not a class (got int)"),
        ("swallowing", "takes *args or **kwargs"),
    ],
)
def test_a_recipe_that_names_a_bad_component_gets_one_clear_error(
    bad_site: Path, tmp_path: Path, name: str, message: str
) -> None:
    override = f"translator.content_encoder.norm={name}"
    done = among_bad(bad_site, "run", "munit", "--set", override, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "munit: 1 problem" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_package_that_is_switched_off_is_said_to_be(bad_site: Path, tmp_path: Path) -> None:
    override = "translator.content_encoder.norm=twin"
    only = {"I2IKIT_PLUGINS": "i2ikit"}
    done = among_bad(bad_site, "run", "munit", "--set", override, cwd=tmp_path, **only)
    assert "twin-one 1.0 provides it, but I2IKIT_PLUGINS excludes that package" in done.stderr
    done = among_bad(bad_site, "run", "twin-one/x", cwd=tmp_path, **only)
    assert "the package twin-one is not in I2IKIT_PLUGINS" in done.stderr


def test_a_method_that_is_none_is_one_clear_error(bad_site: Path, tmp_path: Path) -> None:
    done = among_bad(bad_site, "run", "munit", "--set", "translator.name=hollow", cwd=tmp_path)
    assert done.returncode == 2
    assert "'hollow' does not fit here (needed: translator): it does not subclass Translator" in done.stderr


@pytest.mark.slow
def test_show_writes_the_name_that_a_recipe_needs(bad_site: Path, tmp_path: Path) -> None:
    assert 'name = "thief/in"' in among_bad(bad_site, "show", "norm", "thief/in", cwd=tmp_path).stdout
    assert 'name = "in"' in among_bad(bad_site, "show", "norm", "in", cwd=tmp_path).stdout


def test_a_terminal_in_ascii_and_odd_names_do_not_end_a_list(tmp_path: Path) -> None:
    for name, text in (("umlaut", "Größe."), ("markup", "[/red] [bold"), ("surrogate", "\\ud800")):
        put(tmp_path / "site", name, norm(f"{name}[red]", f"{name}:Norm"), NORM.replace("Does nothing", text))
    done = among_bad(tmp_path / "site", "list", "norms", cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "[/red] [bold, politely." in done.stdout
    assert "markup[red]" in done.stdout

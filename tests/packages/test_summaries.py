"""First lines of docstrings, read from source that would fail if it were imported."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest

from i2ikit.packages.summaries import recipe_summary, summary
from i2ikit.packages.survey import survey

FAILS = 'raise RuntimeError("imported")\n'


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A folder on the path. Modules are remembered by name, so each test has its own."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def write(folder: Path, **files: str) -> None:
    """`inner__a="..."` writes inner/a.py; every file fails when it is imported."""
    for name, text in files.items():
        path = folder.joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(FAILS + text)


def test_the_first_line_of_a_class_is_read_and_nothing_imported(site: Path) -> None:
    write(
        site, plain='class X:\n    """First line.\n\n    More.\n    """\n    class Y:\n        """Inner."""\n'
    )
    assert summary("plain:X") == "First line."
    assert summary("plain:X.Y") == "Inner."
    assert "plain" not in sys.modules


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("missing", None),
        ("no_doc", "class X: pass\n"),
        ("no_class", "y = 3\n"),
        ("value", "X = make()\n"),
        ("broken", "class X(:\n"),
        ("imported", "from other import X\n"),
    ],
)
def test_where_the_source_does_not_show_it_there_is_none(site: Path, name: str, text: str | None) -> None:
    if text is not None:
        write(site, **{name: text})
    assert summary(f"{name}:X") == ""


def test_a_wheel_is_read_too(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(site / "zipped.whl", "w") as wheel:
        wheel.writestr("zipped_module.py", FAILS + 'class X:\n    """From a wheel."""\n')
    monkeypatch.syspath_prepend(site / "zipped.whl")
    assert summary("zipped_module:X") == "From a wheel."


def test_all_of_ours_have_one() -> None:
    for entry in survey().entries:
        assert summary(entry.target).endswith("."), entry


def test_a_recipe_says_in_its_first_sentence_what_it_is(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    for text, said in (("# One. Two.\nseed = 0", "One"), ("seed = 0 # no", ""), ("", ""), ("#\n# later", "")):
        file.write_text(text)
        assert recipe_summary(file) == said
    file.write_bytes(b"# \xff")
    assert recipe_summary(file) == ""

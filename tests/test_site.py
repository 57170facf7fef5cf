"""The site that `make docs` builds: strict, complete, and without anything from another host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

import i2ikit
from i2ikit import official, testing

TOP = Path(__file__).parents[1]
DOCS = TOP / "docs"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does, from another folder."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(TOP / "mkdocs.yml")]
    done = subprocess.run(
        [*command, "--site-dir", str(folder / "site")],
        cwd=folder,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return folder / "site"


class References(HTMLParser):
    """What a page refers to: (tag, address, and `rel` of a link)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        for key in ("src", "href", "data", "poster", "srcset"):
            if address := values.get(key):
                self.found.append((tag, address, values.get("rel") or ""))


def references(site: Path) -> Iterator[tuple[Path, str, str]]:
    for page in site.rglob("*.html"):
        for tag, address, _ in References(page.read_text("utf-8")).found:
            yield page, tag, address


def inventory(site: Path) -> set[str]:
    """The names in the Python API, from the file that other sites use to link to them."""
    content = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    return {line.split(" ")[0] for line in zlib.decompress(content).decode().splitlines()}


def test_every_page_is_in_the_navigation(site: Path) -> None:
    linked = {address for _, address, _ in References((site / "index.html").read_text("utf-8")).found}
    pages = {page.relative_to(DOCS).with_suffix(".html").as_posix() for page in DOCS.rglob("*.md")}
    assert pages
    assert pages <= linked
    assert {"contributing.html", "security.html", "changelog.html", "license.txt"} <= linked


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    other = re.compile(r"(https?:)?//")
    loaded = [(page.name, tag, address) for page, tag, address in references(site) if tag != "a"]
    assert any(tag == "script" for _, tag, _ in loaded)
    assert not [each for each in loaded if other.match(each[2])]
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import )[\"']?(https?:)?//", style.read_text("utf-8")), style


def test_every_picture_and_file_that_a_page_refers_to_exists(site: Path) -> None:
    for page, tag, address in references(site):
        path = re.split("[#?]", address)[0]
        if path and not re.match(r"[a-z]+:", path):
            folder = site if path.startswith("/") else page.parent  # 404.html is shown for any address
            assert (folder / path.lstrip("/")).exists(), f"{page.name}: {tag} {address}"
    start = References((site / "index.html").read_text("utf-8")).found
    assert {address for tag, address, _ in start if tag == "img"} >= {"pictures/munit.png"}


def test_the_api_has_every_public_name(site: Path) -> None:
    names = inventory(site)
    for name in set(i2ikit.__all__) - {"__version__", "registries", "Spec"}:
        home = getattr(i2ikit, name).__module__
        assert {f"i2ikit.{name}", f"{home}.{name}"} & names, name
    assert {"i2ikit.registry.registries", "i2ikit.registry.Spec"} <= names
    assert {f"i2ikit.testing.{name}" for name in testing.__all__} <= names
    modules = {path.stem for path in Path(official.__file__).parent.glob("*.py")}
    assert {f"i2ikit.official.{name}" for name in modules - {"__init__", "fitting", "tables"}} <= names


def test_docstrings_are_shown_as_they_were_written(site: Path) -> None:
    text = (site / "api" / "plugins.html").read_text("utf-8")
    assert "<strong>Shapes:</strong>" in text
    assert "h * 2**num_upsample" in text
    assert "[optimizer.&lt;role&gt;]" in text


def test_links_show_titles_in_place_of_names_of_files(site: Path) -> None:
    assert '<a href="munit.html">MUNIT</a>' in (site / "index.html").read_text("utf-8")
    assert '<a href="license.txt">Apache License 2.0</a>' in (site / "index.html").read_text("utf-8")
    assert '<a href="security.html">Security</a>' in (site / "reliability.html").read_text("utf-8")

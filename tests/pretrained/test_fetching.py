"""Files from a package index, as pip is configured: a small index served from this machine."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from i2ikit.errors import FetchError
from i2ikit.pretrained.fetching import fetch_sdist, fetch_url

CONTENT = b"a source distribution"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
DEAD = "http://127.0.0.1:9"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files; what is below moved/ has moved."""

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/moved"))
            self.end_headers()
        else:
            super().do_GET()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """files/some-1.0.tar.gz, and an index of it in simple/."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "some-1.0.tar.gz").write_bytes(CONTENT)
    page = tmp_path / "simple" / "some" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text('<a href="../../files/some-1.0.tar.gz">some-1.0.tar.gz</a>')
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


@pytest.fixture(autouse=True)
def _only_what_a_test_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", DEAD)


def fetch(to: Path, sha256: str = SHA256, version: str = "1.0") -> bytes:
    to.mkdir()
    return fetch_sdist("some", version, sha256, to).read_bytes()


def test_an_sdist_comes_from_the_index_that_pip_is_configured_for(server, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"{server}/simple")
    assert fetch(tmp_path / "to") == CONTENT


def test_it_says_what_is_fetched_and_how_large_it_is(server, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"{server}/simple")
    fetch(tmp_path / "to")
    assert f"Fetching {server}/files/some-1.0.tar.gz (0.0 MB)" in capsys.readouterr().err


def test_redirects_are_followed(server, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"{server}/moved/simple")
    assert fetch(tmp_path / "to") == CONTENT


def test_an_index_that_is_down_does_not_hide_the_next(server, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"{DEAD}/other {server}/simple")
    assert fetch(tmp_path / "to") == CONTENT


def test_pips_configuration_files_count(server, tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("PIP_INDEX_URL")
    (tmp_path / "pip.conf").write_text(
        f"[global]\nindex-url = {DEAD}\n[download]\nindex-url = {server}/simple\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    assert fetch(tmp_path / "to") == CONTENT


def test_an_index_may_be_a_folder(folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", (folder / "simple").as_uri())
    assert fetch(tmp_path / "to") == CONTENT


def test_find_links_without_an_index_will_do(folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder / "files"))
    assert fetch(tmp_path / "to") == CONTENT


def test_another_checksum_is_refused_and_named(server, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"{server}/simple")
    with pytest.raises(FetchError, match=rf"has the sha256 {SHA256}, expected 00"):
        fetch(tmp_path / "to", sha256="00" * 32)


def test_every_place_that_was_tried_is_named_but_no_password(server, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:secret@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"{server}/simple")
    with pytest.raises(FetchError) as caught:
        fetch(tmp_path / "to", version="2.0")
    assert "127.0.0.1:9/simple: ConnectError" in str(caught.value)
    assert f"{server}/simple: no sdist of some 2.0" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_no_index_at_all_is_said(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(FetchError, match="configured to use no index"):
        fetch(tmp_path / "to")


def test_a_file_comes_from_its_address_or_the_reason_is_given(server, tmp_path) -> None:
    assert fetch_url(f"{server}/moved/files/some-1.0.tar.gz", tmp_path).read_bytes() == CONTENT
    with pytest.raises(FetchError, match="404"):
        fetch_url(f"{server}/files/none.pth", tmp_path)
    with pytest.raises(FetchError, match="ConnectError"):
        fetch_url(f"{DEAD}/none.pth", tmp_path)

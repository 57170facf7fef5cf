"""Files from a package index, as pip is configured: a small index served from this machine."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import pytest

from i2ikit.errors import FetchError
from i2ikit.pretrained import fetching
from i2ikit.pretrained.fetching import Expected, fetch_sdist, fetch_url

CONTENT = b"a source distribution"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
EXPECTED = Expected(SHA256, len(CONTENT))
DEAD = "http://127.0.0.1:9"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files; what is below moved/ has moved."""

    def log_message(self, *arguments: object) -> None:
        pass

    def redirect(self, place: str) -> None:
        self.send_response(302)
        self.send_header("Location", place)
        self.end_headers()

    def do_GET(self) -> None:
        if self.path.startswith("/moved/"):
            self.redirect(self.path.removeprefix("/moved"))
        elif self.path.startswith("/to?"):
            self.redirect(urllib.parse.unquote(self.path.removeprefix("/to?")))
        elif self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(b"x" * 65536)
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
    return fetch_sdist("some", version, Expected(sha256, 100), to).read_bytes()


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
    assert fetch_url(f"{server}/moved/files/some-1.0.tar.gz", EXPECTED, tmp_path).read_bytes() == CONTENT
    with pytest.raises(FetchError, match="404"):
        fetch_url(f"{server}/files/none.pth", EXPECTED, tmp_path)
    with pytest.raises(FetchError, match="ConnectError"):
        fetch_url(f"{DEAD}/none.pth", EXPECTED, tmp_path)


def test_more_bytes_than_expected_are_not_fetched(server, tmp_path) -> None:
    """Whether the size is announced or not."""
    for address in ("files/some-1.0.tar.gz", "endless"):
        with pytest.raises(FetchError, match=r"is larger than the 20 bytes expected"):
            fetch_url(f"{server}/{address}", Expected(SHA256, 20), tmp_path)


def test_a_file_with_another_checksum_is_refused(server, tmp_path) -> None:
    with pytest.raises(FetchError, match=rf"has the sha256 {SHA256}, expected 00"):
        fetch_url(f"{server}/files/some-1.0.tar.gz", Expected("00" * 32, 100), tmp_path)


@pytest.mark.parametrize(
    "place", ["file:///etc/passwd", "FILE:/etc/passwd", "ftp://files.org/x", "data:,x", "git+https://x/y"]
)
def test_a_redirect_to_what_is_not_on_the_web_is_refused(place: str, server, tmp_path) -> None:
    with pytest.raises(FetchError, match=r"redirects to .*, which is not an encrypted web address"):
        fetch_url(f"{server}/to?{urllib.parse.quote(place)}", EXPECTED, tmp_path)


@pytest.mark.parametrize(
    ("here", "there", "refused"),
    [
        ("http://files.org", "http://127.0.0.1/x", "on this machine or its network"),
        ("http://files.org", "http://[::1]/x", "on this machine or its network"),
        ("http://files.org", "http://169.254.169.254/latest/meta-data", "on this machine or its network"),
        ("http://files.org", "//10.0.0.7/x", "on this machine or its network"),
        ("https://files.org", "https://localhost/x", "on this machine or its network"),
        ("https://files.org", "http://files.org/x", "not an encrypted web address"),
        ("https://files.org", "https://cdn.org/x", ""),
        ("https://files.org", "/other", ""),
        ("http://127.0.0.1:9", "http://127.0.0.1:8/x", ""),
        ("http://10.0.0.7", "https://10.0.0.8/x", ""),
    ],
)
def test_a_redirect_from_elsewhere_to_this_network_is_refused(
    here: str, there: str, refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Addresses as a name server gives them; one from a local index to another local one is followed."""
    known = {"files.org": "93.184.216.34", "cdn.org": "93.184.216.35", "localhost": "127.0.0.1"}

    def addresses(host: str, port: None) -> list[object]:
        return [(0, 0, 0, "", (known.get(host, host), 0))]

    monkeypatch.setattr(fetching.socket, "getaddrinfo", addresses)
    response = httpx.Response(302, headers={"location": there}, request=httpx.Request("GET", f"{here}/x"))
    with pytest.raises(FetchError, match=refused) if refused else contextlib.nullcontext():
        fetching._check_redirect(response)


def test_an_index_on_the_web_cannot_link_to_a_file_here(server, folder, tmp_path, monkeypatch) -> None:
    page = folder / "simple" / "some" / "index.html"
    page.write_text(f'<a href="{(folder / "files" / "some-1.0.tar.gz").as_uri()}">some-1.0.tar.gz</a>')
    monkeypatch.setenv("PIP_INDEX_URL", f"{server}/simple")
    with pytest.raises(FetchError, match=r"no sdist of some 1\.0"):
        fetch(tmp_path / "to")

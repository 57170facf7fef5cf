"""Downloads files from a URL or from the package indexes in pip's configuration.

An sdist is downloaded as a file, because `pip download` would run its setup.py.
"""

from __future__ import annotations

import ast
import contextlib
import ipaddress
import logging
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from unearth import HashMismatchError, Link, PackageFinder
from unearth.auth import MultiDomainBasicAuth
from unearth.fetchers import Fetcher, PyPIClient

from i2ikit.errors import FetchError

__all__ = ["Expected", "fetch_sdist", "fetch_url"]

TIMEOUT_S = 30.0
OPTIONS = ("index-url", "extra-index-url", "find-links", "no-index", "cert", "trusted-host", "proxy")


@dataclass(frozen=True)
class Expected:
    """What is known of a file before it is fetched; another one is not kept.

    Args:
        sha256: in hexadecimal digits.
        size: bytes; the download ends when there are more.
    """

    sha256: str
    size: int


def fetch_url(url: str, expected: Expected, folder: Path) -> Path:
    """Download the file at `url` into `folder`, with a progress bar on stderr.

    Redirects lead to other web addresses only: not to files, and not from elsewhere to this machine or its
    network.

    Raises:
        FetchError: the download fails, or is not what is expected; says why.
    """
    with _finder({}) as finder:
        return _download(finder, Link(url), expected, folder)


def fetch_sdist(package: str, version: str, expected: Expected, folder: Path) -> Path:
    """Download the sdist of a package into `folder`, with a progress bar on stderr.

    Searches the indexes and --find-links of pip's configuration (files and environment), in that
    order, with its certificates, trusted hosts and credentials. A local index's file is used in place. For
    redirects see `fetch_url`.

    Raises:
        FetchError: no index has it, or its checksum differs; lists what was tried.
    """
    settings = _pip_settings()
    indexes = [*settings.get("index-url", ["https://pypi.org/simple"]), *settings.get("extra-index-url", [])]
    if settings.get("no-index", ["no"])[0].lower() in ("1", "true", "yes", "on"):
        indexes = []
    places = [{"index_urls": [url]} for url in indexes]
    places += [{"find_links": [place]} for place in settings.get("find-links", [])]
    tried = []
    for place in places:
        ((name,),) = place.values()
        try:
            with _finder(settings, **place) as finder:
                return _download(finder, _sdist_link(finder, package, version, name), expected, folder)
        except FetchError as error:
            tried.append(f"{Link(name).redacted}: {error}")
    raise FetchError("; ".join(tried) or "pip is configured to use no index")


def _sdist_link(finder: PackageFinder, package: str, version: str, place: str) -> Link:
    """The link of an sdist at an index or a folder; only a local one may link to a local file."""
    web = ("http", "https")
    schemes = web if Link(place).parsed.scheme in web else (*web, "file")
    try:
        found = finder.find_all_packages(package, allow_yanked=True)
        links = [p.link for p in found if p.version == version and p.link.filename.endswith(".tar.gz")]
        links = [link for link in links if link.parsed.scheme in schemes]
    except FetchError:
        raise
    except Exception as error:  # network errors have many types
        raise FetchError(_sentence(error)) from error
    if not links:
        raise FetchError(f"no sdist of {package} {version}")
    return links[0]


def _download(finder: PackageFinder, link: Link, expected: Expected, folder: Path) -> Path:
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    announced = console.is_terminal  # on a terminal the bar shows it
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task(f"Fetching {link.filename}", total=None)

            def report(link: Link, completed: int, total: int | None) -> None:
                nonlocal announced
                if max(completed, total or 0) > expected.size:
                    raise FetchError(f"{link.redacted} is larger than the {expected.size} bytes expected")
                if not announced:
                    size = f" ({total / 1e6:.1f} MB)" if total else ""
                    console.print(f"Fetching {escape(link.redacted)}{size}", highlight=False, soft_wrap=True)
                    announced = True
                progress.update(task, completed=completed, total=total)

            return finder.download(link, folder, {"sha256": [expected.sha256]}, report)
    except FetchError:
        raise
    except HashMismatchError as error:
        got = ", ".join(error.actual.values())
        raise FetchError(f"{link.redacted} has the sha256 {got}, expected {expected.sha256}") from error
    except Exception as error:  # network errors have many types
        raise FetchError(f"{link.redacted}: {_sentence(error)}") from error


@contextlib.contextmanager
def _finder(
    settings: Mapping[str, list[str]], index_urls: Sequence[str] = (), find_links: Sequence[str] = ()
) -> Iterator[PackageFinder]:
    """A finder for one place, so that a failing place does not affect others; closes its connections."""
    logging.getLogger("unearth").setLevel(logging.ERROR)  # our messages contain what it would log
    certificates = settings.get("cert")
    session = PyPIClient(
        trusted_hosts=settings.get("trusted-host", []),
        verify=ssl.create_default_context(cafile=certificates[0]) if certificates else True,
        follow_redirects=True,
        timeout=TIMEOUT_S,
        proxy=settings.get("proxy", [None])[0],
        event_hooks={"response": [_check_redirect]},
    )
    session.auth = MultiDomainBasicAuth(prompting=False, index_urls=index_urls)
    with session:
        yield PackageFinder(session=cast(Fetcher, session), index_urls=index_urls, find_links=find_links)


def _check_redirect(response: Any) -> None:
    """Refuse a redirect that leads away from the web.

    Raises:
        FetchError: it leads to a file, from https to http, or from elsewhere to this machine or its network.
    """
    if not response.has_redirect_location:
        return
    here = response.request.url
    there = here.join(response.headers["location"])
    said = f"{Link(str(here)).redacted} redirects to {Link(str(there)).redacted}"
    if there.scheme != "https" and (there.scheme != "http" or here.scheme == "https"):
        raise FetchError(f"{said}, which is not an encrypted web address")
    if _is_local(there.host) and not _is_local(here.host):
        raise FetchError(f"{said}, which is on this machine or its network")


def _is_local(host: str) -> bool:
    """Whether one of a host's addresses is not one of the internet."""
    try:
        found = {str(info[4][0]).partition("%")[0] for info in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):  # behind a proxy, names of the internet may not be known
        return False
    return not all(ipaddress.ip_address(address).is_global for address in found)


def _pip_settings() -> dict[str, list[str]]:
    """pip's options; later sources override earlier ones: [global], [download], environment variables.

    Without pip, as in environments made by uv, only environment variables are read.
    """
    command = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line.partition("=") for line in done.stdout.splitlines()]
    settings: dict[str, list[str]] = {}
    for section in ("global.", "download."):
        for key, _, value in lines:
            if key.startswith(section) and value:
                settings[key.removeprefix(section)] = ast.literal_eval(value).split()
    for option in OPTIONS:
        if values := os.environ.get(f"PIP_{option.upper().replace('-', '_')}", "").split():
            settings[option] = values
    return {key: values for key, values in settings.items() if values}


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")

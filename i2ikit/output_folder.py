"""A folder of translations: names that cannot collide, an index, and writing that never loses a file.

translations.jsonl    one line for each file: its source, run, weights, direction, seed, style and checksum
.translations.lock    held while the files of one image are written, so that commands can share the folder
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import secrets
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from i2ikit.errors import RunError

__all__ = ["OutputFolder", "Result", "cut", "folded", "origins", "readable"]

INDEX = "translations.jsonl"
LOCK = ".translations.lock"
NAME_BYTES = 255  # of most file systems
UNUSUAL = re.compile(r'^\.|[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff<>:"/\\|?*]')
"""Parts of a name that hide a file, break a line, or that some file systems refuse."""


@dataclass(frozen=True)
class Result:
    """One file to write.

    Args:
        label: the part of its name after the source's name.
        ending: such as ".png".
        content: its bytes.
        origin: what it shows, as JSON values. A later result replaces this one only if this is equal.
    """

    label: str
    ending: str
    content: bytes
    origin: Mapping[str, Any]


class OutputFolder:
    """A folder that translations are written to; it is created.

    A file is replaced only if the index says that it was made from the same origin, and if it was not
    changed since. Files of others, links and folders are never replaced: the source's name is numbered until
    all names are free. Names that differ only in case or in Unicode normalisation count as equal, because
    some file systems do not distinguish them.

    Args:
        folder: the folder.
        sources: the names of all images that this command translates, as `readable` returns them; a number
            never makes one image's name that of another.

    Raises:
        RunError: it cannot be created, or one cannot write in it.
    """

    def __init__(self, folder: Path, sources: Collection[str] = ()) -> None:
        self.folder = folder
        self._sources = {folded(source) for source in sources}
        self._used: set[str] = set()  # by this command
        self._passed: dict[tuple[str, str, str], int] = {}  # numbers below this one are used by this command
        self._known: dict[tuple[str, str], list[str]] = {}  # checksums by file and origin
        with _reported(f"cannot write in the folder {folder}", "give another folder with --out"):
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / LOCK):
                self._index = _Index(_index_in(folder))
                self._learn()
                self._taken = {folded(name) for name in os.listdir(folder)}

    def write(self, source: str, results: Iterable[Result], about: Mapping[str, Any]) -> list[Path]:
        """Write the results of one image, each as a whole or not at all.

        Args:
            source: the image's name, as `readable` returns it.
            about: what the index also says about each file, such as the step of the weights.

        Returns:
            Their paths, in order.

        Raises:
            RunError: one cannot be written; those before it are kept.
        """
        results = list(results)
        kept = "files written before are kept"
        with _reported(f"cannot write in the folder {self.folder}", kept), FileLock(self.folder / LOCK):
            self._taken |= {folded(name) for name in self._learn()}  # other commands may write here too
            paths = [self.folder / name for name in self._free_names(source, results)]
            for path, result in zip(paths, results, strict=True):
                with _reported(f"cannot write {path}", kept):
                    self._write(path, result, about)
        return paths

    def _learn(self) -> list[str]:
        """Take in the new lines of the index; returns the names of their files."""
        lines = self._index.new_lines()
        for line in lines:
            self._known.setdefault((line["file"], _text(line["origin"])), []).append(line["sha256"])
        return [line["file"] for line in lines]

    def _free_names(self, source: str, results: list[Result]) -> list[str]:
        """Names for all results, with one number for all of them if it is needed."""
        key = (source, results[0].label, results[0].ending)
        number, longest = self._passed.get(key, 1), _longest_name(self.folder)
        while True:
            ending = "" if number == 1 else f"-{number}"
            tails = [f"{ending}-{result.label}{result.ending}" for result in results]
            room = longest - max(len(tail.encode()) for tail in tails)
            start = cut(source, room)
            names = [start + tail for tail in tails]
            own = number == 1 or folded(start + ending) not in self._sources
            if own and all(map(self._may_write, names, results)):
                return names
            if number == self._passed.get(key, 1) and folded(names[0]) in self._used:
                self._passed[key] = number + 1
            number += 1

    def _may_write(self, name: str, result: Result) -> bool:
        key, path = folded(name), self.folder / name
        if key in self._used:
            return False
        checksums = self._known.get((name, _text(result.origin)), [])
        if checksums and path.is_file() and not path.is_symlink():
            with contextlib.suppress(OSError):
                return _checksum(path.read_bytes()) in checksums
        return key not in self._taken and not os.path.lexists(path)

    def _write(self, path: Path, result: Result, about: Mapping[str, Any]) -> None:
        """Write a file next to its place, then its line of the index, then move it there.

        A kill in between leaves a file that has its line: after another training of the run, the earlier
        file's line is still there.
        """
        checksum = _checksum(result.content)
        checksums = self._known.setdefault((path.name, _text(result.origin)), [])
        staged = self.folder / f".translations-{secrets.token_hex(8)}.tmp"
        try:
            with staged.open("xb") as file:
                file.write(result.content)
            if checksums[-1:] != [checksum]:
                line = {"file": path.name, "origin": dict(result.origin), **about, "sha256": checksum}
                self._index.append(line)
                checksums.append(checksum)
            os.replace(staged, path)
        finally:
            staged.unlink(missing_ok=True)
        self._used.add(folded(path.name))


class _Index:
    """The index file of a folder; the caller holds the lock. Lines that cannot be read are skipped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0  # bytes
        self._torn = False  # a kill or a full disk left a part of a line

    def new_lines(self) -> list[dict[str, Any]]:
        """The lines that were appended since the last call."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._read)
                content = file.read()
        except FileNotFoundError:  # not written yet, or deleted
            self._read, self._torn = 0, False
            return []
        self._read += len(content)
        self._torn = not content.endswith(b"\n") if content else self._torn
        return _lines(content)

    def append(self, line: Mapping[str, Any]) -> None:
        text = b"\n" * self._torn + json.dumps(line).encode("ascii") + b"\n"
        with self.path.open("ab") as file:
            file.write(text)
        self._read += len(text)
        self._torn = False


def _lines(content: bytes) -> list[dict[str, Any]]:
    """The lines of an index that can be read."""
    found = []
    for text in content.splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if (
            isinstance(line, dict)
            and isinstance(line.get("file"), str)
            and isinstance(line.get("origin"), dict)
            and isinstance(line.get("sha256"), str)
        ):
            found.append(line)
    return found


def _index_in(folder: Path) -> Path:
    """The path of a folder's index; a file of that name that is not an index, or a link, is left alone."""
    for number in itertools.count(1):
        path = folder / (INDEX if number == 1 else f"translations-{number}.jsonl")
        if not os.path.lexists(path):
            return path
        if path.is_file() and not path.is_symlink():
            with contextlib.suppress(OSError):
                content = path.read_bytes()
                if not content or _lines(content):
                    return path
    raise AssertionError("unreachable")


def origins(folder: Path) -> dict[str, dict[str, Any]]:
    """The origin of each file in a folder that is as `OutputFolder` wrote it."""
    found = {}
    for line in _Index(_index_in(folder)).new_lines():
        path = folder / line["file"]
        if os.path.isfile(path) and _checksum(path.read_bytes()) == line["sha256"]:
            found[path.name] = line["origin"]
    return found


def readable(name: str) -> str:
    """A name without characters that hide a file, break a line, or that some file systems refuse."""
    return UNUSUAL.sub("_", name)


def folded(name: str) -> str:
    """Equal for names that some file system takes for one: whatever the case and the normalisation."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).upper().casefold())


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _text(origin: Mapping[str, Any]) -> str:
    return json.dumps(origin, sort_keys=True)


def cut(text: str, num_bytes: int) -> str:
    """The beginning of a text that has at most so many bytes in UTF-8."""
    return text.encode()[: max(num_bytes, 0)].decode(errors="ignore")


def _longest_name(folder: Path) -> int:
    """The bytes that a file's name may have."""
    try:
        return min(NAME_BYTES, os.pathconf(folder, "PC_NAME_MAX"))
    except (AttributeError, OSError, ValueError):  # not on Windows
        return NAME_BYTES


@contextlib.contextmanager
def _reported(what: str, advice: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"{what}: {error.strerror or error}; {advice}") from error
    except NotImplementedError as error:  # from filelock
        raise RunError(f"{what}: its file system has no locks; give a folder elsewhere with --out") from error

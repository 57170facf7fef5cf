"""What one package says in its metadata folder, read as far as it can be.

Entry points are parsed by the `entrypoints` package, file by file, because its own search gives up on
all packages when one `entry_points.txt` is damaged.
"""

from __future__ import annotations

import configparser
import functools
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import entrypoints

from i2ikit.errors import did_you_mean
from i2ikit.packages.entry import KINDS, PARENT, Entry, Fault, normalised

__all__ = ["Metadata", "metadata_in", "newness"]


@dataclass(frozen=True)
class Metadata:
    """One package's metadata folder, `NAME-VERSION.dist-info` or `.egg-info`, on disk or in a wheel.

    Args:
        stem: `NAME-VERSION`, or only the name.
        raw: what entry_points.txt holds; nothing, if it is not there.
        head: what METADATA holds.
        trouble: why they cannot be read; "" if they can.
    """

    folder: Path | zipfile.Path
    stem: str
    raw: bytes
    head: bytes
    trouble: str

    @property
    def package(self) -> str:
        return (
            self.stem[: self._name_length] if self.left_over else normalised(self.stem[: self._name_length])
        )

    @property
    def version(self) -> str:
        named = re.sub(r"-py\d.*", "", self.stem[self._name_length + 1 :])
        return named or self.headers.get("version", "")

    @functools.cached_property
    def headers(self) -> dict[str, str]:
        """Lines such as `Name: x`, up to the first empty one, by their names in small letters."""
        text = _with_plain_ends(self.head.decode("utf-8", "replace").partition("\n\n")[0])
        lines = text.partition("\n\n")[0].split("\n")
        return {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}

    @functools.cached_property
    def _name_length(self) -> int:
        """How much of the stem is the name: what METADATA says, else up to the hyphen before a digit."""
        name = self.headers.get("name", "")
        if name and normalised(self.stem[: len(name) + 1].rstrip("-")) == normalised(name):
            return len(name)
        found = re.search(r"-\d", self.stem)
        return found.start() if found else len(self.stem)

    @property
    def left_over(self) -> bool:
        """Whether pip renamed it in order to remove it, and was interrupted."""
        return self.stem.startswith(("~", "-"))

    @property
    def concerns_us(self) -> bool:
        return PARENT.encode() in self.raw

    @property
    def line_without_equals(self) -> str | None:
        """What `importlib.metadata` fails on, if anything."""
        try:
            lines = [line.strip() for line in self.raw.decode("utf-8").splitlines()]
        except UnicodeDecodeError as error:
            return _undecodable(error)
        plain = (li for li in lines if li and li[0] != "#" and not (li[0] == "[" and li[-1] == "]"))
        bad = [line for line in plain if "=" not in line]
        return f"the line {bad[0]!r} has no '='" if bad else self.trouble or None

    @property
    def fatal_cause(self) -> str:
        return (
            f"entry_points.txt: {self.line_without_equals}; Python's own importlib.metadata fails on it, "
            "so it is shown the package without entry points"
        )

    def fault(self, cause: str, *, lost: bool = False) -> Fault:
        return Fault(self.package, self.version, self.folder, cause, lost)

    def entries(self, faults: list[Fault]) -> Iterator[Entry]:
        """The components that the package offers; what is wrong is added to `faults`."""
        try:
            if self.trouble:
                raise ValueError(self.trouble)
            sections, causes = _parsed(self.raw)
        except ValueError as error:
            faults.append(self.fault(f"entry_points.txt is unreadable: {error}", lost=True))
            return
        faults += [self.fault(cause) for cause in causes]
        if not self.concerns_us:
            return
        faults += [self.fault(cause) for cause in self._wrong_headers()]
        for group, points in sections.items():
            if not group.strip().startswith(PARENT):
                continue
            kind = group.removeprefix(PARENT)
            if kind not in KINDS:
                hint = did_you_mean(group.strip().removeprefix(PARENT), KINDS).replace("'", f"'{PARENT}", 1)
                faults.append(self.fault(f"[{group}] is no group of i2ikit{hint}"))
                continue
            for point in points:
                target = ":".join(filter(None, (point.module_name, point.object_name)))
                yield Entry(kind, point.name, self.package, self.version, target, point.load)

    def _wrong_headers(self) -> Iterator[str]:
        if not self.head.strip():
            yield "METADATA is missing or empty"
            return
        try:
            self.head.decode("utf-8")
        except UnicodeDecodeError as error:
            yield f"METADATA is unreadable: {_undecodable(error)}"
            return
        missing = [key for key in ("Name", "Version") if not self.headers.get(key.lower())]
        if missing:
            yield f"METADATA has no {' and no '.join(missing)}"
        elif normalised(self.headers["name"]) != self.package:
            yield f"METADATA names another package: {self.headers['name']}"


def _with_plain_ends(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def metadata_in(folder: str) -> Iterator[Metadata]:
    """All that lies in one folder of the path, or in a wheel or egg on it."""
    is_zip = os.path.isfile(folder) and zipfile.is_zipfile(folder)
    root: Path | zipfile.Path = zipfile.Path(folder) if is_zip else Path(folder)
    egg = os.path.basename(folder).lower().endswith(".egg")
    inner: list[Path | zipfile.Path] = sorted(root.iterdir(), key=lambda path: path.name)
    for path in inner:
        stem, _, ending = path.name.rpartition(".")
        if ending.lower() in ("dist-info", "egg-info") and path.is_dir():
            yield _read(path, stem)
        elif egg and path.name.upper() == "EGG-INFO":
            yield _read(path, os.path.basename(folder)[: -len(".egg")])
        elif path.name.startswith("~") and path.is_dir():
            yield _read(path, path.name)


def _read(folder: Path | zipfile.Path, stem: str) -> Metadata:
    raw, head, trouble = b"", b"", ""
    try:
        raw = _content(folder / "entry_points.txt")
        head = _content(folder / "METADATA") or _content(folder / "PKG-INFO")
    except Exception as error:  # a file that may not be read, a wheel that is damaged, ...
        trouble = f"{type(error).__name__}: {error}"
    return Metadata(folder, stem, raw, head, trouble)


def _content(file: Path | zipfile.Path) -> bytes:
    return file.read_bytes() if file.is_file() else b""


def newness(stem: str) -> list[tuple[bool, int, str]]:
    """Sorts `x-1.10` above `x-1.9`; all that is asked of it is an order."""
    parts = re.findall(r"\d+|[a-z]+", stem.partition("-")[2].lower())
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def _parsed(raw: bytes) -> tuple[dict[str, list[entrypoints.EntryPoint]], list[str]]:
    """Entry points by group, and what is wrong with single ones.

    Raises:
        ValueError: nothing can be read; says where and why.
    """
    causes = []
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(_undecodable(error)) from error
    if text.startswith("\ufeff"):
        causes.append("entry_points.txt starts with a byte-order mark, which is ignored")
        text = text.removeprefix("\ufeff")
    # A default section would be part of every group: "" is one that no file can have.
    parser = entrypoints.CaseSensitiveConfigParser(delimiters=("=",), interpolation=None, default_section="")
    try:
        parser.read_string(_with_plain_ends(text))
    except configparser.Error as error:
        raise ValueError(_unparsable(error)) from error
    if "DEFAULT" in parser:
        causes.append("entry_points.txt has a section [DEFAULT], which is no group and is ignored")
    groups = {group: dict(parser[group]) for group in parser.sections() if group != "DEFAULT"}
    return {group: list(_points(group, lines, causes)) for group, lines in groups.items()}, causes


def _points(group: str, lines: Mapping[str, str], causes: list[str]) -> Iterator[entrypoints.EntryPoint]:
    """The entry points of one group; those that cannot be parsed are left out."""
    for name, target in lines.items():
        compact = re.sub(r"\s*:\s*", ":", target)
        what = " ".join(f"entry_points.txt, [{group}] {name} = {target}".split())
        if compact != target:
            causes.append(f"{what}: there should be no space around the colon")
        if "/" in name and group.startswith(PARENT):
            causes.append(f"{what}: a name cannot hold '/', so it is left out")
            continue
        try:
            yield entrypoints.EntryPoint.from_string(compact, name)
        except entrypoints.BadEntryPoint:
            causes.append(f"{what}: should be module:object, so it is left out")


def _undecodable(error: UnicodeDecodeError) -> str:
    return f"byte {error.start} (0x{error.object[error.start]:02x}) is not UTF-8"


def _unparsable(error: configparser.Error) -> str:
    """What configparser found, in one line."""
    match error:
        case configparser.MissingSectionHeaderError():
            return f"line {error.lineno} ({error.line.strip()!r}) stands before any [group]"
        case configparser.DuplicateOptionError():
            return f"line {error.lineno}: [{error.section}] has '{error.option}' twice"
        case configparser.DuplicateSectionError():
            return f"line {error.lineno}: the group [{error.section}] is there twice"
        case configparser.ParsingError():
            number, line = error.errors[0]
            return f"line {number} ({line.replace(chr(92) + 'n', '')}) is no `name = module:object`"
        case _:
            return " ".join(str(error).split())

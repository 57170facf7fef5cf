"""Reads the metadata folder of one package, and tolerates damaged files.

Entry points are parsed by the `entrypoints` package, file by file, because its own search fails for
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
        raw: contents of entry_points.txt; empty if the file does not exist.
        head: contents of METADATA.
        trouble: why these files cannot be read; "" if they can be read.
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
        """The `Name: x` lines before the first empty line; keys in lower case."""
        text = _with_plain_ends(self.head.decode("utf-8", "replace").partition("\n\n")[0])
        lines = text.partition("\n\n")[0].split("\n")
        return {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}

    @functools.cached_property
    def _name_length(self) -> int:
        """Length of the name in the stem: taken from METADATA, or up to the hyphen before a digit."""
        name = self.headers.get("name", "")
        if name and normalised(self.stem[: len(name) + 1].rstrip("-")) == normalised(name):
            return len(name)
        found = re.search(r"-\d", self.stem)
        return found.start() if found else len(self.stem)

    @property
    def left_over(self) -> bool:
        """Whether pip renamed the folder to remove it and was interrupted."""
        return self.stem.startswith(("~", "-"))

    @property
    def concerns_us(self) -> bool:
        return PARENT.encode() in self.raw

    @property
    def line_without_equals(self) -> str | None:
        """The content on which `importlib.metadata` fails, if any."""
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
            f"entry_points.txt: {self.line_without_equals}; Python's importlib.metadata fails on it, "
            "so i2ikit hides this package's entry points from it"
        )

    def fault(self, cause: str, *, lost: bool = False) -> Fault:
        return Fault(self.package, self.version, self.folder, cause, lost)

    def entries(self, faults: list[Fault]) -> Iterator[Entry]:
        """The components that the package offers; faults are added to `faults`."""
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
                faults.append(self.fault(f"[{group}] is not an entry-point group of i2ikit{hint}"))
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
            yield f"METADATA is that of another package: {self.headers['name']}"


def _with_plain_ends(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def metadata_in(folder: str) -> Iterator[Metadata]:
    """All metadata folders in one folder of `sys.path`, or in a wheel or egg on it."""
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
    except Exception as error:  # no read permission, a damaged wheel, ...
        trouble = f"{type(error).__name__}: {error}"
    return Metadata(folder, stem, raw, head, trouble)


def _content(file: Path | zipfile.Path) -> bytes:
    return file.read_bytes() if file.is_file() else b""


def newness(stem: str) -> list[tuple[bool, int, str]]:
    """A sort key that places `x-1.10` after `x-1.9`; not a full version comparison."""
    parts = re.findall(r"\d+|[a-z]+", stem.partition("-")[2].lower())
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def _parsed(raw: bytes) -> tuple[dict[str, list[entrypoints.EntryPoint]], list[str]]:
    """Entry points by group, and faults in single entries.

    Raises:
        ValueError: the file cannot be read; the message says where and why.
    """
    causes = []
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(_undecodable(error)) from error
    if text.startswith("\ufeff"):
        causes.append("entry_points.txt starts with a byte-order mark, which is ignored")
        text = text.removeprefix("\ufeff")
    # A default section would be merged into every group; no file can contain one named "".
    parser = entrypoints.CaseSensitiveConfigParser(delimiters=("=",), interpolation=None, default_section="")
    try:
        parser.read_string(_with_plain_ends(text))
    except configparser.Error as error:
        raise ValueError(_unparsable(error)) from error
    if "DEFAULT" in parser:
        causes.append("entry_points.txt has a section [DEFAULT], which is not a group and is ignored")
    groups = {group: dict(parser[group]) for group in parser.sections() if group != "DEFAULT"}
    return {group: list(_points(group, lines, causes)) for group, lines in groups.items()}, causes


def _points(group: str, lines: Mapping[str, str], causes: list[str]) -> Iterator[entrypoints.EntryPoint]:
    """The entry points of one group, without those that cannot be parsed."""
    for name, target in lines.items():
        compact = re.sub(r"\s*:\s*", ":", target)
        what = " ".join(f"entry_points.txt, [{group}] {name} = {target}".split())
        if compact != target:
            causes.append(f"{what}: remove the space around the colon")
        if "/" in name and group.startswith(PARENT):
            causes.append(f"{what}: a name cannot contain '/', so this line is ignored")
            continue
        try:
            yield entrypoints.EntryPoint.from_string(compact, name)
        except entrypoints.BadEntryPoint:
            causes.append(f"{what}: expected module:object, so this line is ignored")


def _undecodable(error: UnicodeDecodeError) -> str:
    return f"byte {error.start} (0x{error.object[error.start]:02x}) is not UTF-8"


def _unparsable(error: configparser.Error) -> str:
    """The message of a configparser error, on one line."""
    match error:
        case configparser.MissingSectionHeaderError():
            return f"line {error.lineno} ({error.line.strip()!r}) comes before the first [group]"
        case configparser.DuplicateOptionError():
            return f"line {error.lineno}: [{error.section}] defines '{error.option}' twice"
        case configparser.DuplicateSectionError():
            return f"line {error.lineno}: the group [{error.section}] appears twice"
        case configparser.ParsingError():
            number, line = error.errors[0]
            return f"line {number} ({line.replace(chr(92) + 'n', '')}) is not `name = module:object`"
        case _:
            return " ".join(str(error).split())

"""Folders of translations: nothing that is there is lost, whatever the names are."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from i2ikit.errors import RunError
from i2ikit.output_folder import INDEX, OutputFolder, Result, cut, origins, readable


def results(source: str, *labels: str, content: bytes = b"made", **origin: Any) -> list[Result]:
    return [
        Result(label, ".png", content, {"source": source, "label": label, **origin})
        for label in labels or ("a2b", "a2b-sheet")
    ]


def write(folder: Path, source: str, *labels: str, content: bytes = b"made", **origin: Any) -> list[str]:
    """The names of what one command writes for one source, a path."""
    name = readable(Path(source).stem)
    found = OutputFolder(folder, [name]).write(name, results(source, *labels, content=content, **origin), {})
    return [path.name for path in found]


def pngs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".png"}


def test_the_same_origin_replaces_its_own_files_and_no_others(tmp_path: Path) -> None:
    assert write(tmp_path, "one/x.png") == ["x-a2b.png", "x-a2b-sheet.png"]
    assert write(tmp_path, "two/x.png", content=b"other") == ["x-2-a2b.png", "x-2-a2b-sheet.png"]
    assert write(tmp_path, "one/x.png", content=b"trained more") == ["x-a2b.png", "x-a2b-sheet.png"]
    assert write(tmp_path, "one/x.png", seed=1) == ["x-3-a2b.png", "x-3-a2b-sheet.png"]
    assert write(tmp_path, "one/x.png", content=b"made") == ["x-a2b.png", "x-a2b-sheet.png"]
    assert set(pngs(tmp_path).values()) == {b"made", b"other"}
    lines = [json.loads(line) for line in (tmp_path / INDEX).read_text().splitlines()]
    assert [line["file"] for line in lines if line["origin"]["source"] == "two/x.png"] == [
        "x-2-a2b.png",
        "x-2-a2b-sheet.png",
    ]


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling link", "edited", "other case", "NFD"])
def test_what_the_folder_holds_is_never_replaced(kind: str, tmp_path: Path) -> None:
    """All files of one image get the same number."""
    folder, elsewhere = tmp_path / "out", tmp_path / "thesis.tex"
    folder.mkdir()
    elsewhere.write_text("thesis")
    target = folder / "é-a2b-sheet.png"
    match kind:
        case "file":
            target.write_text("mine")
        case "folder":
            target.mkdir()
        case "link":
            target.symlink_to(elsewhere)
        case "dangling link":
            target.symlink_to(tmp_path / "not there")
        case "edited":
            write(folder, "é.png")
            target.write_text("mine")
        case "other case":
            (folder / "É-A2B-sheet.PNG").write_text("mine")
        case "NFD":
            (folder / unicodedata.normalize("NFD", target.name)).write_text("mine")
    before = {path.name: path.lstat().st_ino for path in folder.iterdir()}
    assert write(folder, "é.png") == ["é-2-a2b.png", "é-2-a2b-sheet.png"]
    assert before.items() <= {path.name: path.lstat().st_ino for path in folder.iterdir()}.items()
    assert elsewhere.read_text() == "thesis"
    assert not (tmp_path / "not there").exists()
    assert write(folder, "é.png") == ["é-2-a2b.png", "é-2-a2b-sheet.png"]


def test_a_link_in_place_of_our_own_file_is_not_followed(tmp_path: Path) -> None:
    """Even one with the same content."""
    write(tmp_path, "x.png", "a2b")
    (tmp_path / "x-a2b.png").rename(tmp_path / "kept.png")
    (tmp_path / "x-a2b.png").symlink_to("kept.png")
    assert write(tmp_path, "x.png", "a2b", content=b"new") == ["x-2-a2b.png"]
    assert (tmp_path / "kept.png").read_bytes() == b"made"


NAMES = (
    *("x", "X", "x-2", "x-2-2", "x-a2b", "x-a2b-sheet", "x-a2b-2", "-x", "--out", ".x", "..", "%s", "{0}"),
    *(
        "ä",
        unicodedata.normalize("NFD", "ä"),
        "Ä",
        "ß",
        "ss",
        "ı",
        "i",
        "x\n",
        "x\ny",
        "x\u2028y",
        "\udcff",
        "\udcfe",
    ),
    *("日" * 83, "n" * 251, "n" * 250 + "m", "n" * 300, "x" * 239, "x y", " ", "CON", "a:b", "a?b", "a\\b"),
)


@pytest.mark.parametrize("seed", range(5))
def test_every_result_is_a_file_of_its_own_for_any_names(seed: int, tmp_path: Path) -> None:
    """Also where case and normalisation do not count, in several commands, and when they are repeated."""
    rng = random.Random(seed)
    labels = [("a2b", "a2b-sheet"), ("2", "sheet"), ("a2b-as-x", "a2b-as-x-sheet")]
    commands = [
        ([f"{rng.choice('pqr')}/{rng.choice(NAMES)}.png" for _ in range(20)], rng.choice(labels))
        for _ in range(4)
    ]
    expected = {(source, label) for files, used in commands for source in files for label in used}
    for _ in range(2):
        for number, (files, used) in enumerate(commands):
            files = list(dict.fromkeys(files))
            stems = [readable(Path(file).name.removesuffix(".png")) for file in files]
            folder = OutputFolder(tmp_path, stems)
            for file, stem in zip(files, stems, strict=True):
                content = json.dumps([file, number]).encode()
                written = folder.write(stem, results(file, *used, content=content), {})
                assert len({*written}) == 2
        found = origins(tmp_path)
        assert {(origin["source"], origin["label"]) for origin in found.values()} == expected
        assert found.keys() == pngs(tmp_path).keys()
        assert len(found) == len(expected)
        assert len({unicodedata.normalize("NFC", name.casefold()) for name in found}) == len(found)
        assert max(len(os.fsencode(name)) for name in found) <= 255
        assert not [name for name in found if name.startswith(".") or "\n" in name]


def test_one_image_given_twice_gives_two_results(tmp_path: Path) -> None:
    for _ in range(2):
        folder = OutputFolder(tmp_path, ["x", "x", "x-2"])
        names = [folder.write(name, results(f"{name}.png", "a2b"), {})[0].name for name in ("x", "x", "x-2")]
        assert names == ["x-a2b.png", "x-3-a2b.png", "x-2-a2b.png"]
    assert len(pngs(tmp_path)) == 3


LINES = b'{"file": 3}\n[1]\n"x"\nnull\n' + b"[" * 100_000 + b"\n"


@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        (lambda content: content[:-20], False),
        (lambda content: content + b'{"fil', True),
        (lambda content: b"\xff\x00[[[\n" + LINES + content, True),
        (lambda content: b"", False),
        (lambda content: b"\x00" * len(content), False),
    ],
)
def test_a_damaged_index_loses_no_file_and_is_used_as_far_as_it_can_be(
    damage: Callable[[bytes], bytes], kept: bool, tmp_path: Path
) -> None:
    """Without its line, a file counts as the user's."""
    write(tmp_path, "x.png", "a2b")
    write(tmp_path, "y.png", "a2b")
    index = tmp_path / INDEX
    index.write_bytes(damage(index.read_bytes()))
    for _ in range(2):
        write(tmp_path, "y.png", "a2b", content=b"new")
    found = {"x-a2b.png": b"made", "y-a2b.png": b"new"}
    assert pngs(tmp_path) == (found if kept else {**found, "y-a2b.png": b"made", "y-2-a2b.png": b"new"})


def test_a_file_with_the_name_of_the_index_is_left_alone(tmp_path: Path) -> None:
    index = tmp_path / INDEX
    index.write_text("my own notes\n")
    for _ in range(2):
        assert write(tmp_path, "x.png", "a2b") == ["x-a2b.png"]
    assert index.read_text() == "my own notes\n"
    assert (tmp_path / "translations-2.jsonl").is_file()
    index.unlink()
    index.symlink_to("notes.txt")
    write(tmp_path, "x.png", "a2b")
    assert not (tmp_path / "notes.txt").exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_after_an_error_what_was_written_stays_and_nothing_is_half_written(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "x.png")
    before = os.replace

    def replace(source: Path, target: Path) -> None:
        if target.name == "x-a2b-sheet.png":
            raise error
        before(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(RunError if isinstance(error, OSError) else KeyboardInterrupt) as raised:
        write(tmp_path, "x.png", content=b"new")
    if isinstance(error, OSError):
        assert str(raised.value) == (
            f"cannot write {tmp_path / 'x-a2b-sheet.png'}: No space left on device; "
            "files written before are kept"
        )
    assert pngs(tmp_path) == {"x-a2b.png": b"new", "x-a2b-sheet.png": b"made"}
    assert not list(tmp_path.glob("*.tmp")) + list(tmp_path.glob(".*.tmp"))
    monkeypatch.setattr(os, "replace", before)
    assert write(tmp_path, "x.png", content=b"newer") == ["x-a2b.png", "x-a2b-sheet.png"]


def test_no_file_is_removed_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / ".translations.tmp").write_text("mine")
    write(tmp_path, "x.png", "a2b")
    assert (tmp_path / ".translations.tmp").read_text() == "mine"


def _write_all(folder: Path, source: str, barrier: Any) -> None:
    opened = OutputFolder(folder, ["x"])
    barrier.wait()
    for n in range(20):
        opened.write("x", results(source, f"{n}", content=source.encode()), {})


def test_commands_that_share_a_folder_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    sources = ["p/x.png", "q/x.png", "r/x.png"]
    processes = [context.Process(target=_write_all, args=(tmp_path, s, barrier)) for s in sources]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert sorted(pngs(tmp_path).values()) == sorted(source.encode() for source in sources * 20)
    assert len(origins(tmp_path)) == 60


def test_a_folder_that_cannot_be_written_in_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.png").touch()
    for out in (tmp_path / "x.png", tmp_path / "x.png" / "out"):
        with pytest.raises(RunError, match=r"cannot write in the folder .*x\.png.*: .*; give another"):
            OutputFolder(out)


def test_names_are_cut_between_characters() -> None:
    texts: Sequence[str] = [cut("aé日b", n) for n in range(8)]
    assert texts == ["", "a", "a", "aé", "aé", "aé", "aé日", "aé日b"]


def test_many_images_of_one_name_take_no_longer_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers that this command has used are not tried again; the same command finds its own ones."""
    tried: list[str] = []
    may_write = OutputFolder._may_write
    monkeypatch.setattr(
        OutputFolder, "_may_write", lambda *given: tried.append(given[1]) or may_write(*given)
    )
    paths = []
    for _ in range(2):
        tried.clear()
        folder = OutputFolder(tmp_path, ["x"] * 50)
        paths.append([folder.write("x", [Result("a2b", ".png", b"", {"n": n})], {}) for n in range(50)])
        assert len(tried) == 50 + 49  # each number once when it is found, once when it is passed
    assert paths[0] == paths[1]

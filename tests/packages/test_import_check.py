"""Imports that do their worst are told from those that work, and the process goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from i2ikit.packages import import_check
from i2ikit.packages.import_check import load_failures
from i2ikit.packages.survey import survey
from i2ikit.registry import norms
from tests.fake_packages import NORM, norm, put

WORST = {
    "leaves": ("import os; os._exit(0)\n", "which ended the process with exit code 0 when it was imported"),
    "kills": ("import os; os.kill(os.getpid(), 9)\n", "which ended the process with exit code -9"),
    "writes": ("import os; os.write(1, b'RAW'); print('more')\n" + NORM, ""),
    "annotates": (
        "from __future__ import annotations\nimport sys\n"
        + NORM.replace("channels: int", "channels: sys.exit(4)"),
        "has an invalid signature: SystemExit: 4",
    ),
    "mumbles": (
        "class E(Exception):\n    def __str__(self):\n        raise ValueError\nraise E\n",
        "failed to load: E",
    ),
    "keeps_going": (NORM, ""),
}


@pytest.mark.slow
def test_each_has_its_answer_and_none_is_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, (source, _) in WORST.items():
        put(tmp_path, name, norm(name, f"{name}:Norm"), source)
    with seen(tmp_path, monkeypatch):
        entries = [entry for entry in norms.entries() if entry.name in WORST]
        told: list[str] = []
        found = {key[2]: cause for key, cause in load_failures(entries, told.append).items()}
    assert len(told) == len(WORST)
    assert set(found) == {name for name, (_, cause) in WORST.items() if cause}
    for name, cause in found.items():
        assert WORST[name][1] in cause
        assert f"norm '{name}' comes from {name} 1.0 ({name}:Norm)" in cause


@pytest.mark.slow
def test_an_import_that_hangs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "sleeps", norm("sleeps", "sleeps:Norm"), "import time; time.sleep(600)\n")
    monkeypatch.setattr(import_check, "TIMEOUT_S", 15.0)
    with seen(tmp_path, monkeypatch):
        (cause,) = load_failures([norms.entry("sleeps")]).values()
    assert "which took more than 15 s when it was imported" in cause


@pytest.mark.slow
def test_components_after_one_that_ends_the_process_are_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process for a package: those before have their answer."""
    offered = "[i2ikit.norms]\nthree-1 = three:Norm\nthree-2 = three.exits:Norm\nthree-3 = three:Norm\n"
    put(tmp_path, "three", offered)
    (tmp_path / "three").mkdir()
    (tmp_path / "three" / "__init__.py").write_text(NORM)
    (tmp_path / "three" / "exits.py").write_text("import os; os._exit(3)\n")
    with seen(tmp_path, monkeypatch):
        entries = [norms.entry(f"three-{n}") for n in (1, 2, 3)]
        found = {key[2]: cause for key, cause in load_failures(entries).items()}
    assert set(found) == {"three-2", "three-3"}
    assert "which ended the process with exit code 3 when it was imported" in found["three-2"]
    assert found["three-3"].endswith("which was not imported because 'three-2' failed first")


class seen:  # noqa: N801
    """Within: packages in a folder are known, in processes that are started too."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(folder)
        monkeypatch.setenv("PYTHONPATH", str(folder))

    def __enter__(self) -> None:
        survey.cache_clear()

    def __exit__(self, *error: object) -> None:
        survey.cache_clear()

"""A run whose export several tests look at; it takes long."""

from __future__ import annotations

from pathlib import Path

import pytest

from i2ikit.exchange.export import Exported, export
from tests.image_files import make_folders
from tests.tiny import tiny_recipe, untrained


@pytest.fixture(scope="session")
def munit_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a small MUNIT."""
    root = tmp_path_factory.mktemp("export")
    return untrained(tiny_recipe(make_folders(root / "data")), root / "munit")


@pytest.fixture(scope="session")
def munit_onnx(munit_run: Path) -> Exported:
    """Its export to ONNX, a to b."""
    pytest.importorskip("onnxruntime", reason="needs the extra i2ikit[export]")
    return export(munit_run, "onnx", licence="CC-BY-4.0")

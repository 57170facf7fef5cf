"""What `import i2ikit` gives, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import i2ikit


def test_all_is_what_can_be_imported() -> None:
    """Every public name is there, once, and `dir` shows it."""
    assert len(set(i2ikit.__all__)) == len(i2ikit.__all__)
    for name in i2ikit.__all__:
        assert getattr(i2ikit, name) is not None
        assert name in dir(i2ikit)
    lazy = {name for names in i2ikit._HOMES.values() for name in names}
    assert lazy == {*i2ikit.__all__} - {"__version__"}


def test_names_that_are_not_there_are_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'i2ikit' has no attribute 'lode'"):
        i2ikit.lode  # noqa: B018
    with pytest.raises(ImportError):
        exec("from i2ikit import lode")


@pytest.mark.slow
def test_importing_it_needs_no_torch_and_searches_no_package() -> None:
    code = (
        "import sys, i2ikit\n"
        "from i2ikit.packages.survey import survey\n"
        "assert survey.cache_info().misses == 0\n"
        "heavy = {'torch', 'pydantic', 'accelerate', 'PIL', 'rich', 'typer', 'numpy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert i2ikit.load and 'torch' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

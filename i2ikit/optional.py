"""Packages that only some installations have."""

from __future__ import annotations

import importlib
from typing import Any

from i2ikit.errors import WeightsError

__all__ = ["optional_package"]


def optional_package(name: str, purpose: str, extra: str = "export") -> Any:
    """An optional package, imported when it is used, which takes a while.

    Args:
        purpose: what needs it, the subject of a sentence.
        extra: the extra of i2ikit that installs it.

    Raises:
        WeightsError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise WeightsError(f'{purpose} needs {name}: pip install "i2ikit[{extra}]"') from error

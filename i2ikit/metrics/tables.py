"""The values of a metric as a table: `row/column` is a cell, `name_se` the standard error of `name`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["ValueTable", "value_table"]


@dataclass(frozen=True)
class ValueTable:
    """Values as text.

    Args:
        headings: of the columns; one empty heading if the values have no columns.
        rows: by name, one cell for each heading, empty where there is no value.
    """

    headings: Sequence[str]
    rows: Mapping[str, Sequence[str]]


def value_table(values: Mapping[str, float]) -> ValueTable:
    """The table of a metric's values, each with its standard error if it has one."""
    cells: dict[str, dict[str, str]] = {}
    for key, value in values.items():
        row, _, column = key.rpartition("/")
        error = values.get(f"{key}_se")
        if not key.endswith("_se"):
            text = f"{value:.4f}" if error is None else f"{value:.4f} ± {error:.4f}"
            cells.setdefault(row or column, {})[column if row else ""] = text
    columns = list(dict.fromkeys(column for row in cells.values() for column in row))
    rows = {name: [row.get(column, "") for column in columns] for name, row in cells.items()}
    return ValueTable([column.replace("_", " ") for column in columns], rows)

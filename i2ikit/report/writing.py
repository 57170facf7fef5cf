"""Writing report.html and results.csv of a run."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from i2ikit.health import clock
from i2ikit.report.contents import Contents, contents
from i2ikit.report.page import asset, page
from i2ikit.runlog import logged
from i2ikit.writing import replace_file

__all__ = ["REPORT", "RESULTS", "results_csv", "write_report"]

REPORT = "report.html"
RESULTS = "results.csv"
MOST_REMARKS = 50


def write_report(folder: Path) -> Path:
    """Write report.html and results.csv of a run anew; returns the path of the former.

    Raises:
        RunError: the run's resolved.toml is damaged, or a file cannot be written.
    """
    lines = logged(folder)
    _replace(folder / RESULTS, results_csv(lines))
    _replace(folder / REPORT, _html(contents(folder, lines)))
    return folder / REPORT


def _replace(file: Path, text: str) -> None:
    replace_file(file, text.encode(errors="replace"))  # names of folders may be no text


def _html(found: Contents) -> str:
    return page(
        "report.html",
        **vars(found),
        clock=clock,
        most_remarks=MOST_REMARKS,
        version=version("i2ikit"),
        grid_data=[{"steps": grid.steps, "pictures": grid.pictures} for grid in found.grids],
        chart_data=[vars(chart) for chart in found.charts],
        css=asset("report.css"),
        js=asset("report.js"),
        plot_css=asset("uPlot.css"),
        plot_js=asset("uPlot.js"),
        plot_license=asset("uPlot.LICENSE"),
    )


def results_csv(lines: Sequence[Mapping[str, Any]]) -> str:
    """The numbers of metrics.jsonl as CSV: one row for each logged step, one column for each name.

    A cell is empty where nothing was measured, and `nan` where the value is not finite.
    """
    rows: dict[int, dict[str, Any]] = {}
    for line in lines:
        numbers = {
            key: value for key, value in line.items() if value is None or isinstance(value, int | float)
        }
        if len(numbers) > 1:
            rows.setdefault(line["step"], {}).update(numbers)
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    file = io.StringIO()
    table = csv.DictWriter(file, names or ["step"], lineterminator="\n")
    table.writeheader()
    for step in sorted(rows):
        table.writerow({name: "nan" if value is None else value for name, value in rows[step].items()})
    return file.getvalue()

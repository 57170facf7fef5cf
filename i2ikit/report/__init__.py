"""report.html: what a run is, how it goes, and what it makes, on one page that needs no network."""

from i2ikit.report.writing import REPORT, write_report

__all__ = ["REPORT", "write_report"]

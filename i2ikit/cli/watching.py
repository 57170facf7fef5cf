"""The commands that look at a run while it trains, or afterwards: `status` and `report`."""

from __future__ import annotations

from i2ikit.cli.options import RunOption, console, readable
from i2ikit.paths import pasted

__all__ = ["report", "status"]

LATEST = 5
"""Remarks that are shown."""


def status(run: RunOption = None) -> None:
    """Say how a run is going: whether it learns, whether it collapses, how much longer it takes.

    Another command may be training it.
    """
    from i2ikit.run import find_run
    from i2ikit.status import status as found_status

    folder = find_run(run)
    found = found_status(folder)

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    say(f"[bold]{readable(str(folder))}[/]")
    say(f"  {readable(found.state)}")
    if str(found.health):
        say(f"  {readable(str(found.health))}")
    for fault in found.health.faults:
        say(f"  [yellow]warning:[/] {readable(str(fault))}")
    earlier = len(found.remarks) - LATEST
    if earlier > 0:
        say(f"  {earlier} earlier remarks in metrics.jsonl")
    for step, remark in found.remarks[-LATEST:]:
        say(f"  step {step}: {readable(remark)}")
    if found.is_trained_now is False and not found.is_done:
        place = "" if found.checkpoint is None else f" after step {found.checkpoint}"
        say(f"To continue{place}: [bold]{readable(pasted('i2ikit', 'resume', folder))}[/]")


def report(run: RunOption = None) -> None:
    """Write RUN/report.html anew: pictures, curves, recipe and results on one page, without a network.

    Training writes it whenever it makes samples; this adds what was measured since.
    """
    from i2ikit.report import write_report
    from i2ikit.run import find_run

    console.print(f"Report: {readable(str(write_report(find_run(run))))}", highlight=False, soft_wrap=True)

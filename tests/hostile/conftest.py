"""How much is tried, and the table of the results."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.hostile.tally import kinds, readings

START, END = "<!-- table: make hostile -->\n", "<!-- end of what is hostile -->\n"


def pytest_configure(config: pytest.Config) -> None:
    settings.register_profile(
        "hostile",
        max_examples=config.getoption("--hostile"),
        derandomize=config.getoption("--hypothesis-seed") is None,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile("hostile")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not kinds and not readings:
        return
    table = "\n".join([*_kinds(), "", *_readings()])
    terminalreporter.write_line(table)
    page: Path | None = config.getoption("--hostile-page")
    if page is not None:
        seed = config.getoption("--hypothesis-seed")
        command = f"make hostile COUNT={config.getoption('--hostile')} SEED={seed}"
        text = page.read_text("utf-8")
        said = f"{table}\n\n`{command}` on {datetime.date.today().isoformat()}.\n"
        page.write_text(text.partition(START)[0] + START + said + END + text.partition(END)[2], "utf-8")


def _kinds() -> Iterator[str]:
    yield "| What is damaged or forged | tried | refused with a message | slowest | |"
    yield "| --- | --: | --: | --: | --- |"
    for name, kind in kinds.items():
        slowest = f"{kind.slowest:.2f} s" if kind.slowest else ""
        yield f"| {name} | {kind.count} | {kind.refused} | {slowest} | {kind.note} |"


def _readings() -> Iterator[str]:
    yield "| Where | command | what the user reads |"
    yield "| --- | --- | --- |"
    for condition, commands in readings.items():
        shared: dict[str, list[str]] = {}
        for command, text in commands.items():
            shared.setdefault(text, []).append(command)
        for text, some in shared.items():
            yield f"| {condition} | {', '.join(some)} | {text.replace('|', chr(92) + '|')} |"

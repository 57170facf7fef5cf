"""`make reliability`: all trials, as many as asked for, and their table in docs/reliability.md."""

from __future__ import annotations

import argparse
import datetime
import platform
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from rich.console import Console

from tests.reliability.runs import METHODS, Whole, whole
from tests.reliability.trials import TRIALS, flips

__all__ = ["main", "tried", "tried_flips"]

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
START, END = "<!-- table: make reliability -->\n", "<!-- end of the table -->\n"


def main() -> int:
    """Run all trials; 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="make reliability", description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="kills, stops, and half as many of the others")
    parser.add_argument("--flips", type=int, default=200, help="flipped bits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", type=Path, default=PAGE, help="where the table goes")
    options = parser.parse_args()
    console, began = Console(soft_wrap=True), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        results: list[tuple[str, str | None]] = []
        for kind, wrong in _all(Path(folder), options.kills, options.flips, options.seed):
            results.append((kind, wrong))
            console.print(
                f"{len(results)}: {kind}: {wrong or 'as it must be'}", markup=False, highlight=False
            )
    minutes = (time.monotonic() - began) / 60
    counts = Counter(kind for kind, _ in results)
    failed = Counter(kind for kind, wrong in results if wrong)
    table = _table(counts, failed, options, minutes)
    console.print(table, markup=False, highlight=False)
    text = options.page.read_text("utf-8")
    before, after = text.partition(START)[0], text.partition(END)[2]
    options.page.write_text(before + START + table + END + after, "utf-8")
    return int(bool(failed))


def _all(folder: Path, kills: int, num_flips: int, seed: int) -> Iterator[tuple[str, str | None]]:
    wholes = [whole(method, folder) for method in METHODS]
    counts = {name: kills if name in ("kills", "stops") else -(-kills // 2) for name in TRIALS}
    yield from tried(wholes, folder, counts, seed)
    yield from tried_flips(wholes, folder, num_flips, seed)


def tried(
    wholes: list[Whole], folder: Path, counts: Mapping[str, int], seed: int
) -> Iterator[tuple[str, str | None]]:
    """Make trials of each kind, two at a time; yields the kind, and what is wrong, in words, or None."""

    def trial(kind: str, n: int) -> str | None:
        rng = random.Random(f"{seed} {kind} {n}")
        wrong = TRIALS[kind](wholes[n % len(wholes)], folder / f"{kind}-{n}", rng)
        return wrong and f"number {n} with seed {seed}: {wrong}"

    with ThreadPoolExecutor(2) as pool:
        kinds = [(kind, n) for kind, count in counts.items() for n in range(count)]
        yield from zip((kind for kind, _ in kinds), pool.map(lambda one: trial(*one), kinds), strict=True)


def tried_flips(wholes: list[Whole], folder: Path, count: int, seed: int) -> Iterator[tuple[str, str | None]]:
    """Flip bits, one at a time; yields the kind of file, and what is wrong, in words, or None."""
    for n, one in enumerate(wholes):
        place = folder / f"flips-{n}"
        place.mkdir()
        for name, wrong in flips(one, place, random.Random(f"{seed} flips {n}"), -(-count // len(wholes))):
            yield f"flips: {name}", wrong


def _table(
    counts: Mapping[str, int], failed: Mapping[str, int], options: argparse.Namespace, minutes: float
) -> str:
    lines = ["| Trials | number | as they must be |", "| --- | --: | --: |"]
    lines += [f"| {kind} | {count} | {count - failed[kind]} |" for kind, count in counts.items()]
    command = f"make reliability KILLS={options.kills} FLIPS={options.flips} SEED={options.seed}"
    day = datetime.date.today().isoformat()
    where = f"{platform.system()}, Python {platform.python_version()}, PyTorch {torch.__version__}"
    return "\n".join([*lines, "", f"`{command}` on {day}: {minutes:.0f} minutes; {where}.", ""])


if __name__ == "__main__":
    sys.exit(main())

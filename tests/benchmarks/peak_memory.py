"""Peak memory of a training step, beside the reference composition; each in a process of its own.

    python -m tests.benchmarks.peak_memory [--size 256]

What the process needs at most while it builds the networks and makes two steps, beyond what it needs after
importing everything.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

from rich.console import Console

from tests.benchmarks.against_reference import OURS, WORK, our_step, reference_step


def peak(name: str, size: int) -> int:
    """MiB for a step of the reference, or of ours in the precision `name`, in this process."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work = (size, *WORK[size])
    step = reference_step(*work) if name == "reference" else our_step(*work, name)
    for _ in range(2):
        step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024


def main() -> None:
    """A line for the reference and one for each precision."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, choices=sorted(WORK), default=256)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        sys.stdout.write(f"{peak(options.only, options.size)}\n")
        return
    command = [sys.executable, "-m", "tests.benchmarks.peak_memory", "--size", str(options.size), "--only"]
    found = {
        name: int(subprocess.run([*command, name], check=True, capture_output=True, text=True).stdout)
        for name in ("reference", *OURS)
    }
    for name, mib in found.items():
        Console().print(f"{name:10} {mib:6} MiB  {mib / found['reference']:.2f}")


if __name__ == "__main__":
    main()

"""Checks that components can be imported, in one subprocess per package: an import may run any code.

    python -m i2ikit.packages.import_check < KEYS

is that subprocess: it reads a JSON list of `[kind, package, name]` and prints one line per item.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence

from i2ikit.checking import lacking
from i2ikit.errors import ComponentError
from i2ikit.packages.entry import KINDS, Entry
from i2ikit.registry import registries

__all__ = ["Failures", "key", "load_failures"]

TIMEOUT_S = 300.0
"""Time limit for the imports of one package, including the import of torch."""

Key = tuple[str, str, str]
Failures = dict[Key, str]
"""Why components cannot be used, by (kind, package, name)."""


def key(entry: Entry) -> Key:
    """The key that identifies an entry in another process."""
    return entry.kind, entry.package, entry.name


def load_failures(entries: Sequence[Entry], progress: Callable[[str], object] = str) -> Failures:
    """Import each component; output of its module goes to stderr.

    Args:
        progress: called with the name of each package before its components are imported.
    """
    failures: Failures = {}
    for package in dict.fromkeys(entry.package for entry in entries):
        progress(package)
        failures |= _package_failures([entry for entry in entries if entry.package == package])
    return failures


def _package_failures(entries: Sequence[Entry]) -> Failures:
    command = [sys.executable, "-m", "i2ikit.packages.import_check"]
    # A file, not a pipe: a process started by an import would keep the pipe open.
    with tempfile.TemporaryFile("w+") as answers:
        try:
            keys = json.dumps([key(entry) for entry in entries])
            done = subprocess.run(command, input=keys, stdout=answers, text=True, timeout=TIMEOUT_S)
            fate = f"ended the process with exit code {done.returncode}"
        except subprocess.TimeoutExpired:
            fate = f"took more than {TIMEOUT_S:.0f} s"
        answers.seek(0)
        said = [json.loads(line) for line in answers if line.endswith("\n")]
    failures = {key(entry): answer for entry, answer in zip(entries, said, strict=False) if answer}
    left = entries[len(said) :]
    for entry in left:
        what = f"{KINDS[entry.kind]} '{entry.name}' comes from {entry.origin} ({entry.target}), which"
        fate = fate if entry is left[0] else f"was not imported because '{left[0].name}' failed first"
        failures[key(entry)] = f"{what} {fate}" + " when it was imported" * (entry is left[0])
    return failures


def failure(kind: str, package: str, name: str) -> str:
    """Why a component cannot be used; "" if it can be used."""
    from i2ikit.components.optimizers import OPTIMIZER_SLOT
    from i2ikit.data.dataset import DATASET_SLOT
    from i2ikit.metrics.subject import METRIC_SLOT
    from i2ikit.translator import TRANSLATOR_SLOT

    entry = next(e for e in registries[kind].entries() if key(e) == (kind, package, name))
    asked = {
        slot.kind: slot.like for slot in (DATASET_SLOT, METRIC_SLOT, OPTIMIZER_SLOT, TRANSLATOR_SLOT)
    }.get(kind)
    try:
        component = registries[kind].load_entry(entry)
    except ComponentError as error:
        return str(error)
    missing = lacking(component, asked) if asked else ""
    return f"{KINDS[kind]} '{name}' ({entry.target}) is invalid: {missing}" if missing else ""


def main() -> None:
    """Write the answers to the original stdout; redirect all other output to stderr."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        for kind, package, name in json.load(sys.stdin):
            print(json.dumps(failure(kind, package, name)), file=answers, flush=True)


if __name__ == "__main__":
    main()

"""Whether components can be loaded, tried in a process of its own: an import may do anything, such as end it.

    python -m i2ikit.packages.import_check < KEYS

is that process: it answers each `[kind, package, name]` of a JSON list with a line.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

from i2ikit.checking import lacking
from i2ikit.errors import ComponentError
from i2ikit.packages.entry import KINDS, Entry
from i2ikit.registry import registries

__all__ = ["Failures", "key", "load_failures"]

PATIENCE_S = 300.0
"""How long one import may take: torch comes with the first one."""

Key = tuple[str, str, str]
Failures = dict[Key, str]
"""Why components cannot be used, by kind, package and name."""


def key(entry: Entry) -> Key:
    """What an entry is known by in another process."""
    return entry.kind, entry.package, entry.name


def load_failures(entries: Sequence[Entry], told: Callable[[str], object] = str) -> Failures:
    """Load each component; what its module prints goes to stderr.

    Args:
        told: is called with what is being loaded.
    """
    left = {key(entry): entry for entry in entries}
    failures: Failures = {}
    while left:
        with _Child(list(left)) as child:
            for begun in list(left):
                told(f"{KINDS[begun[0]]} '{begun[2]}' of {left[begun].origin}")
                answer = child.answer()
                entry = left.pop(begun)
                if answer is None:
                    whose = f"{KINDS[entry.kind]} '{entry.name}' comes from {entry.origin} ({entry.target})"
                    failures[begun] = f"{whose}, which {child.fate()} when it was loaded"
                    break  # and go on with the others in a new process
                if answer:
                    failures[begun] = answer
    return failures


class _Child:
    """A process that loads one component after the other."""

    def __init__(self, keys: Sequence[Key]) -> None:
        command = [sys.executable, "-m", "i2ikit.packages.import_check"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._talk, args=(json.dumps(keys),), daemon=True).start()

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()

    def _talk(self, keys: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with self.process.stdin as given:
            given.write(keys)
        with self.process.stdout as said:
            for line in said:
                self.lines.put(line)
        self.lines.put("")  # it has ended

    def answer(self) -> str | None:
        """Why the next component cannot be used, "" if it can; None if the process is gone, or hangs."""
        try:
            line = self.lines.get(timeout=PATIENCE_S)
        except queue.Empty:
            return None
        answer: str | None = json.loads(line) if line else None
        return answer

    def fate(self) -> str:
        """What became of it."""
        try:
            return f"ended the process with exit code {self.process.wait(timeout=5)}"
        except subprocess.TimeoutExpired:
            return f"took more than {PATIENCE_S:.0f} s"


def failure(kind: str, package: str, name: str) -> str:
    """Why a component cannot be used; "" if it can."""
    from i2ikit.data.dataset import DATA
    from i2ikit.metrics.subject import METRIC
    from i2ikit.translator import METHOD

    entry = next(e for e in registries[kind].entries() if key(e) == (kind, package, name))
    asked = {slot.kind: slot.like for slot in (DATA, METRIC, METHOD)}.get(kind)
    try:
        component = registries[kind].load_entry(entry)
    except ComponentError as error:
        return str(error)
    missing = lacking(component, asked) if asked else ""
    return f"{KINDS[kind]} '{name}' ({entry.target}) is none: {missing}" if missing else ""


def main() -> None:
    """Answer on what was stdout; whatever else is written there goes to stderr."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        for kind, package, name in json.load(sys.stdin):
            print(json.dumps(failure(kind, package, name)), file=answers, flush=True)


if __name__ == "__main__":
    main()

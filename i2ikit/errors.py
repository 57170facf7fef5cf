"""The exceptions of i2ikit.

I2IKitError                 everything below; the command line prints it and exits with 2
├── RecipeError             a recipe is invalid; carries every problem found
├── ComponentError          a component is unknown, ambiguous, broken or registered twice
├── DataError               images are missing, unreadable or too few
├── ShapeError              a tensor does not have the shape that a component needs
├── RunError                a run folder is missing, in use, or damaged
├── ExportError             a model cannot be exported, or an exported file cannot be used
├── CacheError              the cache folder is not known, or cannot be written
├── FetchError              a file cannot be downloaded
├── WeightsError            the weights of a pretrained network are not available
├── ProcessError            another process of this command failed or died
└── TrainingError           training cannot continue (losses or gradients stay non-finite, ...)
"""

from __future__ import annotations

import difflib
import os
import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = [
    "CacheError",
    "ComponentError",
    "DataError",
    "ExportError",
    "FetchError",
    "I2IKitError",
    "Problem",
    "ProcessError",
    "RecipeError",
    "RunError",
    "ShapeError",
    "TrainingError",
    "WeightsError",
    "did_you_mean",
    "in_one_line",
    "of_the_system",
    "printable",
    "shortened",
    "shown",
]

MOST_LISTED = 30
"""Problems of a recipe that its error lists."""


class I2IKitError(Exception):
    """An error that the user can act on: its message says what is wrong, where, and what to do."""


@dataclass(frozen=True)
class Problem:
    """One problem in a recipe; `path` is its location, dotted as for `--set`."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class RecipeError(I2IKitError):
    """A recipe is invalid; lists every problem.

    Args:
        source: the file or other origin of the recipe.
        problems: at least one.
    """

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        count = len(self.problems)
        lines = [f"{shortened(source)}: {count} problem{'s' if count != 1 else ''}"]
        lines += [f"  {shortened(str(problem), 1000)}" for problem in self.problems[:MOST_LISTED]]
        if count > MOST_LISTED:
            lines.append(f"  and {count - MOST_LISTED} more")
        super().__init__("\n".join(lines))


class ComponentError(I2IKitError):
    """A component is unknown, provided by two packages, fails to import, or is registered twice."""


class DataError(I2IKitError):
    """Images are missing, unreadable, or too few."""


class ShapeError(I2IKitError):
    """A tensor does not have the shape that a component needs; the message gives both shapes."""


class RunError(I2IKitError):
    """A run folder is missing, already in use, or damaged."""


class ExportError(I2IKitError):
    """A trained translator cannot be exported as it is, or an exported file cannot be used."""


class CacheError(I2IKitError):
    """The cache folder is not known, or cannot be written."""


class FetchError(I2IKitError):
    """A file cannot be downloaded, or has the wrong content."""


class WeightsError(I2IKitError):
    """The weights of a pretrained network are not available; the message lists each place tried."""


class ProcessError(I2IKitError):
    """A process of this command failed or died, and the others end too.

    Args:
        silent: another process prints the reason.
    """

    def __init__(self, text: str, *, silent: bool = False) -> None:
        super().__init__(text)
        self.silent = silent


class TrainingError(I2IKitError):
    """Training cannot continue; saved files are kept."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the known word nearest to `word`, else `""`."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    near = near or [other for other in known if sorted(other) == sorted(word)]  # finds `lr` for `rl`
    return f"; did you mean '{near[0]}'?" if near else ""


def shortened(text: str, letters: int = 200) -> str:
    """The text, without the middle part if it is longer."""
    half = letters // 2
    return text if len(text) <= letters else f"{text[:half]}...{text[-half:]}"


def printable(text: str) -> str:
    """Text of a file in a message: shortened, and without characters that a terminal would obey."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shortened(text))


def shown(value: object) -> str:
    """`repr`, without the middle part of what is long."""
    return _short.repr(value)


_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 100
_short.maxlist = _short.maxdict = _short.maxtuple = 10


def of_the_system(error: OSError) -> str:
    """An error of the operating system as a sentence: what is wrong with which file."""
    reason = error.strerror or in_one_line(error)
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    return f"{' -> '.join(names)}: {reason}" if names else reason


def in_one_line(error: BaseException) -> str:
    """An exception as a single line of text."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # its __str__ may fail as well
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

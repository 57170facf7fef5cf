"""Components and recipes of all installed packages, with their problems, for `list` and `doctor`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from i2ikit.errors import did_you_mean
from i2ikit.packages.entry import CORE, KINDS, Entry, Fault
from i2ikit.packages.import_check import key, load_failures
from i2ikit.packages.recipes import package_recipes, recipe_files
from i2ikit.packages.summaries import recipe_summary, summary
from i2ikit.packages.survey import ALLOWLIST, survey
from i2ikit.registry import registries

__all__ = ["Complaint", "Offer", "complaints", "offers", "recipes"]


@dataclass(frozen=True)
class Offer:
    """A component or recipe that a recipe or `i2ikit run` can name.

    Args:
        summary: first line of its docstring or of the recipe.
        conflict: why its name alone is not enough; "" if it is.
        failure: why it cannot be loaded; "" if it can or was not tried.
    """

    kind: str
    name: str
    summary: str
    package: str
    version: str
    target: str
    conflict: str = ""
    failure: str = ""


@dataclass(frozen=True)
class Complaint:
    """A problem with a package."""

    package: str
    version: str
    cause: str


def offers(
    kinds: Sequence[str] = tuple(KINDS), *, load: bool = False, progress: Callable[[str], object] = str
) -> list[Offer]:
    """The components of these kinds; imported, in other processes, only with `load`.

    Args:
        progress: called with the name of each package before its components are imported.
    """
    entries = [entry for kind in kinds for entry in registries[kind].entries()]
    failures = load_failures(entries, progress) if load else {}
    return [_offer(entry, failures.get(key(entry), "")) for entry in entries]


def _offer(entry: Entry, failure: str) -> Offer:
    said, conflict = summary(entry.target), _conflict(entry)
    return Offer(entry.kind, entry.name, said, entry.package, entry.version, entry.target, conflict, failure)


def recipes() -> list[Offer]:
    """The recipes of all packages, under the names that `i2ikit run` accepts."""
    versions = survey().packages
    found = []
    for name, file in recipe_files().items():
        package = name.rpartition("/")[0] or CORE
        text = recipe_summary(file)
        found.append(Offer("recipes", name, text, package, versions.get(package, ""), str(file)))
    return found


def _conflict(entry: Entry) -> str:
    """The other packages that use this name, and how to refer to this entry; "" without a conflict."""
    others = [
        other
        for other in registries[entry.kind].entries()
        if other.name == entry.name and other.package != entry.package
    ]
    if not others or entry.package == CORE:
        return ""
    spelled = f'write "{entry.package}/{entry.name}"'
    if any(other.package == CORE for other in others):
        return f"{KINDS[entry.kind]} '{entry.name}' is {CORE}'s own; {spelled} to use this one"
    origins = " and ".join(other.origin for other in others)
    return f"{KINDS[entry.kind]} '{entry.name}' is also offered by {origins}; {spelled}"


def complaints(offered: Iterable[Offer]) -> list[Complaint]:
    """Problems with these offers and with the metadata of any package; sorted by package."""
    found = [Complaint(fault.package, fault.version, _where(fault)) for fault in survey().faults]
    for offer in offered:
        causes = filter(None, (offer.conflict, offer.failure))
        found += [Complaint(offer.package, offer.version, cause) for cause in causes]
    found += [Complaint(package, "", cause) for package, cause in _unknown_in_allowlist()]
    return sorted(found, key=lambda complaint: (complaint.package, complaint.cause))


def _where(fault: Fault) -> str:
    return f"{fault.cause} ({fault.place})"


def _unknown_in_allowlist() -> Iterator[tuple[str, str]]:
    known = {*survey().packages}
    for package in sorted((survey().allowed or frozenset()) - known):
        if package_recipes(package, package.replace("-", "_")):
            continue
        yield package, f"is listed in {ALLOWLIST}, but offers no components{did_you_mean(package, known)}"

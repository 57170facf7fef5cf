"""What `make reliability` shows, with small counts; `make full` uses more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reliability.__main__ import tried, tried_flips
from tests.reliability.runs import METHODS, Whole, whole
from tests.reliability.trials import TRIALS


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> list[Whole]:
    """A run of each method that nothing happens to."""
    return [whole(method, tmp_path_factory.mktemp("wholes")) for method in METHODS]


@pytest.mark.slow
@pytest.mark.parametrize("kind", TRIALS)
def test_a_run_that_something_happens_to_ends_like_any_other(
    wholes: list[Whole], tmp_path: Path, kind: str
) -> None:
    """Bit for bit in weights, checkpoints, samples and logged values, and nothing is left over."""
    chosen = wholes[list(TRIALS).index(kind) % len(wholes)]
    ((_, wrong),) = tried([chosen], tmp_path, {kind: 1}, seed=0)
    assert wrong is None


@pytest.mark.slow
def test_a_flipped_bit_in_any_file_of_a_run_is_found_or_harmless(wholes: list[Whole], tmp_path: Path) -> None:
    """Resuming and translating end with an error of ours, or with the same result."""
    found = {wrong for _, wrong in tried_flips(wholes[-1:], tmp_path, 6, seed=0)}
    assert found == {None}


@pytest.mark.long
@pytest.mark.parametrize("kind", TRIALS)
def test_the_same_many_times(wholes: list[Whole], tmp_path: Path, kind: str) -> None:
    """As above, with another seed."""
    assert {wrong for _, wrong in tried(wholes, tmp_path, {kind: 12}, seed=1)} == {None}


@pytest.mark.long
def test_many_flipped_bits_are_found_or_harmless(wholes: list[Whole], tmp_path: Path) -> None:
    """As above, with another seed."""
    assert {wrong for _, wrong in tried_flips(wholes, tmp_path, 60, seed=1)} == {None}

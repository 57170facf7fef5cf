"""What a log shows: whether a run learns, whether its style has an effect, who is too strong, how much longer it takes.

The logs are made up, each with one thing that is right or wrong.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from i2ikit.health import clock, health

Curve = Callable[[int], float | None]


def log(count: int = 60, every: int = 10, **curves: Curve | float) -> list[dict[str, Any]]:
    """Lines of metrics.jsonl; the keys of curves have two underscores in place of a slash."""
    lines = []
    for n in range(1, count + 1):
        line: dict[str, Any] = {"step": n * every, "elapsed_s": 20.0 * n, "steps_per_s": 0.5}
        for key, curve in curves.items():
            line[key.replace("__", "/")] = curve(n) if callable(curve) else curve
        lines.append(line)
    return lines


NOISE = random.Random(0)


def noisy(curve: Callable[[int], float], part: float = 0.1) -> Curve:
    return lambda n: curve(n) * (1 + part * NOISE.uniform(-1, 1))


@pytest.mark.parametrize(
    ("curve", "word"),
    [
        (noisy(lambda n: 0.5 / n**0.5), "falling"),
        (noisy(lambda n: 0.2), "steady"),
        (noisy(lambda n: 0.1 + 0.01 * n), "rising"),
        (lambda n: 0.2, "steady"),
    ],
)
def test_reconstruction_falls_or_not_whatever_the_noise(curve: Curve, word: str) -> None:
    found = health(log(generator__image_recon__a=curve, generator__image_recon__b=curve), 1000)
    assert f", {word} (" in found.learning
    assert found.learning.startswith("image_recon 0.")


def test_the_first_reconstruction_of_images_is_shown_before_those_of_codes() -> None:
    """In the order of the log."""
    lines = log(3, generator__style_recon=0.5, generator__cycle_recon=0.25, generator__image_recon=0.125)
    assert health(lines, 1000).learning == "cycle_recon 0.25"
    assert health(log(3, generator__latent_recon=0.5), 1000).learning == "latent_recon 0.5"


def test_too_few_lines_show_no_trend() -> None:
    found = health(log(3, generator__adversarial=2.0, generator__cycle_recon=0.25), 1000)
    assert found.learning == "cycle_recon 0.25"
    assert found.faults == []


def test_the_trend_names_the_step_that_it_is_compared_with() -> None:
    found = health(log(100, generator__image_recon=lambda n: 1 - n / 250), 2000)
    # The means of lines 81 to 100 and of lines 31 to 50; the latter ends with step 500.
    assert found.learning == "image_recon 0.638, falling (0.838 at step 500)"


def test_a_reconstruction_that_is_lost_again_is_a_fault() -> None:
    found = health(log(generator__image_recon=noisy(lambda n: 0.1 if n < 30 else 0.01 * n)), 1000)
    (fault,) = found.faults
    assert "image_recon has risen from 0." in fault.what
    assert not fault.is_certain


@pytest.mark.parametrize("count", [12, 30, 92])
def test_a_steady_reconstruction_with_slow_noise_is_seldom_lost(count: int) -> None:
    """100 logs whose neighbouring lines resemble each other: their correlation is 0.7, the deviation 30 %."""
    alarms = 0
    for seed in range(100):
        rng, noise, lines = random.Random(seed), 0.0, log(count)
        for line in lines:
            noise = 0.7 * noise + 0.51**0.5 * rng.gauss(0, 1)
            line["generator/image_recon"] = 0.2 * math.exp(0.3 * noise)
        alarms += len(health(lines, 1000).faults)
    assert alarms <= 5


def test_a_long_log_is_judged_quickly() -> None:
    """It happens between two steps: 40,000 lines in less than a second, here with room for slow machines."""
    lines = log(40_000, 1, generator__image_recon=noisy(lambda n: 0.2))
    began = time.perf_counter()
    health(lines, 40_000)
    assert time.perf_counter() - began < 5


def test_the_effect_of_styles_by_direction() -> None:
    lines = [*log(5), {"step": 50, "diversity/a2b": 0.0684, "diversity/b2a": 0.05}]
    found = health(lines, 100)
    assert found.styles == "styles differ by 0.068 (a2b), 0.050 (b2a)"
    assert found.faults == []


@pytest.mark.parametrize(
    ("values", "step", "certain"),
    [
        ((0.0001,), 50, False),  # an untrained network may be that faint
        ((0.0001,), 1000, True),
        ((0.02, 0.001), 50, True),
        ((0.0,), 50, True),
    ],
)
def test_a_style_without_effect_is_a_fault(values: tuple[float, ...], step: int, certain: bool) -> None:
    """It is certain in a long run, if it had one before, and if not even rounding differs."""
    lines = [{"step": step * n // len(values), "diversity/a2b": x} for n, x in enumerate(values, 1)]
    (fault,) = health(lines, 5000).faults
    assert fault.what.startswith("the style has no effect on its translations a2b")
    assert fault.is_certain is certain
    assert "style_recon" in fault.advice


def test_a_draw_is_no_win_for_any_number_of_score_maps() -> None:
    """Least squares: 0.5 and 0.25 for each map; cross-entropy: 1.386 and 0.693."""
    for maps in (1, 7):
        for own, other in ((0.5, 0.25), (1.386, 0.693)):
            lines = log(discriminator__adversarial__a=maps * own, generator__adversarial__a=maps * other)
            assert health(lines, 1000).balance == "discriminator not too strong"


@pytest.mark.parametrize(("own", "other", "first"), [(0.02, 0.98, 250), (1e-4, 9.2, 230), (0.0, 1.0, 250)])
def test_a_discriminator_that_hardly_errs_is_too_strong(own: float, other: float, first: int) -> None:
    """Least squares, cross-entropy, hinge; it wins from step 210 on.

    The first ratio of five lines above 20 is that of step `first`.
    """
    lines = log(
        discriminator__adversarial__a=0.5,
        generator__adversarial__a=0.25,
        discriminator__adversarial__b=lambda n: 0.5 if n <= 20 else own,
        generator__adversarial__b=lambda n: 0.25 if n <= 20 else other,
        learning_rate__discriminators=4e-4,
    )
    found = health(lines, 1000)
    (fault,) = found.faults
    assert found.balance == f"discriminator too strong for {600 - first} steps"
    assert "discriminator/adversarial/b" in fault.what
    assert "(optimizer.discriminators.lr)" in fault.advice
    assert not fault.is_certain


def test_a_win_that_is_short_or_over_is_not_reported() -> None:
    for won in (lambda n: n > 54, lambda n: n < 50):
        lines = log(
            discriminator__adversarial=lambda n, won=won: 0.01 if won(n) else 0.5,  # type: ignore[misc]
            generator__adversarial=lambda n, won=won: 1.0 if won(n) else 0.25,  # type: ignore[misc]
        )
        assert health(lines, 1000).balance == "discriminator not too strong"


def test_a_win_of_few_steps_is_not_reported() -> None:
    """Of 60 lines with one step each; a discriminator is often ahead for so long after the start."""
    lines = log(60, 1, discriminator__adversarial=0.01, generator__adversarial=1.0)
    assert health(lines, 1000).balance == "discriminator not too strong"
    assert health(
        [*lines, *log(120, 1, discriminator__adversarial=0.01, generator__adversarial=1.0)[60:]], 1000
    ).balance.endswith("too strong for 119 steps")


def test_a_win_whose_last_line_is_not_finite_is_reported() -> None:
    """With the mean of the last finite values, which vary from line to line."""
    lines = log(
        discriminator__adversarial=lambda n: None if n == 60 else 0.01 + 0.01 * (n % 2),
        generator__adversarial=1.0,
        learning_rate__discriminators=lambda n: None,
    )
    won, _ = sorted(health(lines, 1000).faults, key=lambda fault: "not finite" in fault.what)
    assert won.what.endswith("discriminator/adversarial is 0.016")


def test_a_critic_below_zero_and_a_phase_of_its_own_are_not_judged() -> None:
    """A loss that only the discriminator has, such as a penalty, has no rival."""
    lines = log(discriminator__adversarial=-3.0, generator__adversarial=5.0, discriminator__r1=0.001)
    assert health(lines, 1000).balance == ""
    assert health(log(discriminator__r1=0.001), 1000).balance == ""


def test_numbers_that_are_not_finite_and_that_grow() -> None:
    lines = log(generator__image_recon=lambda n: 0.1 if n < 60 else None, generator__kl=lambda n: 10.0**n)
    first, second = health(lines, 1000).faults
    assert first.what == "generator/image_recon is not finite"
    assert not first.is_certain
    assert second.what.startswith("generator/kl grew from 10 to 1e+60")
    assert second.is_certain


def test_the_time_left_is_that_of_the_latest_speed() -> None:
    """Half a step per second; at the end there is none left."""
    assert health(log(60), 1000).seconds_left == 800
    assert str(health(log(60), 1000)) == "13 min left"
    assert str(health(log(60), 600)) == ""


def test_the_time_left_includes_validations() -> None:
    """Each step takes 0.1 s, and each tenth line has a validation of a minute."""
    lines, elapsed = log(100), 0.0
    for n, line in enumerate(lines):
        taken = 61.0 if n % 10 == 0 else 1.0
        elapsed += taken
        line |= {"elapsed_s": elapsed, "steps_per_s": 10 / taken}
    left = health(lines, 2000).seconds_left
    assert left is not None
    assert 600 < left < 750


def test_the_time_left_after_one_line() -> None:
    assert health(log(1), 1000).seconds_left == 1980
    assert health([{"step": 10, "steps_per_s": 0.0}], 1000).seconds_left is None


def test_a_log_without_losses_shows_nothing() -> None:
    for lines in ([], [{"step": 3}], [{"step": 3, "remark": "x"}]):
        found = health(lines, 10)
        assert (str(found), found.faults) == ("", [])


def test_durations_are_words() -> None:
    assert [clock(x) for x in (0, 89, 90, 5399, 5400, 172_799, 172_800, 190_000)] == [
        "0 s", "89 s", "2 min", "1 h 30 min", "1 h 30 min", "2 d 0 h", "2 d 0 h", "2 d 4 h",
    ]  # fmt: skip

"""The curves of a report: which there are, and what thinning keeps of them."""

from __future__ import annotations

import math

from i2ikit.report.curves import NUMBERS, POINTS, charts


def losses(count: int, **values: object) -> list[dict[str, object]]:
    named = {key.replace("__", "/"): value for key, value in values.items()}
    return [{"step": n, "elapsed_s": 1.0 * n, "steps_per_s": 2.0, **named} for n in range(1, count + 1)]


def test_a_loss_of_two_phases_and_two_parts_is_one_chart() -> None:
    """So that one sees generator and discriminator against each other."""
    lines = losses(
        3,
        generator__adversarial__a=1.0,
        generator__adversarial__b=2.0,
        discriminator__adversarial__a=3.0,
        generator__kl=4.0,
    )
    adversarial, kl, speed = charts(lines)
    assert adversarial.title == "adversarial"
    assert list(adversarial.curves) == ["discriminator a", "generator a", "generator b"]
    assert (kl.title, speed.title) == ("kl", "steps per second")
    assert kl.curves == {"generator": [4.0, 4.0, 4.0]}
    assert kl.steps == [1, 2, 3]


def test_thinning_keeps_means_and_the_last_step() -> None:
    """10,000 lines become 500 points of 20 lines each."""
    lines = losses(10_000)
    for line in lines:
        line["generator/kl"] = float(line["step"])  # type: ignore[arg-type]
    kl = charts(lines)[0]
    assert (len(kl.steps), kl.each) == (POINTS, 20)
    assert kl.steps[0] == 20
    assert kl.steps[-1] == 10_000
    assert kl.curves["generator"][0] == 10.5  # the mean of 1 to 20
    assert math.isclose(kl.curves["generator"][-1] or 0, 9990.5, rel_tol=1e-3)


def test_what_is_not_finite_is_a_gap_and_no_mean() -> None:
    lines = losses(10_000, generator__kl=1.0)
    lines[30]["generator/kl"] = None
    values = charts(lines)[0].curves["generator"]
    assert values[1] is None
    assert values.count(None) == 1


def test_very_many_curves_have_fewer_points() -> None:
    lines = losses(2000, **{f"generator__x{n}": 0.123456 for n in range(1000)})
    found = charts(lines)
    numbers = sum(len(chart.steps) * len(chart.curves) for chart in found)
    assert len(found) == 1001
    assert numbers <= 1.1 * NUMBERS
    assert found[0].curves["generator"][0] == 0.1235


def test_networks_with_the_same_learning_rate_share_a_curve() -> None:
    one = charts(losses(2, learning_rate__a=1e-4, learning_rate__b=1e-4))[0]
    assert list(one.curves) == ["all networks"]
    two = charts(losses(2, learning_rate__a=1e-4, learning_rate__b=2e-4, learning_rate__c=1e-4))[0]
    assert list(two.curves) == ["a, c", "b"]
    alone = charts(losses(2, learning_rate__a=1e-4))[0]
    assert list(alone.curves) == ["a"]


def test_each_validated_value_is_a_chart_with_the_best_marked() -> None:
    """Standard errors are none; diversity has the steps of the samples."""
    lines = [
        *losses(4),
        {"step": 2, "diversity/a2b": 0.1, "diversity/b2a": 0.2},
        {"step": 4, "validation/kid/kernel_distance": 0.5, "validation/kid/kernel_distance_se": 0.1},
        {"step": 4, "remark": "validation"},
    ]
    styles, validated, _ = charts(lines, best=4)
    assert styles.steps == [2]
    assert styles.curves == {"a2b": [0.1], "b2a": [0.2]}
    assert validated.title == "validation: kid/kernel_distance"
    assert (validated.best, styles.best) == (4, None)


def test_an_empty_log_has_no_charts() -> None:
    assert charts([]) == []

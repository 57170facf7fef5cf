"""Build and run metrics in all processes together.

A metric that fails is returned as its error and not raised: the other processes would wait, and other
metrics may still succeed.
"""

from __future__ import annotations

from collections.abc import Mapping

from i2ikit.errors import DataError, I2IKitError, WeightsError
from i2ikit.metrics.subject import Ended, Measured, Metric, Subject
from i2ikit.processes import Processes
from i2ikit.registry import Spec

__all__ = ["build_metrics", "measure"]


def build_metrics(specs: Mapping[str, Spec], group: Processes) -> dict[str, Metric | I2IKitError]:
    """Build each metric; one that fails in one process is an error in all of them. Collective."""
    with group.first_on_each_machine():  # may download weights
        built = {name: _built(spec) for name, spec in specs.items()}
    failed = group.gather([(name, found) for name, found in built.items() if isinstance(found, I2IKitError)])
    return {**built, **dict(failed)}


def _built(spec: Spec) -> Metric | I2IKitError:
    try:
        metric: Metric = spec()
    except (DataError, WeightsError) as error:
        return error
    return metric


def measure(metric: Metric, subject: Subject) -> Measured | I2IKitError:
    """The result of a metric; an error of one process is returned in all of them. Collective."""
    result: Measured | I2IKitError
    try:
        result = metric.measure(subject)
    except (DataError, WeightsError) as error:
        result = error
    own = Ended(result if isinstance(result, I2IKitError) else None)
    # A process that fails before the others call `Subject.over_inputs` meets them in the gathering there,
    # which raises its error in them; then all meet here.
    ended: list[Ended] = []
    while len(ended) < subject.group.count:
        ended = [item for item in subject.group.gather([own]) if isinstance(item, Ended)]
    return next((end.error for end in ended if end.error is not None), result)

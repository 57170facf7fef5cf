"""Whether a finished run went wrong without an error, as after a learning rate that is too high.

Only what no good run shows, however short: an untrained network may give nearly equal grey images, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from i2ikit.data.dataset import Dataset
from i2ikit.health import GREY_LEVEL, LONG, SAME, health
from i2ikit.metrics.pixels import pairwise_difference
from i2ikit.recipe import Recipe
from i2ikit.sampling import distinct_test_indices, random_styles
from i2ikit.translator import Direction, Translator, one_per_target

__all__ = ["verdict"]

IMAGES = 4
SKIPS = 3
"""Skipped updates in a row at the end; one or two may be bad images."""
ENDS = 0.98
"""Values of at least this size, of 1, count as saturated."""
MOST = 0.9
"""Share of saturated values; real images may have many, too, and count against it."""


def verdict(
    recipe: Recipe,
    translator: Translator,
    data: Dataset,
    lines: Sequence[Mapping[str, object]],
    step: int,
    skips: int,
) -> list[str]:
    """What shows that a run went wrong, and what to try; empty if nothing does.

    Args:
        translator: the averaged weights, in eval mode.
        data: its held-out images are translated, those that the samples show.
        lines: of metrics.jsonl.
        step: number of steps done.
        skips: number of skipped updates in a row at the end.
    """
    shown = [str(fault) for fault in health(lines, step).faults if fault.is_certain]
    broken = list(_of_images(translator, data, recipe.seed, step))
    if skips >= SKIPS:
        broken.insert(0, f"the last {skips} updates were skipped, because they were not finite")
    return [*shown, *broken, _advice(recipe)] if broken else shown


@torch.no_grad()
def _of_images(translator: Translator, data: Dataset, seed: int, step: int) -> Iterator[str]:
    device = next(translator.parameters()).device
    for direction in one_per_target(translator):
        source, to = direction
        inputs = distinct_test_indices(data, source, IMAGES, seed)
        targets = distinct_test_indices(data, to, IMAGES, seed + 1)
        x = torch.stack([data.image("test", source, index) for index in inputs]).to(device)
        real = torch.stack([data.image("test", to, index) for index in targets])
        style = x.new_empty(1, 0)
        if not translator.is_deterministic(to):
            style = random_styles(translator, 1, to, seed).to(device)
        made = translator.translate(x, style.expand(len(x), -1), source=source, to=to).float().cpu()
        yield from _of_translations(direction, made, real, step)


def _of_translations(
    direction: Direction, made: torch.Tensor, real: torch.Tensor, step: int
) -> Iterator[str]:
    """What is wrong with translations of different inputs in one style, (N, C, H, W), beside real images."""
    if not made.isfinite().all():
        yield f"its translations {direction} are not finite (NaN or inf)"
        return
    saturated, usual = ((x.abs() >= ENDS).float().mean().item() for x in (made, real))
    if saturated >= MOST and usual <= saturated / 2:
        yield (
            f"its translations {direction} are saturated: {saturated:.0%} of their pixels have an extreme "
            f"value, and {usual:.0%} of those of real images"
        )
    least = GREY_LEVEL if step >= LONG else SAME
    if min(len(made), len(real)) > 1 and pairwise_difference(made) < least <= pairwise_difference(real):
        yield f"its translations {direction} are the same for all inputs"


def _advice(recipe: Recipe) -> str:
    rates = [options.optimizer.options.get("lr") for options in recipe.optimizers.values()]
    known = [rate for rate in rates if isinstance(rate, int | float)]
    now = f", here {max(known):g}" if known else ""
    precise = "" if recipe.training.precision == "fp32" else ", or training.precision=fp32"
    return (
        f"Try again with a lower learning rate (optimizer.lr{now}), or with gradient clipping "
        f"(optimizer.max_grad_norm=1.0){precise}; resuming does not help, because the weights are unusable"
    )

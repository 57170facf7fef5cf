"""Whether a finished run went wrong without an error, as after a learning rate that is too high.

Only what no good run shows, however short: an untrained network may give nearly equal grey images, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from i2ikit.data.dataset import Dataset
from i2ikit.metrics.pixels import pairwise_difference
from i2ikit.metrics.style import DiversityProbe
from i2ikit.recipe import Recipe
from i2ikit.sampling import distinct_test_indices, random_styles
from i2ikit.translator import Direction, Translator, one_per_target

__all__ = ["verdict"]

IMAGES = 4
LONG = 1000
"""Steps after which a style, or an input, has an effect that can be seen, in a run that learns."""
SKIPS = 3
"""Skipped updates in a row at the end; one or two may be bad images."""
GROWTH = 1000.0
ENDS = 0.98
"""Values of at least this size, of 1, count as saturated."""
MOST = 0.9
"""Share of saturated values; real images may have many, too, and count against it."""
SAME = 1e-6
"""Differences (0..1 scale) below this are rounding; the faintest initial weights give about 5e-5."""


def verdict(
    recipe: Recipe,
    translator: Translator,
    data: Dataset,
    lines: Sequence[Mapping[str, object]],
    step: int,
    skips: int,
) -> list[str]:
    """What shows that a run went wrong, and last what to try; empty if nothing does.

    Args:
        translator: the averaged weights, in eval mode.
        data: its held-out images are translated, those that the samples show.
        lines: of metrics.jsonl.
        step: number of steps done.
        skips: number of skipped updates in a row at the end.
    """
    broken = [*_of_updates(lines, skips), *_of_images(translator, data, recipe.seed, step)]
    styles = list(_of_styles(translator, lines, step))
    return [*broken, *styles, _advice(recipe, bool(broken))] if broken or styles else []


def _of_updates(lines: Sequence[Mapping[str, object]], skips: int) -> Iterator[str]:
    if skips >= SKIPS:
        yield f"the last {skips} updates were skipped, because they were not finite"
    losses = [line for line in lines if "steps_per_s" in line]
    first, last = (losses[0], losses[-1]) if losses else ({}, {})
    starts = {name: x for name, x in first.items() if "/" in name and isinstance(x, float)}
    for name, start in starts.items():
        end = last.get(name)
        if isinstance(end, float) and end > GROWTH * max(start, 1.0):
            yield f"{name} grew from {start:.3g} to {end:.3g}"


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
    least = DiversityProbe.LEAST if step >= LONG else SAME
    if min(len(made), len(real)) > 1 and pairwise_difference(made) < least <= pairwise_difference(real):
        yield f"its translations {direction} are the same for all inputs"


def _of_styles(translator: Translator, lines: Sequence[Mapping[str, object]], step: int) -> Iterator[str]:
    for direction in one_per_target(translator):
        values = [line[f"diversity/{direction}"] for line in lines if f"diversity/{direction}" in line]
        first, last = (values[0], values[-1]) if values else (None, None)
        if not isinstance(last, float) or last >= DiversityProbe.LEAST:
            continue
        had = isinstance(first, float) and first >= DiversityProbe.LEAST
        if had or step >= LONG:
            before = f", and at the start by {first:.4f}" if had else ""
            yield (
                f"the style has no effect on its translations {direction}: in random styles they differ by "
                f"{last:.4f} (0..1 scale){before}"
            )


def _advice(recipe: Recipe, diverged: bool) -> str:
    if not diverged:
        return (
            "Try a lower learning rate (optimizer.lr), or a higher weight of the losses that reconstruct "
            "the style, and continue longer if the samples still improve"
        )
    rates = [options.optimizer.options.get("lr") for options in recipe.optimizers.values()]
    known = [rate for rate in rates if isinstance(rate, int | float)]
    now = f", here {max(known):g}" if known else ""
    precise = "" if recipe.training.precision == "fp32" else ", or training.precision=fp32"
    return (
        f"Try again with a lower learning rate (optimizer.lr{now}), or with gradient clipping "
        f"(optimizer.max_grad_norm=1.0){precise}; resuming does not help, because the weights are unusable"
    )

"""The pool of earlier translations: exact for one image at a time, a pool for each place otherwise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from i2ikit.components.image_pool import POOL_DRAW, pool_keeps, pooled
from i2ikit.draws import Draw, counted_draws


def image(value: float) -> Tensor:
    """One image (1, 1, 2, 2) of this value."""
    return torch.full((1, 1, 2, 2), float(value))


def shown_one_by_one(
    size: int, values: list[int], draws: list[tuple[float, float]]
) -> tuple[list[int], Tensor]:
    """What the pool returns for images of these values, one at a time, and its content afterwards."""
    keeps = pool_keeps(size, 1, 2)
    pool, filled = (kept.at_start(1, 1) for kept in keeps)
    returned = []
    for value, draw in zip(values, draws, strict=True):
        shown, pool, filled = pooled(image(value), pool, filled, torch.tensor([draw]))
        assert (shown == shown[0, 0, 0, 0]).all()
        returned.append(int(shown[0, 0, 0, 0]))
    return returned, pool


def test_one_image_at_a_time_it_is_the_pool_of_the_paper() -> None:
    """A trace of the official ImagePool with 2 places, recorded with fixed draws.

    There, the first draw of an image is asked for once the pool is full, the second only if it swaps.
    """
    uniform, index = iter([0.7, 0.2, 0.9, 0.5, 0.51, 0.99, 0.01]), iter([0, 1, 0, 1])
    draws = [(0.99, 0.99), (0.99, 0.99)]  # while it fills, they have no influence
    for swap in uniform:
        draws.append((swap, (next(index) + 0.5) / 2 if swap > 0.5 else 0.0))
    assert next(index, None) is None
    returned, pool = shown_one_by_one(2, list(range(9)), draws)
    assert returned == [0, 1, 0, 3, 1, 5, 2, 4, 8]
    assert pool[0, :, 0, 0, 0].tolist() == [6, 7]


def official(size: int, values: list[int], draws: list[tuple[float, float]]) -> tuple[list[int], list[int]]:
    """The algorithm in plain Python: fill; then swap with probability 1/2, else return the image itself."""
    held: list[int] = []
    returned = []
    for value, (swap, place) in zip(values, draws, strict=True):
        if len(held) < size:
            held.append(value)
            returned.append(value)
        elif swap > 0.5:
            chosen = int(place * size)
            returned.append(held[chosen])
            held[chosen] = value
        else:
            returned.append(value)
    return returned, held


@pytest.mark.parametrize("size", [1, 2, 7, 50])
def test_a_long_sequence_equals_the_algorithm_in_plain_python(size: int) -> None:
    """With the draws of 300 steps; about half of the images are earlier ones once it is full."""
    draws = [counted_draws(0, step, "d", {"p": POOL_DRAW}, [0])["p"][0] for step in range(300)]
    pairs = [(draw[0].item(), draw[1].item()) for draw in draws]
    returned, pool = shown_one_by_one(size, list(range(300)), pairs)
    expected, held = official(size, list(range(300)), pairs)
    assert returned == expected
    assert pool[0, :, 0, 0, 0].tolist() == held
    swapped = sum(value != n for n, value in enumerate(returned))
    assert swapped / (300 - size) == pytest.approx(0.5, abs=0.1)


def test_each_place_of_a_batch_has_its_share_of_the_pool_rounded_up() -> None:
    """50 images for a batch of 4 are 13 for each place; how many processes there are has no influence."""
    pool, filled = pool_keeps(50, 3, 8)
    assert pool.at_start(4, 4).shape == (4, 13, 3, 8, 8)
    assert pool.at_start(1, 4).shape == (1, 13, 3, 8, 8)
    assert [pool.at_start(1, n).shape[1] for n in (1, 2, 3, 4, 50, 51, 500)] == [50, 25, 17, 13, 1, 1, 1]
    assert (filled.at_start(4, 4).tolist(), filled.at_start(4, 4).dtype) == ([0] * 4, torch.int64)


def test_before_a_place_is_full_it_returns_and_stores_every_image() -> None:
    """13 of them, whatever is drawn; places do not mix."""
    keeps = pool_keeps(50, 1, 2)
    pool, filled = (kept.at_start(4, 4) for kept in keeps)
    batches = [torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 2, 2) + 10 * n for n in range(13)]
    for n, x in enumerate(batches):
        draws = torch.rand(4, 2, generator=torch.Generator().manual_seed(n))
        shown, pool, filled = pooled(x, pool, filled, draws)
        assert torch.equal(shown, x)
        assert filled.tolist() == [n + 1] * 4
    assert torch.equal(pool, torch.stack(batches, 1))
    shown, after, filled = pooled(
        batches[0] + 500, pool, filled, torch.tensor([[0.9, 0.0]] * 2 + [[0.1, 0.0]] * 2)
    )
    assert filled.tolist() == [13] * 4
    assert shown[:, 0, 0, 0].tolist() == [0, 1, 502, 503]
    assert after[:, 0, 0, 0, 0].tolist() == [500, 501, 2, 3]
    assert torch.equal(after[:, 1:], pool[:, 1:])


def test_a_batch_equals_its_places_one_by_one() -> None:
    """So that processes may divide it."""
    generator = torch.Generator().manual_seed(0)
    whole = [kept.at_start(3, 3) for kept in pool_keeps(6, 1, 2)]
    alone = [[kept.at_start(1, 3) for kept in pool_keeps(6, 1, 2)] for _ in range(3)]
    for _ in range(20):
        x, draws = torch.rand(3, 1, 2, 2, generator=generator), torch.rand(3, 2, generator=generator)
        shown, *whole = pooled(x, *whole, draws)
        for n in range(3):
            one, *alone[n] = pooled(x[n : n + 1], *alone[n], draws[n : n + 1])
            assert torch.equal(one[0], shown[n])
    for n in range(3):
        assert torch.equal(alone[n][0][0], whole[0][n])


def test_the_largest_draw_chooses_the_last_image() -> None:
    """Rounding to 1.0 must not choose one that does not exist."""
    pool, filled = torch.arange(3.0).view(1, 3, 1, 1, 1), torch.tensor([3])
    x = torch.full((1, 1, 1, 1), 9.0)
    for draw in (0.9999999, 1.0):
        shown, after, _ = pooled(x, pool, filled, torch.tensor([[1.0, draw]]))
        assert (shown.item(), after.flatten().tolist()) == (2, [0, 1, 9])


def test_images_keep_their_type_and_the_pool_its_own() -> None:
    """A translation in bfloat16, a pool in float32; the pool given is not changed in place."""
    pool, filled = (kept.at_start(1, 1) for kept in pool_keeps(1, 1, 2))
    before = pool.clone()
    shown, after, _ = pooled(image(0.5).bfloat16(), pool, filled, torch.tensor([[0.9, 0.0]]))
    assert (shown.dtype, after.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(pool, before)
    assert Draw((2,), "uniform") == POOL_DRAW

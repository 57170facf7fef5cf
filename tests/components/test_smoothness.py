"""Edge-aware smoothness: a translation should be smooth where its input is."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from i2ikit.components.smoothness import EdgeAwareSmoothness


def written_out(x: Tensor, y: Tensor, sharpness: float) -> float:
    """Pixel by pixel."""
    total = 0.0
    for down, right in ((1, 0), (0, 1)):
        terms = []
        for n in range(y.shape[0]):
            for channel in range(y.shape[1]):
                for row in range(y.shape[2] - down):
                    for column in range(y.shape[3] - right):
                        there = (row + down, column + right)
                        contrasts = [
                            abs(x[n, c][there] - x[n, c, row, column]).item() for c in range(x.shape[1])
                        ]
                        change = abs(y[n, channel][there] - y[n, channel, row, column]).item()
                        terms.append(math.exp(-sharpness * max(contrasts)) * change)
        total += sum(terms) / len(terms)
    return total


@pytest.mark.parametrize("sharpness", [0.0, 3.0, 10.0])
@pytest.mark.parametrize("channels", [(1, 3), (3, 1), (5, 2)])
def test_it_equals_the_formula_pixel_by_pixel(channels: tuple[int, int], sharpness: float) -> None:
    x, y = (torch.rand(2, c, 5, 4, dtype=torch.float64) * 2 - 1 for c in channels)
    found = EdgeAwareSmoothness(sharpness=sharpness).compare(y, x)
    assert found.item() == pytest.approx(written_out(x, y, sharpness), rel=1e-12)


def test_an_edge_costs_nothing_where_the_input_has_one_and_its_contrast_elsewhere() -> None:
    """Of 4 x 3 horizontal differences, the 4 at the edge change by 2: a mean of 2/3."""
    edge = torch.ones(1, 1, 4, 4)
    edge[..., 2:] = -1
    flat, loss = torch.zeros(1, 3, 4, 4), EdgeAwareSmoothness()
    assert loss.compare(edge, flat).item() == pytest.approx(2 / 3)
    assert loss.compare(edge, edge).item() == pytest.approx(2 / 3 * math.exp(-20))
    assert loss.compare(flat, edge) == 0


def test_any_even_colour_is_equally_good() -> None:
    x = torch.rand(1, 1, 8, 8) * 2 - 1
    for colour in (-1.0, 0.2, 1.0):
        assert EdgeAwareSmoothness().compare(torch.full((1, 3, 8, 8), colour), x) == 0


def test_a_translation_in_bf16_is_summed_in_fp32() -> None:
    x, y = torch.rand(2, 3, 64, 64) * 2 - 1, (torch.rand(2, 3, 64, 64) * 2 - 1).bfloat16()
    found = EdgeAwareSmoothness().compare(y, x)
    assert found.dtype == torch.float32
    assert torch.equal(found, EdgeAwareSmoothness().compare(y.float(), x))

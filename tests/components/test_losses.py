"""Losses against their formulas."""

from __future__ import annotations

import math

import pytest
import torch

from i2ikit.components.losses import L1, LSGAN, NSGAN


def test_lsgan_sums_over_scales_without_a_half() -> None:
    fake, real = [torch.full((2, 1, 4, 4), 0.5), torch.zeros(2, 1, 2, 2)], [torch.zeros(2, 1, 4, 4)] * 2
    assert LSGAN().discriminator(fake, real).item() == pytest.approx(0.25 + 1 + 0 + 1)
    assert LSGAN().generator(fake).item() == pytest.approx(0.25 + 1)


def test_nsgan_is_cross_entropy_on_the_sigmoid() -> None:
    fake, real = [torch.tensor([[2.0]])], [torch.tensor([[-1.0]])]
    sigmoid = [1 / (1 + math.exp(-v)) for v in (2.0, -1.0)]
    expected = -math.log(1 - sigmoid[0]) - math.log(sigmoid[1])
    assert NSGAN().discriminator(fake, real).item() == pytest.approx(expected)
    assert NSGAN().generator(fake).item() == pytest.approx(-math.log(sigmoid[0]))


def test_nsgan_stays_finite_where_the_sigmoid_saturates() -> None:
    assert NSGAN().discriminator([torch.tensor([200.0])], [torch.tensor([-200.0])]).item() == 400


@pytest.mark.parametrize("loss", [LSGAN(), NSGAN()])
def test_bf16_scores_give_an_fp32_loss(loss: LSGAN | NSGAN) -> None:
    scores = [torch.rand(4, 1, 4, 4).bfloat16()]
    assert loss.generator(scores).dtype == torch.float32
    assert loss.discriminator(scores, scores).dtype == torch.float32


def test_l1_is_a_mean_and_moves_both_sides() -> None:
    x, y = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([0.0, 5.0], requires_grad=True)
    loss = L1()(x, y)
    loss.backward()
    assert loss.item() == 2.0
    assert x.grad is not None
    assert y.grad is not None
    assert torch.equal(x.grad, -y.grad)

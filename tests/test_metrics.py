"""Metrics on a translator whose numbers are known beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from i2ikit.data import UnpairedFolders
from i2ikit.errors import DataError
from i2ikit.metrics import L1Diversity, LineContrast, StyleHealth, Subject
from i2ikit.sampling import distinct_test_indices, sample_grid, sheet
from i2ikit.translator import Phase, Translator


class Painter(Translator):
    """Paints the light parts of an outline in the grey that the style names; reads it off a corner."""

    generative = ("painter",)
    adversarial = ()

    def __init__(self, deaf: bool = False) -> None:
        super().__init__({"painter": nn.Linear(1, 1)}, {})
        self.deaf = deaf

    def phases(self) -> tuple[Phase, ...]:
        return ()

    def translate(self, x: Tensor, style: Tensor, to: str) -> Tensor:
        grey = torch.zeros_like(style) if self.deaf else torch.tanh(style)
        return torch.where(x > 0, grey[:, :, None, None].expand_as(x), x)

    def encode_style(self, x: Tensor, domain: str) -> Tensor:
        return torch.atanh(x[:, :1, 0, 0].clamp(-0.999, 0.999))

    def reconstruct(self, x: Tensor, domain: str) -> Tensor:
        return x + 0.1

    def sample_style(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(n, 1, generator=generator)


@pytest.fixture
def outlines(tmp_path: Path) -> UnpairedFolders:
    """White pictures with one black vertical line each (a), and grey ones (b); one outline twice."""
    for split in ("train", "test"):
        for domain in "AB":
            (tmp_path / f"{split}{domain}").mkdir()
            for n in range(12):
                pixels = np.full((16, 16, 3), 255 if domain == "A" else 20 * n, dtype=np.uint8)
                if domain == "A":
                    pixels[:, 2 + min(n, 10)] = 0
                Image.fromarray(pixels).save(tmp_path / f"{split}{domain}" / f"{n:02}.png")
    return UnpairedFolders(root=str(tmp_path), size=16)


def subject(data: UnpairedFolders, **options: Any) -> Subject:
    return Subject(Painter(**options).eval(), data, "b", seed=0)


def test_inputs_are_distinct(outlines: UnpairedFolders) -> None:
    assert len(subject(outlines).inputs(100)) == 11
    assert len(distinct_test_indices(outlines, "a", 5, seed=0)) == 5
    assert distinct_test_indices(outlines, "a", 5, 0) != distinct_test_indices(outlines, "a", 5, 1)


def test_l1_diversity_is_the_mean_difference_of_pairs_on_a_0_to_1_scale(outlines: UnpairedFolders) -> None:
    values = L1Diversity(num_styles=5).measure(subject(outlines))
    styles = torch.tanh(subject(outlines).styles(5, 11))[..., 0]
    pairs = [(styles[i] - styles[j]).abs().mean() / 2 for i in range(5) for j in range(i)]
    light = 15 / 16  # of each picture; the line stays as it is
    assert values["diversity"] == pytest.approx(light * torch.stack(pairs).mean().item(), rel=1e-5)
    assert values["same_style"] == 0
    assert values["num_inputs"] == 11
    assert values["of_real"] == pytest.approx(values["diversity"] / values["real_pairs"])
    assert 0 < values["real_pairs"] < 0.87


def test_a_translator_that_is_deaf_to_style_has_no_diversity(outlines: UnpairedFolders) -> None:
    assert L1Diversity().measure(subject(outlines, deaf=True))["diversity"] == 0
    health = StyleHealth().measure(subject(outlines, deaf=True))
    assert health["style_recon"] == pytest.approx(0.798, abs=0.1)


def test_line_contrast_compares_lines_with_what_lies_two_pixels_outside(outlines: UnpairedFolders) -> None:
    values = LineContrast(num_styles=4).measure(subject(outlines))
    grey = (torch.tanh(subject(outlines).styles(4, 11)) + 1) / 2
    assert values["line_luminance"] == pytest.approx(0, abs=1e-6)
    assert values["ring_luminance"] == pytest.approx(grey.mean().item(), rel=1e-5)
    assert values["kept"] == pytest.approx((grey >= 0.3).float().mean().item())


def test_a_style_that_can_be_read_off_has_no_reconstruction_error(outlines: UnpairedFolders) -> None:
    values = StyleHealth(num_styles=4).measure(subject(outlines))
    assert values["style_recon"] == pytest.approx(0, abs=0.02)  # the clamp at 0.999 costs a little
    assert values["image_recon"] == pytest.approx(0.05)
    assert values["eval_of_train"] == pytest.approx(1)
    assert values["guided_of_random"] > 0.5


def test_metrics_say_which_data_they_cannot_measure(outlines: UnpairedFolders, tmp_path: Path) -> None:
    for n in range(1, 12):
        (tmp_path / "testB" / f"{n:02}.png").unlink()
    alone = subject(UnpairedFolders(root=str(tmp_path), size=16))
    for metric in (L1Diversity(), StyleHealth()):
        with pytest.raises(DataError, match="domain b has one held-out image; 2 or more distinct"):
            metric.measure(alone)
    Image.new("RGB", (16, 16), "white").save(tmp_path / "testB" / "01.png")
    for n in range(1, 12):
        (tmp_path / "testA" / f"{n:02}.png").unlink()
    few = subject(UnpairedFolders(root=str(tmp_path), size=16))
    assert L1Diversity().measure(few)["standard_error"] == 0
    assert np.isfinite(list(StyleHealth().measure(few).values())).all()
    Image.new("RGB", (16, 16), "white").save(tmp_path / "testA" / "00.png")
    with pytest.raises(DataError, match="no held-out input has lines"):
        LineContrast().measure(subject(UnpairedFolders(root=str(tmp_path), size=16)))


def test_the_seed_decides_and_decides_again(outlines: UnpairedFolders) -> None:
    once, again = (L1Diversity().measure(subject(outlines)) for _ in range(2))
    other = L1Diversity().measure(Subject(Painter().eval(), outlines, "b", seed=1))
    assert once == again != other


def test_a_sheet_has_a_column_for_each_heading_and_a_row_for_each_image() -> None:
    columns = [("input", torch.zeros(3, 1, 64, 96)), ("style 1", torch.ones(3, 3, 64, 96))]
    picture = sheet(columns)
    assert picture.size == (2 * 98 + 2, 3 * 66 + 2 + 16)
    assert picture.getpixel((2 + 48, 16 + 2 + 32)) == (128, 128, 128)


def test_the_grid_is_the_same_for_the_same_seed(outlines: UnpairedFolders) -> None:
    grids = [sample_grid(Painter().eval(), outlines, seed, "b").tobytes() for seed in (0, 0, 1)]
    assert grids[0] == grids[1] != grids[2]

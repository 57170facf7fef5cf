"""L1 diversity and line contrast."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from i2ikit.data.folders import Folders
from i2ikit.errors import DataError
from i2ikit.metrics.pixels import L1Diversity, LineContrast
from i2ikit.metrics.style import StyleHealth

LIGHT = 15 / 16  # of each outline; its line stays as it is


def greys(subject, num_styles):
    """What the painter paints: (inputs, styles), -1..1."""
    return torch.stack([torch.tanh(subject.styles(num_styles, n))[:, 0] for n in subject.inputs(100)])


def test_l1_diversity_is_the_mean_difference_of_pairs_on_a_0_to_1_scale(outlines, subject) -> None:
    painted = greys(subject(outlines), 5)
    pairs = [(painted[:, i] - painted[:, j]).abs() / 2 for i in range(5) for j in range(i)]
    per_input = LIGHT * torch.stack(pairs).mean(0)
    found = L1Diversity(num_styles=5).measure(subject(outlines))
    assert found.values["diversity"] == pytest.approx(per_input.mean().item(), rel=1e-5)
    assert found.values["diversity_se"] == pytest.approx(per_input.std().item() / 11**0.5, rel=1e-4)
    assert found.values["same_style"] == 0
    assert found.values["of_real"] == pytest.approx(found.values["diversity"] / found.values["real_pairs"])
    assert 0 < found.values["real_pairs"] < 0.87
    assert found.facts["num_inputs"] == 11


def test_a_translator_that_is_deaf_to_style_has_no_diversity(outlines, subject) -> None:
    assert L1Diversity().measure(subject(outlines, deaf=True)).values["diversity"] == 0


def test_line_contrast_compares_lines_with_what_lies_two_pixels_outside(outlines, subject) -> None:
    values = LineContrast(num_styles=4).measure(subject(outlines)).values
    grey = (greys(subject(outlines), 4) + 1) / 2
    assert values["line_luminance"] == pytest.approx(0, abs=1e-6)
    assert values["ring_luminance"] == pytest.approx(grey.mean().item(), rel=1e-5)
    assert values["kept"] == pytest.approx((grey >= 0.3).float().mean().item())


def test_inputs_without_lines_are_left_out(outlines, subject, tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), "white").save(tmp_path / "testA" / "00.png")
    data = Folders(root=str(tmp_path), size=16)
    assert len(subject(data).inputs(100)) == 11
    assert LineContrast().measure(subject(data)).facts["num_inputs"] == 10


def test_metrics_say_which_data_they_cannot_measure(outlines, subject, tmp_path: Path) -> None:
    for n in range(1, 12):
        (tmp_path / "testB" / f"{n:02}.png").unlink()
    alone = subject(Folders(root=str(tmp_path), size=16))
    with pytest.raises(DataError, match="domain b has only one distinct held-out image; 2 or more"):
        StyleHealth().measure(alone)
    assert set(L1Diversity().measure(alone).values) == {"diversity", "diversity_se", "same_style"}
    Image.new("RGB", (16, 16), "white").save(tmp_path / "testB" / "01.png")
    for n in range(1, 12):
        (tmp_path / "testA" / f"{n:02}.png").unlink()
    few = subject(Folders(root=str(tmp_path), size=16))
    assert L1Diversity().measure(few).values["diversity_se"] == 0
    assert np.isfinite(list(StyleHealth().measure(few).values.values())).all()
    Image.new("RGB", (16, 16), "white").save(tmp_path / "testA" / "00.png")
    with pytest.raises(DataError, match="no held-out input has lines"):
        LineContrast().measure(subject(Folders(root=str(tmp_path), size=16)))

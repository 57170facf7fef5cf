"""Style health, and the probe that watches diversity while training goes on."""

from __future__ import annotations

import pytest

from i2ikit.metrics.style import DiversityProbe, StyleHealth
from tests.metrics.conftest import Painter


def test_a_style_that_can_be_read_off_has_no_reconstruction_error(outlines, subject) -> None:
    values = StyleHealth(num_styles=4).measure(subject(outlines)).values
    assert values["style_recon"] == pytest.approx(0, abs=0.02)  # the clamp at 0.999 costs a little
    assert values["image_recon"] == pytest.approx(0.05)
    assert values["eval_of_train"] == pytest.approx(1)
    assert values["guided_of_random"] > 0.5


def test_a_translator_that_is_deaf_to_style_is_at_chance(outlines, subject) -> None:
    values = StyleHealth().measure(subject(outlines, deaf=True)).values
    assert values["style_recon"] == pytest.approx(0.798, abs=0.1)


def test_the_probe_measures_both_directions_and_is_silent_while_all_is_well(outlines) -> None:
    probe = DiversityProbe(outlines, seed=0)
    values = probe(Painter().eval())
    assert set(values) == {"diversity/a2b", "diversity/b2a"}
    assert all(value > 0.1 for value in values.values())
    assert probe(Painter().eval()) == values
    assert probe(Painter(deaf=True).eval()) == dict.fromkeys(values, 0.0)

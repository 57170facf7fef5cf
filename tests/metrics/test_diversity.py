"""LPIPS diversity: which translations each protocol compares, and what the report says."""

from __future__ import annotations

import json

import pytest
import torch

from i2ikit.checking import check
from i2ikit.data.folders import Folders
from i2ikit.metrics.diversity import LPIPSDiversity
from i2ikit.metrics.perceptual import NETWORKS, PerceptualDistance
from i2ikit.metrics.subject import METRIC_SLOT
from i2ikit.pretrained.weights import load_weights
from i2ikit.registry import Setting
from tests.metrics.conftest import outline_folders

PAIRS = {
    "munit": [(0, 1), (2, 3), (4, 5)],
    "bicyclegan": [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)],
    "all-pairs": [(i, j) for i in range(6) for j in range(i + 1, 6)],
}


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PAIRS)
@torch.no_grad()
def test_each_protocol_compares_its_pairs(protocol, large_outlines, subject, alexnet_file) -> None:
    """Against one call of the library for each pair."""
    metric = LPIPSDiversity(protocol=protocol, num_inputs=4, num_samples=6, weights=alexnet_file)
    found = metric.measure(subject(large_outlines))
    for version in ("0.0", "0.1"):
        library = PerceptualDistance("alex", version, load_weights(NETWORKS["alex"], alexnet_file)).lpips
        per_input = []
        for index in subject(large_outlines).inputs(4):
            outputs = subject(large_outlines).case(index, 6).outputs
            each = [library(outputs[i : i + 1], outputs[j : j + 1]) for i, j in PAIRS[protocol]]
            per_input.append(torch.stack(each).mean())
        per_input = torch.stack(per_input)
        assert found.values[f"LPIPS v{version}/diversity"] == pytest.approx(per_input.mean().item(), abs=1e-6)
        error = per_input.std().item() / 2
        assert found.values[f"LPIPS v{version}/diversity_se"] == pytest.approx(error, abs=1e-6)
    assert found.facts["pairs_per_input"] == len(PAIRS[protocol])


def test_the_presets_have_the_counts_of_the_papers(alexnet_file) -> None:
    """100 inputs x 19 pairs, of 38 independent translations or of 20 consecutive ones."""
    munit = LPIPSDiversity(weights=alexnet_file)
    bicyclegan = LPIPSDiversity(protocol="bicyclegan", weights=alexnet_file)
    every = LPIPSDiversity(protocol="all-pairs", weights=alexnet_file)
    assert [(m.num_inputs, m.num_samples, len(m.pairs[0])) for m in (munit, bicyclegan, every)] == [
        (100, 38, 19),
        (100, 20, 19),
        (100, 20, 190),
    ]
    assert sorted(munit.pairs[0] + munit.pairs[1]) == list(range(38))


@torch.no_grad()
def test_the_report_holds_what_a_reviewer_needs(large_outlines, subject, alexnet_file) -> None:
    found = LPIPSDiversity(num_samples=4, weights=alexnet_file).measure(subject(large_outlines))
    facts = json.loads(json.dumps(found.facts))
    assert facts["protocol"] == "munit"
    assert facts["lpips_versions"] == ["0.0", "0.1"]
    assert facts["trunk"] == "alex"
    assert facts["trunk_weights"]["source"] == alexnet_file
    assert len(facts["trunk_weights"]["sha256"]) == 64
    assert (facts["num_inputs"], facts["num_samples"], facts["num_real_pairs"]) == (11, 4, 6)
    rows = facts["per_input"]
    assert len(rows) == 11
    assert rows[0]["v0.1"] >= rows[-1]["v0.1"]
    mean = sum(row["v0.0"] for row in rows) / 11
    assert found.values["LPIPS v0.0/diversity"] == pytest.approx(mean, abs=1e-6)
    assert found.notes[0] == (
        "Protocol munit: 11 inputs x 2 independent pairs (no more distinct ones exist); alex, 36 px, "
        "compared as tensors."
    )
    assert "they used alex (v0.0) at 256 px, this is alex at 36 px" in found.notes[1]
    assert "only compare v0.0 with v0.0 and v0.1 with v0.1" in found.notes[2]
    assert found.sheets["extremes"].size == (36 + 5 * 38, 16 + 2 + 8 * 38)


@torch.no_grad()
def test_real_pairs_are_of_distinct_real_images(large_outlines, subject, alexnet_file) -> None:
    found = LPIPSDiversity(num_samples=2, versions=("0.1",), weights=alexnet_file)
    values = found.measure(subject(large_outlines)).values
    distance = PerceptualDistance("alex", "0.1", load_weights(NETWORKS["alex"], alexnet_file))
    pairs = distance.lpips(*subject(large_outlines).target_pairs(100)).flatten()
    assert values["LPIPS v0.1/real_pairs"] == pytest.approx(pairs.mean().item(), abs=1e-6)
    assert values["LPIPS v0.1/of_real"] == pytest.approx(
        values["LPIPS v0.1/diversity"] / values["LPIPS v0.1/real_pairs"]
    )
    assert not any("v0.0/" in name for name in values)


@torch.no_grad()
def test_a_translator_that_is_deaf_to_style_has_no_diversity(large_outlines, subject, alexnet_file) -> None:
    values = (
        LPIPSDiversity(num_samples=4, weights=alexnet_file).measure(subject(large_outlines, deaf=True)).values
    )
    assert values["LPIPS v0.0/diversity"] == values["LPIPS v0.1/diversity"] == 0


@pytest.mark.slow
@torch.no_grad()
def test_the_seed_decides_and_decides_again(large_outlines, subject, alexnet_file) -> None:
    metric = LPIPSDiversity(num_inputs=3, num_samples=4, weights=alexnet_file)
    once, again = (metric.measure(subject(large_outlines)).values for _ in range(2))
    assert once == again != metric.measure(subject(large_outlines, seed=1)).values


@torch.no_grad()
def test_one_real_image_makes_no_pair_but_diversity_is_measured(tmp_path, subject, alexnet_file) -> None:
    outline_folders(tmp_path, 36)
    for n in range(1, 12):
        (tmp_path / "testB" / f"{n:02}.png").unlink()
    data = Folders(root=str(tmp_path), size=36)
    found = LPIPSDiversity(num_samples=2, weights=alexnet_file).measure(subject(data))
    assert set(found.values) == {
        f"LPIPS v{v}/{n}" for v in ("0.0", "0.1") for n in ("diversity", "diversity_se")
    }
    assert found.facts["num_real_pairs"] == 0


@torch.no_grad()
def test_one_input_and_256_px_are_measured_too(tmp_path, outlines, subject, alexnet_file) -> None:
    for n in range(1, 12):
        (tmp_path / "testA" / f"{n:02}.png").unlink()
    data = Folders(root=str(tmp_path), size=256)
    metric = LPIPSDiversity(protocol="bicyclegan", num_samples=2, weights=alexnet_file)
    found = metric.measure(subject(data))
    assert found.values["LPIPS v0.0/diversity_se"] == 0
    assert found.notes[1] == "The numbers in the MUNIT and BicycleGAN papers are v0.0."


@pytest.mark.parametrize(
    ("options", "size", "message"),
    [
        ({"num_samples": 5}, 64, "num_samples = 5 is odd"),
        ({"num_samples": 1}, 64, "greater than or equal to 2"),
        ({"trunk": "alexnet"}, 64, "should be 'alex', 'vgg' or 'squeeze'"),
        ({"versions": ["0.2"]}, 64, "should be '0.0' or '0.1'"),
        ({"versions": []}, 64, "at least 1 item"),
        ({"protocol": "drit"}, 64, "should be 'munit', 'bicyclegan' or 'all-pairs'"),
    ],
)
def test_impossible_options_are_found_before_anything_is_measured(options, size, message) -> None:
    _, problems = check(
        {"name": "lpips-diversity", **options}, "lpips-diversity", METRIC_SLOT, Setting(size, 1)
    )
    assert message in str(problems[0])

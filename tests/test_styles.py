"""The styles that a command asks for: which codes, and how files are named after them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from i2ikit.errors import RunError
from i2ikit.style_codes import read_codes
from i2ikit.styles import check_saved, chosen_styles, save_styles
from tests.styled import styled_model


def exemplars(folder: Path, *greys: int) -> list[Path]:
    paths = [folder / f"grey{grey}.png" for grey in greys]
    for path, grey in zip(paths, greys, strict=True):
        Image.new("L", (16, 16), grey).save(path)
    return paths


def test_random_styles_are_8_or_two_ends(tmp_path: Path) -> None:
    model = styled_model(tmp_path)
    assert len(chosen_styles(model).codes) == 8
    ends = chosen_styles(model, interpolated=True)
    assert torch.equal(ends.codes, chosen_styles(model, count=2, seed=0).codes)
    assert len(chosen_styles(model, count=3, interpolated=True).codes) == 3
    assert (ends.label, ends.each[1].label) == ("a2b-seed0-2-styles", "a2b-seed0-style-2-of-2")


@pytest.mark.parametrize("ending", ["safetensors", "npy"])
def test_saved_codes_give_the_same_styles(tmp_path: Path, ending: str) -> None:
    model, file = styled_model(tmp_path), tmp_path / f"my codes.{ending}"
    for given in (
        chosen_styles(model, count=12, seed=5),
        chosen_styles(model, exemplars=exemplars(tmp_path, 10, 200)),
    ):
        check_saved(given, file)
        save_styles(given, file)
        found = chosen_styles(model, codes=file)
        assert torch.equal(found.codes, given.codes)
        assert found.notes == ()
    assert [style.label for style in found.each] == ["a2b-my codes-code-1-of-2", "a2b-my codes-code-2-of-2"]
    assert found.each[1].origin["code"] == 2
    assert found.each[1].origin["codes"] == str(file)
    assert found.each[1].origin["codes_sha256"] == read_codes(file).sha256


def test_a_file_says_what_its_codes_are(tmp_path: Path) -> None:
    model, file = styled_model(tmp_path), tmp_path / "x.safetensors"
    facts = {"domain": "b", "weights_sha256": "0" * 64, "step": 7}
    own = exemplars(tmp_path, 10, 200)
    for given, more in (
        ({"count": 2, "seed": 5}, {"seed": 5}),
        ({"exemplars": own}, {"exemplars": ["grey10.png", "grey200.png"]}),
    ):
        save_styles(chosen_styles(model, **given), file)  # type: ignore[arg-type]
        about = read_codes(file).about
        assert about is not None
        assert about.model_dump(exclude_none=True) == facts | more


def test_codes_of_another_domain_are_an_error_and_of_other_weights_a_note(tmp_path: Path) -> None:
    model, file = styled_model(tmp_path, {"a": 3, "b": 3, "c": 3}), tmp_path / "x.safetensors"
    save_styles(chosen_styles(model, to="c"), file)
    with pytest.raises(
        RunError, match=r"x\.safetensors: its style codes are for translations into c, not into b"
    ):
        chosen_styles(model, codes=file)
    assert chosen_styles(model, codes=file, source="b", to="c").notes == ()
    tuned = styled_model(tmp_path, {"a": 3, "c": 3}, sha256="1" * 64)
    (note,) = chosen_styles(tuned, codes=file).notes
    assert note.endswith(
        "x.safetensors: its style codes were saved with other weights; styles may look different"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 2, "seed": 0}, "--codes gives the styles; leave --styles and --seed out"),
        ({"exemplars": [Path("x.png")]}, "--codes gives the styles; leave --style-from out"),
        ({"interpolated": True}, "there is only one; give a file with two codes or more"),
        ({"to": "c"}, "does not translate to c"),
    ],
)
def test_options_that_do_not_fit_codes_are_named(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    np.save(tmp_path / "x.npy", np.zeros(4))
    with pytest.raises(RunError, match=message):
        chosen_styles(styled_model(tmp_path), codes=tmp_path / "x.npy", **options)


def test_codes_of_another_length_are_an_error(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 5)))
    with pytest.raises(RunError, match=r"x\.npy: its style codes have 5 values, but this translator needs 4"):
        chosen_styles(styled_model(tmp_path), codes=tmp_path / "x.npy")


def test_interpolation_needs_two_styles(tmp_path: Path) -> None:
    model = styled_model(tmp_path)
    with pytest.raises(RunError, match="there is only one; give --styles 2 or more"):
        chosen_styles(model, count=1, interpolated=True)
    with pytest.raises(RunError, match="there is only one; give --style-from twice or more"):
        chosen_styles(model, exemplars=exemplars(tmp_path, 10), interpolated=True)


def test_a_deterministic_translator_has_no_styles(tmp_path: Path) -> None:
    model = styled_model(tmp_path, style_dim=0)
    styles = chosen_styles(model, count=5)
    assert [style.label for style in styles.each] == ["a2b"]
    np.save(tmp_path / "x.npy", np.zeros(4))
    with pytest.raises(RunError, match="no style codes to save; leave --save-codes out"):
        check_saved(styles, tmp_path / "y.npy")
    with pytest.raises(RunError, match="one translation of each image and has no styles; leave --codes out"):
        chosen_styles(model, codes=tmp_path / "x.npy")
    with pytest.raises(RunError, match="and has no styles; leave --interpolate out"):
        chosen_styles(model, interpolated=True)

"""Files of style codes: what is written is read again, and no other file is read or replaced."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from i2ikit.errors import DataError, RunError
from i2ikit.style_codes import AboutCodes, check_codes_file, read_codes, write_codes

ABOUT = AboutCodes(domain="b", weights_sha256="0" * 64, step=7, seed=3)
CODES = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("ending", ["safetensors", "npy"])
def test_codes_are_read_as_they_were_written(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "new" / f"codes.{ending}"
    for codes in (CODES, CODES[:1]):  # the second one replaces the first
        check_codes_file(path, 4)
        write_codes(path, codes, ABOUT)
        found = read_codes(path)
        assert torch.equal(found.codes, codes)
        assert found.about == (ABOUT if ending == "safetensors" else None)
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_other_programs_can_read_them(tmp_path: Path) -> None:
    write_codes(tmp_path / "x.safetensors", CODES, ABOUT)
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("styles"), CODES)
        facts = json.loads(file.metadata()["i2ikit"])
    assert facts == {"domain": "b", "weights_sha256": "0" * 64, "step": 7, "seed": 3}
    write_codes(tmp_path / "x.npy", CODES, ABOUT)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), CODES.numpy())


def test_codes_of_other_programs_are_read(tmp_path: Path) -> None:
    """One code alone, any precision and byte order, any name of the only tensor."""
    path = tmp_path / "x.npy"
    for array in (CODES.numpy()[0], CODES.numpy().astype(">f8"), np.asfortranarray(CODES.half().numpy())):
        np.save(path, array)
        assert read_codes(path).codes.dtype == torch.float32
        np.testing.assert_allclose(read_codes(path).codes, array.reshape(-1, 4), atol=1e-6)
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file({"z": CODES.bfloat16()}, path)
    assert torch.equal(read_codes(path).codes, CODES.bfloat16().float())
    assert read_codes(path).about is None


def saved(tmp_path: Path, array: object, **options: bool) -> Path:
    np.save(tmp_path / "x.npy", array, **options)  # type: ignore[arg-type]
    return tmp_path / "x.npy"


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 4), int), "its values are int64, not floating-point numbers"),
        (np.zeros((2, 4), complex), "its values are complex128, not floating-point numbers"),
        (np.array([{}], object), "its values are object, not floating-point numbers"),
        (np.array("x"), "its values are <U1, not floating-point numbers"),
        (np.zeros((2, 4, 1)), r"its shape is \(2, 4, 1\), not \(K, style_dim\) or \(style_dim,\)"),
        (np.zeros(()), r"its shape is \(\), not"),
        (np.zeros((0, 4)), r"its shape is \(0, 4\), not"),
        (np.zeros(0), r"its shape is \(0,\), not"),
        (np.zeros((1001, 4)), "its 1001 codes are more than the limit of 1000"),
        (np.full((2, 4), np.nan), "a value is NaN, inf, or too large for float32"),
        (np.full((2, 4), 1e300), "a value is NaN, inf, or too large for float32"),
    ],
)
def test_what_is_not_style_codes_is_refused(tmp_path: Path, array: object, message: str) -> None:
    with pytest.raises(DataError, match=rf"x\.npy: not a readable file of style codes \({message}"):
        read_codes(saved(tmp_path, array, allow_pickle=True))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    for name in ("x.npy", "x.safetensors"):
        path = tmp_path / name
        write_codes(path, CODES, ABOUT)
        content = path.read_bytes()
        header = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000000, 4), }"
        for damaged in (
            b"",
            content[:20],
            content[:-1],
            pickle.dumps(CODES),
            header.ljust(128)[:127] + b"\n",
        ):
            path.write_bytes(damaged)
            with pytest.raises(DataError, match=f"{name}: not a readable file of style codes"):
                read_codes(path)


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({"a": CODES, "b": CODES + 1}, {}, "it has 2 tensors, and none of them is 'styles'"),
        ({"styles": CODES.int()}, {}, "its values are int32, not floating-point numbers"),
        ({"styles": CODES}, {"i2ikit": "{"}, "its metadata 'i2ikit' cannot be used: it: Invalid JSON"),
        (
            {"styles": CODES},
            {"i2ikit": '{"step": 1}'},
            "its metadata 'i2ikit' cannot be used: domain: Field req",
        ),
    ],
)
def test_a_safetensors_file_of_another_kind_is_refused(
    tmp_path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str], message: str
) -> None:
    safetensors.torch.save_file(tensors, tmp_path / "x.safetensors", metadata)
    with pytest.raises(DataError, match=message):
        read_codes(tmp_path / "x.safetensors")


def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.npy").mkdir()
    for name, message in (
        ("missing.npy", "there is no such file"),
        ("folder.npy", "it is not a regular file"),
        ("x.pt", r"the ending of its name is not \.safetensors or \.npy"),
    ):
        with pytest.raises(DataError, match=rf"{name}: not a readable file of style codes \({message}"):
            read_codes(tmp_path / name)


def test_only_style_codes_of_this_length_are_replaced(tmp_path: Path) -> None:
    safetensors.torch.save_file({"weight": CODES}, tmp_path / "weights.safetensors")
    np.save(tmp_path / "grey.npy", np.zeros((64, 64)))
    np.save(tmp_path / "image.npy", np.zeros((64, 64, 5)))
    (tmp_path / "link.npy").symlink_to("nowhere")
    (tmp_path / "notes.npy").write_text("notes")
    for name in ("weights.safetensors", "grey.npy", "image.npy", "link.npy", "notes.npy"):
        with pytest.raises(RunError, match=f"{name} exists and is not a file of 4-dimensional style codes"):
            check_codes_file(tmp_path / name, 4)
    with pytest.raises(RunError, match=r"should end in \.safetensors or \.npy"):
        check_codes_file(tmp_path / "codes.pt", 4)
    with pytest.raises(RunError, match="cannot write"):
        check_codes_file(tmp_path / "notes.npy" / "codes.npy", 4)

"""Arrays by name in safetensors bytes, as the package writes them."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save

from distgrad.training import tensors

INTEGERS = ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
DTYPES = ["bool", *INTEGERS, "float16", "bfloat16", "float32", "float64", "complex64"]
SHAPES = [(), (3,), (0, 4), (2, 5)]


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """Every dtype, under names that are in no order and need escapes."""
    rng = np.random.default_rng(0)
    return {
        f'{"zyx"[number % 3]}/{dtype}/{shape} ä"\n': np.asarray(rng.integers(0, 2, shape)).astype(
            dtype
        )
        for number, dtype in enumerate(DTYPES)
        for shape in SHAPES
    }


def test_the_bytes_are_those_of_the_package(arrays) -> None:
    assert tensors.to_bytes(arrays) == save(arrays)
    assert tensors.to_bytes({}) == save({})


def test_what_is_written_is_what_is_read(arrays) -> None:
    arrays |= {"pairs": np.arange(4) * (1 + 2j), "turned": np.arange(6.0).reshape(2, 3).T}
    arrays["big"] = np.arange(3, dtype=">i4")
    found = tensors.from_bytes(tensors.to_bytes(arrays))
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype.newbyteorder("="), name
        np.testing.assert_array_equal(found[name], array)


def test_large_arrays_are_not_copied() -> None:
    array = np.zeros(1000, np.float32)
    _, piece = tensors.pieces({"array": array})
    assert np.shares_memory(np.frombuffer(piece, np.uint8), array)


@pytest.mark.parametrize("dtype", [ml_dtypes.float8_e4m3fn, "U3", object])
def test_a_dtype_that_the_format_has_not(dtype) -> None:
    with pytest.raises(ValueError, match="safetensors cannot keep an array of .*: cast it"):
        tensors.to_bytes({"array": np.zeros(2, dtype)})

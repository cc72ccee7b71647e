"""Arrays by name in safetensors bytes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from distgrad.core.dtypes import as_dtype


def to_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The arrays in the safetensors format."""
    from safetensors.numpy import save

    # The NumPy writer scrambles arrays that are not in C order. (ascontiguousarray would turn a
    # scalar into a vector.)
    given = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    return save(dict(map(_without_pairs, given.keys(), given.values())))


def from_bytes(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of ``to_bytes``. Raises ValueError for other bytes."""
    from safetensors import SafetensorError, deserialize

    try:
        found = deserialize(content)
    except SafetensorError as error:
        raise ValueError(f"these are no safetensors: {error}") from None
    return dict(
        _with_pairs(name, np.frombuffer(each["data"], _dtype(each["dtype"])).reshape(each["shape"]))
        for name, each in found
    )


_PAIRS = ":complex128"  # at the end of a name: the format has no such numbers, but pairs of float64


def _without_pairs(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    if array.dtype != np.complex128:
        return name, array
    return name + _PAIRS, array[..., None].view(np.float64)


def _with_pairs(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    if not name.endswith(_PAIRS):
        return name, array
    return name.removesuffix(_PAIRS), array.view(np.complex128)[..., 0]


_KINDS = {"F": "float", "BF": "bfloat", "C": "complex", "I": "int", "U": "uint", "BOOL": "bool"}


def _dtype(code: str) -> np.dtype:
    """The dtype that the format calls so; the package's own reader for NumPy has no BF16."""
    letters = code.rstrip("0123456789")
    try:
        return as_dtype(_KINDS[letters] + code[len(letters) :]).numpy_dtype
    except (KeyError, TypeError):
        raise ValueError(f"NumPy has no numbers of type {code}") from None

"""Arrays by name in safetensors bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import numpy as np

from distgrad.core.dtypes import as_dtype


def to_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The arrays in the safetensors format. Raises ValueError for a dtype that it has not."""
    return b"".join(pieces(arrays))


def pieces(arrays: Mapping[str, np.ndarray]) -> Iterator[bytes | memoryview]:
    """The same bytes, array by array and without a copy of them, for a file of any size.

    The package's own writer copies all of it, and lets no other thread run meanwhile.
    """
    # (ascontiguousarray would turn a scalar into a vector.)
    given = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    given = dict(map(_without_pairs, given.keys(), given.values()))
    codes = {name: _code(array.dtype) for name, array in given.items()}
    header, end = {}, 0
    for name in sorted(given, key=lambda name: (-_ORDER.index(codes[name]), name)):
        begin, end = end, end + given[name].nbytes
        shape = list(given[name].shape)
        header[name] = {"dtype": codes[name], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in header:
        little = given[name].dtype.newbyteorder("<")
        yield given[name].astype(little, copy=False).reshape(-1).view(np.uint8).data


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


# What the format calls a dtype; in the order in which the package lays arrays, the last first.
_CODES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "int16": "I16",
    "uint16": "U16",
    "float16": "F16",
    "bfloat16": "BF16",
    "int32": "I32",
    "uint32": "U32",
    "float32": "F32",
    "complex64": "C64",
    "float64": "F64",
    "int64": "I64",
    "uint64": "U64",
}
_NAMES = {code: name for name, code in _CODES.items()}
_ORDER = list(_NAMES)


def _code(dtype: np.dtype) -> str:
    """What the format calls a dtype."""
    if dtype.name not in _CODES:
        raise ValueError(f"safetensors cannot keep an array of {dtype.name}: cast it")
    return _CODES[dtype.name]


def _dtype(code: str) -> np.dtype:
    """The dtype that the format calls so; the package's own reader for NumPy has no BF16."""
    if code not in _NAMES:
        raise ValueError(f"NumPy has no numbers of type {code}")
    return as_dtype(_NAMES[code]).numpy_dtype

"""Tensors as the bytes of TensorFlow's ``TensorProto``: ``tf.io.serialize_tensor``, and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import as_dtype, of_input, string
from distgrad.core.errors import InvalidArgumentError
from distgrad.core.sparse_tensor import SparseTensor
from distgrad.core.tensor import Operand, Tensor
from distgrad.core.texts import Bytes, as_bytes, holds_texts
from distgrad.data.messages import decode_error, message

# TensorFlow's numbers for dtypes, and where values may lie, which are no whole of bytes.
_DTYPES = {
    "float32": (1, "float_val"),
    "float64": (2, "double_val"),
    "int32": (3, "int_val"),
    "uint8": (4, "int_val"),
    "int16": (5, "int_val"),
    "int8": (6, "int_val"),
    "string": (7, "string_val"),
    "complex64": (8, "scomplex_val"),
    "int64": (9, "int64_val"),
    "bool": (10, "bool_val"),
    "bfloat16": (14, "half_val"),
    "uint16": (17, "int_val"),
    "complex128": (18, "dcomplex_val"),
    "float16": (19, "half_val"),
    "uint32": (22, "uint32_val"),
    "uint64": (23, "uint64_val"),
}
_NAMES = {number: name for name, (number, _) in _DTYPES.items()}


def serialize_tensor(tensor: Any, name: str | None = None) -> Bytes:
    """The bytes of a tensor, or of an array of texts, for `parse_tensor` here or in TensorFlow."""
    text = not isinstance(tensor, Operand) and holds_texts(np.asarray(tensor))
    array = np.asarray(as_bytes(tensor) if text else as_tensor(tensor).numpy())
    kind = "string" if text else as_dtype(array.dtype).name
    made = message("TensorProto")(dtype=_DTYPES[kind][0])
    made.tensor_shape.SetInParent()
    for size in array.shape:
        made.tensor_shape.dim.add(size=size)
    if text:
        made.string_val.extend(array.ravel().tolist())
    else:
        made.tensor_content = array.tobytes()
    return as_bytes(made.SerializeToString())


def parse_tensor(serialized: Any, out_type: Any, name: str | None = None) -> Tensor | Bytes:
    """The tensor in the bytes that `serialize_tensor` has made, here or in TensorFlow.

    Texts are an array of bytes. Raises InvalidArgumentError for one of another dtype than
    ``out_type``, and for what is no tensor's bytes.
    """
    given, wanted = as_bytes(serialized), of_input(out_type)
    if given.ndim:
        raise InvalidArgumentError(
            f"Expected `serialized` to be a scalar, got shape: {list(given.shape)}"
        )
    try:
        found = message("TensorProto").FromString(given.item())
    except decode_error():
        raise InvalidArgumentError("Could not parse `serialized` as TensorProto") from None
    kind = _NAMES.get(found.dtype)
    if kind != wanted.name:
        raise InvalidArgumentError(
            f"Type mismatch between parsed tensor ({kind}) and dtype ({wanted.name})"
        )
    shape = tuple(dim.size for dim in found.tensor_shape.dim)
    try:
        values = _values(found, _DTYPES[kind][1], wanted, math.prod(shape)).reshape(shape)
    except ValueError:
        raise InvalidArgumentError(
            f"`serialized` has not the values of a tensor of shape {shape}"
        ) from None
    return as_bytes(values) if wanted is string else as_tensor(values)


def serialize_sparse(
    sp_input: SparseTensor, out_type: Any = string, name: str | None = None
) -> Bytes:
    """The bytes of the indices, the values and the dense shape of a SparseTensor: 3 texts."""
    parts = sp_input.indices, sp_input.values, sp_input.dense_shape
    return as_bytes([serialize_tensor(part).item() for part in parts])


def deserialize_many_sparse(
    serialized_sparse: Any, dtype: Any, rank: int | None = None, name: str | None = None
) -> SparseTensor:
    """A batch of what `serialize_sparse` gave: texts [N, 3] as a SparseTensor of one rank more.

    Raises InvalidArgumentError for another dtype or ``rank``.
    """

    def sparse(indices: Any, values: Any, shape: Any) -> SparseTensor:
        places, sizes = (parse_tensor(each, "int64") for each in (indices, shape))
        if rank is not None and len(sizes) != rank:
            raise InvalidArgumentError(f"a SparseTensor of rank {len(sizes)}, not {rank}")
        return SparseTensor(places, parse_tensor(values, dtype), sizes)

    rows = as_bytes(serialized_sparse).tolist()
    return SparseTensor.stacked([sparse(*row) for row in rows])


def _values(found: Any, field: str, wanted: Any, size: int) -> np.ndarray:
    """All values, flat; the last of a list stands for those that are left out."""
    dtype = wanted.numpy_dtype
    if found.tensor_content and wanted is not string:
        return np.frombuffer(found.tensor_content, dtype)
    listed = list(getattr(found, field))
    if field == "half_val":
        values = np.array(listed, np.uint16).view(dtype)
    elif wanted.is_complex:
        values = np.array(listed, dtype.type(0).real.dtype).view(dtype)
    else:
        values = np.array(listed, object if wanted is string else dtype)
    nothing = np.array([b"" if wanted is string else 0], values.dtype)
    last = values[-1:] if len(values) else nothing
    return np.concatenate([values, np.repeat(last, max(size - len(values), 0))])

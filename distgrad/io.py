"""``tf.io``: files, the images, records and examples in them, and folders under ``gfile``."""

from __future__ import annotations

import base64 as _base64
from collections.abc import Callable as _Callable
from typing import Any as _Any

import numpy as _np

from distgrad import gfile as _gfile
from distgrad.core.dispatch import as_tensor as _as_tensor
from distgrad.core.dtypes import as_dtype as _as_dtype
from distgrad.core.errors import InvalidArgumentError as _InvalidArgumentError
from distgrad.core.later import absent as _absent
from distgrad.core.tensor import Tensor as _Tensor
from distgrad.core.texts import Texts as _Texts
from distgrad.core.texts import as_bytes as _as_bytes
from distgrad.core.texts import as_strings as _as_strings
from distgrad.core.texts import as_texts as _as_texts
from distgrad.data.examples import (
    parse_example,
    parse_sequence_example,
    parse_single_example,
    parse_single_sequence_example,
)
from distgrad.data.features import FixedLenFeature, FixedLenSequenceFeature, VarLenFeature
from distgrad.data.lines import decode_csv
from distgrad.data.ragged_features import RaggedFeature
from distgrad.data.records import TFRecordOptions, TFRecordWriter
from distgrad.data.serialized import (
    deserialize_many_sparse,
    parse_tensor,
    serialize_sparse,
    serialize_tensor,
)
from distgrad.data.specs import tried_size as _tried_size
from distgrad.image_files import (
    decode_and_crop_jpeg,
    decode_bmp,
    decode_gif,
    decode_image,
    decode_jpeg,
    decode_png,
    encode_jpeg,
    encode_png,
    extract_jpeg_shape,
    is_jpeg,
    read_file,
    write_file,
)

__all__ = [
    "FixedLenFeature",
    "FixedLenSequenceFeature",
    "TFRecordOptions",
    "TFRecordWriter",
    "RaggedFeature",
    "VarLenFeature",
    "decode_and_crop_jpeg",
    "decode_base64",
    "decode_bmp",
    "decode_csv",
    "decode_gif",
    "decode_image",
    "decode_jpeg",
    "decode_png",
    "decode_raw",
    "deserialize_many_sparse",
    "encode_base64",
    "encode_jpeg",
    "encode_png",
    "extract_jpeg_shape",
    "gfile",
    "is_jpeg",
    "matching_files",
    "parse_example",
    "parse_sequence_example",
    "parse_single_example",
    "parse_single_sequence_example",
    "parse_tensor",
    "read_file",
    "serialize_sparse",
    "serialize_tensor",
    "write_file",
]


gfile = _gfile


def matching_files(pattern: _Any, name: str | None = None) -> _Texts:
    """The files that match a pattern, or one of several, in order; no folders."""
    found = {path for path in _gfile.glob(_as_texts(pattern).ravel()) if not _gfile.isdir(path)}
    return _np.array(sorted(found), str).view(_Texts)


def encode_base64(input: _Any, pad: bool = False, name: str | None = None) -> _Any:
    """Bytes as base64 that is safe in addresses, and filled up by ``=`` with ``pad``."""

    def made(value: bytes) -> bytes:
        code = _base64.urlsafe_b64encode(value)
        return code if pad else code.rstrip(b"=")

    return _of_each(made, input)


def decode_base64(input: _Any, name: str | None = None) -> _Any:
    """The bytes of which ``encode_base64`` has made it, texts where they are UTF-8.

    Raises InvalidArgumentError for what is no such code.
    """

    def made(code: bytes) -> bytes:
        try:
            whole = code + b"=" * (-len(code) % 4)
            return _base64.b64decode(whole, altchars=b"-_", validate=True)
        except ValueError as error:
            raise _InvalidArgumentError(f"{code!r} is not base64: {error}") from None

    return _of_each(made, input)


def _of_each(made: _Callable[[bytes], bytes], given: _Any) -> _Any:
    array = _as_bytes(given)
    found = _np.empty(array.shape, object)
    found.flat[:] = [made(value) for value in _np.asarray(array).flat]
    return _as_strings(found)


def decode_raw(
    input_bytes: _Any,
    out_type: _Any,
    little_endian: bool = True,
    fixed_length: int | None = None,
    name: str | None = None,
) -> _Tensor:
    """The numbers that bytes hold: a vector of ``out_type``; of an array of bytes one for each.

    ``fixed_length`` is how many bytes count: more are cut off, fewer filled up by zeros. Raises
    InvalidArgumentError where the bytes are no whole numbers, or not as many in all of an array.
    """
    given, dtype = _as_bytes(input_bytes), _as_dtype(out_type).numpy_dtype
    if fixed_length is None and (size := _tried_size()) is not None:
        return _as_tensor(_np.zeros((*given.shape, size), dtype))
    rows = _np.asarray(given).ravel().tolist()
    if fixed_length is not None:
        rows = [row[:fixed_length].ljust(fixed_length, b"\0") for row in rows]
    sizes = set(map(len, rows))
    if len(sizes) > 1:
        raise _InvalidArgumentError(f"all have to have as many bytes, not {sorted(sizes)}")
    (size,) = sizes or {0}
    if size % dtype.itemsize:
        raise _InvalidArgumentError(f"{size} bytes are not a whole number of {dtype} numbers")
    order = dtype.newbyteorder("<" if little_endian else ">")
    found = _np.frombuffer(b"".join(rows), order)
    return _as_tensor(found.reshape(*given.shape, size // dtype.itemsize))


__getattr__ = _absent(__name__)

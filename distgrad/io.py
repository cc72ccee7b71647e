"""``tf.io``: files, the images and records in them, and folders under ``gfile``."""

from __future__ import annotations

from typing import Any as _Any

import numpy as _np

from distgrad import gfile as _gfile
from distgrad.core.dispatch import as_tensor as _as_tensor
from distgrad.core.dtypes import as_dtype as _as_dtype
from distgrad.core.errors import InvalidArgumentError as _InvalidArgumentError
from distgrad.core.tensor import Tensor as _Tensor
from distgrad.data.lines import decode_csv
from distgrad.image_files import bytes_of as _bytes_of
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
    "decode_and_crop_jpeg",
    "decode_bmp",
    "decode_csv",
    "decode_gif",
    "decode_image",
    "decode_jpeg",
    "decode_png",
    "decode_raw",
    "encode_jpeg",
    "encode_png",
    "extract_jpeg_shape",
    "gfile",
    "is_jpeg",
    "read_file",
    "write_file",
]


gfile = _gfile


def decode_raw(
    input_bytes: _Any,
    out_type: _Any,
    little_endian: bool = True,
    fixed_length: int | None = None,
    name: str | None = None,
) -> _Tensor:
    """The numbers that bytes hold: a vector of ``out_type``.

    ``fixed_length`` is how many bytes count: more are cut off, fewer filled up by zeros. Raises
    InvalidArgumentError where the bytes are no whole numbers.
    """
    data = _bytes_of(input_bytes)
    if fixed_length is not None:
        data = data[:fixed_length].ljust(fixed_length, b"\0")
    dtype = _as_dtype(out_type).numpy_dtype
    if len(data) % dtype.itemsize:
        raise _InvalidArgumentError(f"{len(data)} bytes are not a whole number of {dtype} numbers")
    return _as_tensor(_np.frombuffer(data, dtype.newbyteorder("<" if little_endian else ">")))


def __getattr__(name: str) -> object:
    from distgrad.absent import message

    raise AttributeError(message(f"io.{name}"))

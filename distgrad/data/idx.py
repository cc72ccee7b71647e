"""Reads IDX files, the format of MNIST: ``train-images-idx3-ubyte``, compressed or not."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np

from distgrad.core.errors import DataError

_TYPES: dict[int, np.dtype] = {
    0x08: np.dtype(">u1"),
    0x09: np.dtype(">i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_GZIP = b"\x1f\x8b"

# The four files of MNIST and of the data sets that are shaped after it.
FILES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


def read_idx(path: str | os.PathLike) -> np.ndarray:
    """The array of one file, in this machine's byte order.

    A file that does not exist is looked for under its name with ``.gz`` as well; whether a file is
    compressed is read from its first bytes. Raises DataError that names the file. Format: Y. LeCun,
    C. Cortes, C. J. C. Burges, The MNIST database of handwritten digits.
    """
    path = Path(path).expanduser()
    compressed = path.with_name(f"{path.name}.gz")
    if not path.exists() and compressed.exists():
        path = compressed
    try:
        content = path.read_bytes()
        if content.startswith(_GZIP):
            content = gzip.decompress(content)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; check the path") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); get it again") from error
    return _parse(path, content)


def read_pairs(folder: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays under the keys of ``FILES``, from the files of that name in ``folder``."""
    return {key: read_idx(Path(folder).expanduser() / name) for key, name in FILES.items()}


def _parse(path: Path, content: bytes) -> np.ndarray:
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _TYPES:
        raise DataError(
            f"{path} is not an IDX file: it begins with {content[:4].hex(' ') or 'nothing'}, "
            "where two zeros, a type and the number of dimensions should be"
        )
    dtype, dimensions = _TYPES[content[2]], content[3]
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise DataError(f"{path} ends within its header; get it again")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    expected = header + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise DataError(
            f"{path} has {len(content)} bytes, but an array of shape {shape} and dtype "
            f"{dtype.name} needs {expected}; get it again"
        )
    array = np.frombuffer(content, dtype, offset=header).reshape(shape)
    return array.astype(dtype.newbyteorder("="))  # a copy: what comes from bytes is read-only

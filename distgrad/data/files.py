"""Files that datasets are read from: their names, what unpacks them, and their order."""

from __future__ import annotations

import glob
import gzip
import io
import itertools
import os
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from distgrad.core.errors import InvalidArgumentError, NotFoundError
from distgrad.data import specs
from distgrad.data.dataset import AUTOTUNE, Dataset

KINDS = (None, "", "GZIP", "ZLIB")  # of compression


def names_of(filenames: Any) -> list[str]:
    """Paths as texts: of one, of a list or array, or of a dataset of them.

    Raises TypeError for what is no path.
    """
    if isinstance(filenames, Dataset):
        given: Any = filenames.as_numpy_iterator()
    elif isinstance(filenames, (str, bytes, Path)):
        given = [filenames]
    else:
        given = np.asarray(filenames, object).ravel()
    return [os.fsdecode(name) for name in given]


def matching(pattern: Any) -> list[str]:
    """The files of a pattern, or of a list of them, in order. Raises ValueError for none."""
    found = sorted(path for each in names_of(pattern) for path in glob.glob(each))
    if not found:
        raise ValueError(f"No files match `file_pattern` {pattern!r}.")
    return found


def opened(path: str, compression_type: str | None = None) -> Any:
    """A file of bytes, as it is, or unpacked of "GZIP" or "ZLIB".

    Raises NotFoundError where there is none, InvalidArgumentError for another kind of compression.
    """
    if compression_type not in KINDS:
        raise InvalidArgumentError(
            f"compression_type is '', 'GZIP' or 'ZLIB', not {compression_type!r}"
        )
    if not Path(path).is_file():
        raise NotFoundError(f"{path}; No such file or directory")
    if compression_type == "GZIP":
        return gzip.open(path)
    if compression_type == "ZLIB":
        return io.BytesIO(zlib.decompress(Path(path).read_bytes()))
    return open(path, "rb")


def of_files(
    filenames: Any,
    read: Callable[[str], Iterable[Any]],
    num_parallel_reads: int | None,
    kind: np.ndarray,
) -> Dataset:
    """What ``read`` gives of each file, such as ``kind``: of so many files in turns.

    For None or AUTOTUNE that is one file after the other. Where ``filenames`` is a dataset, each
    pass goes through it anew.
    """
    spec = specs.of_array(kind)
    files = filenames
    if not isinstance(filenames, Dataset):
        files = Dataset.from_tensor_slices(np.array(names_of(filenames), str))

    def content(name: Any) -> Iterable[Any]:
        (path,) = names_of(name)
        return read(path)

    if num_parallel_reads in (None, 1, AUTOTUNE):  # no generator: see `Dataset.ignore_errors`
        one_by_one = itertools.chain.from_iterable
        return Dataset(lambda this: one_by_one(map(content, files._elements(this))), spec=spec)
    return files.interleave(
        lambda name: Dataset(lambda _: iter(content(name)), spec=spec), num_parallel_reads
    )

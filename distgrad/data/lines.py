"""Datasets of the lines of text files, and of the records of CSV files, read as they are asked for.

Texts are arrays of str, which no tensor holds.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from distgrad.core.errors import InvalidArgumentError
from distgrad.core.texts import as_texts
from distgrad.data.calling import as_tensors
from distgrad.data.dataset import Dataset
from distgrad.data.files import names_of, of_files, opened

_KINDS = {"i": ("int", int), "u": ("int", int), "f": ("float", float)}


def _text(path: str, compression_type: str | None = None, encoding: str = "utf-8") -> Any:
    """A text file, as it is, or unpacked; raises as `files.opened`."""
    return io.TextIOWrapper(opened(path, compression_type), encoding, newline="")


def TextLineDataset(
    filenames: Any,
    compression_type: str | None = None,
    buffer_size: int | None = None,
    num_parallel_reads: int | None = None,
    name: str | None = None,
) -> Dataset:
    """The lines of text files (UTF-8), one file after the other, without what ends them.

    ``filenames`` is one, a list or a dataset of them; ``compression_type`` is None, "GZIP" or
    "ZLIB"; with ``num_parallel_reads`` so many files are read in turns, one line of each;
    ``buffer_size`` changes nothing. Raises NotFoundError, as it is read, for a file that is not
    there, InvalidArgumentError for another kind of compression.
    """

    def lines(path: str) -> Iterator[Any]:
        with _text(path, compression_type) as file:
            for line in file:
                yield np.array(line.removesuffix("\n").removesuffix("\r"))

    return of_files(filenames, lines, num_parallel_reads, np.array(""))


def CsvDataset(
    filenames: Any,
    record_defaults: Sequence[Any],
    compression_type: str | None = None,
    buffer_size: int | None = None,
    header: bool = False,
    field_delim: str = ",",
    use_quote_delim: bool = True,
    na_value: str = "",
    select_cols: Sequence[int] | None = None,
    exclude_cols: Sequence[int] | None = None,
) -> Dataset:
    """The records of CSV files as tuples, with an entry for each of ``record_defaults``.

    That is the default of a column, whose dtype is that of the column, or a dtype alone for one
    that may not be missing; a field is missing where it is empty or ``na_value``. ``select_cols``
    are the numbers of the columns that are read, ``exclude_cols`` those that are not. Raises
    InvalidArgumentError, as it is read, for a record of another number of fields, a field that is
    missing, and one that is no number; and for both kinds of selection.
    """
    if select_cols is not None and exclude_cols is not None:
        raise InvalidArgumentError("give select_cols or exclude_cols, not both")
    paths, columns = names_of(filenames), [_column(each) for each in record_defaults]
    options = (field_delim, use_quote_delim, header, compression_type)

    def entries(row: list[str]) -> tuple[np.ndarray, ...]:
        return _entries(row, columns, select_cols, exclude_cols, na_value)

    # (Python's own map goes on after an error, as ignore_errors needs it to.)
    return Dataset(
        lambda _: map(
            entries, itertools.chain.from_iterable(rows(path, *options) for path in paths)
        )
    )


def decode_csv(
    records: Any,
    record_defaults: Sequence[Any],
    field_delim: str = ",",
    use_quote_delim: bool = True,
    na_value: str = "",
    select_cols: Sequence[int] | None = None,
    name: str | None = None,
) -> list[Any]:
    """The fields of records, which are texts: for each default a tensor of the shape of records.

    Defaults and what raises InvalidArgumentError are those of `CsvDataset`.
    """
    texts, columns = as_texts(records), [_column(each) for each in record_defaults]
    if not columns:
        raise InvalidArgumentError("decode_csv needs a default for each column")
    try:
        parsed = [
            next(_reader([text], field_delim, use_quote_delim), [])
            for text in texts.ravel().tolist()
        ]
    except csv.Error as error:
        raise InvalidArgumentError(f"a record is no CSV: {error}") from None
    found = [_entries(fields, columns, select_cols, None, na_value) for fields in parsed]
    return [
        as_tensors(
            np.array([row[i] for row in found], None if found else dtype).reshape(texts.shape)
        )
        for i, (dtype, _) in enumerate(columns)
    ]


def _reader(lines: Iterable[str], field_delim: str, use_quote_delim: bool) -> Iterator[list[str]]:
    quoting: Any = csv.QUOTE_MINIMAL if use_quote_delim else csv.QUOTE_NONE
    return csv.reader(lines, delimiter=field_delim, quoting=quoting)


def rows(
    path: str,
    field_delim: str = ",",
    use_quote_delim: bool = True,
    header: bool = False,
    compression_type: str | None = None,
    encoding: str = "utf-8",
) -> Iterator[list[str]]:
    """The records of a CSV file, as texts, without its header."""
    with _text(path, compression_type, encoding) as file:
        reader = _reader(file, field_delim, use_quote_delim)
        if header:
            next(reader, None)
        yield from reader


def _column(given: Any) -> tuple[np.dtype, Any]:
    """Dtype and default (None without one) of a column."""
    wanted = getattr(given, "numpy_dtype", given)
    if isinstance(wanted, (type, np.dtype)):
        return np.dtype(wanted), None
    array = np.asarray(given)
    weak = not hasattr(given, "dtype")
    small = {"f": np.dtype(np.float32), "i": np.dtype(np.int32)}
    dtype = small.get(array.dtype.kind, array.dtype) if weak and array.size else array.dtype
    return dtype, array.ravel()[0] if array.size else None


def _entries(
    row: list[str],
    columns: list[tuple[np.dtype, Any]],
    selected: Sequence[int] | None,
    excluded: Sequence[int] | None,
    na_value: str,
) -> tuple[np.ndarray, ...]:
    if selected is not None and max(selected, default=-1) < len(row):
        row = [row[i] for i in selected]
    elif excluded is not None:
        row = [field for i, field in enumerate(row) if i not in excluded]
    if len(row) != len(columns):
        raise InvalidArgumentError(
            f"Expect {len(columns)} fields but have {len(row)} in record: {row}"
        )
    found = []  # (no generator: `ignore_errors` takes one to end with its error)
    for number, (field, (dtype, default)) in enumerate(zip(row, columns, strict=True)):
        if field not in ("", na_value):
            found.append(_read(field, number, dtype))
        elif default is None:
            raise InvalidArgumentError(f"Field {number} is required but missing in record!")
        else:
            found.append(np.asarray(default, dtype if dtype.kind != "U" else None))
    return tuple(found)


def _read(field: str, number: int, dtype: np.dtype) -> np.ndarray:
    if dtype.kind not in _KINDS:
        return np.array(field)
    word, of = _KINDS[dtype.kind]
    read: Callable[[str], Any] = of
    try:
        return np.array(read(field), dtype)
    except (ValueError, OverflowError):
        raise InvalidArgumentError(f"Field {number} is not a valid {word}: {field}") from None

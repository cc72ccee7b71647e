"""Reads CSV files of numbers, compressed by gzip or not, and says which line is wrong."""

from __future__ import annotations

import csv
import gzip
import math
import os
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO

import numpy as np

from distgrad.core.errors import DataError

# What stands for a missing number, as pandas.read_csv has it, and the mark of older data sets.
_MISSING = frozenset(("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "?"))

_ENCODING = "utf-8-sig"  # without the mark that Excel puts first


def read_csv(
    path: str | os.PathLike,
    label: str,
    delimiter: str = ",",
    header: bool = True,
    columns: Sequence[str] | None = None,
    kinds: Mapping[str, Sequence[str]] = MappingProxyType({}),
    gaps: bool = False,
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The other columns' names and values (n, columns) as float64, and the label column as text.

    ``columns`` are those to read, in that order (`Cells`); None: all. Those in ``kinds`` have a
    column for each of their texts. Without a header the columns are called 0, 1, 2, ... With
    ``gaps`` a missing number is nan. Raises DataError that names the columns where one of those is
    missing, and line and column of the first value that is wrong.
    """
    path = Path(path).expanduser()
    values, labels = array("d"), []
    unknown: list[tuple[int, str]] = []  # labels that say that there is none
    with _records(path, delimiter, header) as (names, records):
        position = position_of(path, label, names)
        chosen = spread([n for n in names if n != label] if columns is None else columns, kinds)
        cells = Cells(path, chosen, names)
        for line, record in records:
            text = record[position].strip()
            if not text:
                raise DataError(_empty(path, line, label))
            if text in _MISSING:
                unknown.append((line, text))
            labels.append(text)
            values.extend(_numbers(path, line, chosen, cells.of(record), gaps))
    if not chosen:
        raise DataError(f"{path} has no column but the label {label!r}")
    if not labels:
        raise DataError(f"{path} has no rows")
    if unknown and all(_is_finite(text) for text in set(labels) - _MISSING):  # not one of texts
        line, text = unknown[0]
        raise DataError(
            f"{path}:{line}: column {label!r} holds {text!r}, no number; leave the line out"
        )
    return chosen, np.frombuffer(values).reshape(-1, len(chosen)), np.array(labels)


def read_rows(
    path: str | os.PathLike,
    columns: Sequence[str],
    size: int,
    delimiter: str = ",",
    header: bool = True,
    gaps: bool = False,
) -> Iterator[np.ndarray]:
    """Those columns, in that order, as float64 (rows, columns): ``size`` rows at a time.

    A file without a header that has as many columns has just these; ``gaps`` is that of `read_csv`.
    Raises DataError as that does.
    """
    path = Path(path).expanduser()
    values, width, found = array("d"), len(columns), False
    with _records(path, delimiter, header) as (names, records):
        if not header:
            own = list(dict.fromkeys(column.partition("=")[0] for column in columns))
            names = own if len(own) == len(names) else names
        cells = Cells(path, columns, names)
        for line, record in records:
            found = True
            values.extend(_numbers(path, line, columns, cells.of(record), gaps))
            if len(values) == size * width:
                yield np.frombuffer(values).reshape(-1, width)
                values = array("d")
    if not found:
        raise DataError(f"{path} has no rows")
    if values:
        yield np.frombuffer(values).reshape(-1, width)


def read_column(
    path: str | os.PathLike, column: str | None = None, delimiter: str = ",", header: bool = True
) -> np.ndarray:
    """One column (n,) as float64, the last one where none is named. Raises DataError."""
    path = Path(path).expanduser()
    values = array("d")
    with _records(path, delimiter, header) as (names, records):
        position = len(names) - 1 if column is None else position_of(path, column, names)
        for line, record in records:
            values.extend(_numbers(path, line, [names[position]], [record[position]]))
    if not values:
        raise DataError(f"{path} has no rows")
    return np.frombuffer(values)


def read_categories(
    path: str | os.PathLike, columns: Sequence[str], delimiter: str = ",", header: bool = True
) -> dict[str, list[str]]:
    """The different texts of each of those columns, in order. Raises DataError as `read_csv`."""
    path = Path(path).expanduser()
    with _records(path, delimiter, header) as (names, records):
        positions = positions_of(path, columns, names)
        found: list[set[str]] = [set() for _ in columns]
        for _, record in records:
            for texts, position in zip(found, positions, strict=True):
                texts.add(record[position].strip())
    return {name: sorted(texts - {""}) for name, texts in zip(columns, found, strict=True)}


def spread(columns: Sequence[str], kinds: Mapping[str, Sequence[str]]) -> list[str]:
    """Columns, where one of ``kinds`` is a column for each of its texts: ``city=Rome``, ..."""
    return [
        name
        for column in columns
        for name in ([f"{column}={t}" for t in kinds[column]] if column in kinds else [column])
    ]


def category_of(column: str, names: Sequence[str]) -> tuple[str, str] | None:
    """The column of ``names`` and the text that a column such as ``city=Rome`` stands for."""
    if column in names:
        return None
    ends = [place for place, letter in enumerate(column) if letter == "="]
    return next(((column[:i], column[i + 1 :]) for i in ends if column[:i] in names), None)


class Cells:
    """The values of columns in the records of a table.

    A column called ``city=Rome`` that the table does not have is 1 where its column ``city`` says
    Rome, else 0. Raises DataError that names the columns where one is missing.
    """

    def __init__(self, path: object, columns: Sequence[str], names: Sequence[str]) -> None:
        meant = [category_of(column, names) for column in columns]
        sources = [c if kind is None else kind[0] for c, kind in zip(columns, meant, strict=True)]
        positions = positions_of(path, sources, names)
        texts = [None if kind is None else kind[1] for kind in meant]
        self._found = list(zip(positions, texts, strict=True))

    def of(self, record: Sequence[str]) -> list[str]:
        """The texts of a record, one for each column."""
        return [
            record[i] if text is None else str(int(record[i].strip() == text))
            for i, text in self._found
        ]


def position_of(path: object, column: str, names: Sequence[str]) -> int:
    """Where a column stands. Raises DataError that lists the columns."""
    return positions_of(path, [column], names)[0]


def positions_of(path: object, columns: Sequence[str], names: Sequence[str]) -> list[int]:
    """Where columns stand. Raises DataError that lists those that are missing, and all."""
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise DataError(
            f"{path} has two columns called {listing(doubled)}; names must differ{_hint(names)}"
        )
    missing = list(dict.fromkeys(column for column in columns if column not in names))
    if missing:
        raise DataError(
            f"{path} has no column {listing(list(map(repr, missing)), 10)}; "
            f"its columns are {listing(names)}{_hint(names)}"
        )
    return [names.index(column) for column in columns]


def _hint(names: Sequence[str]) -> str:
    """What the first line of a file looks like, where that is not the names of columns."""
    other = [mark for mark in ";\t|," if len(names) == 1 and mark in names[0]]
    if other:
        return f"; is data.delimiter {other[0]!r}?"
    if all(map(_is_finite, names)) and list(names) != [str(i) for i in range(len(names))]:
        return '; a file without a header needs data.header: false, and names them "0", "1", ...'
    return ""


def listing(names: Sequence[str], most: int = 40) -> str:
    """The first names of many, for a message."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


@contextmanager
def _records(
    path: Path, delimiter: str, header: bool
) -> Iterator[tuple[list[str], Iterator[tuple[int, list[str]]]]]:
    """The names of the columns, and every line that is not empty with its number."""
    try:
        with _open(path) as file:
            reader = csv.reader(file, delimiter=delimiter)
            first = next(reader, [])
            if not first:
                raise DataError(f"{path} is empty, or begins with an empty line")
            names = (
                [name.strip() for name in first] if header else list(map(str, range(len(first))))
            )
            yield names, _complete(path, len(names), reader, [] if header else [first])
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; check the path") from None
    except UnicodeError as error:
        raise DataError(f"{path} cannot be read as CSV ({error}); save it as UTF-8") from error
    except (OSError, EOFError, csv.Error, zlib.error) as error:
        raise DataError(f"{path} cannot be read as CSV ({error})") from error


def _complete(
    path: Path, columns: int, reader, begun: list[list[str]]
) -> Iterator[tuple[int, list[str]]]:
    for record in begun:
        yield reader.line_num, record
    for record in reader:
        if record:
            if len(record) != columns:
                raise DataError(
                    f"{path}:{reader.line_num} has {len(record)} values, but there are {columns} "
                    "columns; check the line and data.delimiter"
                )
            yield reader.line_num, record


def _numbers(
    path: Path, line: int, names: Sequence[str], texts: Sequence[str], gaps: bool = False
) -> list[float]:
    try:
        numbers = [float(text) for text in texts]
        if math.isfinite(sum(numbers)):
            return numbers
    except ValueError:
        pass
    numbers = []
    for name, text in zip(names, texts, strict=True):
        if gaps and text.strip() in _MISSING:
            numbers.append(math.nan)
            continue
        if not text.strip():
            raise DataError(f"{_empty(path, line, name)}; data.missing: mean fills those of tables")
        if not _is_finite(text):
            what = (
                "data.missing: mean fills such holes of tables"
                if text.strip() in _MISSING
                else "name a column of texts in data.categories, or leave it out of data.columns"
            )
            raise DataError(
                f"{path}:{line}: column {name!r} holds {text.strip()!r}, no finite number; {what}"
            )
        numbers.append(float(text))
    return numbers  # with gaps, or finite ones whose sum is not


def _empty(path: Path, line: int, name: str) -> str:
    return f"{path}:{line}: column {name!r} is empty; fill it, or leave the line out"


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding=_ENCODING, newline="")
    return path.open(encoding=_ENCODING, newline="")

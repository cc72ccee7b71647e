"""The jobs' tabular sources: numeric columns and one label column of a CSV or Parquet file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from distgrad.core.errors import DataError, MissingExtraError
from distgrad.data.csvfile import (
    category_of,
    listing,
    position_of,
    positions_of,
    read_categories,
    read_csv,
    spread,
)
from distgrad.data.filling import filled, values_for
from distgrad.data.packaged import read_packaged
from distgrad.data.source import ArraySource, Splits
from distgrad.data.splits import TEST_FRACTION, Standard, as_inputs, as_targets, drawn_rows, splits

_MOST_TEXTS = 1000  # each of them is a column


def load(spec: Mapping[str, Any], seed: int) -> Splits:
    """The table that a job's data section names; see `source.load`."""
    kinds: dict[str, list[str]] = {}
    missing = spec.get("missing")
    gaps = missing is not None
    match spec["source"]:
        case "breast_cancer":
            name, label = "breast_cancer", "diagnosis"
            file = "breast_cancer.csv.gz"
            names, features, labels = read_packaged(file, lambda path: read_csv(path, label))
        case "csv":
            name, label = spec["path"], spec["label"]
            options = spec.get("delimiter", ","), spec.get("header", True)
            kinds = read_categories(name, spec.get("categories") or (), *options)
            names, features, labels = read_csv(
                name, label, *options, spec.get("columns"), kinds, gaps
            )
        case _:
            name, label = spec["path"], spec["label"]
            kinds = parquet_categories(name, spec.get("categories") or ())
            names, features, labels = read_parquet(name, label, spec.get("columns"), kinds, gaps)
    y, classes = encode_labels(f"{name}: {label}", labels)
    for column, texts in kinds.items():
        if len(texts) > _MOST_TEXTS:
            raise DataError(
                f"{name}: column {column!r} has {len(texts)} different texts; {_MOST_TEXTS} is the "
                "most for categories: group them, or leave the column out of data.columns"
            )
    train, test = drawn_rows(name, y, spec.get("test_fraction", TEST_FRACTION), seed)
    if kinds:  # of a category that only the test part has, nothing is learnt
        known = features[train].any(axis=0) | ~np.isin(names, spread(list(kinds), kinds))
        names, features = np.array(names)[known].tolist(), features[:, known]
    # By the training part alone: the test part must not have a say in how it is seen.
    how: dict[str, Any] = {}
    note = ""
    if missing is not None:
        values, count = values_for(name, names, features[train], missing), np.isnan(features).sum()
        features, how["fill"] = filled(features, values), tuple(values.tolist())
        note = f", {count} missing values have the {missing} of their column"
    if spec.get("standardize", True):
        standard = Standard.of(features[train])
        features, how = standard(features), how | standard.described()
    x = as_inputs(name, features)
    more = f", classes {listing(classes, 10)}" if classes else ""
    more += note
    sources = ArraySource(x[train], y[train]), ArraySource(x[test], y[test])
    how |= {"features": tuple(names), "label": label, "classes": tuple(classes)}
    return splits(name, *sources, more=f" features{more}", kind="table", **how)


def encode_labels(where: str, labels: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Labels as an array to train on, and the names of the classes where they are text.

    Text that is all numbers counts as numbers. Whole numbers become int32, as they are; others
    float32; text becomes int32, the classes numbered from 0 in sorted order. Raises DataError for
    a number that does not fit.
    """
    if labels.dtype.kind != "U":
        return as_targets(where, labels), []
    for dtype in (np.int64, np.float64):
        try:
            return as_targets(where, labels.astype(dtype)), []
        except (ValueError, OverflowError):
            continue
    names, numbers = np.unique(labels, return_inverse=True)
    return numbers.astype(np.int32), names.tolist()


def read_parquet(
    path: str | os.PathLike,
    label: str,
    columns: Sequence[str] | None = None,
    kinds: Mapping[str, Sequence[str]] = MappingProxyType({}),
    gaps: bool = False,
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The other columns' names and values (n, columns) as float64, and the label column (n,).

    ``path`` is a file or a folder; ``columns``, ``kinds`` and ``gaps`` are those of
    `csvfile.read_csv`. Raises DataError that names the file and the columns, and MissingExtraError
    without pyarrow.
    """
    path = Path(path).expanduser()
    with _parquet(path) as parquet:
        table = parquet.read_table(path)
    names = table.column_names
    position_of(path, label, names)
    chosen = spread([n for n in names if n != label] if columns is None else columns, kinds)
    _sources(path, chosen, names)
    if not chosen or table.num_rows == 0:
        raise DataError(f"{path} has no {'rows' if chosen else f'column but the label {label!r}'}")
    labels = _column(path, table, label, names)
    values = _numeric(path, table, chosen, gaps)
    if labels.dtype.kind not in "fiub":
        labels = labels.astype(str)  # pyarrow gives text as Python objects
    return chosen, values, labels


def read_parquet_rows(
    path: str | os.PathLike, columns: Sequence[str], size: int, gaps: bool = False
) -> Iterator[np.ndarray]:
    """Those columns, in that order, as float64 (rows, columns): at most ``size`` rows at a time.

    Raises as `read_parquet`.
    """
    path = Path(path).expanduser()
    with _parquet(path) as parquet:
        found = parquet.ParquetDataset(path)
        sources = _sources(path, columns, found.schema.names)
        count = 0
        for fragment in found.fragments:
            for batch in fragment.to_batches(columns=sources, batch_size=size):
                if batch.num_rows:
                    yield _numeric(path, batch, columns, gaps, count)
                    count += batch.num_rows
        if not count:
            raise DataError(f"{path} has no rows")


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    """pyarrow's module for Parquet, and its errors as ours."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError(
            "reading Parquet needs pyarrow: pip install 'distgrad[data]'"
        ) from None
    try:
        yield parquet
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; check the path") from None
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet ({error})") from error


def _numeric(
    path: Path, table: Any, names: Sequence[str], gaps: bool, before: int = 0
) -> np.ndarray:
    """Columns of numbers (rows, columns); ``before`` is how many rows came before these."""
    columns = [_column(path, table, name, table.schema.names, gaps) for name in names]
    text = [n for n, values in zip(names, columns, strict=True) if values.dtype.kind not in "fiub"]
    if text:
        raise DataError(
            f"{path}: these columns are not numeric: {listing(text)}; name those of texts in "
            "data.categories, or leave them out of data.columns"
        )
    numbers = np.stack([values.astype(np.float64) for values in columns], axis=1)
    wrong = np.isinf(numbers) if gaps else ~np.isfinite(numbers)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        value = numbers[row, column]
        raise DataError(
            f"{path}: column {names[column]!r} holds {value}, no finite number, in row "
            f"{before + row + 1}"
            + ("; data.missing: mean fills such holes of tables" if np.isnan(value) else "")
        )
    return numbers


def parquet_categories(path: str | os.PathLike, columns: Sequence[str]) -> dict[str, list[str]]:
    """The different texts of each of those columns, in order. Raises as `read_parquet`."""
    path = Path(path).expanduser()
    found = {}
    if columns:
        with _parquet(path) as parquet:
            positions_of(path, columns, parquet.ParquetDataset(path).schema.names)
            table = parquet.read_table(path, columns=list(columns))
            for name in columns:
                texts = _texts(table.column(name))
                found[name] = sorted({text for text in texts if text is not None})
    return found


def _sources(path: Path, columns: Sequence[str], names: Sequence[str]) -> list[str]:
    """The columns of a table that those, ``city=Rome`` among them, are made of, each once."""
    meant = [category_of(column, names) or (column,) for column in columns]
    found = list(dict.fromkeys(source for source, *_ in meant))
    positions_of(path, found, names)
    return found


def _column(
    path: Path, table: Any, name: str, names: Sequence[str], gaps: bool = False
) -> np.ndarray:
    kind = category_of(name, names)
    if kind is not None:
        return np.array([text == kind[1] for text in _texts(table.column(kind[0]))])
    column = table.column(name)
    if column.null_count and not gaps:
        raise DataError(
            f"{path}: column {name!r} has {column.null_count} missing values; data.missing: mean "
            "fills those of numbers"
        )
    if column.null_count:  # to types of which NumPy can have numbers with nan among them
        plain = {"bool": "uint8", "null": "float64"}.get(str(column.type))
        column = column if plain is None else column.cast(plain)
    return column.to_numpy(zero_copy_only=False)


def _texts(column: Any) -> list[str | None]:
    """The values of a column as text; missing ones are None."""
    return [None if value is None else str(value) for value in column.to_pylist()]

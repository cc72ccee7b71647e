"""The jobs' tabular sources: numeric columns and one label column of a CSV or Parquet file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from distgrad.core.errors import DataError, MissingExtraError
from distgrad.data.csvfile import listing, position_of, positions_of, read_csv
from distgrad.data.packaged import read_packaged
from distgrad.data.source import ArraySource, Splits
from distgrad.data.splits import TEST_FRACTION, Standard, as_inputs, as_targets, drawn_rows, splits


def load(spec: Mapping[str, Any], seed: int) -> Splits:
    """The table that a job's data section names; see `source.load`."""
    match spec["source"]:
        case "breast_cancer":
            name, label = "breast_cancer", "diagnosis"
            file = "breast_cancer.csv.gz"
            names, features, labels = read_packaged(file, lambda path: read_csv(path, label))
        case "csv":
            name, label = spec["path"], spec["label"]
            options = spec.get("delimiter", ","), spec.get("header", True)
            names, features, labels = read_csv(name, label, *options)
        case _:
            name, label = spec["path"], spec["label"]
            names, features, labels = read_parquet(name, label)
    y, classes = encode_labels(f"{name}: {label}", labels)
    train, test = drawn_rows(name, y, spec.get("test_fraction", TEST_FRACTION), seed)
    how: dict[str, Any] = {}
    if spec.get("standardize", True):
        # By the training part alone: the test part must not have a say in how it is seen.
        standard = Standard.of(features[train])
        features, how = standard(features), standard.described()
    x = as_inputs(name, features)
    more = f", classes {listing(classes, 10)}" if classes else ""
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
    path: str | os.PathLike, label: str, columns: Sequence[str] | None = None
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The other columns' names and values (n, columns) as float64, and the label column (n,).

    ``path`` is a file or a folder; ``columns`` are those to read, in that order, None: all.
    Raises DataError that names the file and the columns, and MissingExtraError without pyarrow.
    """
    path = Path(path).expanduser()
    with _parquet(path) as parquet:
        table = parquet.read_table(path)
    names = table.column_names
    position_of(path, label, names)
    chosen = [name for name in names if name != label] if columns is None else list(columns)
    positions_of(path, chosen, names)
    if not chosen or table.num_rows == 0:
        raise DataError(f"{path} has no {'rows' if chosen else f'column but the label {label!r}'}")
    labels = _column(path, table, label)
    values = _numeric(path, table, chosen)
    if labels.dtype.kind not in "fiub":
        labels = labels.astype(str)  # pyarrow gives text as Python objects
    return chosen, values, labels


def read_parquet_rows(
    path: str | os.PathLike, columns: Sequence[str], size: int
) -> Iterator[np.ndarray]:
    """Those columns, in that order, as float64 (rows, columns): at most ``size`` rows at a time.

    Raises as `read_parquet`.
    """
    path = Path(path).expanduser()
    with _parquet(path) as parquet:
        found = parquet.ParquetDataset(path)
        positions_of(path, columns, found.schema.names)
        some = False
        for fragment in found.fragments:
            for batch in fragment.to_batches(columns=list(columns), batch_size=size):
                if batch.num_rows:
                    some = True
                    yield _numeric(path, batch, columns)
        if not some:
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


def _numeric(path: Path, table: Any, names: Sequence[str]) -> np.ndarray:
    columns = [_column(path, table, name) for name in names]
    text = [n for n, values in zip(names, columns, strict=True) if values.dtype.kind not in "fiub"]
    if text:
        raise DataError(
            f"{path}: these columns are not numeric: {listing(text)}; all but the label must be"
        )
    return np.stack([values.astype(np.float64) for values in columns], axis=1)


def _column(path: Path, table: Any, name: str) -> np.ndarray:
    column = table.column(name)
    if column.null_count:
        raise DataError(f"{path}: column {name!r} has {column.null_count} missing values")
    return column.to_numpy(zero_copy_only=False)

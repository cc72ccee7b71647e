"""The jobs' tabular sources: numeric columns and one label column of a CSV or Parquet file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distgrad.core.errors import DataError, MissingExtraError
from distgrad.data.csvfile import listing, position_of, read_csv
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


def read_parquet(path: str | os.PathLike, label: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The other columns' names and values (n, columns) as float64, and the label column (n,).

    ``path`` is a file or a folder.

    Raises DataError that names the file and the columns, and MissingExtraError without pyarrow.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError(
            "reading Parquet needs pyarrow: pip install 'distgrad[data]'"
        ) from None
    path = Path(path).expanduser()
    try:
        table = parquet.read_table(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; check the path") from None
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet ({error})") from error
    names = table.column_names
    names.pop(position_of(path, label, names))
    if not names or table.num_rows == 0:
        raise DataError(f"{path} has no {'rows' if names else f'column but the label {label!r}'}")
    columns = {}
    for name in (*names, label):
        if table[name].null_count:
            raise DataError(f"{path}: column {name!r} has {table[name].null_count} missing values")
        columns[name] = table[name].to_numpy()
    text = [name for name in names if columns[name].dtype.kind not in "fiub"]
    if text:
        raise DataError(
            f"{path}: these columns are not numeric: {listing(text)}; all but the label must be"
        )
    labels = columns[label]
    if labels.dtype.kind not in "fiub":
        labels = labels.astype(str)  # pyarrow gives text as Python objects
    values = np.stack([columns[name].astype(np.float64) for name in names], axis=1)
    return names, values, labels

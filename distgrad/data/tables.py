"""make_csv_dataset: batches of the columns of CSV files, by their names."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.data.dataset import Dataset
from distgrad.data.files import matching
from distgrad.data.lines import CsvDataset, rows


def make_csv_dataset(
    file_pattern: Any,
    batch_size: int,
    column_names: Sequence[str] | None = None,
    column_defaults: Sequence[Any] | None = None,
    label_name: str | None = None,
    select_columns: Sequence[Any] | None = None,
    field_delim: str = ",",
    use_quote_delim: bool = True,
    na_value: str = "",
    header: bool = True,
    num_epochs: int | None = None,
    shuffle: bool = True,
    shuffle_buffer_size: int = 10000,
    shuffle_seed: int | None = None,
    prefetch_buffer_size: int | None = None,
    num_parallel_reads: int | None = None,
    sloppy: bool = False,
    num_rows_for_inference: int | None = 100,
    compression_type: str | None = None,
    ignore_errors: bool = False,
    encoding: str = "utf-8",
) -> Dataset:
    """Batches of rows as dicts of columns, or ``(dict, label)`` with a ``label_name``.

    Files match ``file_pattern``, one or a list. Names come from the header, kinds from the first
    rows: int32, int64, float32, float64 or text, 0 or "" where a field is missing.
    ``select_columns`` are names or numbers. Rows come in a random order, without end unless
    ``num_epochs`` says so. ``ignore_errors`` leaves out rows that cannot be read; parallel reads
    and ``sloppy`` change nothing. Raises ValueError for no file, files of other headers, and names
    that are none.
    """
    paths = matching(file_pattern)
    options = (field_delim, use_quote_delim)
    if column_names is None:
        if not header:
            raise ValueError("Expected `column_names` or `header` arguments. Neither is provided.")
        column_names = _header(paths, options, compression_type, encoding)
    names = list(column_names)
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            "Either `column_names` argument or CSV header row contains duplicate column names: "
            f"{repeated}."
        )
    chosen = None if select_columns is None else _places(select_columns, names)
    if column_defaults is None:
        records = itertools.chain.from_iterable(
            rows(path, *options, header, compression_type, encoding) for path in paths
        )
        first = itertools.islice(records, num_rows_for_inference)
        column_defaults = _inferred(first, len(names), chosen, na_value)
    if chosen is not None and len(column_defaults) != len(chosen):
        raise ValueError(
            "If specified, `column_defaults` and `select_columns` must have the same length: "
            f"`column_defaults` has length {len(column_defaults)}, `select_columns` has length "
            f"{len(chosen)}."
        )
    names = names if chosen is None else [names[i] for i in chosen]
    if label_name is not None and label_name not in names:
        raise ValueError(
            f"`label_name` provided must be one of the columns: {names}. Received: {label_name}."
        )
    found: Dataset = CsvDataset(
        paths, column_defaults, compression_type, None, header, *options, na_value, chosen
    )
    if ignore_errors:
        found = found.ignore_errors()
    if shuffle:
        found = found.shuffle(shuffle_buffer_size, shuffle_seed)
    if num_epochs != 1:
        found = found.repeat(num_epochs)
    found = found.batch(batch_size, drop_remainder=num_epochs is None)

    def named(*columns: Any) -> Any:
        features = dict(zip(names, columns, strict=True))
        return features if label_name is None else (features, features.pop(label_name))

    return found.map(named).prefetch(prefetch_buffer_size or 1)


def _header(
    paths: list[str], options: tuple[str, bool], compression: str | None, encoding: str
) -> list[str]:
    """The first record of the files, which is the same in all of them."""
    first: list[str] | None = None
    for path in paths:
        found = next(rows(path, *options, False, compression, encoding), None)
        if found is None:
            raise ValueError(f"Failed when reading the header line of {path}. Is it an empty file?")
        if first is not None and found != first:
            raise ValueError(
                "All input CSV files should have the same column names in the header row. File "
                f"{path} has different column names."
            )
        first = found
    assert first is not None
    return first


def _places(chosen: Sequence[Any], names: list[str]) -> list[int]:
    """The numbers of columns, in order. Raises ValueError for those that there are not."""
    found = set()
    for each in chosen:
        place = each if isinstance(each, int) else names.index(each) if each in names else -1
        if not 0 <= place < len(names):
            raise ValueError(
                f"Column {each!r} specified in `select_columns` must be of one of the columns: "
                f"{names}."
            )
        found.add(place)
    if len(found) != len(chosen):
        raise ValueError("The `select_columns` argument contains duplicate columns.")
    return sorted(found)


_ORDER = (np.int32, np.int64, np.float32, np.float64, str)


def _inferred(records: Any, count: int, chosen: list[int] | None, na_value: str) -> list[Any]:
    """A default for each column, of the first kind that all its fields have."""
    places = range(count) if chosen is None else chosen
    kinds = [-1] * len(places)
    for record in records:
        if len(record) != count:
            raise ValueError(
                f"Problem inferring types: a CSV row has {len(record)} number of fields. "
                f"Expected: {count}."
            )
        for j, place in enumerate(places):
            if record[place] not in ("", na_value):
                kinds[j] = max(kinds[j], _kind(record[place]))
    # (Without any field it is a text.)
    return [np.array([""]) if _ORDER[k] is str else np.zeros(1, _ORDER[k]) for k in kinds]


def _kind(field: str) -> int:
    """The place in ``_ORDER`` of the first kind that a field has."""
    for place, limit in enumerate((2**31, 2**63)):
        try:
            if -limit <= int(field) < limit:
                return place
        except ValueError:
            break
    for place in (2, 3):
        try:
            with np.errstate(over="ignore"):
                if float(np.array(field, _ORDER[place])) < np.inf:
                    return place
        except ValueError:
            break
    return len(_ORDER) - 1

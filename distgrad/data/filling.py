"""Numbers that a table lacks, and what stands in for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distgrad.core.errors import DataError
from distgrad.data.csvfile import listing


def values_for(where: str, names: Sequence[str], train: np.ndarray, how: str) -> np.ndarray:
    """What stands in for the missing values (nan) of each column of ``train`` (n, columns).

    ``how`` is ``mean`` or ``median``: that of the values that are there. Raises DataError that
    names the columns without any.
    """
    empty = np.isnan(train).all(axis=0)
    if empty.any():
        columns = [repr(name) for name, none in zip(names, empty, strict=True) if none]
        raise DataError(
            f"{where}: the rows to train on have no value in column {listing(columns)}: leave it "
            "out of data.columns"
        )
    middle = np.nanmean if how == "mean" else np.nanmedian
    return middle(train, axis=0)


def filled(rows: np.ndarray, values: Sequence[float] | np.ndarray) -> np.ndarray:
    """The rows with the value of its column in place of each nan."""
    return np.where(np.isnan(rows), np.asarray(values), rows)

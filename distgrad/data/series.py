"""The jobs' source of time series: windows of past values, and the values to forecast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from distgrad.core.errors import DataError
from distgrad.data.csvfile import read_column
from distgrad.data.packaged import read_packaged
from distgrad.data.preparation import Preparation
from distgrad.data.source import ArraySource, Splits
from distgrad.data.splits import TEST_FRACTION, Standard, cut

_BUILTIN = {"el-nino": ("el_nino.csv.gz", "temperature")}


def load(spec: Mapping[str, Any]) -> Splits:
    """The series that a job's data section names; see `source.load`."""
    name = spec.get("path") or spec["builtin"]
    if spec.get("path"):
        column = spec.get("column")
        values = read_column(name, column, spec.get("delimiter", ","))
    else:
        file, column = _BUILTIN[name]
        values = read_packaged(file, lambda path: read_column(path, column))
    window, horizon = spec["window"], spec.get("horizon", 1)
    end = cut(name, len(values), spec.get("test_fraction", TEST_FRACTION), "values")
    if end < window + horizon or len(values) - end < horizon:
        raise DataError(
            f"{name} has {end} values to train on and {len(values) - end} to test, which is too "
            f"little for a window of {window} and a horizon of {horizon}"
        )
    standard = Standard.of(values[:end])  # of the past alone: a forecaster knows no more
    scaled = standard(values)
    train = windows(scaled[:end], window, horizon)
    # A forecast of the first held-out value sees the training part's end, as it would in use.
    test = windows(scaled[end - window :], window, horizon)
    description = (
        f"{name}: {len(train)} training and {len(test)} test windows of {window} values, "
        f"mean {standard.mean:.4g}, standard deviation {standard.deviation:.4g}"
    )
    preparation = Preparation.of("series", train, label=column, **standard.described())
    return Splits(train, test, description, preparation=preparation)


def windows(values: np.ndarray, window: int, horizon: int) -> ArraySource:
    """Every window (n, window, 1) of a series, and the ``horizon`` values (n, horizon) after it."""
    every = np.lib.stride_tricks.sliding_window_view(values, window + horizon)
    return ArraySource(
        np.ascontiguousarray(every[:, :window, None]), np.ascontiguousarray(every[:, window:])
    )

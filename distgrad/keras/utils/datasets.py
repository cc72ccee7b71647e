"""Datasets of arrays: windows over a series, and one dataset cut in two."""

from __future__ import annotations

import random as python_random
from typing import Any

import numpy as np

from distgrad.data.dataset import AUTOTUNE, Dataset
from distgrad.data.nest import to_arrays
from distgrad.data.rows import seed_of
from distgrad.keras.layers.core import one_of


def timeseries_dataset_from_array(
    data: Any,
    targets: Any,
    sequence_length: int,
    sequence_stride: int = 1,
    sampling_rate: int = 1,
    batch_size: int | None = 128,
    shuffle: bool = False,
    seed: int | None = None,
    start_index: int | None = None,
    end_index: int | None = None,
    format: str = "tf",
) -> Dataset:
    """Batches of windows over the rows of ``data``, with the target of each window's first row.

    A window holds ``sequence_length`` rows, ``sampling_rate`` apart; windows start
    ``sequence_stride`` rows apart. Rows before ``start_index`` and from ``end_index`` on are left
    out. Without ``targets`` there are windows alone. Raises ValueError for numbers that do not fit
    the data.
    """
    one_of("format", format, "tf")
    rows = _array(data)
    first, last = start_index or 0, len(rows) if end_index is None else end_index
    for name, value in (("start_index", start_index), ("end_index", end_index)):
        if value is not None and not 0 <= value <= len(rows) - (name == "start_index"):
            raise ValueError(f"`{name}` must lie in the data, of {len(rows)} rows, not {value}")
    if first >= last:
        raise ValueError(f"start_index={first} must be below end_index={last}")
    for name, value in (
        ("sequence_length", sequence_length),
        ("sequence_stride", sequence_stride),
        ("sampling_rate", sampling_rate),
    ):
        if not 0 < value <= (len(rows) if name == "sequence_length" else max(len(rows) - 1, 1)):
            raise ValueError(
                f"`{name}` must be above 0 and fit the data, of {len(rows)} rows. "
                f"Received: {name}={value}"
            )
    count = last - first - (sequence_length - 1) * sampling_rate
    own, goals = rows[first:last], None
    if targets is not None:
        goals = _array(targets)
        count, goals = min(count, len(goals)), goals[first:last]
    starts = np.arange(0, count, sequence_stride)
    if shuffle:
        chosen = seed_of(seed)
        np.random.RandomState(chosen).shuffle(starts)
    steps = np.arange(sequence_length) * sampling_rate

    def windows(at: Any) -> Any:
        found = own[np.asarray(at)[..., None] + steps]
        return found if goals is None else (found, goals[at])

    dataset = Dataset.from_tensor_slices(starts)
    if shuffle:
        dataset = dataset.shuffle(len(starts), seed=chosen)
    if batch_size is not None:
        dataset = dataset.batch(batch_size)
    return dataset.map(windows).prefetch(AUTOTUNE)


def _array(values: Any) -> np.ndarray:
    """The values as an array, Python's numbers in a list as TensorFlow takes them."""
    return to_arrays(values) if isinstance(values, list) else np.asarray(values)


def split_dataset(
    dataset: Any,
    left_size: float | None = None,
    right_size: float | None = None,
    shuffle: bool = False,
    seed: int | None = None,
    preferred_backend: Any = None,
) -> tuple[Dataset, Dataset]:
    """Two datasets: the first elements, or rows of arrays, and the rest.

    ``dataset`` is a Dataset, an array, or a list or tuple of arrays. Sizes are numbers of elements,
    or fractions; one may be left out. What comes from ``batch`` is cut between the samples in it,
    and batched again. ``shuffle`` mixes the elements before. Raises TypeError for
    something else, ValueError for sizes that leave a part empty or do not fit.
    """
    size = getattr(dataset, "batch_size", None)
    if size is not None:
        cut = split_dataset(dataset.unbatch(), left_size, right_size, shuffle, seed)
        return cut[0].batch(size), cut[1].batch(size)
    if isinstance(dataset, Dataset):
        elements = list(dataset._next_pass()) if shuffle or _count(dataset) < 0 else None
        total = _count(dataset) if elements is None else len(elements)
    elif isinstance(dataset, (np.ndarray, list, tuple)):
        arrays = dataset
        if isinstance(dataset, list) and dataset and not hasattr(dataset[0], "shape"):
            arrays = np.asarray(dataset)
        elements, total = None, len(Dataset.from_tensor_slices(_as_tuple(arrays)))
    else:
        raise TypeError(
            "`dataset` must be either a Dataset object or a list/tuple of arrays. Received: "
            f"dataset={dataset} of type {type(dataset)}"
        )
    left, right = _sizes(left_size, right_size, total)
    order = list(range(total))
    if shuffle:
        python_random.Random(seed_of(seed)).shuffle(order)
    parts = order[:left], order[-right:]
    if isinstance(dataset, Dataset):
        if elements is None:
            return dataset.take(left), dataset.skip(total - right)
        one, other = ([elements[i] for i in part] for part in parts)
        return Dataset(lambda _: iter(one), left), Dataset(lambda _: iter(other), right)
    tensors = _as_tuple(arrays)
    first, second = (
        Dataset.from_tensor_slices(
            tuple(np.asarray(t)[part] for t in tensors)
            if isinstance(tensors, tuple)
            else np.asarray(tensors)[part]
        )
        for part in parts
    )
    return first, second


def _as_tuple(arrays: Any) -> Any:
    return tuple(arrays) if isinstance(arrays, (list, tuple)) else arrays


def _count(dataset: Dataset) -> int:
    """The number of elements; negative where that is not known."""
    return int(dataset.cardinality())


def _sizes(left: float | None, right: float | None, total: int) -> tuple[int, int]:
    if left is None and right is None:
        raise ValueError("At least one of `left_size` or `right_size` must be specified.")

    def count(name: str, value: float | None) -> int | None:
        if value is None:
            return None
        if type(value) not in (int, float):
            raise TypeError(
                f"Invalid `{name}` Type. Expected: int or float or None, Received: {type(value)}."
            )
        limit = total if isinstance(value, int) else 1
        if not 0 < value < limit:
            raise ValueError(
                f"`{name}` should be either a positive integer smaller than {total}, or a float "
                f"within the range `[0, 1]`. Received: {name}={value}"
            )
        return value if isinstance(value, int) else round(value * total)

    first, second = count("left_size", left), count("right_size", right)
    first = total - (second or 0) if first is None else first
    second = total - first if second is None else second
    if first + second > total:
        raise ValueError(
            f"The sum of `left_size` and `right_size` should be smaller than the {total}. "
            f"Received: {first + second}"
        )
    if not first or not second:
        raise ValueError(
            f"With `dataset` of length={total}, `left_size`={left} and `right_size`={right}. "
            "Resulting dataset split will be empty. Adjust any of the aforementioned parameters"
        )
    return first, second

"""``tf.data.experimental``: where scripts for older versions of TensorFlow look for steps."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any

import numpy as np

from distgrad.data.cardinality import INFINITE_CARDINALITY, UNKNOWN_CARDINALITY
from distgrad.data.dataset import AUTOTUNE, Dataset
from distgrad.data.lines import CsvDataset
from distgrad.data.tables import make_csv_dataset

__all__ = [
    "AUTOTUNE",
    "INFINITE_CARDINALITY",
    "UNKNOWN_CARDINALITY",
    "AutoShardPolicy",
    "Counter",
    "CsvDataset",
    "assert_cardinality",
    "bucket_by_sequence_length",
    "cardinality",
    "choose_from_datasets",
    "enumerate_dataset",
    "get_single_element",
    "get_structure",
    "group_by_window",
    "ignore_errors",
    "load",
    "make_csv_dataset",
    "map_and_batch",
    "prefetch_to_device",
    "rejection_resample",
    "sample_from_datasets",
    "save",
    "scan",
    "shuffle_and_repeat",
    "snapshot",
    "take_while",
    "unbatch",
    "unique",
]


class AutoShardPolicy(IntEnum):
    """How TensorFlow shares out a dataset; here all processes read all of it, whatever it says."""

    OFF = -1
    AUTO = 0
    FILE = 1
    DATA = 2
    HINT = 3


def Counter(start: int = 0, step: int = 1, dtype: Any = np.int64) -> Dataset:
    """``start``, ``start + step`` and so on, without end."""
    return Dataset.counter(start, step, dtype)


def cardinality(dataset: Dataset) -> Any:
    """The number of elements of a dataset, as ``dataset.cardinality()`` says it."""
    return dataset.cardinality()


def assert_cardinality(expected_cardinality: int) -> Callable[[Dataset], Dataset]:
    """For ``apply``: the dataset, said to have so many elements."""
    return lambda dataset: dataset.of_size(int(expected_cardinality))


def shuffle_and_repeat(
    buffer_size: int, count: int | None = None, seed: int | None = None
) -> Callable[[Dataset], Dataset]:
    """For ``apply``: ``shuffle``, then ``repeat``."""
    return lambda dataset: dataset.shuffle(buffer_size, seed).repeat(count)


def map_and_batch(
    map_func: Callable[..., Any],
    batch_size: int,
    num_parallel_batches: int | None = None,
    drop_remainder: bool = False,
    num_parallel_calls: int | None = None,
) -> Callable[[Dataset], Dataset]:
    """For ``apply``: ``map``, then ``batch``."""
    return lambda dataset: dataset.map(map_func).batch(batch_size, drop_remainder)


def prefetch_to_device(device: str, buffer_size: int | None = None) -> Callable[[Dataset], Dataset]:
    """For ``apply``: ``prefetch``; elements become tensors where the loop over them runs."""
    return lambda dataset: dataset.prefetch(AUTOTUNE if buffer_size is None else buffer_size)


def get_structure(dataset_or_iterator: Any) -> Any:
    """What ``element_spec`` of a dataset, or of an iterator over one, says."""
    return dataset_or_iterator.element_spec


def save(dataset: Dataset, path: Any, compression: Any = None, shard_func: Any = None) -> None:
    """Writes the elements to a folder, as ``dataset.save`` does."""
    dataset.save(path, compression, shard_func)


def get_single_element(dataset: Dataset) -> Any:
    """The only element of a dataset, as tensors."""
    return dataset.get_single_element()


def _step(name: str) -> Callable[..., Callable[[Dataset], Dataset]]:
    def step(*args: Any, **kwargs: Any) -> Callable[[Dataset], Dataset]:
        return lambda dataset: getattr(dataset, name)(*args, **kwargs)

    step.__name__ = step.__qualname__ = name
    step.__doc__ = f"For ``apply``: what ``Dataset.{name}`` makes with the same arguments."
    return step


bucket_by_sequence_length = _step("bucket_by_sequence_length")
enumerate_dataset = _step("enumerate")
group_by_window = _step("group_by_window")
ignore_errors = _step("ignore_errors")
rejection_resample = _step("rejection_resample")
scan = _step("scan")
snapshot = _step("snapshot")
take_while = _step("take_while")
unbatch = _step("unbatch")
unique = _step("unique")
load = Dataset.load
choose_from_datasets = Dataset.choose_from_datasets
sample_from_datasets = Dataset.sample_from_datasets


def __getattr__(name: str) -> object:
    from distgrad.absent import message

    raise AttributeError(message(f"data.experimental.{name}"))

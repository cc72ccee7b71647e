"""``tf.data.experimental``: where scripts for older versions of TensorFlow look for steps."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from distgrad.core.later import absent as _absent
from distgrad.data import nest, specs
from distgrad.data.calling import as_tensors, call
from distgrad.data.cardinality import INFINITE_CARDINALITY, UNKNOWN_CARDINALITY
from distgrad.data.dataset import AUTOTUNE, Dataset
from distgrad.data.examples import make_batched_features_dataset
from distgrad.data.iterating import Optional
from distgrad.data.lines import CsvDataset
from distgrad.data.options import Options
from distgrad.data.records import DatasetWriter as TFRecordWriter
from distgrad.data.tables import make_csv_dataset

__all__ = [
    "AUTOTUNE",
    "INFINITE_CARDINALITY",
    "UNKNOWN_CARDINALITY",
    "AutoShardPolicy",
    "AutotuneOptions",
    "Counter",
    "CsvDataset",
    "DistributeOptions",
    "OptimizationOptions",
    "Optional",
    "RandomDataset",
    "Reducer",
    "TFRecordWriter",
    "ThreadingOptions",
    "assert_cardinality",
    "at",
    "bucket_by_sequence_length",
    "cardinality",
    "choose_from_datasets",
    "enumerate_dataset",
    "from_list",
    "get_next_as_optional",
    "get_single_element",
    "get_structure",
    "group_by_reducer",
    "group_by_window",
    "ignore_errors",
    "load",
    "make_batched_features_dataset",
    "make_csv_dataset",
    "map_and_batch",
    "pad_to_cardinality",
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


def RandomDataset(
    seed: int | None = None, rerandomize_each_iteration: bool | None = None, name: Any = None
) -> Dataset:
    """Random numbers, as ``Dataset.random`` gives them."""
    return Dataset.random(seed, rerandomize_each_iteration)


def get_next_as_optional(iterator: Any) -> Optional:
    """The next element of an iterator, or that there is none."""
    return iterator.get_next_as_optional()


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


def save(
    dataset: Dataset,
    path: Any,
    compression: Any = None,
    shard_func: Any = None,
    checkpoint_args: Any = None,
) -> None:
    """Writes the elements to a folder, as ``dataset.save`` does."""
    dataset.save(path, compression, shard_func, checkpoint_args)


def get_single_element(dataset: Dataset) -> Any:
    """The only element of a dataset, as tensors."""
    return dataset.get_single_element()


def at(dataset: Dataset, index: int) -> Any:
    """Element number ``index`` of a dataset, as tensors; those before it are made on the way.

    Raises OutOfRangeError where there is none.
    """
    elements = iter(dataset if index >= 0 else dataset.take(0))
    for _ in range(int(index)):
        elements.get_next()
    return elements.get_next()


def from_list(elements: list[Any], name: str | None = None) -> Dataset:
    """The elements of a list, each an array or a nest of arrays.

    Raises ValueError for an empty list, and for elements that differ in form.
    """
    arrays = [nest.to_arrays(element) for element in elements]
    if not arrays:
        raise ValueError("from_list needs an element")
    for array in arrays[1:]:
        nest.map_leaves(lambda one, other: None, arrays[0], array)
    spec = lambda: specs.joined(nest.map_leaves(specs.of_array, each) for each in arrays)  # noqa: E731
    return Dataset(lambda _: iter(arrays), len(arrays), spec=spec)


def pad_to_cardinality(cardinality: int, mask_key: str = "valid") -> Callable[[Dataset], Dataset]:
    """For ``apply``: dicts of arrays up to so many, with zeros after the last.

    Under ``mask_key`` each says whether it is one of the dataset's own. Raises ValueError for other
    elements, for none, and for more.
    """

    def elements(own: Iterator[Any]) -> Iterator[Any]:
        count, last = 0, None
        for count, last in enumerate(own, 1):
            if not isinstance(last, dict) or count > cardinality:
                raise ValueError(f"at most {cardinality} dicts can be padded; there is {last!r}")
            yield {**last, mask_key: np.asarray(True)}
        if last is None:
            raise ValueError("a dataset without elements cannot be padded")
        zeros = nest.map_leaves(np.zeros_like, last)
        for _ in range(count, cardinality):
            yield {**zeros, mask_key: np.asarray(False)}

    return lambda dataset: dataset._made(elements, int(cardinality))


class Reducer(NamedTuple):
    """How ``group_by_reducer`` makes an element of a group: from ``init_func(key)``, by
    ``reduce_func(state, element)``, and with ``finalize_func(state)`` at the end."""

    init_func: Callable[[Any], Any]
    reduce_func: Callable[[Any, Any], Any]
    finalize_func: Callable[..., Any]


def group_by_reducer(
    key_func: Callable[..., Any], reducer: Reducer
) -> Callable[[Dataset], Dataset]:
    """For ``apply``: one element for each key, which ``reducer`` makes; keys in order."""

    def reduced(elements: Iterator[Any]) -> Iterator[Any]:
        states: dict[int, Any] = {}
        for element in elements:
            key = operator.index(np.asarray(call(key_func, element)))
            if key not in states:
                states[key] = nest.to_arrays(call(reducer.init_func, np.asarray(key, np.int64)))
            state = reducer.reduce_func(as_tensors(states[key]), as_tensors(element))
            states[key] = nest.to_arrays(state)
        for key in sorted(states):
            yield nest.to_arrays(call(reducer.finalize_func, states[key]))

    return lambda dataset: dataset._made(reduced)


def _step(name: str) -> Callable[..., Callable[[Dataset], Dataset]]:
    def step(*args: Any, **kwargs: Any) -> Callable[[Dataset], Dataset]:
        return lambda dataset: getattr(dataset, name)(*args, **kwargs)

    step.__name__ = step.__qualname__ = name
    step.__doc__ = f"For ``apply``: what ``Dataset.{name}`` makes with the same arguments."
    return step


bucket_by_sequence_length = _step("bucket_by_sequence_length")
dense_to_ragged_batch = _step("ragged_batch")
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
sample_from_datasets = Dataset.sample_from_datasets
AutotuneOptions = DistributeOptions = OptimizationOptions = ThreadingOptions = Options


def choose_from_datasets(
    datasets: Any, choice_dataset: Any, stop_on_empty_dataset: bool = False
) -> Dataset:
    """``Dataset.choose_from_datasets``, which here goes on where a dataset has ended."""
    return Dataset.choose_from_datasets(datasets, choice_dataset, stop_on_empty_dataset)


__getattr__ = _absent(__name__)

"""Which sample goes where: pure index arithmetic over (seed, epoch, position), nothing else.

The order of an epoch, the cut into batches and the cut of a batch into virtual shards never depend
on the number of workers, so that any number of them trains on the same shards.

Randomness is raw Philox output, sorted: a bit generator's stream is fixed for ever, while NumPy may
change what its ``Generator.permutation`` makes of it. An order therefore outlives a NumPy upgrade.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

# One constant per use of a seed: streams never overlap, even where epoch and seed are equal.
_EPOCH_STREAM = 0x65706F6368
_SPLIT_STREAM = 0x73706C6974
_DATASET_STREAM = 0x6461746173657400  # plus the number of a shuffle that was given no seed


def epoch_order(n: int, seed: int, epoch: int, shuffle: bool = True) -> np.ndarray:
    """The order in which epoch number ``epoch`` visits ``n`` samples: an int64 permutation."""
    if not shuffle:
        return np.arange(n, dtype=np.int64)
    return np.argsort(_random_keys(n, seed, _EPOCH_STREAM, epoch), kind="stable")


def random_order(n: int, seed: int, number: int, index: int) -> np.ndarray:
    """A permutation of ``n`` elements, another one for each (seed, number, index)."""
    return np.argsort(_random_keys(n, seed, _DATASET_STREAM + number, index), kind="stable")


def random_numbers(seed: int, number: int, index: int) -> Iterator[int]:
    """Integers below 2**64 without end, another stream for each (seed, number, index)."""
    philox = _philox(seed, _DATASET_STREAM + number, index)
    while True:
        yield from philox.random_raw(1024).tolist()


def steps_per_epoch(n: int, global_batch_size: int) -> int:
    """Batches in an epoch of ``n`` samples; a short last batch counts."""
    _check_at_least_one("global_batch_size", global_batch_size)
    return -(-n // global_batch_size)


def batch_bounds(n: int, global_batch_size: int, step_in_epoch: int) -> tuple[int, int]:
    """Positions ``(start, stop)`` of batch number ``step_in_epoch`` in the epoch's order.

    Raises IndexError for a step outside of the epoch.
    """
    steps = steps_per_epoch(n, global_batch_size)
    if not 0 <= step_in_epoch < steps:
        raise IndexError(f"step {step_in_epoch} is outside of the epoch's {steps} steps")
    start = step_in_epoch * global_batch_size
    return start, min(start + global_batch_size, n)


def shard_bounds(batch_size: int, virtual_shards: int) -> list[tuple[int, int]]:
    """Positions ``(start, stop)`` of every virtual shard within a batch.

    Shards are contiguous and differ by at most one sample; the larger ones are spread evenly, so
    that workers, each with a contiguous range of shards, are evenly loaded too. With fewer samples
    than shards some are empty.
    """
    _check_at_least_one("virtual_shards", virtual_shards)
    cuts = [batch_size * shard // virtual_shards for shard in range(virtual_shards + 1)]
    return list(itertools.pairwise(cuts))


def stratified_split(
    labels: np.ndarray, test_fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """A random split that keeps the share of each class: sorted int64 ``(train, test)`` indices.

    The test part has ``ceil(n * test_fraction)`` samples, as scikit-learn's ``train_test_split``
    has it; the classes share them by largest remainder. Raises ValueError if a part is empty.
    """
    labels = np.asarray(labels)
    n = len(labels)
    # Without the small allowance 70 * 0.1, which is 7.000000000000001, would give 8.
    test_size = math.ceil(n * test_fraction - 1e-9)
    if not 0 < test_size < n:
        raise ValueError(
            f"test_fraction {test_fraction} of {n} samples leaves {test_size} to test and "
            f"{n - test_size} to train; both parts need at least one"
        )
    _, class_of, counts = np.unique(labels, return_inverse=True, return_counts=True)
    quotas, remainders = np.divmod(test_size * counts, n)
    # Equal remainders are ranked at random, or the classes that sort first would always win.
    by_remainder = np.lexsort((_random_keys(len(counts), seed, _SPLIT_STREAM, 1), -remainders))
    quotas[by_remainder[: test_size - quotas.sum()]] += 1

    # Samples class by class, at random within each; the first ones of every class are its quota.
    order = np.lexsort((_random_keys(n, seed, _SPLIT_STREAM, 0), class_of))
    position_in_class = np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts)
    is_test = np.zeros(n, dtype=bool)
    is_test[order[position_in_class < np.repeat(quotas, counts)]] = True
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def _random_keys(n: int, seed: int, stream: int, index: int) -> np.ndarray:
    """``n`` uint64 that depend on (seed, stream, index) alone."""
    return _philox(seed, stream, index).random_raw(n)


def _philox(seed: int, stream: int, index: int) -> np.random.Philox:
    """The generator of (seed, stream, index); any integer is a seed, or an index."""
    key = np.array([seed % 2**64, stream], dtype=np.uint64)
    # Philox counts up from the low word: an index in the high word is a stream of its own.
    counter = np.array([0, 0, 0, index % 2**64], dtype=np.uint64)
    return np.random.Philox(key=key, counter=counter)


def _check_at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} is {value}; it must be at least 1")

"""``keras.preprocessing.sequence``: words as numbers, padded, and in pairs for word2vec."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.data.rows import seed_of
from distgrad.keras.utils import PyDataset, pad_sequences

__all__ = ["TimeseriesGenerator", "make_sampling_table", "pad_sequences", "skipgrams"]


class TimeseriesGenerator(PyDataset):
    """Batches of stretches of a series, each with the target of the row after it.

    New code has ``keras.utils.timeseries_dataset_from_array``. A stretch is ``length`` rows long,
    of which every ``sampling_rate``-th is taken, and begins ``stride`` rows after the last one, or
    with ``shuffle`` anywhere, the same on every worker. ``end_index`` is the last row that is used.
    Raises ValueError for other numbers of targets, and where no row has so many before it.
    """

    def __init__(
        self,
        data: Any,
        targets: Any,
        length: int,
        sampling_rate: int = 1,
        stride: int = 1,
        start_index: int = 0,
        end_index: int | None = None,
        shuffle: bool = False,
        reverse: bool = False,
        batch_size: int = 128,
    ) -> None:
        super().__init__()
        if len(data) != len(targets):
            raise ValueError(
                "Data and targets have to be of same length. "
                f"Data length is {len(data)} while target length is {len(targets)}"
            )
        self.data, self.targets, self.length = data, targets, length
        self.sampling_rate, self.stride, self.batch_size = sampling_rate, stride, batch_size
        self.start_index = start_index + length
        self.end_index = len(data) - 1 if end_index is None else end_index
        self.shuffle, self.reverse = shuffle, reverse
        self._seed, self._epoch = seed_of(None), 0
        if self.start_index > self.end_index:
            raise ValueError(
                f"`start_index+length={self.start_index} > end_index={self.end_index}` is "
                "disallowed, as no part of the sequence would be left to be used as current step."
            )

    def __len__(self) -> int:
        moved = self.batch_size * self.stride
        return (self.end_index - self.start_index + moved) // moved

    def on_epoch_end(self) -> None:
        self._epoch += 1

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        end = self.end_index + 1
        if self.shuffle:
            rng = np.random.default_rng((self._seed, self._epoch, index))
            rows = rng.integers(self.start_index, end, size=self.batch_size)
        else:
            first = self.start_index + self.batch_size * self.stride * index
            rows = np.arange(first, min(first + self.batch_size * self.stride, end), self.stride)
        samples = [self.data[row - self.length : row : self.sampling_rate] for row in rows]
        pieces = np.array(samples)[:, :: -1 if self.reverse else 1]
        return pieces, np.array([self.targets[row] for row in rows])


def make_sampling_table(size: int, sampling_factor: float = 1e-5) -> np.ndarray:
    """The chance to keep the word of each rank, the commonest first: float64 of shape (size,).

    It is word2vec's, for words whose frequencies follow Zipf's law.
    """
    rank = np.arange(size)
    rank[0] = 1
    inverse_frequency = rank * (np.log(rank) + 0.577) + 0.5 - 1.0 / (12.0 * rank)
    kept = sampling_factor * inverse_frequency
    return np.minimum(1.0, kept / np.sqrt(kept))


def skipgrams(
    sequence: Sequence[int],
    vocabulary_size: int,
    window_size: int = 4,
    negative_samples: float = 1.0,
    shuffle: bool = True,
    categorical: bool = False,
    sampling_table: Any = None,
    seed: int | None = None,
) -> tuple[list[list[int]], list[Any]]:
    """Pairs of a word and one near it, labelled 1, and random pairs, labelled 0: two lists.

    Words are numbers below ``vocabulary_size``, of which 0 is none. ``negative_samples`` is the
    number of random pairs for each true one. The random numbers are Python's, as in Keras.
    """
    yes, no = ([0, 1], [1, 0]) if categorical else (1, 0)
    couples: list[list[int]] = []
    for i, word in enumerate(sequence):
        if not word or (sampling_table is not None and sampling_table[word] < random.random()):
            continue
        near = range(max(0, i - window_size), min(len(sequence), i + window_size + 1))
        couples += [[word, sequence[j]] for j in near if j != i and sequence[j]]
    labels: list[Any] = [yes] * len(couples)
    if negative_samples > 0:
        words = [couple[0] for couple in couples]
        random.shuffle(words)
        count = int(len(labels) * negative_samples)
        couples += [
            [words[i % len(words)], random.randint(1, vocabulary_size - 1)] for i in range(count)
        ]
        labels += [no] * count
    if shuffle:
        seed = random.randint(0, 10**7) if seed is None else seed
        for shuffled in (couples, labels):  # in the same order
            random.seed(seed)
            random.shuffle(shuffled)
    return couples, labels

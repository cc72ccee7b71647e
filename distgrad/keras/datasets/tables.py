"""Tables of numbers where Keras keeps them, cut into a training and a test part."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from distgrad.data.download import fetch
from distgrad.data.npz import read_npz
from distgrad.launcher.environ import detect, keras_home

URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
Pair = tuple[np.ndarray, np.ndarray]


def cached(path: str, name: str, digest: str) -> Path:
    """The file ``path`` in ``~/.keras/datasets``; rank 0 downloads it as ``name`` if need be."""
    folder = keras_home() / "datasets"
    return fetch(path, URL + name, digest, folder, allow_download=detect().rank == 0)


def shuffled(count: int, seed: int) -> np.ndarray:
    """The order of the rows in Keras."""
    order = np.arange(count)
    np.random.RandomState(seed).shuffle(order)
    return order


def load_table(
    path: str, name: str, digest: str, test_split: float, seed: int, most: int | None = None
) -> tuple[Pair, Pair]:
    """``(x_train, y_train), (x_test, y_test)`` of the first ``most`` rows of such a table.

    Raises ValueError for a fraction outside of [0, 1), DataError where the file cannot be had.
    """
    if not 0 <= test_split < 1:
        raise ValueError(
            f"Invalid `test_split` argument: {test_split}. It must be between 0 and 1 (exclusive "
            "of 1)."
        )
    arrays = read_npz(cached(path, name, digest), ("x", "y"))
    x, y = arrays["x"][:most], arrays["y"][:most]
    order, first = shuffled(len(x), seed), int(len(x) * (1 - test_split))
    x, y = x[order], y[order]
    return (x[:first], y[:first]), (x[first:], y[first:])

"""The MNIST file, where Keras keeps it: ``~/.keras/datasets/mnist.npz``."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from distgrad.data.download import fetch
from distgrad.data.npz import check_pairs, read_npz
from distgrad.launcher.environ import keras_home

URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
SHA256 = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"
KEYS = ("x_train", "y_train", "x_test", "y_test")


def load_mnist(
    path: str = "mnist.npz",
    announce: Callable[[str], None] = print,
    allow_download: bool = True,
) -> dict[str, np.ndarray]:
    """The arrays under ``KEYS``: uint8 images (n, 28, 28) and uint8 labels (n,).

    ``path`` is relative to ``~/.keras/datasets``. A missing file is downloaded, as `fetch` does it;
    raises DataError for one that cannot be had, or not be read.
    """
    folder = keras_home() / "datasets"
    return read_mnist(fetch(path, URL, SHA256, folder, announce, allow_download))


def read_mnist(file: str | os.PathLike) -> dict[str, np.ndarray]:
    """The same arrays of a file that is there. Raises DataError."""
    arrays = read_npz(file, KEYS)
    check_pairs(file, arrays)
    return arrays

"""The Fashion-MNIST files, where Keras keeps them: ``~/.keras/datasets/fashion-mnist``."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from distgrad.data import idx
from distgrad.data.download import fetch
from distgrad.data.npz import check_pairs
from distgrad.launcher.environ import keras_home

URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
SHA256 = {
    "train-labels-idx1-ubyte.gz": (
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
    ),
    "train-images-idx3-ubyte.gz": (
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
    ),
}


def load_fashion_mnist(
    announce: Callable[[str], None] = print, allow_download: bool = True
) -> dict[str, np.ndarray]:
    """``x_train, y_train, x_test, y_test``: uint8 images (n, 28, 28) and uint8 labels (n,).

    Missing files are downloaded, as `fetch` does it; raises DataError for one that cannot be had,
    or not be read.
    """
    folder = keras_home() / "datasets" / "fashion-mnist"
    for name, sha256 in SHA256.items():
        fetch(name, URL + name, sha256, folder, announce, allow_download)
    return read_fashion_mnist(folder)


def read_fashion_mnist(folder: str | os.PathLike) -> dict[str, np.ndarray]:
    """The same arrays from the four IDX files in ``folder``, compressed or not.

    Raises DataError.
    """
    arrays = idx.read_pairs(folder)
    check_pairs(folder, arrays)
    return arrays

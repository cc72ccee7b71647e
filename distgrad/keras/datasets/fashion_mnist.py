"""``fashion_mnist.load_data`` as Keras has it."""

from __future__ import annotations

import numpy as np

from distgrad.data.fashion_mnist import load_fashion_mnist
from distgrad.launcher.environ import detect

Pair = tuple[np.ndarray, np.ndarray]


def load_data() -> tuple[Pair, Pair]:
    """``(x_train, y_train), (x_test, y_test)``: uint8 images (n, 28, 28), uint8 labels (n,).

    Reads four IDX files in ``~/.keras/datasets/fashion-mnist``. Missing ones are downloaded by
    rank 0, with their hashes verified, while the other ranks wait; other files that are there are
    used with a warning. Raises DataError that names file, address and folder where that fails.
    Source: H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST, 2017 (MIT licence).
    """
    arrays = load_fashion_mnist(allow_download=detect().rank == 0)
    return (arrays["x_train"], arrays["y_train"]), (arrays["x_test"], arrays["y_test"])

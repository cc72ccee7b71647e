"""``mnist.load_data`` as Keras has it."""

from __future__ import annotations

import numpy as np

from distgrad.data.mnist import load_mnist
from distgrad.launcher.environ import detect

Pair = tuple[np.ndarray, np.ndarray]


def load_data(path: str = "mnist.npz") -> tuple[Pair, Pair]:
    """``(x_train, y_train), (x_test, y_test)``: uint8 images (n, 28, 28), uint8 labels (n,).

    Reads ``~/.keras/datasets/mnist.npz`` (``path`` is relative to that folder). A missing file is
    downloaded by rank 0, with its hash verified, while the other ranks wait; another file that is
    there is used with a warning. Raises DataError that names file, address and folder where that
    fails. Source: Y. LeCun, C. Cortes, C. J. C. Burges, The MNIST database of handwritten digits.
    """
    arrays = load_mnist(path, allow_download=detect().rank == 0)
    return (arrays["x_train"], arrays["y_train"]), (arrays["x_test"], arrays["y_test"])

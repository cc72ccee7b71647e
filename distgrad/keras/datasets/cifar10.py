"""``cifar10.load_data`` as Keras has it."""

from __future__ import annotations

import numpy as np

from distgrad.data.cifar import CIFAR10, load_cifar
from distgrad.launcher.environ import detect

Pair = tuple[np.ndarray, np.ndarray]


def load_data() -> tuple[Pair, Pair]:
    """``(x_train, y_train), (x_test, y_test)``: uint8 images (n, 32, 32, 3), uint8 labels (n, 1).

    Reads ``~/.keras/datasets/cifar-10-batches-py-target_archive``, without unpacking it. A missing
    file is downloaded by rank 0, with its hash verified, while the other ranks wait; another file
    that is there is used with a warning. Raises DataError that names file, address and folder where
    that fails. Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """
    arrays = load_cifar(CIFAR10, allow_download=detect().rank == 0)
    train = arrays["x_train"], arrays["y_train"].reshape(-1, 1)
    return train, (arrays["x_test"], arrays["y_test"].reshape(-1, 1))

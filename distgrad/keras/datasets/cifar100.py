"""``cifar100.load_data`` as Keras has it."""

from __future__ import annotations

import numpy as np

from distgrad.data.cifar import CIFAR100, load_cifar
from distgrad.launcher.environ import detect

Pair = tuple[np.ndarray, np.ndarray]


def load_data(label_mode: str = "fine") -> tuple[Pair, Pair]:
    """``(x_train, y_train), (x_test, y_test)``: uint8 images (n, 32, 32, 3), int64 labels (n, 1).

    Labels are those of 100 classes, or with ``label_mode="coarse"`` of 20. The rules are those of
    ``cifar10``; the file is ``cifar-100-python-target_archive``. Raises ValueError for another
    mode, and DataError.
    """
    if label_mode not in ("fine", "coarse"):
        raise ValueError(f'label_mode must be "fine" or "coarse", not {label_mode!r}')
    arrays = load_cifar(CIFAR100, f"{label_mode}_labels", allow_download=detect().rank == 0)
    y_train, y_test = (arrays[key].astype(np.int64).reshape(-1, 1) for key in ("y_train", "y_test"))
    return (arrays["x_train"], y_train), (arrays["x_test"], y_test)

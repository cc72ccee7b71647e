"""Small helpers under the names Keras gives them."""

from __future__ import annotations

import random as python_random
from typing import Any

import numpy as np

from distgrad.ops import random


def set_random_seed(seed: int) -> None:
    """Seeds Python's, NumPy's and distgrad's random numbers."""
    python_random.seed(seed)
    np.random.seed(seed)
    random.set_seed(seed)


def to_categorical(x: Any, num_classes: int | None = None) -> np.ndarray:
    """Class numbers as rows with a single 1, float64 of shape ``x.shape + (num_classes,)``."""
    classes = np.asarray(x, dtype=np.int64)
    if classes.ndim > 1 and classes.shape[-1] == 1:
        classes = classes[..., 0]
    return np.eye(num_classes or int(classes.max()) + 1)[classes]

"""Arrays and indices: what a worker trains on, cut the same way for any number of workers."""

from types import SimpleNamespace

import numpy as np

from distgrad.data.cardinality import INFINITE_CARDINALITY, UNKNOWN_CARDINALITY
from distgrad.data.dataset import AUTOTUNE, Dataset
from distgrad.data.grouping import Options

# Where scripts for older versions of TensorFlow look for them.
experimental = SimpleNamespace(
    AUTOTUNE=AUTOTUNE,
    AutoShardPolicy=SimpleNamespace(AUTO=0, FILE=1, DATA=2, HINT=3, OFF=-1),
    Counter=lambda start=0, step=1, dtype=np.int64: Dataset.counter(start, step, dtype),
    INFINITE_CARDINALITY=INFINITE_CARDINALITY,
    UNKNOWN_CARDINALITY=UNKNOWN_CARDINALITY,
    cardinality=lambda dataset: dataset.cardinality(),
)

__all__ = [
    "AUTOTUNE",
    "INFINITE_CARDINALITY",
    "UNKNOWN_CARDINALITY",
    "Dataset",
    "Options",
    "experimental",
]


def __getattr__(name: str) -> object:
    from distgrad.absent import message

    raise AttributeError(message(f"data.{name}"))

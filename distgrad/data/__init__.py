"""Arrays and indices: what a worker trains on, cut the same way for any number of workers."""

from types import SimpleNamespace

from distgrad.data.dataset import (
    AUTOTUNE,
    INFINITE_CARDINALITY,
    UNKNOWN_CARDINALITY,
    Dataset,
)
from distgrad.data.grouping import Options

# Where scripts for older versions of TensorFlow look for them.
experimental = SimpleNamespace(
    AUTOTUNE=AUTOTUNE,
    AutoShardPolicy=SimpleNamespace(AUTO=0, FILE=1, DATA=2, HINT=3, OFF=-1),
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

_ELSEWHERE = {
    "TFRecordDataset": "read records into arrays, or give Dataset.from_generator a reader",
    "TextLineDataset": "Dataset.from_generator(lambda: open(path)) gives the lines of a file",
    "FixedLengthRecordDataset": "numpy.fromfile or numpy.memmap gives the records as an array",
}


def __getattr__(name: str) -> object:
    if name in _ELSEWHERE:
        raise AttributeError(f"data.{name} does not exist here: {_ELSEWHERE[name]}")
    raise AttributeError(f"module 'distgrad.data' has no attribute {name!r}")

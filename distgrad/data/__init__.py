"""Arrays and indices: what a worker trains on, cut the same way for any number of workers."""

from distgrad.core.later import absent as _absent
from distgrad.data import experimental
from distgrad.data.cardinality import INFINITE_CARDINALITY, UNKNOWN_CARDINALITY
from distgrad.data.dataset import AUTOTUNE, Dataset
from distgrad.data.iterating import DatasetIterator as Iterator
from distgrad.data.lines import TextLineDataset
from distgrad.data.options import Options
from distgrad.data.records import FixedLengthRecordDataset, TFRecordDataset
from distgrad.data.specs import DatasetSpec

__all__ = [
    "AUTOTUNE",
    "INFINITE_CARDINALITY",
    "UNKNOWN_CARDINALITY",
    "Dataset",
    "DatasetSpec",
    "FixedLengthRecordDataset",
    "Iterator",
    "Options",
    "TFRecordDataset",
    "TextLineDataset",
    "ThreadingOptions",
    "experimental",
]

ThreadingOptions = Options


__getattr__ = _absent(__name__)

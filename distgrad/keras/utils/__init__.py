"""Small helpers under the names Keras gives them; those that need more are loaded when used."""

from __future__ import annotations

import itertools
import random as python_random
from collections.abc import Iterator
from typing import Any

import numpy as np

from distgrad.core.later import later
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.keras.backend import clear_session, is_keras_tensor, standardize_dtype
from distgrad.keras.layers import symbolic
from distgrad.keras.registry import (
    CustomObjectScope,
    custom_object_scope,
    get_custom_objects,
    get_registered_name,
    get_registered_object,
    register_keras_serializable,
)
from distgrad.ops import streams

# Where what is loaded at its first use lies.
_LATER = {
    "Config": ".config",
    "FeatureSpace": ".feature_space",
    "Progbar": ".progbar",
    "array_to_img": ".images",
    "audio_dataset_from_directory": ".folders",
    "bounding_boxes": ".bounding_boxes",
    "deserialize_keras_object": "..saving",
    "disable_interactive_logging": "..config",
    "enable_interactive_logging": "..config",
    "get_file": ".files",
    "image_dataset_from_directory": ".folders",
    "img_to_array": ".images",
    "legacy": ".legacy",
    "is_interactive_logging_enabled": "..config",
    "load_img": ".images",
    "model_to_dot": ".drawing",
    "plot_model": ".drawing",
    "save_img": ".images",
    "serialize_keras_object": "..saving",
    "split_dataset": ".datasets",
    "text_dataset_from_directory": ".folders",
    "timeseries_dataset_from_array": ".datasets",
    "unpack_x_y_sample_weight": "..models.feed",
}

__all__ = [
    *_LATER,
    "CustomObjectScope",
    "PyDataset",
    "Sequence",
    "clear_session",
    "custom_object_scope",
    "get_custom_objects",
    "get_registered_name",
    "get_registered_object",
    "get_source_inputs",
    "is_keras_tensor",
    "normalize",
    "pack_x_y_sample_weight",
    "pad_sequences",
    "register_keras_serializable",
    "set_random_seed",
    "standardize_dtype",
    "to_categorical",
]


__getattr__, __dir__ = later(__name__, globals(), _LATER)


def get_source_inputs(tensor: Any) -> Any:
    """The inputs of which a KerasTensor is made, as a list; anything else is given back."""
    return symbolic.sources(tensor)


def pack_x_y_sample_weight(x: Any, y: Any = None, sample_weight: Any = None) -> Any:
    """``(x, y, sample_weight)`` without what is None; ``x`` alone where it is no list or tuple."""
    if y is None:
        return (x,) if isinstance(x, (list, tuple)) else x
    return (x, y) if sample_weight is None else (x, y, sample_weight)


def set_random_seed(seed: int) -> None:
    """Seeds Python's, NumPy's and distgrad's random numbers. Raises ValueError for no integer."""
    if not isinstance(seed, (int, np.integer)):
        raise ValueError(f"a seed is an integer, not {seed!r}")
    python_random.seed(seed)
    np.random.seed(seed)
    streams.set_seed(seed)


def to_categorical(x: Any, num_classes: int | None = None) -> Any:
    """Class numbers as rows with a single 1, float64 of shape ``x.shape + (num_classes,)``.

    A tensor, or one that a model is described by, gives one with ``num_classes``, of ``floatx``.
    """
    if num_classes is not None and (isinstance(x, (Tensor, Variable)) or is_keras_tensor(x)):
        from distgrad.keras import ops

        shape = tuple(x.shape)
        return ops.one_hot(ops.squeeze(x, -1) if shape[1:] and shape[-1] == 1 else x, num_classes)
    classes = np.asarray(x, dtype=np.int64)
    if classes.ndim > 1 and classes.shape[-1] == 1:
        classes = classes[..., 0]
    return np.eye(num_classes or int(classes.max()) + 1)[classes]


def normalize(x: Any, axis: int = -1, order: int = 2) -> Any:
    """``x`` divided by its norm of that order along ``axis``; zeros stay zeros.

    A tensor, or one that a model is described by, gives one: losses use it.
    """
    if isinstance(x, (Tensor, Variable)) or is_keras_tensor(x):
        from distgrad.keras import ops

        return ops.normalize(x, axis=axis, order=order)
    array = np.asarray(x)
    norm = np.linalg.norm(array, order, axis, keepdims=True)
    return array / np.where(norm == 0, 1, norm)


def pad_sequences(
    sequences: Any,
    maxlen: int | None = None,
    dtype: Any = "int32",
    padding: str = "pre",
    truncating: str = "pre",
    value: Any = 0.0,
) -> np.ndarray:
    """Sequences as the rows of one array, filled up with ``value`` or cut to ``maxlen``.

    ``padding`` and ``truncating`` say where: "pre" or "post". Without ``maxlen`` rows are as long
    as the longest sequence. Raises ValueError for another word, for what is no sequence, and for
    sequences of different things.
    """
    for word in (padding, truncating):
        if word not in ("pre", "post"):
            raise ValueError(f"padding and truncating are 'pre' or 'post', not {word!r}")
    rows = [np.asarray(each) for each in sequences]
    if not all(row.ndim for row in rows):
        raise ValueError(f"pad_sequences takes a list of sequences, not {sequences!r}")
    length = max(map(len, rows), default=0) if maxlen is None else maxlen
    below = {row.shape[1:] for row in rows if len(row)} or {()}
    if len(below) > 1:
        raise ValueError(f"sequences hold things of different shapes: {sorted(below)}")
    padded = np.full((len(rows), length, *below.pop()), value, dtype)
    for row, given in zip(padded, rows, strict=True):
        kept = given[max(len(given) - length, 0) :] if truncating == "pre" else given[:length]
        if len(kept):
            where = slice(length - len(kept), None) if padding == "pre" else slice(len(kept))
            row[where] = kept
    return padded


class PyDataset:
    """Base of data sets that hand out batches by number: define ``__len__`` and ``__getitem__``.

    In place of ``__len__`` there may be a property ``num_batches``, None for batches without end.
    A batch is ``(x, y)`` or ``(x, y, sample_weight)``. ``workers`` and its like are taken for the
    sake of Keras's scripts: batches are made one after the other.
    """

    def __init__(
        self, workers: int = 1, use_multiprocessing: bool = False, max_queue_size: int = 10
    ) -> None:
        self.workers = workers
        self.use_multiprocessing = use_multiprocessing
        self.max_queue_size = max_queue_size

    def __getitem__(self, index: int) -> Any:
        """Batch number ``index``."""
        raise NotImplementedError(f"{type(self).__name__} does not define __getitem__")

    @property
    def num_batches(self) -> int | None:
        """The number of batches."""
        if not hasattr(self, "__len__"):
            raise NotImplementedError(f"{type(self).__name__} does not define __len__")
        return len(self)

    def __iter__(self) -> Iterator[Any]:
        counted = hasattr(self, "__len__") or type(self).num_batches is not PyDataset.num_batches
        number = self.num_batches if counted else None
        return map(self.__getitem__, itertools.count() if number is None else range(number))

    def on_epoch_begin(self) -> None:
        """Called before every epoch."""

    def on_epoch_end(self) -> None:
        """Called after every epoch."""


Sequence = PyDataset

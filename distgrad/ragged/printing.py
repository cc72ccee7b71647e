"""Ragged tensors as texts, as TensorFlow prints them."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core import recording
from distgrad.core.tensor import Tensor


def text(rt: Any) -> str:
    """``repr`` and ``str`` of a ragged tensor: its rows; within a capture what is known of it."""
    flat = rt.flat_values
    if recording.active and isinstance(flat, Tensor) and recording.hides(flat):
        return f"tf.RaggedTensor(values={rt.values}, row_splits={rt.row_splits})"
    with np.printoptions(formatter={"all": _formatted}):
        return f"<tf.RaggedTensor {_formatted(rt.numpy())}>"


def _formatted(value: Any) -> str:
    if not isinstance(value, np.ndarray):
        return str(value)
    # (NumPy writes an array of two axes without elements as [].)
    return np.array2string(value, separator=", ") if value.size else repr(value.tolist())

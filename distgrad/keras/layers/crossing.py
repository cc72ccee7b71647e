"""Crosses of categories as one category each, by the hash that TensorFlow takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.tensor import Tensor
from distgrad.core.texts import as_bytes, as_texts
from distgrad.core.variable import Variable
from distgrad.keras.layers import symbolic
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.core import one_of, whole_number
from distgrad.keras.layers.encoding import default_dtype, encoded
from distgrad.ops.host import on_host
from distgrad.sparse.crossing import hash_of


class HashedCrossing(Layer):
    """Two or more categories of each sample as one number below ``num_bins``, as in TensorFlow.

    Called on a list of texts or of whole numbers, of shape (), (batch,) or (batch, 1) each.
    ``output_mode`` is "int" or "one_hot", which may be ``sparse``. Raises ValueError for bins that
    are not a positive int, and for other inputs.
    """

    casts_inputs = False
    _not_in_config = (*Layer._not_in_config, "trainable")  # Keras takes none

    def __init__(
        self, num_bins: int, output_mode: str = "int", sparse: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**{"dtype": default_dtype(output_mode), **kwargs})
        self.num_bins = whole_number("num_bins", num_bins)
        self.output_mode = one_of("output_mode", output_mode, "int", "one_hot")
        self.sparse = bool(sparse)  # of numbers it means nothing

    def __call__(self, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        (inputs,) = args or kwargs.values()
        if not isinstance(inputs, (list, tuple)) or len(inputs) < 2:
            raise ValueError(f"{self.name!r} crosses a list of two inputs or more, not {inputs!r}")
        if symbolic.symbols(list(inputs)) or all(isinstance(x, (Tensor, Variable)) for x in inputs):
            return super().__call__(list(inputs))
        return self._encoded(as_tensor(self._crossed(*map(_categories, inputs))))

    def call(self, inputs: Any) -> Tensor:
        return self._encoded(on_host(self._crossed, *inputs))

    def _encoded(self, bins: Tensor) -> Any:
        dtype = self.compute_dtype
        return encoded(bins, self.output_mode, self.num_bins, dtype, sparse=self.sparse)

    def _crossed(self, *inputs: Any) -> np.ndarray:
        columns = [np.asarray(x) for x in inputs]
        shape = columns[0].shape
        if any(c.shape != shape for c in columns) or len(shape) > 2 or shape[1:] not in ((), (1,)):
            raise ValueError(
                f"{self.name!r} takes inputs of one shape, (), (batch,) or (batch, 1), not "
                f"{', '.join(str(c.shape) for c in columns)}"
            )
        if any(c.dtype.kind not in "iuU" for c in columns):
            kinds = ", ".join(c.dtype.name for c in columns)
            raise ValueError(f"{self.name!r} takes texts and whole numbers, not {kinds}")
        texts = [np.asarray(as_bytes(c)) if c.dtype.kind == "U" else c for c in columns]
        found = np.full(shape, 0, np.int64)
        for at in np.ndindex(shape):
            found[at] = hash_of([column[at] for column in texts], self.num_bins)
        return found


def _categories(value: Any) -> np.ndarray:
    """An array of texts, or of numbers."""
    array = value.numpy() if isinstance(value, (Tensor, Variable)) else np.asarray(value)
    return as_texts(array) if array.dtype.kind in "OSU" else array

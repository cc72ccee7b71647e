"""Input and InputLayer: where a model begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core.dtypes import as_dtype
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.symbolic import KerasTensor, Node


class InputLayer(Layer):
    """States shape and dtype of what goes in; a Sequential that starts with it is built at once.

    ``shape`` is that of one sample, ``batch_shape`` has the batch's axis in front; None stands for
    an unknown size. The older names ``input_shape`` and ``batch_input_shape`` stand for them.
    Raises ValueError without either or with both.
    """

    casts_inputs = False

    def __init__(
        self,
        shape: Sequence[int | None] | int | None = None,
        batch_size: int | None = None,
        dtype: Any = None,
        batch_shape: Sequence[int | None] | None = None,
        sparse: bool = False,
        ragged: bool = False,
        optional: bool = False,
        name: str | None = None,
        input_shape: Sequence[int | None] | None = None,
        batch_input_shape: Sequence[int | None] | None = None,
    ) -> None:
        shape = input_shape if shape is None else shape
        batch_shape = batch_input_shape if batch_shape is None else batch_shape
        if (shape is None) == (batch_shape is None):
            raise ValueError(f"an input needs a shape or a batch_shape: {shape}, {batch_shape}")
        if sparse or ragged:
            raise ValueError("sparse and ragged inputs do not exist here: use dense arrays")
        if batch_shape is None:
            sample = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape or ())
            batch_shape = (batch_size, *sample)
        for size in batch_shape:
            if size is not None and (not isinstance(size, (int, np.integer)) or size < 0):
                raise ValueError(f"a shape holds whole numbers or None, not {tuple(batch_shape)}")
        batch_shape = tuple(None if size is None else int(size) for size in batch_shape)
        super().__init__(name=name, input_shape=batch_shape[1:])
        self.batch_shape = batch_shape
        self._given_dtype = as_dtype(self.variable_dtype if dtype is None else dtype).name
        self.optional = optional
        self.built = True
        self._begin()

    def _begin(self) -> None:
        Node(self, (), {}, KerasTensor(self.batch_shape, self._given_dtype, self._given_name))

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._begin()

    def call(self, x: Any) -> Any:
        return x

    @property
    def dtype(self) -> str:
        """The dtype of the input."""
        return self._given_dtype

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras writes them."""
        return {
            "batch_shape": list(self.batch_shape),
            "dtype": self._given_dtype,
            "sparse": False,
            "ragged": False,
            "name": self.name,
            "optional": self.optional,
        }


def Input(
    shape: Sequence[int | None] | int | None = None,
    batch_size: int | None = None,
    dtype: Any = None,
    sparse: bool = False,
    batch_shape: Sequence[int | None] | None = None,
    name: str | None = None,
    ragged: bool = False,
    optional: bool = False,
) -> KerasTensor:
    """The input of a model as a KerasTensor, on which layers can be called.

    ``shape`` is that of one sample. Raises ValueError without it and without ``batch_shape``.
    """
    return InputLayer(
        shape=shape,
        batch_size=batch_size,
        dtype=dtype,
        batch_shape=batch_shape,
        sparse=sparse,
        ragged=ragged,
        optional=optional,
        name=name,
    ).output

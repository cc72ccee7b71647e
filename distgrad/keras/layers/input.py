"""Input and InputLayer: where a model begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distgrad.core.dtypes import of_input
from distgrad.keras.layers.base import Layer
from distgrad.keras.layers.symbolic import KerasTensor, Node


class InputLayer(Layer):
    """States shape and dtype of what goes in; a Sequential that starts with it is built at once.

    ``shape`` is that of one sample, ``batch_shape`` has the batch's axis in front; None stands for
    an unknown size. The older names ``input_shape`` and ``batch_input_shape`` stand for them.
    ``input_tensor`` is a KerasTensor that is an input from now on. An input of dtype "string" is an
    array of texts, for layers that take them. One that is ``ragged`` is a ragged tensor, whose rows
    have any lengths along the axes that are None; one that is ``sparse`` may be sparse, or dense.
    Raises ValueError without any of them, and where they do not go together.
    """

    casts_inputs = False
    takes_texts = True
    takes_kinds = ("ragged", "sparse")

    def __init__(
        self,
        shape: Sequence[int | None] | int | None = None,
        batch_size: int | None = None,
        dtype: Any = None,
        sparse: bool | None = None,
        ragged: bool | None = None,
        batch_shape: Sequence[int | None] | None = None,
        input_tensor: KerasTensor | None = None,
        optional: bool = False,
        name: str | None = None,
        input_shape: Sequence[int | None] | None = None,
        batch_input_shape: Sequence[int | None] | None = None,
    ) -> None:
        shape = input_shape if shape is None else shape
        batch_shape = batch_input_shape if batch_shape is None else batch_shape
        if input_tensor is not None:
            shape, batch_shape, dtype = (
                None,
                *_like(input_tensor, shape, batch_size, batch_shape, dtype),
            )
        elif (shape is None) == (batch_shape is None):
            raise ValueError(f"an input needs a shape or a batch_shape: {shape}, {batch_shape}")
        elif batch_shape is not None and batch_size is not None:
            raise ValueError(f"batch_shape={batch_shape} has the batch_size already: leave it out")
        if batch_shape is None:
            sample = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape or ())
            batch_shape = (batch_size, *sample)
        for size in batch_shape:
            if size is not None and (not isinstance(size, (int, np.integer)) or size < 0):
                raise ValueError(f"a shape holds whole numbers or None, not {tuple(batch_shape)}")
        batch_shape = tuple(None if size is None else int(size) for size in batch_shape)
        super().__init__(name=name, input_shape=batch_shape[1:])
        self.batch_shape = batch_shape
        self._given_dtype = of_input(self.variable_dtype if dtype is None else dtype).name
        self.optional = optional
        kinds = (sparse, ragged)
        if input_tensor is not None:
            kinds = input_tensor.sparse, input_tensor.ragged
        self.sparse, self.ragged = map(bool, kinds)
        self.built = True
        self._begin(input_tensor)

    def _begin(self, tensor: KerasTensor | None = None) -> None:
        made = KerasTensor(
            self.batch_shape, self._given_dtype, self.sparse, self.ragged, name=self._given_name
        )
        Node(self, (), {}, made if tensor is None else tensor)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._begin()

    def call(self, x: Any = None) -> Any:
        return x

    @property
    def dtype(self) -> str:
        """The dtype of the input."""
        return self._given_dtype

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras writes them."""
        return {
            "batch_shape": self.batch_shape,
            "dtype": self._given_dtype,
            "sparse": self.sparse,
            "ragged": self.ragged,
            "name": self.name,
            "optional": self.optional,
        }


def Input(
    shape: Sequence[int | None] | int | None = None,
    batch_size: int | None = None,
    dtype: Any = None,
    sparse: bool | None = None,
    ragged: bool | None = None,
    batch_shape: Sequence[int | None] | None = None,
    name: str | None = None,
    tensor: KerasTensor | None = None,
    optional: bool = False,
) -> KerasTensor:
    """The input of a model as a KerasTensor, on which layers can be called.

    ``shape`` is that of one sample; ``tensor`` is made an input, and given back. Raises ValueError
    without any of them and ``batch_shape``.
    """
    return InputLayer(
        shape=shape,
        batch_size=batch_size,
        dtype=dtype,
        batch_shape=batch_shape,
        sparse=sparse,
        ragged=ragged,
        optional=optional,
        input_tensor=tensor,
        name=name,
    ).output


def input_like(tensor: KerasTensor, name: str | None = None) -> KerasTensor:
    """An input of the shape, dtype and kind of another KerasTensor."""
    return Input(
        batch_shape=tensor.shape,
        dtype=tensor.dtype,
        sparse=tensor.sparse,
        ragged=tensor.ragged,
        name=name,
    )


def _like(
    tensor: Any, shape: Any, batch_size: int | None, batch_shape: Any, dtype: Any
) -> tuple[Any, Any]:
    """Shape and dtype of a KerasTensor. Raises ValueError where another one is asked for."""
    if not isinstance(tensor, KerasTensor):
        raise ValueError(f"input_tensor is a KerasTensor, not {tensor!r}")
    own, kept = tensor.shape, tensor.dtype.name
    for name, given, has in (
        ("shape", shape if shape is None else tuple(shape), own[1:]),
        ("batch_size", batch_size, own[0] if own else None),
        ("batch_shape", batch_shape if batch_shape is None else tuple(batch_shape), own),
        ("dtype", dtype if dtype is None else of_input(dtype).name, kept),
    ):
        if given is not None and given != has:
            raise ValueError(f"{name}={given!r} is not that of the input_tensor, {has!r}")
    return own, kept

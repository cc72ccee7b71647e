"""What layers are called on: tensors, what holds arrays, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core import tree
from distgrad.core.composite import Composite
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.keras.layers import symbolic

ARRAYS = (Tensor, Variable, np.ndarray, np.generic)
_KNOWN = (*ARRAYS, Composite)


def as_array(value: Any) -> Any:
    """What is no array but holds one, as a table of pandas does, as an array."""
    known = isinstance(value, (*_KNOWN, symbolic.KerasTensor))
    return value if known or not hasattr(value, "__array__") else np.asarray(value)


def refuse_numbers(layer: Any, value: Any) -> None:
    """Raises ValueError for Python's numbers in a nest."""
    if not all(v is None or isinstance(as_array(v), _KNOWN) for v in tree.flatten(value)):
        raise ValueError(
            f"layer {layer.name!r} takes tensors or arrays, not a Python list of numbers; "
            "wrap it in distgrad.constant"
        )


def of_values(layer: Any, inputs: Composite, training: bool | None) -> Any:
    """A ragged tensor of what a layer makes of each value, or of each row along its axis.

    Raises ValueError where it does not, or where such rows have other lengths.
    """
    if inputs.kind == "sparse" or not (layer.of_each_value or layer.of_each_row):
        mask = "" if inputs.kind == "sparse" else ", and a mask of its rows"
        what = f"layer {layer.name!r} takes no {type(inputs).__name__}"
        raise ValueError(f"{what}: give it {inputs.made_dense_by}{mask}")
    if layer.of_each_row:
        axes = [layer.axis] if isinstance(layer.axis, int) else layer.axis
        inner = len(inputs.flat_values.shape) - 1
        if not all(-inner <= axis < 0 for axis in axes):
            raise ValueError(
                f"layer {layer.name!r}: axis={layer.axis!r} is none of the {inner} last axes, "
                f"along which all rows of this {type(inputs).__name__} have one length: count it "
                "from the end (-1 is the last), or give it to_tensor(), and a mask of its rows"
            )
    return inputs.with_flat_values(layer(inputs.flat_values, training=training))

"""IndexedSlices: the gradient of a gather, kept as the slices that were taken.

A large table of which a few rows were read has a gradient that is zero almost everywhere; these
are its other rows. Everywhere else than in ``gradient``'s result it is a tensor like any other:
whatever reads it makes it dense.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import DType
from distgrad.core.primitive import bind, bind_at, bind_pair, registry
from distgrad.core.shapes import TensorShape, shape_of
from distgrad.core.tensor import Operand, Tensor


class IndexedSlices(Operand):
    """Slices of a tensor along its first axis (``tf.IndexedSlices``); repeated ones add up.

    ``values`` has shape (n, ...), ``indices`` are n integers, ``dense_shape`` is the shape of the
    whole tensor. ``convert_to_tensor`` and every operation make it dense.
    """

    __slots__ = ("_dense_shape", "indices", "values")

    def __init__(self, values: Any, indices: Any, dense_shape: Any = None) -> None:
        self.values = as_tensor(values)
        self.indices = as_tensor(indices)
        self._dense_shape = None if dense_shape is None else tuple(map(int, dense_shape))

    def _read(self) -> Tensor:
        """The dense tensor; recorders see it being made."""
        if self._dense_shape is None:
            raise ValueError("IndexedSlices without a dense_shape cannot become a tensor")
        return bind(
            registry["take_grad"], self.values, self.indices, shape=self._dense_shape, axis=0
        )

    def _write(self, out: Any) -> bool:
        """Writes the dense array over ``out``, of its shape; whether that can be done."""
        values = self.values._data
        if type(values) is not np.ndarray or type(out) is not np.ndarray:
            return False
        if values.dtype != out.dtype or self._dense_shape != out.shape:
            return False
        args = self.values, self.indices
        bind_at(out, registry["take_grad"], *args, shape=out.shape, axis=0)
        return True

    def _at(self, seed: Any) -> Tensor | None:
        """The slices of ``seed``, a value for the whole tensor, that belong to ``values``."""
        if seed is None:
            return None
        seed = as_tensor(seed, like=self.values._data.dtype)
        seed = bind(registry["broadcast_to"], seed, shape=tuple(self.shape))
        return bind(registry["take"], seed, self.indices, axis=0)

    @property
    def shape(self) -> TensorShape:
        if self._dense_shape is not None:
            return shape_of(self._dense_shape)
        return shape_of((None, *self.values.shape[1:]))

    @property
    def dense_shape(self) -> Tensor | None:
        """The shape of the whole as an int32 tensor, None if it is not known."""
        if self._dense_shape is None:
            return None
        return Tensor(np.array(self._dense_shape, dtype=np.int32))

    @property
    def dtype(self) -> DType:
        return self.values.dtype

    @property
    def device(self) -> str:
        return self.values.device

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self._read().__array__(dtype, copy)

    def __hash__(self) -> int:
        raise TypeError("IndexedSlices is unhashable")

    def __repr__(self) -> str:
        return (
            f"IndexedSlices(values={self.values!r}, indices={self.indices!r}, "
            f"dense_shape={self._dense_shape})"
        )


class _Sum:
    """IndexedSlices that add up, joined once all are there: a loop of gathers stays linear."""

    __slots__ = ("terms",)

    def __init__(self, terms: list[IndexedSlices]) -> None:
        self.terms = terms


def add(x: Any, y: Any) -> Any:
    """The sum of two cotangents, written over ``x`` if that is a sum already.

    IndexedSlices among themselves stay slices; any other pair becomes a tensor.
    """
    if type(x) is Tensor and type(y) is Tensor:
        return bind_pair(registry["add"], x, y)
    if type(y) is IndexedSlices:
        if type(x) is IndexedSlices:
            return _Sum([x, y])
        if type(x) is _Sum:
            x.terms.append(y)
            return x
    return bind(registry["add"], dense(x), dense(y))


def joined(value: Any) -> Any:
    """A cotangent as a user sees it: a sum of IndexedSlices as one."""
    if type(value) is not _Sum:
        return value
    terms, join = value.terms, registry["join"]
    values = bind(join, *[t.values for t in terms], axis=0)
    wide = [bind(registry["cast_discrete"], t.indices, dtype=np.dtype(np.int64)) for t in terms]
    return IndexedSlices(values, bind(join, *wide, axis=0), terms[0]._dense_shape)


def dense(value: Any) -> Any:
    """The same cotangent as a tensor (or None, or a tuple of cotangents)."""
    value = joined(value)
    return value._read() if type(value) is IndexedSlices else value

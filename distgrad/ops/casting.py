"""Copies, constants of a tensor's shape, and casts."""

from __future__ import annotations

from typing import Any

import numpy as np

from distgrad.core.composite import CompositeError, otherwise
from distgrad.core.dispatch import as_tensor
from distgrad.core.dtypes import INEXACT, as_dtype
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.core.texts import all_texts, as_strings


@primitive(view=True, also="input")
def identity(xp, x):
    """The same value as a tensor of its own."""
    return x


identity.of_texts = as_strings


@identity.vjp("x")
def _(g):
    return g


@identity.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)))


@primitive(vjp=None, view=True, also="input")
def stop_gradient(xp, x):
    """The same value, through which no gradient passes; hidden from outer tapes as well."""
    return x


@stop_gradient.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)))


@primitive(vjp=None, match=())
def fill_like(xp, x, *, value):
    """An array of ``value`` with the shape and dtype of ``x``."""
    out = xp.empty_like(x)  # (``full_like`` is several times as slow for a scalar)
    out[...] = value
    return out


@fill_like.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)), value=2)


def zeros_like(input: Any, dtype: Any = None, name: str | None = None) -> Any:
    """Zeros of the shape (and dtype) of ``input``; of texts empty ones."""
    if dtype is None and type(input) is not Tensor and all_texts(input):
        return as_strings(np.zeros(np.shape(as_strings(input)), str))
    try:
        zeros = bind(fill_like, as_tensor(input), value=0)
    except CompositeError:
        return otherwise(zeros_like, (input, dtype), {})
    return zeros if dtype is None else cast(zeros, dtype)


def ones_like(input: Any, dtype: Any = None, name: str | None = None) -> Tensor:
    """Ones of the shape (and dtype) of ``input``."""
    try:
        ones = bind(fill_like, as_tensor(input), value=1)
    except CompositeError:
        return otherwise(ones_like, (input, dtype), {})
    return ones if dtype is None else cast(ones, dtype)


@primitive()
def cast_float(xp, x, *, dtype):
    """``x`` (float or complex) as another such dtype, as a fresh array."""
    return x.astype(dtype)


@cast_float.vjp("x")
def _(g, x_dtype):
    return cast(g, x_dtype)


@cast_float.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)), dtype=np.dtype(np.float64))


@primitive(vjp=None)
def cast_discrete(xp, x, *, dtype):
    """``x`` as another dtype where one of the two is an integer or bool: no gradient passes."""
    return x.astype(dtype)


@cast_discrete.samples
def _(rng):
    yield sample(3 * rng.normal(size=(3, 4)), dtype=np.dtype(np.int32))


def cast(x: Any, dtype: Any, name: str | None = None) -> Any:
    """``x`` as ``dtype``; floats become integers by truncation, complex numbers lose their
    imaginary part. Its own dtype: the same object. Of a SparseTensor, its values. Raises TypeError
    for an unknown dtype, and for numbers as texts, which ``tf.strings.as_string`` makes."""
    if type(x) is not Tensor:
        if hasattr(x, "with_values"):  # sparse
            return x.with_values(cast(x.values, dtype))
        if dtype == "string" and all_texts(x):
            return as_strings(x)
    tensor = x if type(x) is Tensor else as_tensor(x)
    wanted = as_dtype(dtype).numpy_dtype
    known = tensor._data.dtype
    if known == wanted:
        # A variable's value gets a tensor of its own: read outside a tape, it is a constant to it.
        return tensor if isinstance(x, Tensor) else identity(tensor)
    kept = known.kind in INEXACT and wanted.kind in INEXACT
    return bind(cast_float if kept else cast_discrete, tensor, dtype=wanted)

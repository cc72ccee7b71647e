"""Complex numbers: their parts, and the conjugate that every rule over them needs.

The gradient of a real loss with respect to a complex ``z = a + ib`` is ``dL/da + i dL/db``, as in
TensorFlow. So the cotangent of ``f(z)`` is ``g * conj(f'(z))``.
"""

from __future__ import annotations

import builtins
from typing import Any

from distgrad.core.composite import CompositeError, otherwise, takes_composites
from distgrad.core.dispatch import as_tensor
from distgrad.core.primitive import bind, primitive, sample
from distgrad.core.tensor import Tensor
from distgrad.ops.casting import zeros_like


def _normal(rng: Any) -> Any:
    return rng.normal(size=(3, 4)) + 1j * rng.normal(size=(3, 4))


@primitive(kinds="c")
def conjugate(xp, x):
    """Elementwise complex conjugate of a complex tensor."""
    return xp.conj(x)


@conjugate.vjp("x")
def _(g):
    return bind(conjugate, g)


@conjugate.samples
def _(rng):
    yield sample(_normal(rng))


def conj(x: Any, name: str | None = None) -> Tensor:
    """Elementwise complex conjugate; a real tensor is returned as it is."""
    try:
        tensor = x if type(x) is Tensor else as_tensor(x)
    except CompositeError:
        return otherwise(conj, (x,), {})
    return bind(conjugate, tensor) if tensor._data.dtype.kind == "c" else tensor


def adjoint(factor: Any) -> Any:
    """The conjugate of a factor (a tensor or a Python number), for the vjp of a product."""
    if type(factor) is Tensor:
        return bind(conjugate, factor) if factor._data.dtype.kind == "c" else factor
    return factor.conjugate() if type(factor) is builtins.complex else factor


@primitive(kinds="c")
def real_part(xp, x):
    """Real part of a complex tensor, as a fresh array."""
    return xp.real(x).copy()


@real_part.vjp("x")
def _(g):
    return bind(complex, g, zeros_like(g))


@real_part.samples
def _(rng):
    yield sample(_normal(rng))


@primitive(kinds="c")
def imag_part(xp, x):
    """Imaginary part of a complex tensor, as a fresh array."""
    return xp.imag(x).copy()


@imag_part.vjp("x")
def _(g):
    return bind(complex, zeros_like(g), g)


@imag_part.samples
def _(rng):
    yield sample(_normal(rng))


@takes_composites
def real(input: Any, name: str | None = None) -> Tensor:
    """Elementwise real part; a real tensor is returned as it is."""
    tensor = as_tensor(input)
    return bind(real_part, tensor) if tensor._data.dtype.kind == "c" else tensor


@takes_composites
def imag(input: Any, name: str | None = None) -> Tensor:
    """Elementwise imaginary part; zeros for a real tensor."""
    tensor = as_tensor(input)
    return bind(imag_part, tensor) if tensor._data.dtype.kind == "c" else zeros_like(tensor)


@primitive(kinds="f")
def complex(xp, real, imag):
    """``real + 1j * imag``: complex64 from float32, complex128 from float64.

    Raises InvalidArgumentError for other dtypes, or two that differ.
    """
    real, imag = xp.broadcast_arrays(real, imag)
    z = xp.empty(real.shape, dtype=xp.result_type(real, xp.complex64))
    z.real = real
    z.imag = imag
    return z


@complex.vjp("real")
def _(g):
    return bind(real_part, g)


@complex.vjp("imag")
def _(g):
    return bind(imag_part, g)


@complex.samples
def _(rng):
    yield sample(rng.normal(size=(3, 4)), rng.normal(size=4))

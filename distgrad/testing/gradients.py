"""Gradients checked against finite differences, for our own primitives and those of users."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad.core.dispatch import as_tensor
from distgrad.core.tape import GradientTape
from distgrad.core.tensor import Tensor
from distgrad.ops.complex import complex as complex_of
from distgrad.ops.complex import imag, real
from distgrad.ops.reduce import reduce_sum

STEP = 1e-5  # of the central difference: its error is about STEP**2


def check_gradients(
    fn: Callable[..., Any],
    args: Sequence[Any],
    *,
    order: int = 2,
    seed: int = 0,
    rtol: float = 1e-6,
    atol: float = 1e-7,
) -> None:
    """Compares the derivatives of ``fn`` up to ``order`` with central differences.

    ``fn`` takes tensors and returns a tensor, or several; those of ``args`` that are float64 or
    complex128 arrays are varied, the rest passes as it is. Complex numbers count as their two
    parts. Each order is one random projection: ``<w, f(x + hu) - f(x - hu)> / 2h`` against
    ``<u, J^T w>``. Raises AssertionError with both numbers.
    """
    rng = np.random.default_rng(seed)
    varied: list[np.ndarray] = []
    for arg in args:
        if _is_array_of(arg, np.complex128):
            varied += [arg.real.copy(), arg.imag.copy()]
        elif _is_array_of(arg, np.float64):
            varied.append(arg)

    def of_varied(*tensors: Any) -> list[Any]:
        parts = iter(tensors)
        full = []
        for arg in args:
            if _is_array_of(arg, np.complex128):
                full.append(complex_of(next(parts), next(parts)))
            else:
                full.append(next(parts) if _is_array_of(arg, np.float64) else arg)
        return _float_outputs(fn(*full))

    _check(of_varied, varied, order, rng, rtol, atol, "")


def _is_array_of(arg: Any, dtype: Any) -> bool:
    return isinstance(arg, np.ndarray) and arg.dtype == dtype


def _check(
    fn: Callable[..., list[Any]],
    arrays: list[np.ndarray],
    order: int,
    rng: np.random.Generator,
    rtol: float,
    atol: float,
    name: str,
) -> None:
    outputs = fn(*map(as_tensor, arrays))
    weights = [rng.normal(size=tuple(out.shape)) for out in outputs]

    def projected(*tensors: Any) -> Any:
        pairs = zip(fn(*tensors), weights, strict=True)
        return functools.reduce(operator.add, [reduce_sum(o * w) for o, w in pairs])

    def gradients(*tensors: Any) -> list[Any]:
        with GradientTape() as tape:
            tape.watch(list(tensors))
            value = projected(*tensors)
        return tape.gradient(value, list(tensors), unconnected_gradients="zero")

    directions = [rng.normal(size=a.shape) for a in arrays]
    above = projected(*(as_tensor(a + STEP * u) for a, u in zip(arrays, directions, strict=True)))
    below = projected(*(as_tensor(a - STEP * u) for a, u in zip(arrays, directions, strict=True)))
    numeric = (float(above) - float(below)) / (2 * STEP)
    found = gradients(*map(as_tensor, arrays))
    for gradient, array in zip(found, arrays, strict=True):
        assert tuple(gradient.shape) == array.shape, (gradient.shape, array.shape)
        assert gradient.dtype == array.dtype, (gradient.dtype, array.dtype)
    products = [as_tensor(g).numpy() * u for g, u in zip(found, directions, strict=True)]
    exact = sum(float(np.sum(p)) for p in products)
    scale = sum(float(np.sum(np.abs(p))) for p in products)
    error = abs(numeric - exact)
    assert error <= atol + rtol * max(scale, abs(numeric)), (
        f"derivative {name or 'of order 1'}: the tape gives {exact:.12g}, finite differences "
        f"{numeric:.12g} (off by {error:.3g})"
    )
    if order > 1:
        _check(gradients, arrays, order - 1, rng, rtol, 10 * atol, name + " of the derivative")


def _float_outputs(outputs: Any) -> list[Tensor]:
    several = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
    parts: list[Tensor] = []
    for out in several:
        if out.dtype.is_complex:
            parts += [real(out), imag(out)]
        elif out.dtype.is_floating:
            parts.append(out)
    return parts

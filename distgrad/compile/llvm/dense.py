"""Dense layers of float32 for eager steps: products, bias and activation in one call each way.

What is called on which memory is planned once for each size.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from distgrad.compile.llvm import gemm, products
from distgrad.compile.llvm.blocks import (
    Code,
    Int,
    Walk,
    in_groups,
    panels,
    product,
    put,
    rows_at_once,
    scratch,
)
from distgrad.compile.llvm.calls import Place, Planned, argument, number
from distgrad.compile.llvm.composites import ROWS, Body, Made
from distgrad.compile.llvm.loops import Native
from distgrad.compile.llvm.rows import all_of
from distgrad.compile.memory import aligned
from distgrad.ops.biased import ACTIVATIONS

_FLOAT32 = np.dtype(np.float32)
_FEWEST_ROWS = 12  # of a product whose matrices are packed
_FEWEST_COLUMNS = 32  # of one that is faster than BLAS
_FEW = 1 << 18  # terms of a product that takes less than its preparation
_PACKED = 1 << 14  # elements of a matrix that is packed for few rows
_WAITING = 1 << 17  # elements of a product that wait in the caches for their bias
_LARGEST = 1 << 20  # elements between two parts of a gradient that lie in memory that is kept


def forward(
    x: np.ndarray, w: np.ndarray, b: np.ndarray, activation: str, out: np.ndarray | None
) -> np.ndarray | None:
    """An activation of ``x @ w + b``; None where there is no kernel for it, or BLAS is faster."""
    if not _plain(x, w, b):
        return None
    planned = _forward_plan(x.shape, w.shape, b.shape, activation)
    if planned is None:
        return None
    out = np.empty((x.shape[0], b.size), _FLOAT32) if out is None else out
    plan, nbytes = planned
    plan(x, w, b, out, scratch(nbytes))
    return out


def backward(
    args: tuple[np.ndarray, ...], activation: str, all_three: bool, out: tuple | None
) -> tuple[np.ndarray, ...] | None:
    """The cotangents of ``x`` (with ``all_three``), ``w`` and ``b``, for that of the output.

    ``args`` are that one, the output, x, w and b; results that have an array in ``out`` are
    written to it. None as for ``forward``.
    """
    g, y, x, w, b = args
    if not (_plain(g, y, x) and _plain(w, b, b)) or g.shape != y.shape:
        return None
    planned = _backward_plan(x.shape, w.shape, b.shape, activation, all_three)
    if planned is None:
        return None
    likes = args[3 - all_three :]
    if out is None:
        out = tuple([np.empty(a.shape, _FLOAT32) for a in likes])
    else:
        pairs = zip(likes, out, strict=True)
        out = tuple([np.empty(a.shape, _FLOAT32) if p is None else p for a, p in pairs])
    plan, nbytes = planned
    plan(g, y, x, w, *out, scratch(nbytes))
    return out


def _plain(*arrays: np.ndarray) -> bool:
    for a in arrays:
        if type(a) is not np.ndarray or not a.flags.c_contiguous:
            return False
        # An array that was pickled has a dtype that is equal, not the same.
        if a.dtype is not _FLOAT32 and a.dtype != _FLOAT32:
            return False
    return True


class _Plan(NamedTuple):
    call: Callable[..., None]
    nbytes: int  # that it works in


def _sizes(x: tuple, w: tuple, b: tuple) -> tuple[int, int, int] | None:
    """Rows, terms and columns of a product that is worth a plan."""
    if len(x) != 2 or len(w) != 2 or x[1] != w[0] or b != w[1:]:
        return None
    m, k, n = *x, w[1]
    small = m * k * n <= _FEW
    return (m, k, n) if m and min(k, n) >= (2 if small else _FEWEST_COLUMNS) else None


@functools.lru_cache(maxsize=1024)
def _forward_plan(x: tuple, w: tuple, b: tuple, activation: str) -> _Plan | None:
    sizes = _sizes(x, w, b)
    if sizes is None:
        return None
    m, k, n = sizes
    if m >= _FEWEST_ROWS and products.shared(m, n, k):
        return _Plan(_Forward(activation, sizes), 0)
    given, weights, bias, made, work = map(argument, range(5))
    most = max(_WAITING // n, _FEWEST_ROWS)
    held = aligned(gemm.work(n, k))
    waiting, finish = _after(work, held), _finish(activation, n)
    calls: list[tuple[Native, Sequence[Place]]] = []
    for start in range(0, m, most):
        rows = min(most, m - start)
        places = _after(given, 4 * start * k), weights, waiting
        if m < _FEWEST_ROWS:
            calls.append((_few_rows(m, k, n), places))
        else:
            calls.append(_multiplied(False, False, places, work, (rows, n, k)))
        calls.append(_looped(finish, (waiting, bias), (_after(made, 4 * start * n),), rows))
    return _Plan(Planned(*calls), held + 4 * min(m, most) * n)


@functools.lru_cache(maxsize=1024)
def _backward_plan(x: tuple, w: tuple, b: tuple, activation: str, all_three: bool) -> _Plan | None:
    sizes = _sizes(x, w, b)
    if sizes is None or sizes[0] * sizes[2] > _LARGEST:
        return None
    m, k, n = sizes
    if m < _FEWEST_ROWS and all_three and k * n > _PACKED:
        return None
    if m >= _FEWEST_ROWS and products.shared(m, n, k):
        return _Plan(_Backward(activation, sizes), 0)
    g, y, given, weights, *made, work = map(argument, range(7 + all_three))
    *of_x, of_w, of_b = made
    held = aligned(max(gemm.work(n, m), gemm.work(k, n) if all_three else 0))
    dz = _after(work, held) if activation else g
    calls = [
        _looped(_start(activation, n), (g, y), (dz, of_b) if activation else (of_b,), m),
        _multiplied(True, False, (given, dz, of_w), work, (k, n, m)),
    ]
    if all_three:
        calls.append(_multiplied(False, True, (dz, weights, *of_x), work, (m, k, n)))
    return _Plan(Planned(*calls), held + 4 * m * n)


class _Forward:
    """A large layer: threads share the product, which lies in memory of its own until its end."""

    def __init__(self, activation: str, sizes: tuple[int, int, int]) -> None:
        given, made = tuple(map(argument, range(2))), (argument(2),)
        self._finish = Planned(_looped(_finish(activation, sizes[2]), given, made, sizes[0]))

    def __call__(self, x: np.ndarray, w: np.ndarray, b: np.ndarray, out: np.ndarray, _: Any):
        product = np.empty(out.shape, _FLOAT32)
        products.multiply(x, w, product)
        self._finish(product, b, out)


class _Backward:
    """The same for its gradients."""

    def __init__(self, activation: str, sizes: tuple[int, int, int]) -> None:
        (m, _, n), self._activation = sizes, activation
        given, made = tuple(map(argument, range(2))), tuple(map(argument, (2, 3)))
        start = _looped(_start(activation, n), given, made if activation else made[1:], m)
        self._start = Planned(start)

    def __call__(
        self, g: np.ndarray, y: np.ndarray, x: np.ndarray, w: np.ndarray, *made: np.ndarray
    ) -> None:
        *of_x, of_w, of_b, _ = made
        dz = np.empty(g.shape, _FLOAT32) if self._activation else g
        self._start(g, y, dz, of_b)
        products.multiply(x.T, dz, of_w)
        for each in of_x:
            products.multiply(dz, w.T, each)


def _after(place: Place, nbytes: int) -> Place:
    return place[0], place[1] + nbytes


def _multiplied(
    ta: bool, tb: bool, places: tuple[Place, ...], work: Place, sizes: tuple[int, int, int]
) -> tuple[Native, Sequence[Place]]:
    """The product of two matrices that lie at ``places``, with the result behind them."""
    m, n, k = sizes
    numbers = m, n, k, gemm.depth(k), m if ta else k, k if tb else n, n
    return gemm.gemm(ta, tb), [*places, work, *map(number, numbers)]


@functools.lru_cache(maxsize=256)
def _few_rows(m: int, k: int, n: int) -> Native:
    """The product of few rows with a matrix, which is read once, from where it lies."""
    code = Code(["x", "w", "y"], [])
    for column, width in panels(code, n):

        def write(row: Int, rows: int, column: Int = column, width: int = width) -> None:
            first = code.at("%x", code.mul(row, k))
            right, walk = code.at("%w", column), Walk(k, 1, n)
            sums = product(code, [r * k for r in range(rows)], width, first, right, [walk])
            put(code, code.at("%y", code.add(code.mul(row, n), column)), n, width, sums)

        in_groups(code, m, rows_at_once(width), write)
    return code.native()


def _looped(
    made: Made, given: tuple[Place, ...], results: tuple[Place, ...], rows: int
) -> tuple[Native, Sequence[Place]]:
    places = [given[i] for i in made.inputs] + [results[i] for i in made.outputs]
    return made.native, [*places, *map(number, all_of(rows))]


def _finish(activation: str, columns: int) -> Made:
    """Bias and activation of a product."""
    body = Body()
    y = body("add", body.given(ROWS, columns), body.given(columns))
    return body.made(body(ACTIVATIONS[activation][0].name, y) if activation else y)


def _start(activation: str, columns: int) -> Made:
    """The cotangent of the product, and its sum over rows."""
    body = Body()
    dz = body.given(ROWS, columns)
    if not activation:
        return body.made(body("sum_to", dz, shape=(columns,)))
    dz = body(ACTIVATIONS[activation][1].name, dz, body.given(ROWS, columns))
    return body.made(dz, body("sum_to", dz, shape=(columns,)))

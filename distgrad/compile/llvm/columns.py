"""Sums of columns, and their standardisation as in batch normalisation, for the eager path.

Each walk over all rows is one loop; sums have the bits of NumPy's.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from distgrad.compile.llvm.composites import ROWS, Body, Made

_SMALLEST = 1 << 12  # elements: below that NumPy is as fast
_FLOAT32 = np.dtype(np.float32)


def total(x: np.ndarray, shape: tuple[int, ...], out: Any) -> np.ndarray | None:
    """The sum of all rows; None where ``shape`` is another than that of a row, with ones before.

    It is written to ``out``, where that is given.
    """
    if x.ndim < 2 or not shape or shape[-1] != x.shape[-1] or math.prod(shape) != shape[-1]:
        return None
    if shape[-1] < 2 or not x.flags.c_contiguous:
        return None  # a single column is summed in pairs
    out = np.empty(shape, _FLOAT32) if out is None else out
    _sum(shape[-1]).at([x], [out], x.size // shape[-1])
    return out


def standardized(name: str, args: tuple, params: dict[str, Any], out: Any) -> np.ndarray | None:
    """What a primitive makes of arrays of float32; None where it is not over all axes but the last.

    It is written to ``out``, where that is given.
    """
    x = args[-1]
    for a in args:
        if type(a) is not np.ndarray or a.dtype != _FLOAT32 or a.shape != x.shape:
            return None
        if not a.flags.c_contiguous:
            return None
    if params["axis"] != tuple(range(x.ndim - 1)) or x.size < max(_SMALLEST, 2 * x.shape[-1]):
        return None
    columns = _Columns(x)
    scale = 1 / np.sqrt(columns.variance + np.float32(params["epsilon"]))
    out = np.empty(x.shape, _FLOAT32) if out is None else out
    if name == "standardize":
        columns(_standardized, [x, columns.mean, scale], [out])
    else:
        columns.pull_back(args[0], scale, out)
    return out


def moments(
    x: np.ndarray, axis: tuple[int, ...], out: tuple[np.ndarray, ...] | None
) -> tuple[np.ndarray, ...] | None:
    """Mean and variance of all rows, kept, as ``total``; None where it is over other axes."""
    if axis != tuple(range(x.ndim - 1)) or x.shape[-1] < 2 or not x.flags.c_contiguous:
        return None
    columns, shape = _Columns(x), (1,) * (x.ndim - 1) + x.shape[-1:]
    out = out or (np.empty(shape, _FLOAT32), np.empty(shape, _FLOAT32))
    for place, made in zip(out, (columns.mean, columns.variance), strict=True):
        place[...] = made
    return out


class _Columns:
    """The mean and the variance of each column."""

    def __init__(self, x: np.ndarray) -> None:
        self._x, self._width = x, x.shape[-1]
        self._rows = x.size // self._width
        self.mean = self._average(_sum, [x])
        self.variance = self._average(_squares, [x, self.mean])

    def __call__(self, kernel: Any, given: list[np.ndarray], made: list[np.ndarray]) -> None:
        """Runs a kernel over all rows."""
        kernel(self._width).at(given, made, self._rows)

    def _average(self, kernel: Any, given: list[np.ndarray]) -> np.ndarray:
        total = np.empty(self._width, _FLOAT32)
        self(kernel, given, [total])
        return total / np.float32(self._rows)

    def pull_back(self, dy: np.ndarray, scale: np.ndarray, out: np.ndarray) -> None:
        """The cotangent of ``x`` for that of the standardised values."""
        given = [dy, self._x, self.mean, scale]
        of_dy, along = self._average(_sum, [dy]), self._average(_products, given)
        self(_pulled_back, [*given, of_dy, along], [out])


def _arrays(rows: int, others: int, columns: int) -> tuple[Body, list[Any]]:
    body = Body()
    found = [body.given(ROWS, columns) for _ in range(rows)]
    return body, found + [body.given(columns) for _ in range(others)]


@functools.lru_cache(maxsize=256)
def _sum(columns: int) -> Made:
    body, (x,) = _arrays(1, 0, columns)
    return body.made(body("sum_to", x, shape=(columns,)))


@functools.lru_cache(maxsize=256)
def _squares(columns: int) -> Made:
    body, (x, mean) = _arrays(1, 1, columns)
    return body.made(body("sum_to", body("square", body("subtract", x, mean)), shape=(columns,)))


@functools.lru_cache(maxsize=256)
def _standardized(columns: int) -> Made:
    body, (x, mean, scale) = _arrays(1, 2, columns)
    return body.made(body("multiply", body("subtract", x, mean), scale))


@functools.lru_cache(maxsize=256)
def _products(columns: int) -> Made:
    body, (dy, x, mean, scale) = _arrays(2, 2, columns)
    y = body("multiply", body("subtract", x, mean), scale)
    return body.made(body("sum_to", body("multiply", dy, y), shape=(columns,)))


@functools.lru_cache(maxsize=256)
def _pulled_back(columns: int) -> Made:
    body, (dy, x, mean, scale, of_dy, along) = _arrays(2, 4, columns)
    y = body("multiply", body("subtract", x, mean), scale)
    d = body("subtract", body("subtract", dy, of_dy), body("multiply", y, along))
    return body.made(body("multiply", d, scale))

"""The kernels of ``kernels.cu`` in the places of primitives, on arrays of CuPy.

They take contiguous float32 and float64 arrays; for all else the kernels over CuPy's own functions
are there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import resources
from typing import Any

import numpy as np

SOURCE = "kernels.cu"
OPTIONS = ("-std=c++17", "--fmad=false")
_TYPES = {"float32": "float", "float64": "double"}
_FLAT = 256  # threads of a block that works on flat arrays


def source(dtype: np.dtype) -> str:
    """The text of the kernels for one type of float."""
    text = resources.files("distgrad.backend").joinpath(SOURCE).read_text(encoding="utf-8")
    return f"typedef {_TYPES[dtype.name]} T;\n{text}"


def _threads(n: int) -> int:
    """Threads for one row: it decides the order of the sum, and so depends on its length alone."""
    return min(256, max(32, 1 << (n - 1).bit_length()))


class Kernels:
    """The compiled kernels, for one namespace of CuPy."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._found: dict[tuple[str, np.dtype], Any] = {}
        self._modules: dict[np.dtype, Any] = {}
        self.by_primitive: dict[str, Callable[..., Any]] = {
            "adam_update": self._adam,
            "softmax_along": self._softmax,
            "sparse_cross_entropy": self._cross_entropy,
            "sparse_cross_entropy_grad": self._cross_entropy_grad,
            "standardize": self._standardize,
            "standardize_grad": self._standardize_grad,
            "take_grad": self._take_grad,
        }

    def _launch(self, name: str, dtype: np.dtype, blocks: int, threads: int, *args: Any) -> None:
        kernel = self._found.get((name, dtype))
        if kernel is None:
            if dtype not in self._modules:
                self._modules[dtype] = self._cupy.RawModule(code=source(dtype), options=OPTIONS)
            kernel = self._found[name, dtype] = self._modules[dtype].get_function(name)
        # A Python int would do as well, but its width is not documented.
        given = tuple(np.int64(a) if type(a) is int else a for a in args)
        kernel((blocks,), (threads,), given)

    def uniform(self, key: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """Uniform floats in [0, 1): the bits that NumPy draws from the key."""
        draw = dtype if dtype.name in _TYPES else np.dtype(np.float32)
        out = self._cupy.empty(shape, draw)
        if out.size:
            k0, k1, c2, c3 = np.asarray(key, np.uint64)
            each = 32 // draw.itemsize
            blocks = -(-out.size // (each * _FLAT))
            self._launch("uniform", draw, blocks, _FLAT, out, out.size, k0, k1, c2, c3)
        return out if draw == dtype else out.astype(dtype)

    def uniform_from(self, out: Any, key: Any) -> None:
        """The same into ``out``, contiguous, from a key that lies on the device."""
        blocks = -(-out.size * out.itemsize // (32 * _FLAT))
        self._launch("uniform_from", out.dtype, blocks, _FLAT, out, out.size, key)

    def add_rows(self, out: Any, g: Any, indices: Any) -> None:
        """Rows of ``g`` added up by their ``indices``, int64; all of them contiguous."""
        given = (out, g, indices, indices.size, out.size // out.shape[0])
        self._launch("add_rows", out.dtype, out.shape[0], _FLAT, *given)

    def sum_rows(self, out: Any, x: Any, rows: int, divisor: int = 1) -> None:
        """The sum of the rows of ``x``, contiguous, over ``divisor``: in an order of their own."""
        columns = x.size // rows
        segments = min(64, max(1, rows // 64))
        part, chunks = self._cupy.empty((segments, columns), x.dtype), -(-columns // 32)
        each = -(-rows // segments)
        given = (part, x, rows, columns, each, chunks)
        self._launch("column_part", x.dtype, chunks * segments, _FLAT, *given)
        total = (out, part, segments, columns, x.dtype.type(divisor))
        self._launch("column_total", x.dtype, -(-columns // _FLAT), _FLAT, *total)

    def _adam(
        self,
        plain: Any,
        p: Any,
        m: Any,
        s: Any,
        g: Any,
        alpha: Any,
        *,
        beta_1: float,
        beta_2: float,
        epsilon: float,
        out: Any = None,
    ) -> Any:
        arrays, dtype = (p, m, s, g), p.dtype
        flat = all(a.flags.c_contiguous and a.dtype == dtype for a in arrays)
        if not flat or dtype.name not in _TYPES or isinstance(alpha, self._cupy.ndarray):
            words = {"beta_1": beta_1, "beta_2": beta_2, "epsilon": epsilon}
            return plain(*arrays, alpha, **words, **({} if out is None else {"out": out}))
        p, m, s = out if out is not None else (p.copy(), m.copy(), s.copy())
        if p.size:
            numbers = map(dtype.type, (alpha, 1 - beta_1, 1 - beta_2, epsilon))
            blocks = min(-(-p.size // _FLAT), 1 << 16)
            self._launch("adam", dtype, blocks, _FLAT, p, m, s, g, p.size, *numbers)
        return p, m, s

    def _rows(self, *arrays: Any) -> list[Any] | None:
        """Contiguous arrays, where all have one type of float, and elements."""
        dtype = arrays[0].dtype
        if dtype.name not in _TYPES or any(a.dtype != dtype or not a.size for a in arrays):
            return None
        return [self._cupy.ascontiguousarray(a) for a in arrays]

    def _on_rows(self, name: str, out: Any, arrays: Any, n: int, *numbers: Any) -> Any:
        rows = arrays[-1].size // n
        self._launch(name, out.dtype, rows, _threads(n), out, *arrays, *numbers)
        return out

    def _softmax(self, plain: Any, x: Any, *, axis: int) -> Any:
        rows = self._rows(x) if axis == x.ndim - 1 else None
        if rows is None:
            return plain(x, axis=axis)
        n = x.shape[-1]
        return self._on_rows("softmax", self._cupy.empty(x.shape, x.dtype), rows, n, n)

    def _labels(self, labels: Any) -> Any:
        return self._cupy.ascontiguousarray(labels.astype(np.int64, copy=False))

    def _cross_entropy(self, plain: Any, logits: Any, labels: Any) -> Any:
        rows = self._rows(logits)
        if rows is None:
            return plain(logits, labels)
        out, n = self._cupy.empty(logits.shape[:-1], logits.dtype), logits.shape[-1]
        return self._on_rows("cross_entropy", out, rows, n, self._labels(labels), n)

    def _cross_entropy_grad(self, plain: Any, dy: Any, logits: Any, labels: Any) -> Any:
        rows = self._rows(dy, logits)
        if rows is None:
            return plain(dy, logits, labels)
        out, n = self._cupy.empty(logits.shape, logits.dtype), logits.shape[-1]
        return self._on_rows("cross_entropy_grad", out, rows, n, self._labels(labels), n)

    def _standardize(self, plain: Any, x: Any, *, axis: tuple[int, ...], epsilon: float) -> Any:
        rows, n = self._rows(x), _trailing(x.shape, axis)
        if rows is None or not n:
            return plain(x, axis=axis, epsilon=epsilon)
        out = self._cupy.empty(x.shape, x.dtype)
        return self._on_rows("standardize", out, rows, n, n, x.dtype.type(epsilon))

    def _standardize_grad(
        self, plain: Any, dy: Any, x: Any, *, axis: tuple[int, ...], epsilon: float
    ) -> Any:
        rows, n = self._rows(dy, x), _trailing(x.shape, axis)
        if rows is None or not n or dy.shape != x.shape:
            return plain(dy, x, axis=axis, epsilon=epsilon)
        out = self._cupy.empty(x.shape, x.dtype)
        return self._on_rows("standardize_grad", out, rows, n, n, x.dtype.type(epsilon))

    def _take_grad(
        self, plain: Any, g: Any, indices: Any, *, shape: tuple[int, ...], axis: int
    ) -> Any:
        rows = self._rows(g) if axis == 0 else None
        if rows is None:
            return plain(g, indices, shape=shape, axis=axis)
        out = self._cupy.empty(shape, g.dtype)
        if out.size:
            places = self._cupy.ascontiguousarray(indices.astype(np.int64, copy=False))
            self.add_rows(out, rows[0], places)
        return out


def _trailing(shape: tuple[int, ...], axis: tuple[int, ...]) -> int:
    """The length of rows that these axes make, where they are the last ones; else 0."""
    last = tuple(range(len(shape) - len(axis), len(shape)))
    return math.prod(shape[i] for i in last) if axis and tuple(sorted(axis)) == last else 0

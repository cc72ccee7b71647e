"""The kernels of ``kernels.cu`` in the places of primitives, on arrays of CuPy.

They take float32 and float64 arrays; for all else the kernels over CuPy's own functions
are there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad.backend.cuda_launch import FLAT, Launcher, numbers
from distgrad.backend.tables import Tables

SOURCE = "kernels.cu"
_FLOATS = ("float32", "float64")
_EACH = 4  # elements that a thread of Adam reads at a time


def _threads(n: int) -> int:
    """Threads for one row: it decides the order of the sum, and so depends on its length alone."""
    return min(256, max(32, 1 << (n - 1).bit_length()))


class Kernels:
    """The compiled kernels, for one namespace of CuPy."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._launch, self._tables = Launcher(cupy, SOURCE), Tables(cupy)
        self.by_primitive: dict[str, Callable[..., Any]] = {
            "adam_update": self._adam,
            "softmax_along": self._softmax,
            "sparse_cross_entropy": self._cross_entropy,
            "sparse_cross_entropy_grad": self._cross_entropy_grad,
            "standardize": self._standardize,
            "standardize_grad": self._standardize_grad,
        }
        self.each = {"adam_update": self._adam_each}
        self.bound = {"adam_update": self._adam_bound}

    def uniform(self, key: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """Uniform floats in [0, 1): the bits that NumPy draws from the key."""
        draw = dtype if dtype.name in _FLOATS else np.dtype(np.float32)
        out = self._cupy.empty(shape, draw)
        if out.size:
            k0, k1, c2, c3 = np.asarray(key, np.uint64)
            each = 32 // draw.itemsize
            blocks = -(-out.size // (each * FLAT))
            self._launch("uniform", draw, blocks, FLAT, out, out.size, k0, k1, c2, c3)
        return out if draw == dtype else out.astype(dtype)

    def uniform_from(self, out: Any, key: Any) -> None:
        """The same into ``out``, contiguous, from a key that lies on the device."""
        blocks = -(-out.size * out.itemsize // (32 * FLAT))
        self._launch("uniform_from", out.dtype, blocks, FLAT, out, out.size, key)

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
        if isinstance(alpha, self._cupy.ndarray) or not self._alike(p, m, s, g):
            words = {"beta_1": beta_1, "beta_2": beta_2, "epsilon": epsilon}
            return plain(p, m, s, g, alpha, **words, **({} if out is None else {"out": out}))
        p, m, s = out if out is not None else (p.copy(), m.copy(), s.copy())
        if p.size:
            numbers = _of_adam(p.dtype, alpha, beta_1, beta_2, epsilon)
            self._launch("adam", p.dtype, _blocks(p), FLAT, p, m, s, g, p.size, *numbers)
        return p, m, s

    def _adam_bound(
        self, calls: Sequence[tuple[tuple, tuple]], params: dict[str, Any]
    ) -> Callable[..., None] | None:
        """Adam on arrays that stay, as a function of its numbers; None where they are not one.

        It is left out where ``losses`` are given, and one of them is not finite.
        """
        ((p, m, s), args), *others = calls
        if others or not (p.size and self._alike(p, m, s, args[3])):
            return None
        dtype, (_, *rest) = p.dtype, _of_adam(p.dtype, 0.0, **params)
        flat = dtype, _blocks(p), FLAT, p, m, s, args[3], p.size
        start = self._launch.bound("adam", *flat)
        where_finite = self._launch.bound("adam_where_finite", *flat)

        def run(numbers: Sequence[Any], losses: Any = None) -> None:
            given = dtype.type(numbers[0]), *rest
            if losses is None:
                start(*given)
            else:
                where_finite(*given, losses.losses, losses.count, losses.step)

        return run

    def _adam_each(self, calls: Sequence[tuple[tuple, tuple]], params: dict[str, Any]) -> bool:
        """Adam on several sets of arrays in one launch; False where they are not for that."""
        alpha = calls[0][1][4]
        if len(calls) < 2 or isinstance(alpha, self._cupy.ndarray):
            return False
        arrays: list[Any] = []
        for out, args in calls:
            arrays += out
            arrays.append(args[3])
        found = self._tables.of(arrays, 4)
        if found is None:
            return False
        table, blocks, chunk = found
        if blocks:
            dtype = calls[0][0][0].dtype
            numbers = _of_adam(dtype, alpha, **params)
            self._launch("adam_each", dtype, blocks, FLAT, table, len(calls), chunk, *numbers)
        return True

    def copy_each(self, pairs: Sequence[tuple[Any, Any]]) -> bool:
        """Copies arrays into others in one launch; False where they are not for that."""
        if len(pairs) < 2:
            return False
        found = self._tables.of([array.reshape(-1) for pair in pairs for array in pair], 2)
        if found is None:
            return False
        table, blocks, chunk = found
        if blocks:
            self._launch("copy_each", pairs[0][0].dtype, blocks, FLAT, table, len(pairs), chunk)
        return True

    def _alike(self, first: Any, *others: Any) -> bool:
        """Whether arrays of float lie in memory alike, element after element."""
        dtype = first.dtype
        alike = [a.dtype == dtype and a.flags.c_contiguous for a in (first, *others)]
        return dtype.char in "fd" and all(alike)

    def _rows(self, *arrays: Any) -> list[Any] | None:
        """Contiguous arrays, where all have one type of float, and elements."""
        dtype = arrays[0].dtype
        if dtype.char not in "fd" or any(a.dtype != dtype or not a.size for a in arrays):
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

    def _cross_entropy(self, plain: Any, logits: Any, labels: Any) -> Any:
        rows = self._rows(logits)
        if rows is None:
            return plain(logits, labels)
        out, n = self._cupy.empty(logits.shape[:-1], logits.dtype), logits.shape[-1]
        return self._on_rows("cross_entropy", out, rows, n, numbers(self._cupy, labels), n)

    def _cross_entropy_grad(self, plain: Any, dy: Any, logits: Any, labels: Any) -> Any:
        rows = self._rows(dy, logits)
        if rows is None:
            return plain(dy, logits, labels)
        out, n = self._cupy.empty(logits.shape, logits.dtype), logits.shape[-1]
        return self._on_rows("cross_entropy_grad", out, rows, n, numbers(self._cupy, labels), n)

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


def _blocks(flat: Any) -> int:
    """Blocks of threads for the kernel of Adam."""
    return min(-(-flat.size // (_EACH * FLAT)), 1 << 16)


def _of_adam(
    dtype: np.dtype, alpha: Any, beta_1: float, beta_2: float, epsilon: float
) -> list[Any]:
    """The numbers that the kernels of Adam take."""
    return [dtype.type(number) for number in (alpha, 1 - beta_1, 1 - beta_2, epsilon)]


def _trailing(shape: tuple[int, ...], axis: tuple[int, ...]) -> int:
    """The length of rows that these axes make, where they are the last ones; else 0."""
    last = tuple(range(len(shape) - len(axis), len(shape)))
    return math.prod(shape[i] for i in last) if axis and tuple(sorted(axis)) == last else 0

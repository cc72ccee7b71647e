"""cuBLAS without a GPU, for tests: its calls on pointers, column by column, done by NumPy."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from distgrad.core.dtypes import as_dtype
from distgrad.testing import standin
from distgrad.testing.fake_graphs import capture
from distgrad.testing.standin import Address

_TYPES: dict[int, np.dtype] = {
    0: np.dtype(np.float32),
    1: np.dtype(np.float64),
    2: np.dtype(np.float16),
    14: as_dtype("bfloat16").numpy_dtype,
}
_COMPUTE = {68: np.float32, 70: np.float64, 77: np.float32}
_NOT_INITIALIZED, _INVALID_VALUE = 1, 7  # cublasStatus_t


class Library:
    """The functions of cuBLAS that distgrad calls, as ctypes would call them."""

    def __init__(self) -> None:
        self._handles: set[int] = set()
        self._has_workspace = False

    def cublasCreate_v2(self, handle: Any) -> int:
        capture.refuse("calls that allocate")
        handle._obj.value = len(self._handles) + 1
        self._handles.add(handle._obj.value)
        return 0

    def cublasSetStream_v2(self, handle: Any, stream: Any) -> int:
        self._has_workspace = False  # it takes the workspace back
        return 0 if handle.value in self._handles else _NOT_INITIALIZED

    def cublasSetWorkspace_v2(self, handle: Any, place: Any, size: Any) -> int:
        if place.value is None or place.value % 256:
            return _INVALID_VALUE
        self._has_workspace, self._place = True, place.value
        return 0 if handle.value in self._handles else _NOT_INITIALIZED

    def cublasGemmEx(self, *given: Any) -> int:
        head, (a, a_type, lda, b, b_type, ldb, beta, c, c_type, ldc, *how) = given[:7], given[7:]
        one = ctypes.c_longlong(0)
        arrays = a, a_type, lda, one, b, b_type, ldb, one, beta, c, c_type, ldc, one
        whole: tuple[Any, ...] = (*head, *arrays, 1, *how)
        return self.cublasGemmStridedBatchedEx(*whole)

    def cublasGemmStridedBatchedEx(
        self,
        handle: Any,
        turn_a: int,
        turn_b: int,
        m: int,
        n: int,
        k: int,
        alpha: Any,
        a: Any,
        a_type: int,
        lda: int,
        a_step: Any,
        b: Any,
        b_type: int,
        ldb: int,
        b_step: Any,
        beta: Any,
        c: Any,
        c_type: int,
        ldc: int,
        c_step: Any,
        count: int,
        compute: int,
        algorithm: int,
    ) -> int:
        if not self._has_workspace:
            raise AssertionError("cuBLAS would allocate a workspace")
        capture.uses(self._place)
        rows = (k if turn_a else m), (n if turn_b else k), m
        for leading, least in zip((lda, ldb, ldc), rows, strict=True):
            if leading < max(1, least):
                return _INVALID_VALUE
        working = _COMPUTE[compute]

        def matrix(
            pointer: Any, kind: int, height: int, width: int, leading: int, step: Any
        ) -> Any:
            size = _TYPES[kind].itemsize
            strides = (step.value * size, size, leading * size)
            return Address(pointer.value, None).array((count, height, width), _TYPES[kind], strides)

        first = matrix(a, a_type, *((k, m) if turn_a else (m, k)), lda, a_step)
        second = matrix(b, b_type, *((n, k) if turn_b else (k, n)), ldb, b_step)
        out = matrix(c, c_type, m, n, ldc, c_step)
        factor, kept = alpha._obj.value, beta._obj.value

        def run() -> None:
            left = (first.swapaxes(1, 2) if turn_a else first).astype(working)
            right = (second.swapaxes(1, 2) if turn_b else second).astype(working)
            product = working(factor) * np.matmul(left, right)
            out[...] = product if kept == 0 else product + working(kept) * out

        standin.order.later(run)
        return 0

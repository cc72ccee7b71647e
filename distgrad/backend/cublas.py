"""Matrix products through cuBLAS itself: with a place for the result, and in captured graphs.

CuPy's own bindings refuse to work while a stream is captured, and set the stream before each call,
which takes the workspace back. A product that is captured needs one of its own: cuBLAS would
allocate it otherwise.
"""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

WORKSPACE = 32 << 20  # bytes: what NVIDIA recommends for Hopper, and enough for those before
# cudaDataType_t, and cublasComputeType_t: sums are kept in float32 or better.
_TYPES = {"float32": (0, 68), "float64": (1, 70), "float16": (2, 68), "bfloat16": (14, 68)}
_TF32 = 77
_DEFAULT = -1  # cublasGemmAlgo_t

tensor_float_32 = False  # whether float32 factors may be rounded to 10 bits


class Matrices(NamedTuple):
    """How cuBLAS reads matrices that lie row by row: turned or not, and its strides in elements."""

    turned: bool
    leading: int
    step: int  # from one matrix to the next


def matrices(
    shape: Sequence[int], strides: Sequence[int], batch: Sequence[int] = ()
) -> Matrices | None:
    """An array of matrices, broadcast to ``batch``, as cuBLAS takes it; None: copy it first.

    ``strides`` are in elements, and not negative.
    """
    (rows, columns), (down, along) = shape[-2:], strides[-2:]
    step = one_step(shape[:-2], strides[:-2], batch)
    if step is None:
        return None
    if (columns == 1 or along == 1) and (rows == 1 or down >= columns):
        return Matrices(False, down if rows > 1 else columns, step)
    if (rows == 1 or down == 1) and (columns == 1 or along >= rows):
        return Matrices(True, along if columns > 1 else rows, step)
    return None


def one_step(shape: Sequence[int], strides: Sequence[int], batch: Sequence[int]) -> int | None:
    """The one stride with which the leading axes, broadcast to ``batch``, are gone through."""
    gap = len(batch) - len(shape)
    sizes = [1] * gap + list(shape)
    steps = [0] * gap + list(strides)
    step, count = 0, 1
    for n, size, stride in zip(reversed(batch), reversed(sizes), reversed(steps), strict=True):
        if n == 1:
            continue
        stride = 0 if size == 1 else stride
        if count == 1:
            step = stride
        elif stride != step * count:
            return None
        count *= n
    return step


class Blas:
    """cuBLAS on the current device of each thread, and on its current stream."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._library: Any = None
        self._per_thread = threading.local()

    def takes(self, dtype: np.dtype) -> bool:
        """Whether it multiplies matrices of this dtype."""
        return dtype.name in _TYPES

    def open(self) -> Any:
        """Loads the library, and makes what this thread needs. Raises OSError or RuntimeError.

        What it gives is the workspace of this thread: who captures products keeps it, since their
        graph may outlive the thread.
        """
        return self._opened()[1]

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Context for products that may run beside others of this thread: no shared workspace."""
        self._per_thread.beside = True
        try:
            yield
        finally:
            self._per_thread.beside = False

    def _opened(self) -> tuple[ctypes.c_void_p, Any]:
        """This thread's handle for its device, put on its current stream, and the workspace."""
        own = self._per_thread
        known: dict[Any, tuple[ctypes.c_void_p, Any]] = own.__dict__.setdefault("handles", {})
        which = self._cupy.cuda.runtime.getDevice(), getattr(own, "beside", False)
        if self._library is None:
            self._library = load(self._cupy)
        if which not in known:
            handle = ctypes.c_void_p()
            self._check(self._library.cublasCreate_v2(ctypes.byref(handle)))
            known[which] = handle, self._cupy.cuda.alloc(WORKSPACE)
        handle, workspace = known[which]
        stream = ctypes.c_void_p(self._cupy.cuda.get_current_stream().ptr)
        self._check(self._library.cublasSetStream_v2(handle, stream))
        place, size = ctypes.c_void_p(workspace.ptr), ctypes.c_size_t(WORKSPACE)
        self._check(self._library.cublasSetWorkspace_v2(handle, place, size))
        return handle, workspace

    def _check(self, status: int) -> None:
        if status:
            raise RuntimeError(f"cuBLAS has failed with status {status}")

    def multiply(
        self,
        out: Any,
        a: Any,
        b: Any,
        sizes: tuple[int, int, int, int],
        as_a: Matrices,
        as_b: Matrices,
    ) -> None:
        """``out = a @ b`` for (count, rows, inner, columns): ``out`` is contiguous.

        The factors are of one dtype, and looked at as ``as_a`` and ``as_b`` say; the result is of
        that dtype, or of float32 where they are narrower.
        """
        count, rows, inner, columns = sizes
        kind, compute = _TYPES[a.dtype.name]
        made, _ = _TYPES[out.dtype.name]
        if tensor_float_32 and kind == 0:
            compute = _TF32
        number = ctypes.c_double if a.dtype.name == "float64" else ctypes.c_float
        one, zero = number(1.0), number(0.0)
        # cuBLAS goes column by column: it computes the transposed product, of b and a.
        arrays = [
            (b, kind, as_b.leading, as_b.step),
            (a, kind, as_a.leading, as_a.step),
            (out, made, columns, rows * columns),
        ]
        single = count == 1  # for which cuBLAS has more ways
        first, second, result = (
            (ctypes.c_void_p(array.data.ptr), type_, leading)
            + (() if single else (ctypes.c_longlong(step),))
            for array, type_, leading, step in arrays
        )
        handle, _ = self._opened()
        call = "cublasGemmEx" if single else "cublasGemmStridedBatchedEx"
        status = getattr(self._library, call)(
            *(handle, int(as_b.turned), int(as_a.turned), columns, rows, inner, ctypes.byref(one)),
            *(*first, *second, ctypes.byref(zero), *result),
            *(() if single else (count,)),
            *(compute, _DEFAULT),
        )
        self._check(status)

    def matmul(self, a: Any, b: Any, out: Any = None) -> Any:
        """As ``cupy.matmul`` for matrices of float; everything else goes to CuPy."""
        cupy = self._cupy
        plain = a.ndim >= 2 and b.ndim >= 2 and a.dtype == b.dtype and self.takes(a.dtype)
        if not plain or not (a.size and b.size):
            return cupy.matmul(a, b) if out is None else cupy.matmul(a, b, out=out)
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        shape = (*batch, a.shape[-2], b.shape[-1])
        if a.shape[-1] != b.shape[-2]:
            raise ValueError(f"matrices of {a.shape} and {b.shape} cannot be multiplied")
        a, as_a = self._readable(a, batch)
        b, as_b = self._readable(b, batch)
        into = out is not None and out.flags.c_contiguous and out.dtype == a.dtype
        made = out if into else cupy.empty(shape, a.dtype)
        sizes = math.prod(batch), a.shape[-2], a.shape[-1], b.shape[-1]
        self.multiply(made, a, b, sizes, as_a, as_b)
        if out is not None and not into:
            out[...] = made
            return out
        return made

    def dot(
        self, plain: Any, a: Any, b: Any, *, transpose_a: bool, transpose_b: bool, out: Any = None
    ) -> Any:
        """The primitive ``dot``: of bfloat16 by cuBLAS, which CuPy does not ask for it."""
        narrow = a.dtype.char == b.dtype.char == "E"  # bfloat16's: names take long to ask for
        if not narrow or not (a.size and b.size) or out is not None:
            more = {} if out is None else {"out": out}
            return plain(a, b, transpose_a=transpose_a, transpose_b=transpose_b, **more)
        a = a.swapaxes(-1, -2) if transpose_a else a
        b = b.swapaxes(-1, -2) if transpose_b else b
        if b.ndim == 2 and a.ndim > 2 and not transpose_a:  # one product for the whole batch
            rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
            return self.matmul(rows, b).reshape(*a.shape[:-1], b.shape[-1])
        return self.matmul(a, b)

    def _readable(self, array: Any, batch: Sequence[int]) -> tuple[Any, Matrices]:
        found = _of(array, batch)
        if found is None:
            array = self._cupy.ascontiguousarray(array)
            found = _of(array, batch)
        if found is None:  # leading axes that only partly repeat
            array = self._cupy.ascontiguousarray(
                self._cupy.broadcast_to(array, (*batch, *array.shape[-2:]))
            )
            found = _of(array, batch)
        assert found is not None
        return array, found


def _of(array: Any, batch: Sequence[int]) -> Matrices | None:
    return matrices(array.shape, [s // array.itemsize for s in array.strides], batch)


def load(cupy: Any) -> Any:
    """cuBLAS, which CuPy has found and loaded: by its name it is the same library."""
    cupy.cuda.device.get_cublas_handle()
    major = cupy.cuda.runtime.runtimeGetVersion() // 1000
    return ctypes.CDLL(f"libcublas.so.{major}")

"""Calls without Python between them: NumPy's own matrix product, and short steps in sequence.

A step costs about a microsecond of Python, and np.matmul two: as much as a small layer computes.
Products go to the BLAS that NumPy itself has loaded, with the arguments that NumPy would give it,
and only where they are seen to give NumPy's bits.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distgrad.compile import llvm_engine
from distgrad.compile.llvm_loops import Native
from distgrad.compile.steps import Step, View

_LARGEST = 1 << 19  # bytes of what one step works on: above that a microsecond does not matter
_MOST = 16  # steps in a sequence: buckets of gradients that are ready must not wait for long


def in_sequence(steps: Sequence[Step]) -> list[Step]:
    """The steps, with small matrix products as machine code, and runs of such steps as one."""
    made: list[Step] = []
    run: list[Step] = []

    def close() -> None:
        made.extend(run if len(run) < 2 else [_joined(run)])
        run.clear()

    for step in map(_product, steps):
        if not (isinstance(step.fn, Native) and _small(step)):
            close()
            made.append(step)
            continue
        run.append(step)
        if len(run) == _MOST:
            close()
    close()
    return made


def _small(step: Step) -> bool:
    return sum(view.buffer.nbytes for view in step.mentions) <= _LARGEST and not any(
        view.buffer.kind == "input" and view.buffer.nbytes > 1 << 16 for view in step.mentions
    )


def _joined(run: Sequence[Step]) -> Step:
    fns: list[Native] = [step.fn for step in run]  # type: ignore[misc]
    args = tuple(view for step in run for view in step.args)
    sizes = [len(step.args) for step in run]
    return Step(Sequential(fns, sizes), args, {}, None, False, False)


class Sequential:
    """Generated functions, one after the other, on as many arrays each as ``sizes`` says."""

    __name__ = "native_sequence"

    def __init__(self, functions: Sequence[Native], sizes: Sequence[int]) -> None:
        self.functions = tuple(functions)
        self._sizes = tuple(sizes)

    def __call__(self, *arrays: np.ndarray) -> None:
        for function, own in self._parts(arrays):
            function(*own)

    def _parts(self, arrays: Sequence[np.ndarray]) -> list[tuple[Native, Sequence[np.ndarray]]]:
        parts, start = [], 0
        for function, size in zip(self.functions, self._sizes, strict=True):
            parts.append((function, arrays[start : start + size]))
            start += size
        return parts

    def bound(self, arrays: Sequence[np.ndarray]) -> Callable[[], Any]:
        """The same for these arrays, whose memory must not move."""
        tables = [function.table(own) for function, own in self._parts(arrays)]
        entries = [len(tables)]
        for function, table in zip(self.functions, tables, strict=True):
            entries += [function.address, ctypes.addressof(table)]
        return _driver().keeping(entries, (tables, arrays))[0]


@functools.cache
def _driver() -> Native:
    """Calls each of the functions that a table lists, behind their number."""
    text = """
define void @entry(ptr %table) {
start:
  %count = load i64, ptr %table
  br label %loop
loop:
  %i = phi i64 [ 0, %start ], [ %next, %loop ]
  %at = mul i64 %i, 2
  %first = add i64 %at, 1
  %second = add i64 %at, 2
  %where = getelementptr i64, ptr %table, i64 %first
  %function = load ptr, ptr %where
  %given = getelementptr i64, ptr %table, i64 %second
  %arguments = load ptr, ptr %given
  call void %function(ptr %arguments)
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %count
  br i1 %more, label %loop, label %done
done:
  ret void
}
"""
    return Native(llvm_engine.address(text, "entry"))


# Matrix products


@functools.cache
def _blas() -> tuple[int, str] | None:
    """The address of NumPy's sgemm, and the type of its sizes; None where it is not to be found."""
    try:
        module = importlib.import_module("numpy._core._multiarray_umath")
        library = ctypes.CDLL(module.__file__)
    except (ImportError, OSError):
        return None
    for name, type_ in (
        ("scipy_cblas_sgemm64_", "i64"),
        ("cblas_sgemm64_", "i64"),
        ("scipy_cblas_sgemm", "i32"),
        ("cblas_sgemm", "i32"),
    ):
        try:
            function = getattr(library, name)
        except AttributeError:
            continue
        return ctypes.cast(function, ctypes.c_void_p).value or 0, type_
    return None


@functools.cache
def _gemm(sizes: str) -> int:
    """A function of pointers a, b, out and the BLAS, three sizes, three strides and two flags."""
    names = ("a", "b", "out", "blas", "m", "n", "k", "lda", "ldb", "ldc", "ta", "tb")
    lines = []
    for i, name in enumerate(names):
        type_ = "ptr" if i < 4 else "i64"
        lines.append(f"  %at.{name} = getelementptr i64, ptr %table, i64 {i}")
        lines.append(f"  %{name} = load {type_}, ptr %at.{name}")
        if i >= 4:
            wide = sizes == "i64" and name not in ("ta", "tb")
            lines.append(
                f"  %{name}.0 = {'add' if wide else 'trunc'} i64 %{name}"
                + (", 0" if wide else " to i32")
            )
    given = ", ".join(
        [
            "i32 101, i32 %ta.0, i32 %tb.0",
            f"{sizes} %m.0, {sizes} %n.0, {sizes} %k.0",
            f"float 1.0, ptr %a, {sizes} %lda.0, ptr %b, {sizes} %ldb.0",
            f"float 0.0, ptr %out, {sizes} %ldc.0",
        ]
    )
    body = "\n".join([*lines, f"  call void %blas({given})", "  ret void"])
    return llvm_engine.address(f"define void @entry(ptr %table) {{\n{body}\n}}\n", "entry")


def _product(step: Step) -> Step:
    """A small product of two matrices as a generated step; any other step as it is."""
    if step.fn is not np.matmul or step.kwargs or step.out is None or not step.passes_out:
        return step
    views = (*step.args, step.out)
    if any(v.dtype != np.float32 or len(v.shape) != 2 or 1 in v.shape for v in views):
        return step
    if sum(v.buffer.nbytes for v in views) > _LARGEST:
        return step
    a, b, _ = views
    if a._replace(shape=(), strides=()) == b._replace(shape=(), strides=()):
        return step  # NumPy takes another function for a matrix times itself
    flags = [_flag(v) for v in views]
    if None in flags or flags[2][0] or _blas() is None:  # type: ignore[index]
        return step
    native = _checked(tuple((v.shape, v.strides) for v in views))
    return step if native is None else Step(native, views, {}, step.out, False, False)


def _flag(view: View) -> tuple[bool, int] | None:
    """Whether a matrix is a transposed one, and its stride in elements; None for other layouts."""
    (rows, columns), (row, column) = view.shape, view.strides
    if column == 4 and row % 4 == 0 and row >= 4 * columns:
        return False, row // 4
    if row == 4 and column % 4 == 0 and column >= 4 * rows:
        return True, column // 4
    return None


@functools.lru_cache(maxsize=4096)
def _checked(layouts: tuple[tuple[tuple[int, int], tuple[int, int]], ...]) -> Native | None:
    """The product for these layouts; None where it does not give the bits of np.matmul."""
    from distgrad.compile.steps import Buffer

    rng = np.random.default_rng(0)
    arrays = []
    flags = []
    for shape, strides in layouts:
        nbytes = 4 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        memory = rng.standard_normal(nbytes // 4, dtype=np.float32)
        arrays.append(np.ndarray(shape, np.float32, memory, 0, strides))
        flag = _flag(View(Buffer(nbytes), 0, shape, strides, np.dtype(np.float32)))
        assert flag is not None
        flags.append(flag)
    a, b, out = arrays
    blas = _blas()
    assert blas is not None
    (ta, lda), (tb, ldb), (_, ldc) = flags
    (m, k), n = a.shape, b.shape[1]
    native = Native(_gemm(blas[1]), (blas[0], m, n, k, lda, ldb, ldc, 111 + ta, 111 + tb))
    wanted = np.matmul(a, b, out=out).copy()
    out[...] = np.nan
    native(a, b, out)
    return native if out.tobytes() == wanted.tobytes() else None

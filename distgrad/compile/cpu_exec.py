"""The generated CPU executor: elementwise groups in machine code, all else as the NumPy one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distgrad.compile.llvm import added_rows, bands, composed, engine, updates, windows
from distgrad.compile.llvm.calls import in_sequence
from distgrad.compile.llvm.loops import supporting
from distgrad.compile.llvm.middle import compile_middle
from distgrad.compile.llvm.pool import by_blas
from distgrad.compile.llvm.random import compile_rows_of_uniform, compile_uniform
from distgrad.compile.llvm.rows import compile_rows
from distgrad.compile.llvm.trees import compile_product, compile_rows_sum
from distgrad.compile.numpy_exec import Executor
from distgrad.compile.passes import expand, fuse, rectified, simplify
from distgrad.compile.program import Program
from distgrad.compile.schedule import Compiler

_PRIMITIVES = {
    "random_uniform": compile_uniform,
    "random_rows": compile_rows_of_uniform,
    "product_over_shards": compile_product,
    "sum_over_shards": compile_rows_sum,
    **windows.PRIMITIVES,
    **composed.PRIMITIVES,
    **bands.PRIMITIVES,
    **added_rows.PRIMITIVES,
    **dict.fromkeys(("sum", "mean", "sum_to"), compile_middle),
}
_COMPILER = Compiler(compile_rows, _PRIMITIVES, in_sequence, by_blas)


def cpu_executor(
    program: Program, arrays: Sequence[np.ndarray], groups: Sequence[Sequence[int]] = ()
) -> Executor:
    """An executor with fused loops. Raises MissingExtraError without llvmlite, or on an old CPU.

    Sums and their like have the bits of NumPy; exp, log, tanh and erf in float32 are polynomials,
    within 3 units in the last place; matrix products add in another order (``llvm.gemm``).
    """
    engine.version()
    updates.install()
    parts = rectified(simplify(expand(simplify(program))), windows.rectifies)
    return Executor(fuse(parts, supporting(), smallest=1), arrays, _COMPILER, groups)

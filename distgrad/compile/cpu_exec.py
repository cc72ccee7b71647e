"""The generated CPU executor: elementwise groups in machine code, all else as the NumPy one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distgrad.compile import llvm_engine, llvm_updates
from distgrad.compile.llvm_calls import in_sequence
from distgrad.compile.llvm_loops import supported
from distgrad.compile.llvm_random import compile_rows_of_uniform, compile_uniform
from distgrad.compile.llvm_rows import compile_rows
from distgrad.compile.numpy_exec import Executor
from distgrad.compile.passes import expand, fuse, simplify
from distgrad.compile.program import Program
from distgrad.compile.schedule import Compiler

_DRAWS = {"random_uniform": compile_uniform, "random_rows": compile_rows_of_uniform}
_COMPILER = Compiler(compile_rows, _DRAWS, in_sequence)


def cpu_executor(
    program: Program, arrays: Sequence[np.ndarray], groups: Sequence[Sequence[int]] = ()
) -> Executor:
    """An executor with fused loops. Raises MissingExtraError without llvmlite, or on an old CPU.

    Sums and their like have the bits of NumPy; exp, log, tanh and erf in float32 are polynomials,
    within 3 units in the last place; matrix products add in another order (``llvm_gemm``).
    """
    llvm_engine.version()
    llvm_updates.install()
    parts = simplify(expand(simplify(program)))
    return Executor(fuse(parts, supported, smallest=1), arrays, _COMPILER, groups)

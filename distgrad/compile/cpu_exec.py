"""The generated CPU executor: elementwise groups in machine code, all else as the NumPy one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distgrad.compile import llvm_engine, llvm_updates
from distgrad.compile.llvm_loops import compile_group, supported
from distgrad.compile.numpy_exec import Executor
from distgrad.compile.passes import fuse, simplify
from distgrad.compile.program import Program


def cpu_executor(
    program: Program, arrays: Sequence[np.ndarray], groups: Sequence[Sequence[int]] = ()
) -> Executor:
    """An executor with fused loops. Raises MissingExtraError without llvmlite, or on an old CPU.

    Sums, products and their like have the bits of NumPy; exp, log, tanh and erf in float32 are
    polynomials, within 3 units in the last place.
    """
    llvm_engine.version()
    llvm_updates.install()
    return Executor(fuse(simplify(program), supported, smallest=1), arrays, compile_group, groups)

"""Which executors there are, and which one runs a program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from distgrad.compile.numpy_exec import numpy_executor
from distgrad.compile.program import Program
from distgrad.core import devices

Name = Literal["generated", "numpy", "cuda"]


def best() -> Name:
    """The fastest executor of this device: generated kernels need llvmlite, and FMA."""
    if devices.on_gpu():
        return "cuda"
    from distgrad.compile.llvm import engine

    return "generated" if engine.available() else "numpy"


def keeps_rows(name: Name) -> bool:
    """Whether a row of a float32 product, of two or more, has its bits in any company."""
    return name == "generated"


def make(
    name: Name,
    program: Program,
    arrays: Sequence[Any],
    groups: Sequence[Sequence[int]] = (),
) -> Any:
    """An executor of this name; the other arguments are those of `Executor`.

    Raises MissingExtraError where the machine lacks what it needs.
    """
    if name == "numpy":
        return numpy_executor(program, arrays, groups)
    if name == "cuda":
        from distgrad.compile.cupy_exec import cuda_executor

        return cuda_executor(program, arrays, groups)
    assert name == "generated", f"there is no executor {name!r}"
    from distgrad.compile.cpu_exec import cpu_executor

    return cpu_executor(program, arrays, groups)

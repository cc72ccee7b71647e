"""Groups of operations as one CUDA kernel each: a loop over elements, or over rows.

A kernel is made for its shapes and strides, so that the places of elements are constants to the
compiler. Every operation is one of C++, in the order of the group, without fused multiply-add:
the bits of the same operations one by one. Sums over a row have an order of their own, which
depends on the length of the row alone.
"""

from __future__ import annotations

from importlib import resources

from distgrad.backend.cuda_source import Unsupported
from distgrad.compile.cuda import source
from distgrad.compile.cuda.columns import Columns
from distgrad.compile.cuda.rows import Rows
from distgrad.compile.cuda.source import Kernel
from distgrad.compile.cuda.writer import Copying, Writer
from distgrad.compile.passes.fusion import Fused, reduction
from distgrad.compile.program import Apply, Value
from distgrad.compile.steps import View

_LONGEST = 1 << 18  # elements of a row that one block adds up


def head() -> str:
    """What stands before the kernels of a module."""
    return resources.files("distgrad.backend").joinpath("fused.cu").read_text(encoding="utf-8")


def supported(instruction: Apply) -> bool:
    """Whether an operation, on these types and shapes, has a place in a kernel."""
    values = (*instruction.values, *instruction.outputs)
    if any(v.dtype.name not in source.TYPES or not v.nbytes for v in values):
        return False
    reduced = reduction(instruction)
    if reduced is not None:
        length = instruction.inputs[0].nbytes // max(instruction.outputs[0].nbytes, 1)
        return reduced.kind == "column" or length <= _LONGEST
    if len(instruction.outputs) != 1:
        return False
    try:
        source.written(instruction, {v: "x" for v in instruction.values}, "at")
    except Unsupported:
        return False
    return True


def compiled(name: str, fused: Fused, places: dict[Value, View]) -> Kernel:
    """The kernel of a group whose inputs and outputs lie at ``places``."""
    kinds = {reduced.kind for i in fused.body if (reduced := reduction(i)) is not None}
    writer = Rows if "row" in kinds else Columns if "column" in kinds else Writer
    return writer(fused, places).finish(name)


def copying(name: str, target: View, origin: View) -> Kernel:
    """A kernel that copies one array into another of its shape, which broadcasts."""
    out, x = (Value(view.shape, view.dtype) for view in (target, origin))
    copied = Fused((x,), (out,), body=(), shape=target.shape)
    return Copying(copied, {out: target, x: origin}).finish(name)

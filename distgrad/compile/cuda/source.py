"""What CUDA kernels are written with: types, the places of elements, operations on scalars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from distgrad.backend import cuda_source
from distgrad.backend.cuda_source import Unsupported
from distgrad.compile.program import Apply, Value
from distgrad.compile.steps import View

FLAT = 256  # threads of a block over elements
_BLOCKS = 1 << 16
WORD = 16  # bytes that a thread reads or writes at once, at most
# Memory that starts at a multiple of a word, whoever uses the kernel; `Part` looks at what comes
# from outside: arenas keep to it.
_ALIGNED = ("temporary", "input", "slot", "constant", "variable", "output")
FLOATS = {"float16": "float", "bfloat16": "float", "float32": "float", "float64": "double"}
_IN_MEMORY = {"float16": "Half", "bfloat16": "Brain"}  # of those that are computed in float
ROUNDED = {"float16": "as_half({})", "bfloat16": "as_brain({})"}
_WHOLE = {
    "bool": "bool",
    "int8": "signed char",
    "int16": "short",
    "int32": "int",
    "int64": "i64",
    "uint8": "unsigned char",
    "uint16": "unsigned short",
    "uint32": "unsigned int",
    "uint64": "u64",
}
TYPES = FLOATS | _WHOLE  # of a number in a kernel
# Operations without an ``expr`` that have one here.
_EXPRESSIONS = {
    "is_finite": "x - x == 0",
    "is_inf": "(x == x) & (x - x != 0)",
    "logical_and": "x & y",
    "logical_or": "x | y",
}


class Kernel(NamedTuple):
    """A kernel's text, and how it is launched on the places of its arrays.

    The body knows the ``arguments`` as p0, p1 and so on, and the number of its block among as many
    as there are, ``block`` of ``blocks``. Threads of a kernel that is ``single`` never meet.
    """

    name: str
    arguments: tuple[str, ...]
    body: str
    blocks: int
    threads: int
    places: tuple[View, ...]
    single: bool = True

    @property
    def source(self) -> str:
        # Without the bound a compiler may use more registers than so many threads have.
        return (
            f'extern "C" __launch_bounds__({self.threads}) __global__ void {self.name}'
            f"({', '.join(self.arguments)}) {{\n"
            f"const unsigned int block = blockIdx.x, blocks = gridDim.x;\n{self.body}\n}}\n"
        )


def memory(dtype: np.dtype) -> str:
    """The type in CUDA of an element in memory, which 16 bits are not computed in."""
    return _IN_MEMORY.get(dtype.name) or TYPES[dtype.name]


def flat(size: int) -> tuple[int, int]:
    """Blocks, and threads of each, for so many elements one after the other."""
    return min(-(-size // FLAT), _BLOCKS), FLAT


def _axes(view: View, shape: Sequence[int]) -> list[tuple[int, int]]:
    """(size, stride in elements) of the runs of axes of ``shape``, from the last one."""
    axes: list[tuple[int, int]] = []
    for n, step in zip(reversed(shape), reversed(steps(view, shape)), strict=True):
        if n == 1:
            continue
        if axes and step == axes[-1][1] * axes[-1][0]:
            axes[-1] = axes[-1][0] * n, axes[-1][1]
        else:
            axes.append((n, step))
    return axes


def apart(view: View, shape: Sequence[int], count: int) -> Literal["word", "one", "each"]:
    """How ``count`` neighbours of ``shape``, from a multiple of it on, lie in a view: as one word
    of memory, in one place, or each by itself.
    """
    (n, step), *outer = _axes(view, shape) or [(count, 0)]
    if n % count:
        return "each"
    if step == 0:
        return "one"
    size = view.dtype.itemsize
    word = min(WORD, count * size)
    starts = [view.offset, *(s * size for _, s in outer)]
    whole = step == 1 and view.buffer.kind in _ALIGNED and not any(s % word for s in starts)
    return "word" if whole else "each"


def index(size: int) -> str:
    """The type of an index into so many elements."""
    return "unsigned int" if size < 1 << 31 else "u64"


def over(size: int, count: int = 1) -> str:
    """A loop over ``size`` times ``count`` elements: ``at`` is the first one of each time."""
    kind = index(size * count)
    return (
        f"for ({kind} at = (block * ({kind})blockDim.x + threadIdx.x) * {count}; "
        f"at < {size * count}; at += ({kind})blocks * blockDim.x * {count})"
    )


def steps(view: View, shape: Sequence[int]) -> list[int]:
    """Strides in elements of a view that is broadcast to ``shape``."""
    gap = len(shape) - len(view.shape)
    size = view.dtype.itemsize
    own = [0 if n == 1 else s // size for n, s in zip(view.shape, view.strides, strict=True)]
    return [0] * gap + own


def place(view: View, shape: Sequence[int], at: str) -> str:
    """Where the element with number ``at`` of ``shape`` lies in a view."""
    axes = _axes(view, shape)
    terms, inner = [], 1
    for number, (n, step) in enumerate(axes):
        if step:
            own = at if inner == 1 else f"{at} / {inner}"
            own = own if number == len(axes) - 1 else f"{own} % {n}"
            wide = "" if step > 0 and _reach(view) < 1 << 31 else "(i64)"  # else it would wrap
            terms.append(f"{wide}({own})" + ("" if step == 1 else f" * {step}"))
        inner *= n
    return " + ".join(terms) or "0"


def _reach(view: View) -> int:
    """Elements between the first and the last one of a view."""
    steps = zip(view.shape, view.strides, strict=True)
    return sum((n - 1) * abs(s) // view.dtype.itemsize for n, s in steps)


def written(instruction: Apply, names: dict[Value, str], at: str) -> str:
    """The operation in C++, on variables of these names. Raises Unsupported."""
    (out,) = instruction.outputs
    kind, name = out.dtype.name, instruction.name
    given = list(instruction.values)
    if name in ("cast_float", "cast_discrete"):
        return _cast(instruction.inputs[0], names, kind)
    if name == "fill_like":
        return _number(instruction.params["value"], kind)
    if name == "is_class":
        return f"{names[given[0]]} == ({TYPES[given[0].dtype.name]})({at} % {out.shape[-1]})"
    if name == "logical_not":
        return f"!{names[given[0]]}"
    expr = instruction.primitive.expr or _EXPRESSIONS.get(name)
    if expr is None:
        raise Unsupported(name)
    kinds = {v.dtype.name for v in given} - {"bool"} or {kind}
    if len(kinds) > 1 or kind not in (*kinds, "bool"):
        raise Unsupported(f"{name} of {sorted(kinds)} as {kind}")
    (working,) = kinds
    type_ = TYPES[working]
    primitive = instruction.primitive
    given_names = zip(primitive.arg_names, instruction.inputs, strict=True)
    words: dict[str, str] = {}
    for word, value in [*given_names, *instruction.params.items()]:
        words[word] = names[value] if type(value) is Value else _number(value, working)
    return cuda_source.substituted(expr, words, type_, whole=working in _WHOLE)


def _number(value: Any, kind: str) -> str:
    if not isinstance(value, (bool, int, float)):
        raise Unsupported(f"{value!r} in a kernel")
    if kind in ROUNDED:
        value = float(np.dtype(kind).type(value))
    return cuda_source.number(value, TYPES[kind])


def _cast(x: Any, names: dict[Value, str], kind: str) -> str:
    if type(x) is not Value or (x.dtype.name, kind) == ("float64", "float16"):
        raise Unsupported("a number that is rounded twice")
    if kind == "bool":
        return f"{names[x]} != 0"
    return f"({TYPES[kind]}){names[x]}"

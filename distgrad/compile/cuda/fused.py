"""Groups of operations as one CUDA kernel each: a loop over elements, or over rows.

A kernel is made for its shapes and strides, so that the places of elements are constants to the
compiler. Every operation is one of C++, in the order of the group, without fused multiply-add:
the bits of the same operations one by one. Sums over a row have an order of their own, which
depends on the length of the row alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple

import numpy as np

from distgrad.backend import cuda_source
from distgrad.backend.cuda_source import Unsupported
from distgrad.compile.passes.fusion import Fused, reduction
from distgrad.compile.program import Apply, Value
from distgrad.compile.steps import View

OPTIONS = ("-std=c++17", "--fmad=false")
_FLAT = 256  # threads of a block over elements
_BLOCKS = 1 << 16
_LONGEST = 1 << 18  # elements of a row that one block adds up
FLOATS = {"float16": "float", "bfloat16": "float", "float32": "float", "float64": "double"}
_IN_MEMORY = {"float16": "Half", "bfloat16": "Brain"}  # of those that are computed in float
_ROUNDED = {"float16": "as_half({})", "bfloat16": "as_brain({})"}
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
_TYPES = FLOATS | _WHOLE  # of a number in a kernel
# Operations without an ``expr`` that have one here.
_EXPRESSIONS = {
    "is_finite": "x - x == 0",
    "is_inf": "(x == x) & (x - x != 0)",
    "logical_and": "x & y",
    "logical_or": "x | y",
}


class Kernel(NamedTuple):
    """A kernel's text, and how it is launched on the places of its arrays."""

    name: str
    source: str
    blocks: int
    threads: int
    places: tuple[View, ...]


def head() -> str:
    """What stands before the kernels of a module."""
    return resources.files("distgrad.backend").joinpath("fused.cu").read_text(encoding="utf-8")


def supported(instruction: Apply) -> bool:
    """Whether an operation, on these types and shapes, has a place in a kernel."""
    values = (*instruction.values, *instruction.outputs)
    if any(v.dtype.name not in _TYPES or not v.nbytes for v in values):
        return False
    reduced = reduction(instruction)
    if reduced is not None:
        length = instruction.inputs[0].nbytes // max(instruction.outputs[0].nbytes, 1)
        return reduced.kind == "row" and length <= _LONGEST
    if len(instruction.outputs) != 1:
        return False
    try:
        _written(instruction, {v: "x" for v in instruction.values}, "at")
    except Unsupported:
        return False
    return True


def compiled(name: str, fused: Fused, places: dict[Value, View]) -> Kernel:
    """The kernel of a group whose inputs and outputs lie at ``places``."""
    return _Writer(name, fused, places).finish()


def copying(name: str, target: View, source: View) -> Kernel:
    """A kernel that copies one array into another of its shape, which broadcasts."""
    out, x = (_memory(view.dtype) for view in (target, source))
    number = _TYPES[target.dtype.name]
    size = math.prod(target.shape)
    at = _place(target, target.shape, "at"), _place(source, target.shape, "at")
    text = (
        f"{_start(name, _FLAT)}({out} *out, const {x} *x) {{\n"
        f"{_over(size)} put(out[{at[0]}], ({number})get(x[{at[1]}]));\n}}\n"
    )
    return Kernel(name, text, *_flat(size), (target, source))


def _start(name: str, threads: int) -> str:
    # Without the bound a compiler may use more registers than so many threads have.
    return f'extern "C" __launch_bounds__({threads}) __global__ void {name}'


def _memory(dtype: np.dtype) -> str:
    return _IN_MEMORY.get(dtype.name) or _TYPES[dtype.name]


def _flat(size: int) -> tuple[int, int]:
    return min(-(-size // _FLAT), _BLOCKS), _FLAT


def _index(size: int) -> str:
    return "unsigned int" if size < 1 << 31 else "u64"


def _over(size: int) -> str:
    kind = _index(size)
    return (
        f"for ({kind} at = blockIdx.x * ({kind})blockDim.x + threadIdx.x; at < {size}; "
        f"at += ({kind})gridDim.x * blockDim.x)"
    )


def _steps(view: View, shape: Sequence[int]) -> list[int]:
    """Strides in elements of a view that is broadcast to ``shape``."""
    gap = len(shape) - len(view.shape)
    size = view.dtype.itemsize
    own = [0 if n == 1 else s // size for n, s in zip(view.shape, view.strides, strict=True)]
    return [0] * gap + own


def _place(view: View, shape: Sequence[int], at: str) -> str:
    """Where the element with number ``at`` of ``shape`` lies in a view."""
    axes: list[list[int]] = []  # (size, stride) of runs of axes, from the last one
    for n, step in zip(reversed(shape), reversed(_steps(view, shape)), strict=True):
        if n == 1:
            continue
        if axes and step == axes[-1][1] * axes[-1][0]:
            axes[-1][0] *= n
        else:
            axes.append([n, step])
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


def _written(instruction: Apply, names: dict[Value, str], at: str) -> str:
    """The operation in C++, on variables of these names. Raises Unsupported."""
    (out,) = instruction.outputs
    kind, name = out.dtype.name, instruction.name
    given = list(instruction.values)
    if name in ("cast_float", "cast_discrete"):
        return _cast(instruction.inputs[0], names, kind)
    if name == "fill_like":
        return _number(instruction.params["value"], kind)
    if name == "is_class":
        return f"{names[given[0]]} == ({_TYPES[given[0].dtype.name]})({at} % {out.shape[-1]})"
    if name == "logical_not":
        return f"!{names[given[0]]}"
    expr = instruction.primitive.expr or _EXPRESSIONS.get(name)
    if expr is None:
        raise Unsupported(name)
    kinds = {v.dtype.name for v in given} - {"bool"} or {kind}
    if len(kinds) > 1 or kind not in (*kinds, "bool"):
        raise Unsupported(f"{name} of {sorted(kinds)} as {kind}")
    (working,) = kinds
    type_ = _TYPES[working]
    primitive = instruction.primitive
    given_names = zip(primitive.arg_names, instruction.inputs, strict=True)
    words: dict[str, str] = {}
    for word, value in [*given_names, *instruction.params.items()]:
        words[word] = names[value] if type(value) is Value else _number(value, working)
    return cuda_source.substituted(expr, words, type_, whole=working in _WHOLE)


def _number(value: Any, kind: str) -> str:
    if not isinstance(value, (bool, int, float)):
        raise Unsupported(f"{value!r} in a kernel")
    if kind in _ROUNDED:
        value = float(np.dtype(kind).type(value))
    return cuda_source.number(value, _TYPES[kind])


def _cast(x: Any, names: dict[Value, str], kind: str) -> str:
    if type(x) is not Value or (x.dtype.name, kind) == ("float64", "float16"):
        raise Unsupported("a number that is rounded twice")
    if kind == "bool":
        return f"{names[x]} != 0"
    return f"({_TYPES[kind]}){names[x]}"


class _Writer:
    """Writes the kernel of one group."""

    def __init__(self, name: str, fused: Fused, places: dict[Value, View]) -> None:
        self._name, self._fused, self._places = name, fused, places
        self._made = {i.outputs[0]: i for i in fused.body}
        self._arrays: dict[Value, str] = {}
        for value in (*fused.inputs, *fused.outputs):
            self._arrays.setdefault(value, f"p{len(self._arrays)}")
        self._variables = {v: f"v{i}" for i, v in enumerate(self._made)}
        self._rows: set[Value] = set()  # results of one per row
        for instruction in fused.body:
            if self._per_row(instruction):
                self._rows.update(instruction.outputs)
        self._lines: list[str] = []
        self._loads = 0

    def _per_row(self, instruction: Apply) -> bool:
        if reduction(instruction) is not None:
            return True
        (out,) = instruction.outputs
        return self._fused.trailing is not None and out.shape != self._fused.shape

    def finish(self) -> Kernel:
        places = tuple(self._places[v] for v in self._arrays)
        outputs = set(self._fused.outputs)
        arguments = ", ".join(
            f"{'' if v in outputs else 'const '}{_memory(v.dtype)} *{name}"
            for v, name in self._arrays.items()
        )
        if self._fused.trailing is None:
            size = math.prod(self._fused.shape)
            self._lines.append(f"{_over(size)} {{")
            self._elements(self._fused.outputs)
            self._lines.append("}")
            blocks, threads = _flat(size)
        else:
            blocks, threads = self._write_rows()
        body = "\n".join([f"{_start(self._name, threads)}({arguments}) {{", *self._lines, "}\n"])
        return Kernel(self._name, body, blocks, threads, places)

    # Elements

    def _elements(self, wanted: Sequence[Value], stored: bool = True) -> dict[Value, str]:
        """Writes what makes these values of an element, and stores them; their names."""
        names: dict[Value, str] = {}

        def of(value: Value) -> str:
            if value not in names:
                if value in self._rows:
                    names[value] = self._variables[value]
                elif value in self._made:
                    self._operation(self._made[value], of, "at")
                    names[value] = self._variables[value]
                else:
                    names[value] = self._load(value, self._fused.shape, "at")
            return names[value]

        needed = self._needed(wanted)
        for value in self._made:  # in order, without recursion over long chains
            if value in needed:
                of(value)
        for value in wanted:
            of(value)
            if stored:
                self._store(value, self._fused.shape, "at", names[value])
        return names

    def _needed(self, wanted: Sequence[Value]) -> set[Value]:
        """The values of an element that others are made of."""
        needed: set[Value] = set()
        left = [v for v in wanted if v in self._made and v not in self._rows]
        while left:
            value = left.pop()
            if value not in needed:
                needed.add(value)
                values = self._made[value].values
                left += [v for v in values if v in self._made and v not in self._rows]
        return needed

    def _operation(self, instruction: Apply, of: Any, at: str) -> None:
        (out,) = instruction.outputs
        text = _written(instruction, {v: of(v) for v in instruction.values}, at)
        text = _ROUNDED.get(out.dtype.name, "{}").format(text)
        self._lines.append(f"const {_TYPES[out.dtype.name]} {self._variables[out]} = {text};")

    def _load(self, value: Value, shape: Sequence[int], at: str) -> str:
        name = f"x{self._loads}"
        self._loads += 1
        view, trailing = self._places[value], self._fused.trailing
        if trailing is not None and at == "at" and not any(_steps(view, shape)[-trailing:]):
            shape, at = shape[: len(shape) - trailing] + (1,) * trailing, "row"  # type: ignore[operator]
        place = f"{self._arrays[value]}[{_place(view, shape, at)}]"
        self._lines.append(f"const {_TYPES[value.dtype.name]} {name} = get({place});")
        return name

    def _store(self, value: Value, shape: Sequence[int], at: str, name: str) -> None:
        place = _place(self._places[value], shape, at)
        self._lines.append(f"put({self._arrays[value]}[{place}], {name});")

    # Rows

    def _write_rows(self) -> tuple[int, int]:
        shape, trailing = self._fused.shape, self._fused.trailing
        assert trailing is not None
        cut = len(shape) - trailing
        rows, self._length = math.prod(shape[:cut]), math.prod(shape[cut:])
        self._row_shape = (*shape[:cut], *(1,) * trailing)
        most = 1024 if self._length >= 4096 else _FLAT
        self._wide = min(most, 1 << (self._length - 1).bit_length())
        threads = max(self._wide, _FLAT)
        each = threads // self._wide
        kind = _index(rows * self._length)
        self._lines += [
            f"const int lane = threadIdx.x % {self._wide};",
            f"const {kind} row = blockIdx.x * ({kind}){each} + threadIdx.x / {self._wide};",
            f"const bool here = row < {rows};",
        ]
        sums = {i.inputs[0].dtype.name for i in self._fused.body if reduction(i) is not None}
        for type_ in sorted({FLOATS[name] for name in sums}):
            self._lines.append(f"__shared__ {type_} shared_{type_}[{threads}];")
        self._loop_head = (
            f"for ({kind} i = lane; here && i < {self._length}; i += {self._wide}) {{ "
            f"const {kind} at = row * {self._length} + i;"
        )
        self._known: set[Value] = set()  # rows' values that have been written
        waiting: list[Apply] = []
        for instruction in self._fused.body:
            (out,) = instruction.outputs
            if out not in self._rows:
                continue
            if not self._ready(instruction):
                self._reduce(waiting)
                waiting = []
            if reduction(instruction) is not None:
                waiting.append(instruction)
            else:
                self._row_operation(instruction)
        self._reduce(waiting)
        full = [v for v in self._fused.outputs if v not in self._rows]
        if full:
            self._lines.append(self._loop_head)
            self._elements(full)
            self._lines.append("}")
        for value in self._fused.outputs:
            if value in self._rows:
                self._lines.append("if (here && !lane)")
                self._store(value, value.shape, "row", self._variables[value])
        return -(-rows // each), threads

    def _ready(self, instruction: Apply) -> bool:
        """Whether the values of rows that it needs are there."""
        values = list(instruction.values)
        needed = self._needed(values) if reduction(instruction) is not None else set()
        values += [v for value in needed for v in self._made[value].values]
        return all(v in self._known for v in values if v in self._rows)

    def _row_operation(self, instruction: Apply) -> None:
        """An operation on values of one per row; all threads of a row do it."""

        def of(value: Value) -> str:
            return self._variables[value] if value in self._rows else self._load_row(value)

        self._operation(instruction, of, "row")
        self._known.update(instruction.outputs)

    def _load_row(self, value: Value) -> str:
        name = f"x{self._loads}"
        self._loads += 1
        type_ = _TYPES[value.dtype.name]
        place = f"{self._arrays[value]}[{_place(self._places[value], self._row_shape, 'row')}]"
        self._lines.append(f"const {type_} {name} = here ? get({place}) : ({type_})0;")
        return name

    def _reduce(self, waiting: Sequence[Apply]) -> None:
        """One loop over the row for reductions that do not wait for each other."""
        if not waiting:
            return
        starts = {"max": "-1.0 / 0.0", "min": "1.0 / 0.0"}
        parts = []
        for instruction in waiting:
            (x,), (out,) = instruction.inputs, instruction.outputs
            reduced = reduction(instruction)
            assert reduced is not None
            type_, name = FLOATS[x.dtype.name], self._variables[out]
            start = starts.get(reduced.operation, "0")
            self._lines.append(f"{type_} part_{name} = ({type_})({start});")
            parts.append((x, out, reduced.operation, type_, name))
        self._lines.append(self._loop_head)
        known = self._elements(tuple(x for x, *_ in parts), stored=False)
        for x, _, operation, _, name in parts:
            one = known[x]
            text = {
                "max": f"part_{name} = larger(part_{name}, {one});",
                "min": f"part_{name} = smaller(part_{name}, {one});",
            }.get(operation, f"part_{name} += {one};")
            self._lines.append(text)
        self._lines.append("}")
        for _, out, operation, type_, name in parts:
            whole = {"max": "whole_max", "min": "whole_min"}.get(operation, "whole_sum")
            text = f"{whole}<{self._wide}>(part_{name}, shared_{type_})"
            if operation == "mean":
                text += f" / ({type_}){self._length}"
            text = _ROUNDED.get(out.dtype.name, "{}").format(text)
            self._lines.append(f"const {type_} {name} = {text};")
            self._known.add(out)

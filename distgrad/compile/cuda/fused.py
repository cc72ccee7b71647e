"""Groups of operations as one CUDA kernel each: a loop over elements, or over rows.

A kernel is made for its shapes and strides, so that the places of elements are constants to the
compiler. Every operation is one of C++, in the order of the group, without fused multiply-add:
the bits of the same operations one by one. Sums over a row have an order of their own, which
depends on the length of the row alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any, Literal, NamedTuple

import numpy as np

from distgrad.backend import cuda_source
from distgrad.backend.cuda_source import Unsupported
from distgrad.compile.passes.fusion import Fused, reduction
from distgrad.compile.program import Apply, Value
from distgrad.compile.steps import View

OPTIONS = ("-std=c++17", "--fmad=false")
_FLAT = 256  # threads of a block over elements
_BLOCKS = 1 << 16
_WORD = 16  # bytes that a thread reads or writes at once, at most
_MANY = 1 << 18  # elements from which on threads take several: with fewer, more threads are better
_IN_ROW = 4  # neighbours in a row that a lane takes at a time
# Memory that starts at a multiple of a word, whoever uses the kernel.
_ALIGNED = ("temporary", "input", "slot", "constant")
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


def _axes(view: View, shape: Sequence[int]) -> list[tuple[int, int]]:
    """(size, stride in elements) of the runs of axes of ``shape``, from the last one."""
    axes: list[tuple[int, int]] = []
    for n, step in zip(reversed(shape), reversed(_steps(view, shape)), strict=True):
        if n == 1:
            continue
        if axes and step == axes[-1][1] * axes[-1][0]:
            axes[-1] = axes[-1][0] * n, axes[-1][1]
        else:
            axes.append((n, step))
    return axes


def _apart(view: View, shape: Sequence[int], count: int) -> Literal["word", "one", "each"]:
    """How ``count`` neighbours of ``shape``, from a multiple of it on, lie in a view: as one word
    of memory, in one place, or each by itself.
    """
    (n, step), *outer = _axes(view, shape) or [(count, 0)]
    if n % count:
        return "each"
    if step == 0:
        return "one"
    size = view.dtype.itemsize
    word = min(_WORD, count * size)
    starts = [view.offset, *(s * size for _, s in outer)]
    whole = step == 1 and view.buffer.kind in _ALIGNED and not any(s % word for s in starts)
    return "word" if whole else "each"


def _index(size: int) -> str:
    return "unsigned int" if size < 1 << 31 else "u64"


def _over(size: int, count: int = 1) -> str:
    """A loop over ``size`` times ``count`` elements: ``at`` is the first one of each time."""
    kind = _index(size * count)
    return (
        f"for ({kind} at = (blockIdx.x * ({kind})blockDim.x + threadIdx.x) * {count}; "
        f"at < {size * count}; at += ({kind})gridDim.x * blockDim.x * {count})"
    )


def _steps(view: View, shape: Sequence[int]) -> list[int]:
    """Strides in elements of a view that is broadcast to ``shape``."""
    gap = len(shape) - len(view.shape)
    size = view.dtype.itemsize
    own = [0 if n == 1 else s // size for n, s in zip(view.shape, view.strides, strict=True)]
    return [0] * gap + own


def _place(view: View, shape: Sequence[int], at: str) -> str:
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
        self._count = 1  # elements that a thread takes at a time
        self._outside: list[str] = []  # lines that stand before those of an element
        self._inside: list[str] = []  # and behind

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
            self._count = self._together(size)
            self._loop(
                _over(size // self._count, self._count) + " {",
                lambda: self._elements(self._fused.outputs),
            )
            blocks, threads = _flat(size // self._count)
        else:
            blocks, threads = self._write_rows()
        body = "\n".join([f"{_start(self._name, threads)}({arguments}) {{", *self._lines, "}\n"])
        return Kernel(self._name, body, blocks, threads, places)

    # Elements

    def _together(self, size: int) -> int:
        """How many elements a thread takes at a time, where there is no row."""
        places = [self._places[v] for v in self._arrays]
        if size < _MANY:
            return 1
        count = min(8, _WORD // min(view.dtype.itemsize for view in places))
        whole = [view for view in places if view.shape == self._fused.shape]
        fits = size % count == 0 and all(
            _apart(view, self._fused.shape, count) != "each" for view in whole
        )
        return count if fits else 1

    def _loop(self, head: str, body: Callable[[], object]) -> None:
        """Writes a loop by ``_count`` elements; ``body`` writes what is done for one."""
        if self._count == 1:
            self._lines.append(head)
            body()
            self._lines.append("}")
            return
        before, self._lines, self._outside, self._inside = self._lines, [], [], []
        body()
        self._lines = [
            *before,
            head,
            *self._outside,
            "#pragma unroll",
            f"for (int j = 0; j < {self._count}; j++) {{",
            *self._lines,
            "}",
            *self._inside,
            "}",
        ]

    def _elements(self, wanted: Sequence[Value], stored: bool = True) -> dict[Value, str]:
        """Writes what makes these values of an element, and stores them; their names."""
        names: dict[Value, str] = {}
        here = "at" if self._count == 1 else "(at + j)"

        def of(value: Value) -> str:
            if value not in names:
                if value in self._rows:
                    names[value] = self._variables[value]
                elif value in self._made:
                    self._operation(self._made[value], of, here)
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
        type_, array = _TYPES[value.dtype.name], self._arrays[value]
        if self._count == 1 or at == "row":
            self._lines.append(f"const {type_} {name} = get({array}[{_place(view, shape, at)}]);")
            return name
        kind = _apart(view, shape, self._count)
        if kind == "each":
            place = _place(view, shape, "(at + j)")
            self._lines.append(f"const {type_} {name} = get({array}[{place}]);")
        elif kind == "one":
            self._outside.append(f"const {type_} {name} = get({array}[{_place(view, shape, at)}]);")
        else:
            pack = f"Pack<{_memory(value.dtype)}, {self._count}>"
            place = f"{array} + {_place(view, shape, at)}"
            self._outside.append(f"const {pack} w{name} = *(const {pack} *)({place});")
            self._lines.append(f"const {type_} {name} = get(w{name}.at[j]);")
        return name

    def _store(self, value: Value, shape: Sequence[int], at: str, name: str) -> None:
        view, array = self._places[value], self._arrays[value]
        if self._count == 1 or at == "row":
            self._lines.append(f"put({array}[{_place(view, shape, at)}], {name});")
        elif _apart(view, shape, self._count) != "word":
            self._lines.append(f"put({array}[{_place(view, shape, '(at + j)')}], {name});")
        else:
            pack = f"Pack<{_memory(value.dtype)}, {self._count}>"
            self._outside.append(f"{pack} w{array};")
            self._lines.append(f"put(w{array}.at[j], {name});")
            self._inside.append(f"*({pack} *)({array} + {_place(view, shape, at)}) = w{array};")

    # Rows

    def _write_rows(self) -> tuple[int, int]:
        shape, trailing = self._fused.shape, self._fused.trailing
        assert trailing is not None
        cut = len(shape) - trailing
        rows, self._length = math.prod(shape[:cut]), math.prod(shape[cut:])
        self._row_shape = (*shape[:cut], *(1,) * trailing)
        # By the length alone, since it decides the order of sums. One warp needs no meeting.
        self._count = _IN_ROW if self._length % _IN_ROW == 0 else 1
        lanes = self._length // self._count
        most = 32 if lanes <= 256 else 256 if lanes <= 4096 else 1024
        self._wide = min(most, 1 << (lanes - 1).bit_length())
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
            self._lines.append(f"__shared__ {type_} shared_{type_}[32];")
        self._loop_head = (
            f"for ({kind} i = lane * {self._count}; here && i < {self._length}; "
            f"i += {self._wide * self._count}) {{ const {kind} at = row * {self._length} + i;"
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
            self._loop(self._loop_head, lambda: self._elements(full))
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

        def add_up() -> None:
            known = self._elements(tuple(x for x, *_ in parts), stored=False)
            for x, _, operation, _, name in parts:
                one = known[x]
                text = {
                    "max": f"part_{name} = larger(part_{name}, {one});",
                    "min": f"part_{name} = smaller(part_{name}, {one});",
                }.get(operation, f"part_{name} += {one};")
                self._lines.append(text)

        self._loop(self._loop_head, add_up)
        for _, out, operation, type_, name in parts:
            make = {"max": "Max", "min": "Min"}.get(operation, "Sum")
            text = f"whole<{make}, {self._wide}>(part_{name}, shared_{type_})"
            if operation == "mean":
                text += f" / ({type_}){self._length}"
            text = _ROUNDED.get(out.dtype.name, "{}").format(text)
            self._lines.append(f"const {type_} {name} = {text};")
            self._known.add(out)

"""Groups of elementwise operations as one loop in machine code."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from distgrad.compile import llvm_engine
from distgrad.compile.llvm_expr import Expression, Unsupported
from distgrad.compile.llvm_ir import FLOATS, TYPES, Emitter, Scalar
from distgrad.compile.passes.fusion import Fused
from distgrad.compile.program import Apply, Value
from distgrad.compile.steps import Step, View


class Access(NamedTuple):
    """How a loop over rows and columns steps through an array, in elements (columns: 0 or 1)."""

    row: int
    column: int


def supported(instruction: Apply) -> bool:
    """Whether the generator has operations for this primitive on these types."""
    try:
        _write_one(Emitter(), instruction, _stand_ins(instruction))
    except (Unsupported, KeyError):
        return False
    return True


def _stand_ins(instruction: Apply) -> dict[Value, Scalar]:
    return {v: Scalar("%x", "i1" if v.dtype == np.bool_ else _type(v)) for v in instruction.values}


def _type(value: Value) -> str:
    name = TYPES.get(value.dtype.name)
    if name is None:
        raise Unsupported(value.dtype.name)
    return name


def _write_one(emitter: Emitter, instruction: Apply, known: dict[Value, Scalar]) -> Scalar:
    """The scalar that a primitive makes of those of its inputs."""
    (out,) = instruction.outputs
    types = {known[v].type for v in instruction.values if known[v].type in FLOATS}
    type_ = _type(out) if out.dtype != np.bool_ else "i1"
    working = types.pop() if types else type_
    if types or (type_ in FLOATS and type_ != working):
        raise Unsupported("two types of floats")
    primitive = instruction.primitive
    if primitive.expr is None:
        raise Unsupported(primitive.name)
    given = (known[v] if type(v) is Value else v for v in instruction.inputs)
    names = dict(zip(primitive.arg_names, given, strict=True)) | instruction.params
    made = Expression(emitter, working, names).write(primitive.expr)
    if made.type != type_:
        raise Unsupported(f"{made.type} for {type_}")
    return made


def compile_group(group: Fused, places: dict[Value, View]) -> list[Step] | None:
    """One step for the group, None where the layouts of its arrays do not allow it."""
    shape = group.outputs[0].shape
    views = [places[v] for v in (*group.inputs, *group.outputs)]
    loop = _loop(shape, views)
    if loop is None:
        return None
    rows, columns, accesses = loop
    text = _module(group, rows, columns, accesses)
    native = Native(llvm_engine.address(text, "entry"))
    out = places[group.outputs[0]]
    return [Step(native, tuple(views), {}, out, False, False)]


def _loop(shape: tuple[int, ...], views: Sequence[View]) -> tuple[int, int, list[Access]] | None:
    """Rows and columns through which all the arrays can be stepped, columns as long as can be."""
    for split in range(len(shape) + 1):
        rows, columns = _size(shape[:split]), _size(shape[split:])
        accesses = []
        for view in views:
            strides = _strides(shape, view)
            row = _step(shape[:split], strides[:split])
            column = _step(shape[split:], strides[split:])
            if row is None or column not in (0, 1):
                break
            accesses.append(Access(row, column))
        else:
            return rows, columns, accesses
    return None


def _size(shape: Sequence[int]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _strides(shape: tuple[int, ...], view: View) -> list[int]:
    """Strides in elements over ``shape``, 0 where the array is repeated."""
    lead = len(shape) - len(view.shape)
    return [0] * lead + [
        0 if size == 1 else stride // view.dtype.itemsize
        for size, stride in zip(view.shape, view.strides, strict=True)
    ]


def _step(shape: Sequence[int], strides: Sequence[int]) -> int | None:
    """The one stride of the axes taken as one, None if there is none; 1 of size 1 counts as any."""
    step, size = None, 1
    for n, stride in reversed(list(zip(shape, strides, strict=True))):
        if n == 1:
            continue
        if step is None:
            step = stride
        elif stride != step * size:
            return None
        size *= n
    return 1 if step is None else step


def _module(group: Fused, rows: int, columns: int, accesses: Sequence[Access]) -> str:
    """The text of a module for a group; its arrays are the inputs, then the outputs."""
    emitter = Emitter()
    arrays = (*group.inputs, *group.outputs)
    known: dict[Value, Scalar] = {}
    for i, value in enumerate(group.inputs):
        loaded = load(emitter, i, _type(value), accesses[i])
        is_bool = value.dtype == np.bool_
        known[value] = emitter.cast("trunc", loaded, "i1") if is_bool else loaded
    for instruction in group.body:
        known[instruction.outputs[0]] = _write_one(emitter, instruction, known)
    for i, value in enumerate(group.outputs, len(group.inputs)):
        made = known[value]
        store(emitter, i, emitter.cast("zext", made, "i8") if made.type == "i1" else made)
    return module(emitter, [_type(v) for v in arrays], accesses, rows, columns)


def load(emitter: Emitter, position: int, type_: str, access: Access) -> Scalar:
    """The element of an array for the loop's place."""
    pointer = _pointer(emitter, position, type_) if access.column else f"%b{position}"
    return emitter.emit(f"load {type_}, ptr {pointer}", type_)


def store(emitter: Emitter, position: int, value: Scalar) -> None:
    """Writes the element of an array for the loop's place."""
    pointer = _pointer(emitter, position, value.type)
    emitter.lines.append(f"  store {value.type} {value.text}, ptr {pointer}")


def _pointer(emitter: Emitter, position: int, type_: str) -> str:
    return emitter.emit(f"getelementptr {type_}, ptr %b{position}, i64 %i", "ptr").text


def module(
    emitter: Emitter, types: Sequence[str], accesses: Sequence[Access], rows: int, columns: int
) -> str:
    """A module whose ``entry(table)`` runs the emitted lines over rows and columns.

    The table holds a pointer for each array, and behind them the number of columns, which counts
    where ``columns`` is 0.
    """
    count = len(types)
    parameters = ", ".join(f"ptr noalias %p{i}" for i in range(count))
    loads = []
    for i in range(count):
        loads.append(f"  %s{i} = getelementptr ptr, ptr %table, i64 {i}")
        loads.append(f"  %p{i} = load ptr, ptr %s{i}")
    size = str(columns)
    if not columns:
        loads.append(f"  %s = getelementptr ptr, ptr %table, i64 {count}")
        loads.append("  %count = load i64, ptr %s")
        size = "%count"
    lines = [
        *sorted(emitter.declared),
        f"define internal void @kernel({parameters}, i64 %columns) alwaysinline #0 {{",
        "start:",
        "  br label %outer",
        "outer:",
        "  %row = phi i64 [ 0, %start ], [ %row.next, %outer.end ]",
        *[f"  %o{i} = mul i64 %row, {a.row}" for i, a in enumerate(accesses)],
        *[f"  %b{i} = getelementptr {t}, ptr %p{i}, i64 %o{i}" for i, t in enumerate(types)],
        "  br label %inner",
        "inner:",
        "  %i = phi i64 [ 0, %outer ], [ %i.next, %inner ]",
        *emitter.lines,
        "  %i.next = add nuw nsw i64 %i, 1",
        "  %more = icmp ult i64 %i.next, %columns",
        "  br i1 %more, label %inner, label %outer.end, !llvm.loop !0",
        "outer.end:",
        "  %row.next = add nuw nsw i64 %row, 1",
        f"  %again = icmp ult i64 %row.next, {rows}",
        "  br i1 %again, label %outer, label %done",
        "done:",
        "  ret void",
        "}",
        "define void @entry(ptr %table) #0 {",
        *loads,
        f"  call void @kernel({', '.join(f'ptr %p{i}' for i in range(count))}, i64 {size})",
        "  ret void",
        "}",
        # The widest vectors pay on long loops; the bits are the same.
        f'attributes #0 = {{ "prefer-vector-width"="{256 if 0 < columns < 256 else 512}" }}',
        # Or LLVM unrolls a short loop before it looks whether it can be made of vectors.
        "!0 = distinct !{!0, !1, !2}",
        '!1 = !{!"llvm.loop.unroll.disable"}',
        '!2 = !{!"llvm.loop.vectorize.enable", i1 true}',
    ]
    return "\n".join(lines) + "\n"


class Native:
    """A generated function, called on arrays; or bound once to arrays that stay."""

    __name__ = "native"

    def __init__(self, address: int) -> None:
        self._function = llvm_engine.PROTOTYPE(address)

    def __call__(self, *arrays: np.ndarray) -> None:
        self.at(*map(address_of, arrays))

    def at(self, *entries: int) -> None:
        """The same for addresses, with the number of columns behind them if it is open."""
        table = (ctypes.c_void_p * len(entries))(*entries)
        self._function(ctypes.addressof(table))

    def bound(self, arrays: Sequence[np.ndarray]) -> Callable[[], Any]:
        """The same for these arrays, whose memory must not move."""
        table = _table(arrays)
        return _Bound(self._function, table, arrays).run


class _Bound:
    def __init__(self, function: Any, table: Any, keep: Sequence[np.ndarray]) -> None:
        self._function = function
        self._table = table
        self._keep = keep
        self._address = ctypes.addressof(table)

    def run(self) -> None:
        self._function(self._address)


def _table(arrays: Sequence[np.ndarray]) -> Any:
    return (ctypes.c_void_p * len(arrays))(*map(address_of, arrays))


def address_of(array: np.ndarray) -> int:
    """Where the array's first element lies; it does not keep the array alive."""
    return array.__array_interface__["data"][0]

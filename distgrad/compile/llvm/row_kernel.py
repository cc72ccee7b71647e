"""The machine code of a loop over rows: what each walk along a row computes, vector by vector."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from distgrad.compile.llvm.blocks import LANES, mask
from distgrad.compile.llvm.ir import FLOATS, Emitter, Scalar, module
from distgrad.compile.llvm.loops import loaded_type, write_one
from distgrad.compile.llvm.row_walks import EACH, Access, Walks, numbers
from distgrad.compile.passes.fusion import Fused
from distgrad.compile.program import Apply, Value

_CHUNK = 64  # vectors that are summed before they are added to the total


@dataclass(eq=False)
class _Place:
    """A vector of a row: its first column, a mask where it is not whole, what is known there."""

    index: str
    mask: str | None
    known: dict[Value, Scalar] = field(default_factory=dict)


class Kernel(Walks):
    """Writes one function; see ``rows``. Its caller says which rows are made.

    The first of them, and where they stop, stand behind the arrays in its table, then the
    ``numbers`` of the layouts: arrays of other sizes share the code. One that is ``flat`` makes
    columns of one row without reductions, and is told which.
    """

    def __init__(
        self, group: Fused, columns: int, accesses: Sequence[Access], flat: bool = False
    ) -> None:
        super().__init__(group, columns, accesses)
        self.flat = flat
        self._numbers = {n: f"n{i}" for i, n in enumerate(numbers(accesses))}
        self._counters: dict[tuple[int, int], str] = {}
        self.e = Emitter(LANES)
        self.arrays = (*group.inputs, *group.outputs)
        self.at = {value: i for i, value in enumerate(group.inputs)}
        self.row: dict[Value, Scalar] = {}  # values of one per row, and arrays repeated along it
        self.start: list[str] = []
        self._labels = 0

    # Code

    def text(self) -> str:
        """The module."""
        if self.flat:
            self._row_starts("0")
            self._some_columns()
        else:
            self._start_counters()
            with self._loop("%stop", "row", "%first") as self._row:
                self._row_starts(self._row)
                self._whole_row()
                self._count()
            for value, reduced in self.reductions.items():
                if reduced.kind == "column" and reduced.operation == "mean":
                    self._divide(value)
        pointers = [f"p{i}" for i in range(len(self.arrays))]
        given = ["first", "stop", *self._numbers.values()]
        return module(sorted(self.e.declared), pointers, given, [*self.start, *self.e.lines])

    def _row_starts(self, row: str) -> None:
        for i, (value, access) in enumerate(zip(self.arrays, self.accesses, strict=True)):
            self._row_start(row, i, value, access)
        self._row_values(0)

    def _whole_row(self) -> None:
        places = list(self._vectors()) if self.unrolled else []
        for walk in range(self.walks):
            sums = self._sums(walk)
            if self.unrolled:
                for place in places:
                    self._visit(place, walk, sums)
            else:
                self._walk(walk, sums)
            self._finish_sums(sums)
            self._row_values(walk + 1)

    def _some_columns(self) -> None:
        """From one column to another: whole vectors, and a rest."""
        e, index = self.e, f"<{LANES} x i64>"
        left = e.emit("sub i64 %stop, %first", "i64").text
        rest = e.emit(f"urem i64 {left}, {LANES}", "i64").text
        whole = e.emit(f"sub i64 %stop, {rest}", "i64").text
        vectors = e.emit(f"icmp ult i64 %first, {whole}", "i1").text
        with self._if(vectors), self._loop(whole, "column", "%first", LANES) as column:
            self._visit(_Place(column, None), 0, {})
        with self._if(e.emit(f"icmp ne i64 {rest}, 0", "i1").text):
            count = self._splat(rest, "i64").text
            lanes = ", ".join(f"i64 {lane}" for lane in range(LANES))
            within = e.emit(f"icmp ult {index} <{lanes}>, {count}", "i1").text
            self._visit(_Place(whole, within), 0, {})

    def _vectors(self) -> Iterator[_Place]:
        for start in range(0, self.columns, LANES):
            rest = self.columns - start
            yield _Place(str(start), mask(rest) if rest < LANES else None)

    def _label(self, name: str) -> str:
        self._labels += 1
        return f"{name}{self._labels}"

    @contextmanager
    def _loop(self, stop: str, name: str, start: str = "0", step: int = 1) -> Iterator[str]:
        """Lines for each number from ``start`` to ``stop``, which is above it."""
        lines = self.e.lines
        slot, head, done = (f"%{self._label(name)}", self._label("head"), self._label("done"))
        self.start.append(f"  {slot} = alloca i64")
        lines.append(f"  store i64 {start}, ptr {slot}")
        lines.append(f"  br label %{head}")
        lines.append(f"{head}:")
        i = self.e.emit(f"load i64, ptr {slot}", "i64").text
        yield i
        after = self.e.emit(f"add nuw nsw i64 {i}, {step}", "i64").text
        lines.append(f"  store i64 {after}, ptr {slot}")
        more = self.e.emit(f"icmp ult i64 {after}, {stop}", "i1").text
        lines.append(f"  br i1 {more}, label %{head}, label %{done}")
        lines.append(f"{done}:")

    @contextmanager
    def _if(self, condition: str) -> Iterator[None]:
        lines = self.e.lines
        inside, after = self._label("if"), self._label("after")
        lines += [f"  br i1 {condition}, label %{inside}, label %{after}", f"{inside}:"]
        yield
        lines += [f"  br label %{after}", f"{after}:"]

    def _number(self, value: int) -> str:
        return "%" + self._numbers[value]

    # Counters

    def _start_counters(self) -> None:
        """Counters of rows in place of divisions: one for each ``row // below % size``.

        A second one of each counts to ``below``.
        """
        e = self.e
        for below, size, _ in [term for access in self.accesses for term in access.terms]:
            if (below, size) in self._counters or (below, size) == EACH:
                continue
            slot = self._counters[below, size] = f"%{self._label('count')}"
            self.start += [f"  {slot} = alloca i64", f"  {slot}.below = alloca i64"]
            whole, rest = "%first", "0"
            if below > 1:
                by = self._number(below)
                whole = e.emit(f"udiv i64 %first, {by}", "i64").text
                rest = e.emit(f"urem i64 %first, {by}", "i64").text
            if size:
                whole = e.emit(f"urem i64 {whole}, {self._number(size)}", "i64").text
            e.lines += [f"  store i64 {whole}, ptr {slot}", f"  store i64 {rest}, ptr {slot}.below"]

    def _count(self) -> None:
        """To the next row."""
        e = self.e
        for (below, size), slot in self._counters.items():
            more = "1"
            if below > 1:
                full = self._wrapped(f"{slot}.below", "1", below)
                more = e.emit(f"zext i1 {full} to i64", "i64").text
            self._wrapped(slot, more, size)

    def _wrapped(self, slot: str, more: str, size: int) -> str:
        """Counts up, and from ``size`` on from 0 again, where it is not 0: whether it did."""
        e = self.e
        before = e.emit(f"load i64, ptr {slot}", "i64").text
        after = e.emit(f"add nuw nsw i64 {before}, {more}", "i64").text
        full = ""
        if size:
            full = e.emit(f"icmp eq i64 {after}, {self._number(size)}", "i1").text
            after = e.emit(f"select i1 {full}, i64 0, i64 {after}", "i64").text
        e.lines.append(f"  store i64 {after}, ptr {slot}")
        return full

    def _row_start(self, row: str, i: int, value: Value, access: Access) -> None:
        """Where the row starts in an array, and its element if it has one per row."""
        e, type_ = self.e, loaded_type(value)
        offset = "0"
        for below, size, stride in access.terms:
            each = (below, size) == EACH
            index = (
                row if each else e.emit(f"load i64, ptr {self._counters[below, size]}", "i64").text
            )
            apart = str(stride) if each else self._number(stride)
            index = e.emit(f"mul nsw i64 {index}, {apart}", "i64").text
            offset = index if offset == "0" else e.emit(f"add i64 {offset}, {index}", "i64").text
        e.lines.append(f"  %b{i} = getelementptr {type_}, ptr %p{i}, i64 {offset}")
        if i < len(self.group.inputs) and not access.column:
            one = e.emit(f"load {type_}, ptr %b{i}", type_)
            self.row[value] = self._known(self._splat(one.text, type_), value)

    def _splat(self, one: str, type_: str) -> Scalar:
        e, vector = self.e, self.e.shown(type_)
        first = e.emit(f"insertelement {vector} poison, {type_} {one}, i64 0", type_).text
        return e.emit(
            f"shufflevector {vector} {first}, {vector} poison, <{LANES} x i32> zeroinitializer",
            type_,
        )

    def _known(self, loaded: Scalar, value: Value) -> Scalar:
        return self.e.cast("trunc", loaded, "i1") if value.dtype == np.bool_ else loaded

    def _row_values(self, walk: int) -> None:
        """What there is one of per row, once the walks before ``walk`` are done."""
        for value, instruction in self.made_by.items():
            if value in self.full or self.walk[value] != walk:
                continue
            if value not in self.reductions:
                self.row[value] = write_one(self.e, instruction, self.row)
            elif self.reductions[value].kind == "column":
                continue
            if value in self.stored:
                self._store_one(value)

    def _store_one(self, value: Value) -> None:
        e, type_, known = self.e, loaded_type(value), self.row[value]
        if known.type == "i1":
            known = e.cast("zext", known, "i8")
        one = e.emit(f"extractelement {e.shown(type_)} {known.text}, i64 0", type_).text
        e.lines.append(f"  store {type_} {one}, ptr %b{self.stored[value]}")

    # A walk along a row

    def _walk(self, walk: int, sums: dict[Value, tuple[str, str]]) -> None:
        whole = self.columns // LANES * LANES
        if self.columns > _CHUNK * LANES and any(self._adds(v) for v in sums):
            with self._loop(str(whole), "chunk", step=_CHUNK * LANES) as first:
                e = self.e
                end = e.emit(f"add nuw nsw i64 {first}, {_CHUNK * LANES}", "i64").text
                less = e.emit(f"icmp ult i64 {end}, {whole}", "i1").text
                end = e.emit(f"select i1 {less}, i64 {end}, i64 {whole}", "i64").text
                with self._loop(end, "column", first, LANES) as index:
                    self._visit(_Place(index, None), walk, sums)
                self._add_chunk(sums)
        else:
            with self._loop(str(whole), "column", step=LANES) as index:
                self._visit(_Place(index, None), walk, sums)
        if whole < self.columns:
            self._visit(_Place(str(whole), mask(self.columns - whole)), walk, sums)

    def _visit(self, place: _Place, walk: int, sums: dict[Value, tuple[str, str]]) -> None:
        """One vector of a walk: what is needed there, and where it goes."""
        for value, instruction in self.made_by.items():
            if value in self.needed[walk] and value not in place.known:
                inputs = {v: self._find(v, place) for v in instruction.values}
                place.known[value] = self._write(instruction, inputs, place)
        for value in self.made_by:
            if value not in self.roots[walk] or self.walk[value] != walk:
                continue
            if value in self.stored and value in self.full:
                self._store(self.stored[value], place.known[value], place)
            elif value in self.spilled:
                self._keep(value, place)
        for value, (slot, _) in sums.items():
            self._accumulate(value, slot, place)
        for value, reduced in self.reductions.items():
            if reduced.kind == "column" and self.walk[value] == walk:
                self._add_column(value, place)

    def _write(self, instruction: Apply, inputs: dict[Value, Scalar], place: _Place) -> Scalar:
        if instruction.name != "is_class":
            return write_one(self.e, instruction, inputs)
        e = self.e
        (label,) = inputs.values()
        type_ = label.type
        first = self._splat(e.emit(f"trunc i64 {place.index} to i32", "i32").text, "i32")
        if type_ == "i64":
            first = e.cast("sext", first, "i64")
        steps = ", ".join(f"{type_} {i}" for i in range(LANES))
        columns = e.binary("add", first, Scalar(f"<{steps}>", type_))
        return e.compare("eq", label, columns)

    def _find(self, value: Value, place: _Place) -> Scalar:
        """A value at a place: known, of the row, or in memory."""
        if value in place.known:
            return place.known[value]
        if value in self.row:
            return self.row[value]
        if value in self.at:
            found = self._known(self._load(self.at[value], value, place), value)
        elif value in self.spilled:
            pointer = self._spill(value, place)
            type_ = loaded_type(value)
            found = self.e.emit(f"load {self.e.shown(type_)}, ptr {pointer}", type_)
            found = self._known(found, value)
        else:
            found = self._known(self._load(self.stored[value], value, place), value)
        place.known[value] = found
        return found

    def _pointer(self, i: int, value: Value, place: _Place) -> str:
        type_ = loaded_type(value)
        return self.e.emit(f"getelementptr {type_}, ptr %b{i}, i64 {place.index}", "ptr").text

    def _load(self, i: int, value: Value, place: _Place) -> Scalar:
        e, type_ = self.e, loaded_type(value)
        pointer, vector, size = self._pointer(i, value, place), e.shown(type_), value.dtype.itemsize
        if place.mask is None:
            return e.emit(f"load {vector}, ptr {pointer}, align {size}", type_)
        name = f"llvm.masked.load.v{LANES}{_short(type_)}.p0"
        e.declared.add(f"declare {vector} @{name}(ptr, i32, <{LANES} x i1>, {vector})")
        return e.emit(
            f"call {vector} @{name}(ptr {pointer}, i32 {size}, <{LANES} x i1> {place.mask}, "
            f"{vector} zeroinitializer)",
            type_,
        )

    def _store(self, i: int, known: Scalar, place: _Place) -> None:
        e, value = self.e, self.arrays[i]
        if known.type == "i1":
            known = e.cast("zext", known, "i8")
        pointer, vector, size = (
            self._pointer(i, value, place),
            e.shown(known.type),
            value.dtype.itemsize,
        )
        if place.mask is None:
            e.lines.append(f"  store {vector} {known.text}, ptr {pointer}, align {size}")
            return
        name = f"llvm.masked.store.v{LANES}{_short(known.type)}.p0"
        e.declared.add(f"declare void @{name}({vector}, ptr, i32, <{LANES} x i1>)")
        e.lines.append(
            f"  call void @{name}({vector} {known.text}, ptr {pointer}, i32 {size}, "
            f"<{LANES} x i1> {place.mask})"
        )

    def _spill(self, value: Value, place: _Place) -> str:
        type_ = loaded_type(value)
        name = f"%kept{list(self.made_by).index(value)}"
        line = f"  {name} = alloca [{-(-self.columns // LANES) * LANES} x {type_}], align 64"
        if line not in self.start:
            self.start.append(line)
        return self.e.emit(f"getelementptr {type_}, ptr {name}, i64 {place.index}", "ptr").text

    def _keep(self, value: Value, place: _Place) -> None:
        known = place.known[value]
        if known.type == "i1":
            known = self.e.cast("zext", known, "i8")
        pointer = self._spill(value, place)
        self.e.lines.append(f"  store {self.e.shown(known.type)} {known.text}, ptr {pointer}")

    # Reductions

    def _adds(self, value: Value) -> bool:
        return self.reductions[value].operation in ("sum", "mean")

    def _sums(self, walk: int) -> dict[Value, tuple[str, str]]:
        """Slots for the reductions of a walk, and for totals of chunks."""
        made = {}
        for value, reduced in self.reductions.items():
            if reduced.kind != "row" or self.walk[value] != walk + 1:
                continue
            vector = self.e.shown(loaded_type(value))
            slots = tuple(f"%{self._label('sum')}" for _ in range(2))
            self.start += [f"  {slot} = alloca {vector}" for slot in slots]
            first = self._first(value)
            for slot in slots:
                self.e.lines.append(f"  store {vector} {first.text}, ptr {slot}")
            made[value] = (slots[0], slots[1])
        return made

    def _first(self, value: Value) -> Scalar:
        """What leaves the result as it is; a sum of zeros keeps the sign of the last."""
        start = {"max": -np.inf, "min": np.inf}.get(self.reductions[value].operation, 0.0)
        return self.e.number(start, loaded_type(value))

    def _accumulate(self, value: Value, slot: str, place: _Place) -> None:
        e, type_ = self.e, loaded_type(value)
        (x,) = self.made_by[value].inputs
        term = self._find(x, place)
        vector = e.shown(type_)
        if place.mask is not None:
            first = self._first(value)
            term = e.select(Scalar(place.mask, "i1"), term, first)
        total = e.emit(f"load {vector}, ptr {slot}", type_)
        total = self._combined(value, e, total, term)
        e.lines.append(f"  store {vector} {total.text}, ptr {slot}")

    def _combined(self, value: Value, e: Emitter, a: Scalar, b: Scalar) -> Scalar:
        operation = self.reductions[value].operation
        if operation in ("sum", "mean"):
            return e.binary("fadd", a, b)
        better = e.select(e.compare("ogt" if operation == "max" else "olt", a, b), a, b)
        return e.select(e.compare("uno", a, a), a, better)  # nan stays

    def _add_chunk(self, sums: dict[Value, tuple[str, str]]) -> None:
        """Adds the sums of a chunk to the totals, and starts anew."""
        for value, (slot, total) in sums.items():
            if not self._adds(value):
                continue
            e, vector = self.e, self.e.shown(loaded_type(value))
            a = e.emit(f"load {vector}, ptr {total}", loaded_type(value))
            b = e.emit(f"load {vector}, ptr {slot}", loaded_type(value))
            e.lines.append(f"  store {vector} {e.binary('fadd', a, b).text}, ptr {total}")
            e.lines.append(f"  store {vector} {self._first(value).text}, ptr {slot}")

    def _finish_sums(self, sums: dict[Value, tuple[str, str]]) -> None:
        if self.columns > _CHUNK * LANES and not self.unrolled:
            self._add_chunk(sums)
        for value, (slot, total) in sums.items():
            e, type_ = self.e, loaded_type(value)
            chunked = self.columns > _CHUNK * LANES and self._adds(value)
            source = total if chunked else slot
            left = e.emit(f"load {e.shown(type_)}, ptr {source}", type_)
            lanes = LANES
            while lanes > 1:
                half = lanes // 2
                parts = []
                for start in (0, half):
                    order = ", ".join(f"i32 {start + i}" for i in range(half))
                    shape = f"<{lanes} x {type_}>"
                    parts.append(
                        e.emit(
                            f"shufflevector {shape} {left.text}, {shape} poison, "
                            f"<{half} x i32> <{order}>",
                            type_,
                        )
                    )
                e.lanes = half
                left = self._combined(value, e, *parts)
                e.lanes = LANES
                lanes = half
            one = e.emit(f"extractelement <1 x {type_}> {left.text}, i64 0", type_)
            known = self._splat(one.text, type_)
            if self.reductions[value].operation == "mean":
                known = e.binary("fdiv", known, e.number(self.columns, type_))
            self.row[value] = known

    def _add_column(self, value: Value, place: _Place) -> None:
        e, type_, i = self.e, loaded_type(value), self.stored[value]
        (x,) = self.made_by[value].inputs
        term = self._find(x, place)
        before = self._load(i, value, place)
        first = e.emit(f"icmp eq i64 {self._row}, 0", "i1").text
        vector = e.shown(type_)
        zero = e.number(0.0, type_).text
        before = e.emit(f"select i1 {first}, {vector} {zero}, {vector} {before.text}", type_)
        self._store(i, e.binary("fadd", before, term), place)

    def _divide(self, value: Value) -> None:
        """Turns the sums of columns into means."""
        e, type_, i = self.e, loaded_type(value), self.stored[value]
        with self._loop(str(self.columns), "mean") as index:
            pointer = e.emit(f"getelementptr {type_}, ptr %p{i}, i64 {index}", "ptr").text
            one = e.emit(f"load {type_}, ptr {pointer}", type_).text
            by = e.emit(f"uitofp i64 %stop to {type_}", type_).text
            share = e.emit(f"fdiv {type_} {one}, {by}", type_).text
            e.lines.append(f"  store {type_} {share}, ptr {pointer}")


def _short(type_: str) -> str:
    return f"f{FLOATS[type_]}" if type_ in FLOATS else type_

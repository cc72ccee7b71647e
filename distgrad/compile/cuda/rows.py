"""Kernels over rows: each row is summed, or its largest number found, by some lanes together."""

from __future__ import annotations

import math
from collections.abc import Sequence

from distgrad.compile.cuda import source
from distgrad.compile.cuda.source import FLOATS
from distgrad.compile.cuda.writer import Writer
from distgrad.compile.passes.fusion import reduction
from distgrad.compile.program import Apply, Value

_IN_ROW = 4  # neighbours in a row that a lane takes at a time
_UNROLLED = 8  # times that it does: so many words stay in registers from one loop to the next
_NUMBERS = 128  # of them; threads of the largest blocks have a quarter of others' registers


class Rows(Writer):
    """Writes the kernel of a group with reductions of its rows."""

    single = False

    def write(self) -> tuple[int, int]:
        shape, trailing = self.fused.shape, self.fused.trailing
        assert trailing is not None
        cut = len(shape) - trailing
        rows, self._length = math.prod(shape[:cut]), math.prod(shape[cut:])
        self._row_shape = (*shape[:cut], *(1,) * trailing)
        # By the length alone, since it decides the order of sums. One warp needs no meeting.
        self.count = _IN_ROW if self._length % _IN_ROW == 0 else 1
        lanes = self._length // self.count
        most = 32 if lanes <= 256 else 256 if lanes <= 4096 else 1024
        self._wide = min(most, 1 << (lanes - 1).bit_length())
        threads = max(self._wide, source.FLAT)
        each = threads // self._wide
        kind = source.index(rows * self._length)
        whole = rows % each == 0  # then there is nothing to ask, and loads can be one for all loops
        self.lines += [
            f"const int lane = threadIdx.x % {self._wide};",
            f"const {kind} row = block * ({kind}){each} + threadIdx.x / {self._wide};",
            f"const bool here = {'true' if whole else f'row < {rows}'};",
        ]
        sums = {i.inputs[0].dtype.name for i in self.fused.body if reduction(i) is not None}
        for type_ in sorted({FLOATS[name] for name in sums}):
            self.lines.append(f"__shared__ {type_} shared_{type_}[32];")
        step = self._wide * self.count
        times = -(-self._length // step)
        self._first = f"const {kind} at = row * {self._length} + i;"
        whole_rows = sum(self.places[v].shape == shape for v in self.fused.inputs)
        room = _NUMBERS if self._wide < 1024 else _NUMBERS // 8
        if times <= _UNROLLED and times * self.count * whole_rows <= room:
            inside = "" if self._length % step == 0 else f" && i < {self._length}"
            self._head = (
                f"#pragma unroll\nfor ({kind} t = 0; t < {times}; t++) "
                f"if (const {kind} i = t * {step} + lane * {self.count}; here{inside})"
            )
        else:
            self._head = (
                f"for ({kind} i = lane * {self.count}; here && i < {self._length}; i += {step})"
            )
        self._known: set[Value] = set()  # rows' values that have been written
        waiting: list[Apply] = []
        for instruction in self.fused.body:
            (out,) = instruction.outputs
            if out not in self.rows:
                continue
            if not self._ready(instruction):
                self._reduce(waiting)
                waiting = []
            if reduction(instruction) is not None:
                waiting.append(instruction)
            else:
                self._row_operation(instruction)
        self._reduce(waiting)
        full = [v for v in self.fused.outputs if v not in self.rows]
        if full:
            self.loop(self._head, lambda: self.elements(full), self._first)
        for value in self.fused.outputs:
            if value in self.rows:
                self.lines.append("if (here && !lane)")
                self.store(value, value.shape, "row", self.variables[value])
        return -(-rows // each), threads

    def _ready(self, instruction: Apply) -> bool:
        """Whether the values of rows that it needs are there."""
        values = list(instruction.values)
        needed = self.needed(values) if reduction(instruction) is not None else set()
        values += [v for value in needed for v in self.made[value].values]
        return all(v in self._known for v in values if v in self.rows)

    def _row_operation(self, instruction: Apply) -> None:
        """An operation on values of one per row; all threads of a row do it."""

        def of(value: Value) -> str:
            return self.variables[value] if value in self.rows else self._load_row(value)

        self.operation(instruction, of, "row")
        self._known.update(instruction.outputs)

    def _load_row(self, value: Value) -> str:
        name = f"x{self._loads}"
        self._loads += 1
        type_ = source.TYPES[value.dtype.name]
        place = f"{self.arrays[value]}[{source.place(self.places[value], self._row_shape, 'row')}]"
        self.lines.append(f"const {type_} {name} = here ? get({place}) : ({type_})0;")
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
            type_, name = FLOATS[x.dtype.name], self.variables[out]
            start = starts.get(reduced.operation, "0")
            self.lines.append(f"{type_} part_{name} = ({type_})({start});")
            parts.append((x, out, reduced.operation, type_, name))

        def add_up() -> None:
            known = self.elements((), tuple(x for x, *_ in parts))
            for x, _, operation, _, name in parts:
                one = known[x]
                text = {
                    "max": f"part_{name} = larger(part_{name}, {one});",
                    "min": f"part_{name} = smaller(part_{name}, {one});",
                }.get(operation, f"part_{name} += {one};")
                self.lines.append(text)

        self.loop(self._head, add_up, self._first)
        for _, out, operation, type_, name in parts:
            make = {"max": "Max", "min": "Min"}.get(operation, "Sum")
            text = f"whole<{make}, {self._wide}>(part_{name}, shared_{type_})"
            if operation == "mean":
                text += f" / ({type_}){self._length}"
            text = source.ROUNDED.get(out.dtype.name, "{}").format(text)
            self.lines.append(f"const {type_} {name} = {text};")
            self._known.add(out)

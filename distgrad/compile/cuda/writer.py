"""Kernels as text: how a group's values of an element are loaded, computed and stored."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from distgrad.compile.cuda import source
from distgrad.compile.cuda.source import Kernel
from distgrad.compile.passes.fusion import Fused, reduction
from distgrad.compile.program import Apply, Value
from distgrad.compile.steps import View

MANY = 1 << 18  # elements from which on threads take several: with fewer, more threads are better


class Writer:
    """Writes the kernel of one group: here, of one that has no reductions."""

    single = True  # its threads work each by itself

    def __init__(self, fused: Fused, places: dict[Value, View]) -> None:
        self.fused, self.places = fused, places
        self.made = {i.outputs[0]: i for i in fused.body}
        self.arrays: dict[Value, str] = {}
        for value in (*fused.inputs, *fused.outputs):
            self.arrays.setdefault(value, f"p{len(self.arrays)}")
        self.variables = {v: f"v{i}" for i, v in enumerate(self.made)}
        self.rows: set[Value] = set()  # results of one per row
        for instruction in fused.body:
            if self._per_row(instruction):
                self.rows.update(instruction.outputs)
        self.lines: list[str] = []
        self._further: list[tuple[str, View]] = []
        self._loads = 0
        self.count = 1  # elements that a thread takes at a time
        self._outside: list[str] = []  # lines that stand before those of an element
        self._inside: list[str] = []  # and behind

    def _per_row(self, instruction: Apply) -> bool:
        if reduction(instruction) is not None:
            return True
        (out,) = instruction.outputs
        return self.fused.trailing is not None and out.shape != self.fused.shape

    def finish(self, name: str) -> Kernel:
        blocks, threads = self.write()
        outputs = set(self.fused.outputs)
        written = {self.places[v].buffer for v in outputs}
        arguments, places = [], []
        for value, array in self.arrays.items():
            place = self.places[value]
            kept = value not in outputs and place.buffer not in written  # for as long as it runs
            form = "const {} *__restrict__ {}" if kept else "{} *{}"
            arguments.append(form.format(source.memory(place.dtype), array))
            places.append(place)
        arguments += [text for text, _ in self._further]
        places += [view for _, view in self._further]
        body = "\n".join(self.lines)
        return Kernel(name, tuple(arguments), body, blocks, threads, tuple(places), self.single)

    def further(self, type_: str, view: View) -> str:
        """The name of one more argument, memory at a place of its own."""
        name = f"p{len(self.arrays) + len(self._further)}"
        self._further.append((f"{type_}{name}", view))
        return name

    def write(self) -> tuple[int, int]:
        """Writes the body; how many blocks there are, and threads in each."""
        size = math.prod(self.fused.shape)
        self.count = self._together(size)
        self.loop(
            source.over(size // self.count, self.count),
            lambda: self.elements(self.fused.outputs),
        )
        return source.flat(size // self.count)

    # Elements

    def _together(self, size: int) -> int:
        """How many elements a thread takes at a time, where there is no row."""
        places = [self.places[v] for v in self.arrays]
        if size < MANY:
            return 1
        count = min(8, source.WORD // min(view.dtype.itemsize for view in places))
        whole = [view for view in places if view.shape == self.fused.shape]
        fits = size % count == 0 and all(
            source.apart(view, self.fused.shape, count) != "each" for view in whole
        )
        return count if fits else 1

    def loop(self, head: str, body: Callable[[], object], first: str = "") -> None:
        """Writes a loop by ``count`` elements; ``body`` writes what is done for one."""
        if self.count == 1:
            self.lines += [head + " {", first]
            body()
            self.lines.append("}")
            return
        before, self.lines, self._outside, self._inside = self.lines, [], [], []
        body()
        self.lines = [
            *before,
            head + " {",
            first,
            *self._outside,
            "#pragma unroll",
            f"for (int j = 0; j < {self.count}; j++) {{",
            *self.lines,
            "}",
            *self._inside,
            "}",
        ]

    def elements(self, stored: Sequence[Value], others: Sequence[Value] = ()) -> dict[Value, str]:
        """Writes what makes these values of an element, and stores some; the names of all."""
        names: dict[Value, str] = {}
        here = "at" if self.count == 1 else "(at + j)"

        def of(value: Value) -> str:
            if value not in names:
                if value in self.rows:
                    names[value] = self.variables[value]
                elif value in self.made:
                    self.operation(self.made[value], of, here)
                    names[value] = self.variables[value]
                else:
                    names[value] = self.load(value, self.fused.shape, "at")
            return names[value]

        needed = self.needed((*stored, *others))
        for value in self.made:  # in order, without recursion over long chains
            if value in needed:
                of(value)
        for value in stored:
            self.store(value, self.fused.shape, "at", of(value))
        for value in others:
            of(value)
        return names

    def needed(self, wanted: Sequence[Value]) -> set[Value]:
        """The values of an element that others are made of."""
        needed: set[Value] = set()
        left = [v for v in wanted if v in self.made and v not in self.rows]
        while left:
            value = left.pop()
            if value not in needed:
                needed.add(value)
                values = self.made[value].values
                left += [v for v in values if v in self.made and v not in self.rows]
        return needed

    def operation(self, instruction: Apply, of: Any, at: str) -> None:
        (out,) = instruction.outputs
        text = source.written(instruction, {v: of(v) for v in instruction.values}, at)
        text = source.ROUNDED.get(out.dtype.name, "{}").format(text)
        self.lines.append(f"const {source.TYPES[out.dtype.name]} {self.variables[out]} = {text};")

    def load(self, value: Value, shape: Sequence[int], at: str) -> str:
        name = f"x{self._loads}"
        self._loads += 1
        view, trailing = self.places[value], self.fused.trailing
        if trailing is not None and at == "at" and not any(source.steps(view, shape)[-trailing:]):
            shape, at = shape[: len(shape) - trailing] + (1,) * trailing, "row"  # type: ignore[operator]
        type_, array = source.TYPES[value.dtype.name], self.arrays[value]
        if self.count == 1 or at == "row":
            self.lines.append(
                f"const {type_} {name} = get({array}[{source.place(view, shape, at)}]);"
            )
            return name
        kind = source.apart(view, shape, self.count)
        if kind == "each":
            place = source.place(view, shape, "(at + j)")
            self.lines.append(f"const {type_} {name} = get({array}[{place}]);")
        elif kind == "one":
            self._outside.append(
                f"const {type_} {name} = get({array}[{source.place(view, shape, at)}]);"
            )
        else:
            pack = f"Pack<{source.memory(value.dtype)}, {self.count}>"
            place = f"{array} + {source.place(view, shape, at)}"
            self._outside.append(f"const {pack} w{name} = *(const {pack} *)({place});")
            self.lines.append(f"const {type_} {name} = get(w{name}.at[j]);")
        return name

    def store(self, value: Value, shape: Sequence[int], at: str, name: str) -> None:
        view, array = self.places[value], self.arrays[value]
        if self.count == 1 or at == "row":
            self.lines.append(f"put({array}[{source.place(view, shape, at)}], {name});")
        elif source.apart(view, shape, self.count) != "word":
            self.lines.append(f"put({array}[{source.place(view, shape, '(at + j)')}], {name});")
        else:
            pack = f"Pack<{source.memory(value.dtype)}, {self.count}>"
            self._outside.append(f"{pack} w{array};")
            self.lines.append(f"put(w{array}.at[j], {name});")
            self._inside.append(
                f"*({pack} *)({array} + {source.place(view, shape, at)}) = w{array};"
            )


class Copying(Writer):
    """Writes the kernel that gives its one input the place and the type of its one output."""

    def elements(self, stored: Sequence[Value], others: Sequence[Value] = ()) -> dict[Value, str]:
        (x,), (out,) = self.fused.inputs, self.fused.outputs
        name = self.load(x, self.fused.shape, "at")
        type_ = source.TYPES[out.dtype.name]
        self.store(out, self.fused.shape, "at", f"({type_}){name}")
        return {}

"""Text of LLVM's assembly language, one operation on scalars, or on vectors of them, at a time.

No fast-math flags, and a multiplication is never contracted with an addition: a generated loop
rounds where NumPy does. ``fma`` is explicit.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

FLOATS = {"float": 32, "double": 64}
TYPES = {"float32": "float", "float64": "double", "bool": "i8"}
INTEGERS = {"int32": "i32", "int64": "i64"}


class Scalar(NamedTuple):
    """A value in the text: a register, or a literal. The type is that of one element."""

    text: str
    type: str


class Emitter:
    """Lines of one function; registers are numbered.

    With ``lanes``, every value is a vector of so many elements.
    """

    def __init__(self, lanes: int = 0) -> None:
        self.lanes = lanes
        self.lines: list[str] = []
        self.declared: set[str] = set()
        self._count = 0

    def shown(self, type_: str) -> str:
        """The type of a value whose elements have ``type_``."""
        return f"<{self.lanes} x {type_}>" if self.lanes else type_

    def register(self) -> str:
        self._count += 1
        return f"%r{self._count}"

    def emit(self, text: str, type_: str) -> Scalar:
        name = self.register()
        self.lines.append(f"  {name} = {text}")
        return Scalar(name, type_)

    def number(self, value: float, type_: str) -> Scalar:
        """A literal, rounded to its type; LLVM writes floats as the bits of a double."""
        if type_ in FLOATS:
            with np.errstate(over="ignore"):
                rounded = float(np.float32(value)) if type_ == "float" else float(value)
            text = f"0x{struct.unpack('<Q', struct.pack('<d', rounded))[0]:016X}"
        else:
            text = str(int(value))
        return Scalar(f"splat ({type_} {text})" if self.lanes else text, type_)

    def binary(self, op: str, a: Scalar, b: Scalar) -> Scalar:
        return self.emit(f"{op} {self.shown(a.type)} {a.text}, {b.text}", a.type)

    def negative(self, a: Scalar) -> Scalar:
        return self.emit(f"fneg {self.shown(a.type)} {a.text}", a.type)

    def compare(self, condition: str, a: Scalar, b: Scalar) -> Scalar:
        op = "fcmp" if a.type in FLOATS else "icmp"
        return self.emit(f"{op} {condition} {self.shown(a.type)} {a.text}, {b.text}", "i1")

    def select(self, condition: Scalar, a: Scalar, b: Scalar) -> Scalar:
        type_ = self.shown(a.type)
        text = f"select {self.shown('i1')} {condition.text}, {type_} {a.text}, {type_} {b.text}"
        return self.emit(text, a.type)

    def cast(self, op: str, a: Scalar, type_: str) -> Scalar:
        return self.emit(f"{op} {self.shown(a.type)} {a.text} to {self.shown(type_)}", type_)

    def intrinsic(self, name: str, *args: Scalar) -> Scalar:
        """A function of LLVM's own over one type."""
        type_ = args[0].type
        shown = self.shown(type_)
        full = f"llvm.{name}.{f'v{self.lanes}' if self.lanes else ''}f{FLOATS[type_]}"
        self.declared.add(f"declare {shown} @{full}({', '.join([shown] * len(args))})")
        given = ", ".join(f"{shown} {a.text}" for a in args)
        return self.emit(f"call {shown} @{full}({given})", type_)


def module(
    declared: Sequence[str], pointers: Sequence[str], numbers: Sequence[str], body: Sequence[str]
) -> str:
    """A function ``entry``, which takes its pointers and then its whole numbers in one table.

    ``body`` has them by name; what one pointer leads to is reached by no other.
    """
    typed = [("ptr", name) for name in pointers] + [("i64", name) for name in numbers]
    parameters = [f"ptr noalias %{name}" for name in pointers] + [f"i64 %{n}" for n in numbers]
    loads = []
    for i, (type_, name) in enumerate(typed):
        loads.append(f"  %{name}.at = getelementptr i64, ptr %table, i64 {i}")
        loads.append(f"  %{name} = load {type_}, ptr %{name}.at")
    lines = [
        *declared,
        f"define internal void @kernel({', '.join(parameters)}) alwaysinline #0 {{",
        "start:",
        *body,
        "  ret void",
        "}",
        "define void @entry(ptr %table) #0 {",
        *loads,
        f"  call void @kernel({', '.join(f'{type_} %{name}' for type_, name in typed)})",
        "  ret void",
        "}",
        'attributes #0 = { "prefer-vector-width"="512" }',
    ]
    return "\n".join(lines) + "\n"

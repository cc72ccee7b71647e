"""Text of LLVM's assembly language, one scalar operation at a time.

No fast-math flags, and a multiplication is never contracted with an addition: a generated loop
rounds where NumPy does. ``fma`` is explicit.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

FLOATS = {"float": 32, "double": 64}
TYPES = {"float32": "float", "float64": "double", "bool": "i8"}


class Scalar(NamedTuple):
    """A value in the text: a register, or a literal."""

    text: str
    type: str


class Emitter:
    """Lines of one function; registers are numbered."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.declared: set[str] = set()
        self._count = 0

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
            return Scalar(f"0x{struct.unpack('<Q', struct.pack('<d', rounded))[0]:016X}", type_)
        return Scalar(str(int(value)), type_)

    def binary(self, op: str, a: Scalar, b: Scalar) -> Scalar:
        return self.emit(f"{op} {a.type} {a.text}, {b.text}", a.type)

    def compare(self, condition: str, a: Scalar, b: Scalar) -> Scalar:
        op = "fcmp" if a.type in FLOATS else "icmp"
        return self.emit(f"{op} {condition} {a.type} {a.text}, {b.text}", "i1")

    def select(self, condition: Scalar, a: Scalar, b: Scalar) -> Scalar:
        text = f"select i1 {condition.text}, {a.type} {a.text}, {b.type} {b.text}"
        return self.emit(text, a.type)

    def cast(self, op: str, a: Scalar, type_: str) -> Scalar:
        return self.emit(f"{op} {a.type} {a.text} to {type_}", type_)

    def intrinsic(self, name: str, *args: Scalar) -> Scalar:
        """A function of LLVM's own over one type."""
        type_ = args[0].type
        full = f"llvm.{name}.f{FLOATS[type_]}"
        self.declared.add(f"declare {type_} @{full}({', '.join([type_] * len(args))})")
        given = ", ".join(f"{a.type} {a.text}" for a in args)
        return self.emit(f"call {type_} @{full}({given})", type_)

"""The size of a batch as a number that stays open: two programs of one function made into one.

A function is recorded with two batch sizes. Whatever differs between the two records depends on
the batch: a size becomes ``scale * batch + offset``, and anything else that differs cannot be
written down for batches of any size. That a size is linear in the batch is not known from two
records; the export compares results at two further batch sizes.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from distgrad.compile.program import Apply, Instruction, Program, Read, Value
from distgrad.core.errors import ExportError
from distgrad.core.primitive import registry


@dataclasses.dataclass(frozen=True)
class Size:
    """``scale * batch + offset``. No number: arithmetic that takes it for one must fail."""

    scale: int
    offset: int = 0

    def __str__(self) -> str:
        scaled = "batch" if self.scale == 1 else f"{self.scale} * batch"
        return scaled + (f" + {self.offset}" if self.offset else "")


class _Batches(NamedTuple):
    first: int
    second: int

    def size(self, a: int, b: int) -> int | Size:
        """What is ``a`` with the first batch size and ``b`` with the second."""
        if a == b:
            return a
        scale, rest = divmod(b - a, self.second - self.first)
        if rest:
            raise _Differs(f"{a} and {b}")
        return Size(scale, a - scale * self.first)


_PLAIN = (int, float, complex, str, np.generic, np.dtype)


class _Differs(Exception):
    """Two records differ in what is no size."""


def merge(one: Program, other: Program, batches: tuple[int, int]) -> Program:
    """One program for any batch size, from those that were recorded with two.

    Shapes and parameters of the result hold a `Size` where the two differ. Raises ExportError,
    which names the operation and its layer, where they differ in more than sizes.
    """
    return _Merging(_Batches(*batches)).programs(one, other)


class _Merging:
    def __init__(self, batches: _Batches) -> None:
        self._batches = batches
        # Of each value of the first program: that of the second, and that of the result.
        self._made: dict[Value, tuple[Value, Value]] = {}
        self._instructions: list[Instruction] = []
        self._line = ""

    def programs(self, one: Program, other: Program) -> Program:
        inputs = tuple(map(self._new, one.inputs, other.inputs))
        for a, b in zip(one.instructions, other.instructions, strict=False):
            self._instruction(a, b)
        if len(one.instructions) != len(other.instructions):
            longer = max(one.instructions, other.instructions, key=len)
            count = min(len(one.instructions), len(other.instructions))
            raise _refused(longer[count], "is not there with every batch size")
        try:
            outputs = tuple(
                self._operand(a, b) for a, b in zip(one.outputs, other.outputs, strict=True)
            )
        except (_Differs, ValueError):
            raise ExportError("which outputs the model has depends on the batch size") from None
        return Program(one.name, inputs, tuple(self._instructions), outputs)

    def _instruction(self, a: Instruction, b: Instruction) -> None:
        if type(a) is not type(b) or len(a.inputs) != len(b.inputs) or name_of(a) != name_of(b):
            raise _refused(a, f"is {name_of(b)} with another batch size")
        if len(a.outputs) != len(b.outputs):
            raise _refused(a, "gives as many results as the batch size says")
        self._line = a.line
        try:
            inputs = tuple(map(self._operand, a.inputs, b.inputs))
            changes: dict[str, Any] = {"inputs": inputs}
            if isinstance(a, Apply) and isinstance(b, Apply):
                changes["params"] = {n: self._static(v, b.params[n]) for n, v in a.params.items()}
            changes["outputs"] = tuple(map(self._new, a.outputs, b.outputs))
        except _Differs as found:
            raise _refused(a, f"depends on the batch size: {found}") from None
        self._instructions.append(dataclasses.replace(a, **changes))

    def _new(self, a: Value, b: Value) -> Value:
        made = Value(self._shape(a, b), wide(a.dtype))
        self._made[a] = b, made
        return made

    def _shape(self, a: Value, b: Value) -> tuple:
        if len(a.shape) != len(b.shape):
            raise _Differs(f"shapes {a.shape} and {b.shape}")
        return tuple(map(self._batches.size, a.shape, b.shape))

    def _operand(self, a: Any, b: Any) -> Any:
        if type(a) is not Value:  # a number that is computed with
            if type(b) is Value or a != b:
                raise _Differs(f"{a!r} and {b!r}")
            return a
        known, made = self._made.get(a, (None, None))
        if known is not b and not a.constant:
            raise _Differs("it is computed from something else")
        if known is not b:
            made = self._constant(a, b)
            self._made[a] = b, made
        return made

    def _constant(self, a: Value, b: Value) -> Value:
        """A constant; one that repeats itself along the batch is repeated at run time."""
        if type(b) is not Value or not b.constant:
            raise _Differs("a constant, or none")
        shape = self._shape(a, b)
        once = tuple(slice(None) if type(n) is int else slice(0, 1) for n in shape)
        kept = a.data[once]
        for data in (a.data, b.data):
            if not np.array_equal(np.broadcast_to(kept, data.shape), data, equal_nan=_floats(data)):
                raise _Differs("a constant whose elements differ")
        kept = Value(kept.shape, wide(a.dtype), kept.astype(wide(a.dtype)))
        if all(type(n) is int for n in shape):
            return kept
        made = Value(shape, kept.dtype)
        repeat = registry["broadcast_to"]
        self._instructions.append(
            Apply((kept,), (made,), primitive=repeat, params={"shape": shape}, line=self._line)
        )
        return made

    def _static(self, a: Any, b: Any) -> Any:
        """A parameter of an operation: sizes in nests of tuples and slices, or anything equal."""
        if type(a) is not type(b):
            raise _Differs(f"{a!r} and {b!r}")
        if isinstance(a, tuple):
            if len(a) != len(b):
                raise _Differs(f"{a!r} and {b!r}")
            items = tuple(map(self._static, a, b))
            return type(a)(*items) if hasattr(a, "_fields") else items
        if isinstance(a, slice):
            parts = ((a.start, b.start), (a.stop, b.stop), (a.step, b.step))
            return slice(*(self._static(*pair) for pair in parts))
        if type(a) is int:
            return self._batches.size(a, b)
        if isinstance(a, np.ndarray):
            same = np.array_equal(a, b)
        else:  # functions that go with an operation, as gradients do, are not written
            same = not isinstance(a, _PLAIN) or a == b or a != a
        if not same:
            raise _Differs(f"{a!r} and {b!r}")
        return wide(a) if isinstance(a, np.dtype) else a


def _floats(array: np.ndarray) -> bool:
    return array.dtype.kind == "f"


def wide(dtype: np.dtype) -> np.dtype:
    """float32 in place of floats of 16 bits, which phones and browsers compute with badly."""
    half = dtype.itemsize == 2 and dtype.kind in "fV"
    return np.dtype(np.float32) if half else dtype


def name_of(instruction: Instruction) -> str:
    """What an instruction is called in messages."""
    if isinstance(instruction, Read):
        return f"the read of {instruction.variable.name}"
    return getattr(instruction, "label", None) or instruction.name  # type: ignore[attr-defined]


def _refused(instruction: Instruction, how: str) -> ExportError:
    return ExportError(
        f"{name_of(instruction)}, of {instruction.line}, {how}. In an ONNX file only sizes can "
        "depend on it: give the batch a fixed size (batch_size= of the Input, or an "
        "input_signature without None)"
    )

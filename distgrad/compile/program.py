"""Programs: what one call of a function does, as a flat list of primitives.

A program has no derivative and no Python control flow in it: whatever tapes and rules did is
there as the primitives that they bound. Every value is made once, by an instruction, an input or
as a constant, before it is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from distgrad.core.primitive import Primitive
from distgrad.core.variable import Variable

Shape = tuple[int, ...]
T = TypeVar("T")


class Value:
    """One array of a program, known by its identity; ``data`` is that of a constant."""

    __slots__ = ("data", "dtype", "shape")

    def __init__(self, shape: Shape, dtype: np.dtype, data: Any = None) -> None:
        self.shape = tuple(shape)
        self.dtype = dtype
        self.data = data

    @classmethod
    def like(cls, array: Any) -> Value:
        """A value that is to hold arrays like this one."""
        return cls(array.shape, array.dtype)

    @property
    def constant(self) -> bool:
        return self.data is not None

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, eq=False)
class Instruction:
    """What makes ``outputs`` from ``inputs``: values, and Python numbers as they are."""

    inputs: tuple[Any, ...] = ()
    outputs: tuple[Value, ...] = ()
    line: str = field(default="", kw_only=True)  # of the user's code

    @property
    def values(self) -> Iterator[Value]:
        """The values among the inputs."""
        return (v for v in self.inputs if type(v) is Value)

    @property
    def effect(self) -> bool:
        """Whether it must run even if nobody uses its outputs."""
        return True


@dataclass(frozen=True, eq=False)
class Apply(Instruction):
    """A primitive."""

    primitive: Primitive = field(kw_only=True)
    params: dict[str, Any] = field(kw_only=True, default_factory=dict)

    @property
    def effect(self) -> bool:
        return self.primitive.effect

    @property
    def name(self) -> str:
        return self.primitive.name


@dataclass(frozen=True, eq=False)
class Read(Instruction):
    """The value of a variable at this place of the program."""

    variable: Variable = field(kw_only=True)
    name = "read"
    effect = False


@dataclass(frozen=True, eq=False)
class Write(Instruction):
    """A new value for a variable; it has no outputs."""

    variable: Variable = field(kw_only=True)
    name = "write"


@dataclass(frozen=True, eq=False)
class Slot(Instruction):
    """A value that Python makes anew at each replay: a random key, a learning rate, a scale.

    ``draw`` gives a tensor of the shape and dtype of the one output. It always runs: what later
    draws give may depend on it.
    """

    draw: Callable[[], Any] = field(kw_only=True)
    name = "slot"


@dataclass(frozen=True, eq=False)
class Call(Instruction):
    """A call of Python code at each replay: an optimizer, a metric, a check.

    ``run`` takes tensors for the inputs, and may write any variable if ``writes``. It has no
    outputs. ``any_shape`` says that inputs with further axes in front are as good, ``apart`` that
    it writes only what nothing else of a program reads or writes.
    """

    run: Callable[..., None] = field(kw_only=True)
    label: str = field(kw_only=True)
    writes: bool = field(kw_only=True, default=True)
    any_shape: bool = field(kw_only=True, default=False)
    apart: bool = field(kw_only=True, default=False)
    name = "call"


@dataclass(frozen=True, eq=False)
class Program:
    """Inputs, instructions and outputs; passes make new programs of the same values."""

    name: str
    inputs: tuple[Value, ...]
    instructions: tuple[Instruction, ...]
    outputs: tuple[Value, ...]

    def with_(
        self, instructions: Iterable[Instruction], outputs: Sequence[Value] | None = None
    ) -> Program:
        """This program with other instructions (and outputs)."""
        kept = self.outputs if outputs is None else tuple(outputs)
        return Program(self.name, self.inputs, tuple(instructions), kept)

    @property
    def variables(self) -> list[Variable]:
        """The variables it reads and writes, in order of first mention."""
        found = {
            id(i.variable): i.variable for i in self.instructions if isinstance(i, (Read, Write))
        }
        return list(found.values())

    def uses(self) -> dict[Value, int]:
        """How often each value is an input of an instruction, or an output of the program."""
        counts: dict[Value, int] = {}
        for instruction in self.instructions:
            for value in instruction.values:
                counts[value] = counts.get(value, 0) + 1
        for value in self.outputs:
            counts[value] = counts.get(value, 0) + 1
        return counts

    def text(self) -> str:
        """The program for a reader: one instruction per line."""
        names = Names(self)
        lines = [f"{self.name}({', '.join(names.typed(v) for v in self.inputs)}):"]
        lines += ["  " + names.instruction(i) for i in self.instructions]
        return "\n".join([*lines, f"  return {', '.join(map(names.of, self.outputs))}"])

    def verify(self) -> Program:
        """The program itself; raises ValueError where it breaks a rule, naming the instruction.

        Every value is made before it is used, once; reads and writes have the variable's shape.
        """
        made = set(self.inputs)
        for instruction in self.instructions:
            for value in instruction.values:
                if value not in made and value.data is None:
                    raise self._broken(value, "is used before it is made", instruction)
            for value in instruction.outputs:
                if value in made or value.data is not None:
                    raise self._broken(value, "is made twice", instruction)
                made.add(value)
            if isinstance(instruction, (Read, Write)):
                (value,) = instruction.outputs or instruction.inputs
                buffer = instruction.variable._buffer
                if (value.shape, value.dtype) != (buffer.shape, buffer.dtype):
                    rule = f"of {_type(value)} does not fit a variable of {_type(buffer)}"
                    raise self._broken(value, rule, instruction)
        for value in self.outputs:
            if value not in made and value.data is None:
                raise ValueError(f"{Names(self).of(value)} is returned, but never made")
        return self

    def _broken(self, value: Value, rule: str, where: Instruction) -> ValueError:
        names = Names(self)
        return ValueError(f"{names.of(value)} {rule}: {names.instruction(where)}")


def alike(instruction: Apply, numbers: dict[Value, int]) -> Hashable:
    """Equal for instructions that do the same on arrays alike, with ``numbers`` for the values.

    It has no hash where a parameter has none.
    """
    operands = tuple(_operand(x, numbers) for x in (*instruction.inputs, *instruction.outputs))
    params = tuple((name, literal(value)) for name, value in instruction.params.items())
    return instruction.primitive, operands, params


def _operand(item: Any, numbers: dict[Value, int]) -> Hashable:
    if type(item) is not Value:
        return literal(item)
    return numbers.setdefault(item, len(numbers)), item.shape, item.dtype


def literal(item: Any) -> Hashable:
    """A number or a parameter, as it is compared: 0.0 is not -0.0, and 1 is not True."""
    if type(item) is tuple:
        return tuple(map(literal, item))
    return type(item), repr(item) if type(item) in (float, complex) else item


def once(known: dict[Hashable, T], key: Hashable, make: Callable[[], T]) -> T:
    """``make()``, once for all that have the same key; always anew where that has no hash."""
    try:
        if key in known:
            return known[key]
    except TypeError:  # a parameter is an array, or another thing without a hash
        return make()
    made = known[key] = make()
    return made


class Names:
    """Short names for the values of one program, in order of appearance."""

    def __init__(self, program: Program) -> None:
        self._names: dict[Value, str] = {v: f"x{i}" for i, v in enumerate(program.inputs)}
        self._made = 0
        self._constants = 0
        for instruction in program.instructions:
            for value in (*instruction.values, *instruction.outputs):
                self.of(value)

    def of(self, value: Any) -> str:
        if type(value) is not Value:
            return repr(value)
        if value not in self._names:
            if value.constant and not value.shape:
                self._names[value] = str(value.data)
            elif value.constant:
                self._names[value] = f"c{self._constants}"
                self._constants += 1
            else:
                self._names[value] = f"v{self._made}"
                self._made += 1
        return self._names[value]

    def typed(self, value: Value) -> str:
        return f"{self.of(value)}: {_type(value)}"

    def instruction(self, i: Instruction) -> str:
        arguments = [self.of(v) for v in i.inputs]
        if isinstance(i, Apply):
            arguments += [f"{k}={_short(v)}" for k, v in i.params.items()]
        if isinstance(i, (Read, Write)):
            arguments.insert(0, i.variable.name)
        if isinstance(i, Call):
            arguments.insert(0, i.label)
        made = ", ".join(self.typed(v) for v in i.outputs)
        return f"{made + ' = ' if made else ''}{i.name}({', '.join(arguments)})"  # type: ignore[attr-defined]


def _type(array: Any) -> str:
    return f"{array.dtype.name}[{','.join(map(str, array.shape))}]"


def _short(value: Any) -> str:
    shown = value.name if isinstance(value, np.dtype) else repr(value)
    return shown if len(shown) <= 40 else f"<{type(value).__name__}>"

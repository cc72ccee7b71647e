"""What passes share: one value in the place of another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from distgrad.compile.program import Instruction, Program, Value


class Substitution:
    """Values that stand in for others, from the start of a program to its end."""

    def __init__(self) -> None:
        self._instead: dict[Value, Value] = {}

    def put(self, old: Value, new: Value) -> None:
        """``new`` instead of ``old`` from now on; ``new`` itself is one that stays."""
        self._instead[old] = new

    def of(self, value: Any) -> Any:
        return self._instead.get(value, value) if type(value) is Value else value

    def all(self, values: Iterable[Any]) -> tuple[Any, ...]:
        return tuple(map(self.of, values))

    def in_(self, instruction: Instruction) -> Instruction:
        """The instruction with its inputs replaced."""
        inputs = self.all(instruction.inputs)
        same = all(a is b for a, b in zip(inputs, instruction.inputs, strict=True))
        return instruction if same else replace(instruction, inputs=inputs)

    def finish(self, program: Program, instructions: Iterable[Instruction]) -> Program:
        return program.with_(instructions, self.all(program.outputs))

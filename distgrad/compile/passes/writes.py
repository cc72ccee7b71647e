"""Writes as values: what a program assigns to variables, without assigning it."""

from __future__ import annotations

from collections.abc import Iterable

from distgrad.compile.passes.rewrite import Substitution
from distgrad.compile.program import Call, Instruction, Program, Read, Value, Write
from distgrad.core.variable import Variable


def take_writes(program: Program, variables: Iterable[Variable]) -> tuple[Program, list[Variable]]:
    """The program with those of ``variables`` that it writes as further outputs, and which.

    It writes none of them itself any more. Raises ValueError where Python code that may look at
    a variable runs between.
    """
    taken = {id(variable): variable for variable in variables}
    instead = Substitution()
    latest: dict[int, Value] = {}
    kept: list[Instruction] = []
    for original in program.instructions:
        instruction = instead.in_(original)
        if isinstance(instruction, Write) and id(instruction.variable) in taken:
            (latest[id(instruction.variable)],) = instruction.inputs
            continue
        if isinstance(instruction, Read) and id(instruction.variable) in latest:
            instead.put(instruction.outputs[0], latest[id(instruction.variable)])
            continue
        if isinstance(instruction, Call) and latest and instruction.writes > instruction.apart:
            names = ", ".join(taken[key].name for key in latest)
            raise ValueError(f"{names} is assigned before {instruction.label} is called")
        kept.append(instruction)
    made = instead.finish(program, kept)
    return made.with_(made.instructions, [*made.outputs, *latest.values()]), [
        taken[key] for key in latest
    ]

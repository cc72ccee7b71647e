"""Common subexpressions: what is computed twice from the same is computed once."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from distgrad.compile.passes.rewrite import Substitution
from distgrad.compile.program import Apply, Call, Instruction, Program, Read, Value, Write

_ANEW = {"is_class"}  # cheaper to compute again than to keep


def share_common(program: Program) -> Program:
    """The program in which equal operations on equal inputs are one.

    Reads of a variable are equal as long as nothing may have written to it between them.
    """
    instead = Substitution()
    known: dict[Any, Instruction] = {}
    kept = []
    for original in program.instructions:
        instruction = instead.in_(original)
        if isinstance(instruction, Write):
            known.pop(id(instruction.variable), None)
        elif isinstance(instruction, Call) and instruction.writes:
            known = {k: i for k, i in known.items() if not isinstance(i, Read)}
        key = _key(instruction)
        first = known.get(key) if key is not None else None
        if first is not None:
            for old, new in zip(instruction.outputs, first.outputs, strict=True):
                instead.put(old, new)
            continue
        if key is not None:
            known[key] = instruction
        kept.append(instruction)
    return instead.finish(program, kept)


def _key(instruction: Instruction) -> Hashable | None:
    """Equal for instructions that give equal results; None for one that stands alone."""
    if isinstance(instruction, Read):
        return id(instruction.variable)
    if not isinstance(instruction, Apply) or instruction.effect or instruction.name in _ANEW:
        return None
    # By their text, since 1 == 1.0 == True and 0.0 == -0.0, and nan differs from itself.
    inputs = tuple(v if type(v) is Value else repr(v) for v in instruction.inputs)
    params = tuple(sorted(instruction.params.items()))
    shown = tuple((k, v if callable(v) else repr(v)) for k, v in params)
    try:
        key = (instruction.primitive.name, inputs, shown)
        hash(key)
    except TypeError:
        return None
    return key

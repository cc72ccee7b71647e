"""Floats of 16 bits beside wider ones: what kernels read and write of them.

Products and sums are added up in float32 anyway. What is then rounded to bfloat16 only to be
widened again is stored as it was added up: such results have more digits than the operations one
by one give. In float16 they would be finite where those are not, which a loss scale has to see.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from distgrad.compile.passes.rewrite import Substitution
from distgrad.compile.program import Apply, Instruction, Program, Value
from distgrad.core.dtypes import is_floating


def unrounded(program: Program, takes: Callable[[Apply], bool]) -> Program:
    """The program in which sums that are widened from bfloat16, and no more, are made so at once.

    ``takes`` says which instructions may give float32 from narrower factors or terms.
    """
    uses = program.uses()
    made = {i.outputs[0]: i for i in program.instructions if isinstance(i, Apply) and i.outputs}
    wide: dict[Value, Value] = {}  # instead of narrow sums
    for instruction in program.instructions:
        if not _widens(instruction):
            continue
        (x,), (out,) = instruction.inputs, instruction.outputs
        source = made.get(x)
        ranges = x.dtype.name, out.dtype.name
        alike = ranges == ("bfloat16", "float32")  # what is finite in one is so in the other
        if source is not None and uses[x] == 1 and alike and takes(source):
            wide[x] = out
    kept: list[Instruction] = []
    for instruction in program.instructions:
        if _widens(instruction) and instruction.inputs[0] in wide:
            continue
        if instruction.outputs and instruction.outputs[0] in wide:
            instruction = replace(instruction, outputs=(wide[instruction.outputs[0]],))
        kept.append(instruction)
    return program.with_(kept)


def widened_late(program: Program, fusable: Callable[[Apply], bool]) -> Program:
    """The program in which each of those who can widen a float as they read it does so itself.

    Half of the bytes are written and read then, and groups have no tie that costs nothing to cut.
    """
    casts = {i.outputs[0]: i for i in program.instructions if _widens(i) and fusable(i)}  # type: ignore[arg-type]
    kept: list[Instruction] = []
    for instruction in program.instructions:
        if isinstance(instruction, Apply) and fusable(instruction) and not instruction.effect:
            own = Substitution()
            for value in dict.fromkeys(instruction.values):
                if value in casts:
                    copy = Value(value.shape, value.dtype)
                    kept.append(replace(casts[value], outputs=(copy,)))
                    own.put(value, copy)
            instruction = own.in_(instruction)
        kept.append(instruction)
    used = program.with_(kept).uses()
    return program.with_(i for i in kept if not (_widens(i) and i.outputs[0] not in used))


def _widens(instruction: Instruction) -> bool:
    if not isinstance(instruction, Apply) or instruction.name != "cast_float":
        return False
    (x,), (out,) = instruction.inputs, instruction.outputs
    return type(x) is Value and is_floating(x.dtype) and x.dtype.itemsize < out.dtype.itemsize

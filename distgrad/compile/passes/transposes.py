"""Transposes in front of a matrix product become its flags."""

from __future__ import annotations

from dataclasses import replace

from distgrad.compile.program import Apply, Instruction, Program, Value


def fold_transposes(program: Program) -> Program:
    """The program whose products read the matrix that was transposed for them.

    BLAS gets the same strides as before, and so gives the same bits.
    """
    swapped: dict[Value, Value] = {}
    kept: list[Instruction] = []
    for instruction in program.instructions:
        if isinstance(instruction, Apply):
            if instruction.name == "permute" and _swaps(instruction):
                swapped[instruction.outputs[0]] = instruction.inputs[0]
            elif instruction.name == "dot":
                instruction = _folded(instruction, swapped)
        kept.append(instruction)
    return program.with_(kept)


def _swaps(instruction: Apply) -> bool:
    """Whether a permutation swaps the last two axes, and nothing else."""
    perm = tuple(instruction.params["perm"])
    n = len(perm)
    return n >= 2 and type(instruction.inputs[0]) is Value and perm == (*range(n - 2), n - 1, n - 2)


def _folded(dot: Apply, swapped: dict[Value, Value]) -> Apply:
    (a, b), params = dot.inputs, dict(dot.params)
    # A batch times one matrix is one product of all rows, unless the first flag is set.
    if a in swapped and not (len(a.shape) > 2 and len(b.shape) == 2):
        a, params["transpose_a"] = swapped[a], not params["transpose_a"]
    if b in swapped:
        b, params["transpose_b"] = swapped[b], not params["transpose_b"]
    return replace(dot, inputs=(a, b), params=params)

"""Dead code: what has no effect, and whose outputs nobody uses."""

from __future__ import annotations

from distgrad.compile.program import Program


def drop_dead(program: Program) -> Program:
    """The program without instructions that make no difference."""
    needed = set(program.outputs)
    kept = []
    for instruction in reversed(program.instructions):
        if instruction.effect or not needed.isdisjoint(instruction.outputs):
            kept.append(instruction)
            needed.update(instruction.values)
    return program.with_(reversed(kept))

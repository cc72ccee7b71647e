"""Elementwise fusion: runs of operations on arrays of one shape become one loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from distgrad.compile.program import Apply, Instruction, Program, Read, Value


@dataclass(frozen=True, eq=False)
class Fused(Instruction):
    """Elementwise operations on one shape, in order; only ``outputs`` are seen from outside."""

    body: tuple[Apply, ...] = field(kw_only=True)
    name = "fused"

    @property
    def effect(self) -> bool:
        return False


class _Group:
    """Operations that wait to run together; all their inputs from outside are there already."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.body: list[Apply] = []


def fuse(
    program: Program,
    wanted: Callable[[Apply], bool] = lambda instruction: True,
    smallest: int = 2,
) -> Program:
    """The program with elementwise operations grouped; fewer than ``smallest`` stay what they were.

    A group waits until somebody outside needs one of its values, or something with an effect
    comes. Operations keep their order within it. Only elementwise primitives that are ``wanted``
    take part.
    """
    uses = program.uses()
    kept: list[Instruction] = []
    home: dict[Value, _Group] = {}  # of the values of groups that wait
    waiting: list[_Group] = []

    def emit(group: _Group) -> None:
        waiting.remove(group)
        for instruction in group.body:
            home.pop(instruction.outputs[0], None)
        kept.extend(group.body if len(group.body) < smallest else [_made(group, uses)])

    for instruction in program.instructions:
        near = list(dict.fromkeys(home[v] for v in instruction.values if v in home))
        if isinstance(instruction, Apply) and _elementwise(instruction) and wanted(instruction):
            shape = instruction.outputs[0].shape
            for group in [g for g in near if g.shape != shape]:
                emit(group)
            mates = [g for g in near if g.shape == shape]
            group = mates[0] if mates else _Group(shape)
            if not mates:
                waiting.append(group)
            for other in mates[1:]:  # both wait, so that neither needs what the other made
                waiting.remove(other)
                group.body += other.body
                home.update((i.outputs[0], group) for i in other.body)
            group.body.append(instruction)
            home[instruction.outputs[0]] = group
            continue
        # A write, or a call, may change a variable that a waiting group still reads.
        barrier = instruction.effect and not isinstance(instruction, Read)
        for group in list(waiting) if barrier else near:
            emit(group)
        kept.append(instruction)
    for group in list(waiting):
        emit(group)
    return program.with_(kept)


def _elementwise(instruction: Apply) -> bool:
    return instruction.primitive.expr is not None and not instruction.effect


def _made(group: _Group, uses: dict[Value, int]) -> Fused:
    made = {i.outputs[0] for i in group.body}
    inside: dict[Value, int] = {}
    inputs: dict[Value, None] = {}
    for instruction in group.body:
        for value in instruction.values:
            if value in made:
                inside[value] = inside.get(value, 0) + 1
            else:
                inputs[value] = None
    outputs = tuple(
        i.outputs[0] for i in group.body if uses.get(i.outputs[0], 0) > inside.get(i.outputs[0], 0)
    )
    return Fused(tuple(inputs), outputs, body=tuple(group.body), line=group.body[0].line)

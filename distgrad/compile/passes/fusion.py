"""Fusion: elementwise operations on arrays of one shape, and sums over their rows and columns.

A group is one loop over rows. A row is what lies in the trailing axes of the group's shape: all of
them until a reduction says how many.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from distgrad.compile.program import (
    Apply,
    Call,
    Instruction,
    Program,
    Read,
    Slot,
    Value,
    Write,
)
from distgrad.core.dtypes import is_floating
from distgrad.core.variable import Variable

LARGEST = 128  # operations of a group: a kernel has 4 KB for its arguments, and takes registers


class Reduction(NamedTuple):
    """How a primitive reduces: each row to one value, or all rows to one row.

    ``trailing`` is the number of axes that form a row.
    """

    kind: Literal["row", "column"]
    operation: str  # sum, mean, max or min
    trailing: int


@dataclass(frozen=True, eq=False)
class Fused(Instruction):
    """Operations of one group, in order; only ``outputs`` are seen from outside.

    Full values have ``shape``; values of one per row have 1 in the ``trailing`` axes (None: there
    is no reduction among them).
    """

    body: tuple[Apply, ...] = field(kw_only=True)
    shape: tuple[int, ...] = field(kw_only=True)
    trailing: int | None = field(kw_only=True, default=None)
    name = "fused"

    @property
    def effect(self) -> bool:
        return False


def _row_shape(shape: tuple[int, ...], trailing: int | None) -> tuple[int, ...] | None:
    return None if trailing is None else shape[: len(shape) - trailing] + (1,) * trailing


def reduction(instruction: Apply) -> Reduction | None:
    """How an instruction reduces, None if it does not, or in no such way."""
    name = instruction.name
    if name not in ("sum", "mean", "max", "min", "sum_to"):
        return None
    (x,) = instruction.inputs
    if type(x) is not Value or not is_floating(x.dtype) or not x.nbytes:
        return None
    ndim = len(x.shape)
    if name == "sum_to":
        name, shape = "sum", instruction.params["shape"]
        lead = ndim - len(shape)
        padded = (1,) * lead + tuple(shape)
        axis = {i for i in range(ndim) if i < lead or padded[i] != x.shape[i]}
    else:
        axis = {a % ndim for a in instruction.params["axis"]} if ndim else set()
    count = len(axis)
    if count and axis == set(range(ndim - count, ndim)):
        return Reduction("row", name, count)
    if count and axis == set(range(count)) and name in ("sum", "mean"):
        return Reduction("column", name, ndim - count)
    return None


class _Group:
    """Operations that wait to run together; all their inputs from outside are there already."""

    def __init__(self, shape: tuple[int, ...], mixed: bool) -> None:
        self.shape = shape
        self.trailing: int | None = None
        self.mixed = mixed  # whether it may have values of one per row, and sums of columns, too
        self.kinds: set[str] = set()  # which of the two it has
        self.body: list[Apply] = []
        self.late: list[Apply] = []  # what only looks at its results: it comes right after
        self.ended: set[Value] = set()  # results that nothing within may use
        self.reduced: set[Value] = set()  # of their rows, even of one element: not reduced again

    @property
    def outputs(self) -> list[Value]:
        return [v for i in (*self.body, *self.late) for v in i.outputs]

    def takes(self, instruction: Apply) -> bool:
        """Whether the operation, all of whose inputs it has or are there, fits in."""
        used = {v for v in instruction.values if v in self.ended}
        if used:
            return False
        kinds = self._kinds_of(instruction)
        if not self.mixed and kinds and self.kinds - kinds:
            return False
        reduced = reduction(instruction)
        if reduced is not None:
            (x,) = instruction.inputs
            whole = x.shape == self.shape and x not in self.reduced
            return whole and self.trailing in (None, reduced.trailing)
        (out,) = instruction.outputs
        if out.shape == self.shape:
            return True
        return out.shape == _row_shape(self.shape, self.trailing)

    def _kinds_of(self, instruction: Apply) -> set[str]:
        reduced = reduction(instruction)
        if reduced is not None:
            return {reduced.kind}
        return set() if instruction.outputs[0].shape == self.shape else {"row"}

    def agrees(self, other: _Group) -> bool:
        """Whether the two may be one."""
        same = self.trailing is None or other.trailing in (None, self.trailing)
        alike = self.shape == other.shape and same
        few = len(self.body) + len(other.body) < LARGEST
        return alike and few and (self.mixed or len(self.kinds | other.kinds) < 2)

    def reads(self, variable: Variable, origin: dict[Value, Variable]) -> bool:
        """Whether a value that looks into the variable is among its inputs."""
        values = (v for i in (*self.body, *self.late) for v in i.values)
        return any(origin.get(v) is variable for v in values)

    def add(self, instruction: Apply) -> None:
        self.body.append(instruction)
        self.kinds |= self._kinds_of(instruction)
        reduced = reduction(instruction)
        if reduced is None:
            return
        self.trailing = reduced.trailing
        (out,) = instruction.outputs
        self.reduced.add(out)
        if reduced.kind == "column" or out.shape not in (_row_shape(self.shape, self.trailing), ()):
            self.ended.update(instruction.outputs)

    def join(self, other: _Group) -> None:
        self.body += other.body
        self.late += other.late
        self.ended |= other.ended
        self.reduced |= other.reduced
        self.kinds |= other.kinds
        self.trailing = other.trailing if self.trailing is None else self.trailing


def fuse(
    program: Program,
    wanted: Callable[[Apply], bool] = lambda instruction: instruction.primitive.expr is not None,
    smallest: int = 2,
    mixed: bool = True,
) -> Program:
    """The program with operations grouped; fewer than ``smallest`` stay what they were.

    A group waits until somebody outside needs one of its values, a write may change what it reads,
    or it is as large as may be. Operations keep their order within it. Only primitives that are
    ``wanted`` take part: those that are elementwise, and reductions: those of rows and of columns
    in one group if it may be ``mixed``.
    """
    uses = program.uses()
    kept: list[Instruction] = []
    home: dict[Value, _Group] = {}  # of the values of groups that wait
    waiting: list[_Group] = []
    origin: dict[Value, Variable] = {}  # of values that look into a variable

    def emit(group: _Group) -> None:
        waiting.remove(group)
        for value in group.outputs:
            home.pop(value, None)
        kept.extend(group.body if len(group.body) < smallest else [_made(group, uses)])
        kept.extend(group.late)

    def emit_columns() -> None:
        """Sums of columns, which nobody may need before the end: all over one shape together."""
        found: list[_Group] = []
        for group in [g for g in waiting if g.kinds == {"column"}]:
            mate = next((other for other in found if other.agrees(group)), None)
            if mate is None:
                found.append(group)
            else:
                join(mate, group)
        for group in found:
            emit(group)

    def join(first: _Group, other: _Group) -> None:
        waiting.remove(other)  # all wait, so that none needs what another made
        first.join(other)
        home.update((v, first) for v in other.outputs)

    for instruction in program.instructions:
        near = list(dict.fromkeys(home[v] for v in instruction.values if v in home))
        if isinstance(instruction, Read):
            origin[instruction.outputs[0]] = instruction.variable
        if isinstance(instruction, Apply) and not instruction.effect:
            if wanted(instruction):
                group = _meeting(instruction, near, waiting, emit, join, mixed)
                group.add(instruction)
                home.update((v, group) for v in instruction.outputs)
                if len(group.body) == LARGEST:
                    emit(group)
                continue
            if instruction.primitive.view:
                looked_into = [origin[v] for v in instruction.values if v in origin]
                origin.update((out, v) for v in looked_into for out in instruction.outputs)
                if len(near) == 1:
                    near[0].late.append(instruction)
                    near[0].ended.update(instruction.outputs)
                    home.update((v, near[0]) for v in instruction.outputs)
                    continue
        if isinstance(instruction, Write):
            near += [g for g in waiting if g not in near and g.reads(instruction.variable, origin)]
        elif _may_write(instruction):
            near = list(waiting)
        for group in near:
            emit(group)
        if not mixed:
            emit_columns()
        kept.append(instruction)
    if not mixed:
        emit_columns()
    for group in list(waiting):
        emit(group)
    return program.with_(kept)


def grouped(program: Program) -> Fused:
    """All operations of a program as one group, whose shape is that of the first input."""
    group = _Group(program.inputs[0].shape, mixed=True)
    for instruction in program.instructions:
        assert isinstance(instruction, Apply)
        group.add(instruction)
    return _made(group, program.uses())


def _may_write(instruction: Instruction) -> bool:
    """Whether it may change a variable that a waiting group still reads."""
    if isinstance(instruction, Call):
        return instruction.writes
    return instruction.effect and not isinstance(instruction, (Read, Slot))


def _meeting(
    instruction: Apply,
    near: list[_Group],
    waiting: list[_Group],
    emit: Callable[[_Group], None],
    join: Callable[[_Group, _Group], None],
    mixed: bool,
) -> _Group:
    """The group that the operation joins: those near it as one, or a new one."""
    mates: list[_Group] = []
    for group in near:
        if group.takes(instruction) and all(group.agrees(mate) for mate in mates):
            mates.append(group)
        else:
            emit(group)
    reduced = reduction(instruction)
    if not mates:
        whole = instruction.outputs if reduced is None else instruction.inputs
        made = _Group(whole[0].shape, mixed)
        waiting.append(made)
        return made
    first, *others = mates
    for other in others:
        join(first, other)
    return first


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
    return Fused(
        tuple(inputs),
        outputs,
        body=tuple(group.body),
        shape=group.shape,
        trailing=group.trailing,
        line=group.body[0].line,
    )

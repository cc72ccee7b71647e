"""Which walk along a row computes what: a value that needs the sum of a row waits for the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from distgrad.compile.llvm.blocks import LANES
from distgrad.compile.passes.fusion import Fused, Reduction, reduction
from distgrad.compile.program import Apply, Value

_UNROLLED = 8  # vectors of a row that is kept in registers
_OPERATIONS = 1200  # of such a row, at most
_SPILLED = 1 << 14  # columns of a value that one walk keeps for a later one
_CHEAP = {"add", "subtract", "multiply", "negative", "square", "relu", "relu_grad", "select"}


class Access(NamedTuple):
    """Where a row of an array starts, and whether the array goes along the row (1) or not (0).

    A row's offset is the sum of ``(row // below) % size * stride`` over ``terms``, in elements.
    """

    terms: tuple[tuple[int, int, int], ...]
    column: int


EACH = (1, 0)  # below and size of a term that counts row by row


def numbers(accesses: Sequence[Access]) -> tuple[int, ...]:
    """The numbers of the layouts that are no part of the code, each once."""
    terms = [t for access in accesses for t in access.terms if t[:2] != EACH]
    return tuple(dict.fromkeys(n for term in terms for n in term))


def reductions(group: Fused) -> dict[Value, Reduction]:
    """How each result of a group that is reduced is."""
    found = [(instruction.outputs[0], reduction(instruction)) for instruction in group.body]
    return {value: reduced for value, reduced in found if reduced is not None}


class Walks:
    """Each value's walk, and what each walk has to compute.

    ``stored`` are the outputs, by the number of their array; ``full`` the values that go along the
    row; ``roots`` what a walk is for, ``needed`` all that it computes, ``spilled`` what it keeps
    for a later one. A row that is ``unrolled`` is computed in registers alone.
    """

    def __init__(self, group: Fused, columns: int, accesses: Sequence[Access]) -> None:
        self.group, self.columns, self.accesses = group, columns, accesses
        self.stored = {value: len(group.inputs) + i for i, value in enumerate(group.outputs)}
        self.reductions = reductions(group)
        self.walk: dict[Value, int] = {}  # of a value of one per row: the first that may use it
        self.full: set[Value] = {
            v for v, a in zip(self.group.inputs, self.accesses, strict=False) if a.column
        }
        self.made_by: dict[Value, Apply] = {i.outputs[0]: i for i in self.group.body}
        for value, instruction in self.made_by.items():
            walk = max((self.walk.get(v, 0) for v in instruction.values), default=0)
            reduced = self.reductions.get(value)
            if reduced is None:
                self.walk[value] = walk
                if value.shape == self.group.shape:
                    self.full.add(value)
            else:
                self.walk[value] = walk + (reduced.kind == "row")
        self.walks = 1 + max(self.walk.values(), default=0)
        vectors = -(-self.columns // LANES)
        work = vectors * len(self.group.body)
        self.unrolled = vectors == 1 or (
            bool(self.reductions) and vectors <= _UNROLLED and work <= _OPERATIONS
        )
        self.roots: list[set[Value]] = [set() for _ in range(self.walks)]
        for value, instruction in self.made_by.items():
            if value in self.reductions:
                (x,) = instruction.inputs
                self.roots[self.walk.get(x, 0)].add(x)
            elif value in self.stored and value in self.full:
                self.roots[self.walk[value]].add(value)
        self.spilled: set[Value] = set()
        self.needed: list[set[Value]] = [set() for _ in range(self.walks)]
        for walk in reversed(range(self.walks)):
            self._need(walk)
        self.walks = 1 + max((w for w in range(self.walks) if self.roots[w]), default=0)

    def _need(self, walk: int) -> None:
        left = [v for v in self.roots[walk] if v in self.made_by]
        seen = set(left)
        while left:
            value = left.pop()
            before = self.walk[value] < walk
            if before and not self.unrolled and value not in self.roots[walk]:
                if value in self.stored:
                    continue  # it is read again
                if self._dear(value) and self.columns <= _SPILLED:
                    self.spilled.add(value)
                    self.roots[self.walk[value]].add(value)
                    continue
            self.needed[walk].add(value)
            for v in self.made_by[value].values:
                if v in self.full and v in self.made_by and v not in seen:
                    seen.add(v)
                    left.append(v)

    def _dear(self, value: Value) -> bool:
        """Whether it is cheaper to keep than to compute again from the arrays."""
        left, count = [value], 0
        while left:
            value = left.pop()
            if value not in self.made_by or value not in self.full or value in self.stored:
                continue
            count += 1
            if self.made_by[value].name not in _CHEAP or count > 3:
                return True
            left += self.made_by[value].values
        return False

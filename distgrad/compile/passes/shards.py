"""Several shards at once: a program of one shard becomes that of ``count`` shards of its shape.

Values that differ from shard to shard get a leading axis. Work within a sample is then done for all
shards in one go, and products with weights become one product, where that keeps every bit; what
adds up over the samples of a shard is done shard by shard. Gradients are added up over the shards
in the order of their trees, without a place of its own for each shard where there is a kernel.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from distgrad.compile.passes.shard_rules import rule_for
from distgrad.compile.passes.tree_sums import SUMS
from distgrad.compile.program import Apply, Call, Instruction, Program, Read, Slot, Value
from distgrad.core.primitive import registry
from distgrad.core.tensor import Tensor
from distgrad.ops.tree_sums import halves, in_tree

# Of the shards whose product is one call: with more it falls out of a core's cache, and takes up to
# a fifth longer than shard by shard.
_SAMPLES = 1024

Merges = tuple[int, ...]  # a tree over shards, as ``product_over_shards`` takes it


class NotWide(Exception):
    """A program that cannot run several shards at once."""


class Wide:
    """A value of every shard: stacked along a leading axis, or one by one, or both.

    Or only its sums over the trees of shards.
    """

    def __init__(
        self,
        stacked: Value | None = None,
        parts: list[Value] | None = None,
        sums: list[Value] | None = None,
    ) -> None:
        self.stacked = stacked
        self.parts = parts
        self.sums = sums


class Several(NamedTuple):
    """The program of several shards, without outputs yet, and what stands for those of one.

    ``stacked`` are values of all shards in one; ``summed`` have a value for each tree, ``single``
    one for each shard.
    """

    program: Program
    stacked: list[Value]
    summed: list[list[Value]]
    single: list[list[Value]]


def over_shards(
    program: Program,
    trees: Sequence[Merges],
    chosen: Callable[[int], Callable[[Any], Any]],
    stacked: int = 0,
    summed: int = 0,
    rows_kept: bool = False,
) -> Several:
    """The program for the shards of some trees, one after the other.

    The first outputs are ``stacked``, as many as it says, the next ones ``summed``. Inputs get a
    leading axis of shards. ``chosen(number)`` wraps a slot's draw, so that it draws from the stream
    of that shard. ``rows_kept`` says that a row of a product has its bits whatever other rows there
    are. Raises NotWide where Python code writes variables.
    """
    work = Widening(trees, chosen, _final(program, program.outputs[:stacked]), rows_kept)
    inputs = []
    for value in program.inputs:
        wide = Value((work.count, *value.shape), value.dtype)
        inputs.append(wide)
        work.known[value] = Wide(wide)
    for instruction in program.instructions:
        work.add(instruction)
    last = stacked + summed
    first = [work.whole(value) for value in program.outputs[:stacked]]
    sums = [work.sums(value) for value in program.outputs[stacked:last]]
    rest = [work.parts(value) for value in program.outputs[last:]]
    return Several(Program(program.name, tuple(inputs), tuple(work.made), ()), first, sums, rest)


def _final(program: Program, statistics: Sequence[Value]) -> set[Instruction]:
    """Sums over the samples of a shard that lead to outputs only, and what is made of them.

    ``statistics`` are outputs that do not count.
    """
    users: dict[Value, list[Instruction]] = {}
    for instruction in program.instructions:
        for value in instruction.values:
            users.setdefault(value, []).append(instruction)
    alone: set[Instruction] = set()
    for instruction in reversed(program.instructions):
        if not set(statistics).isdisjoint(instruction.outputs):
            continue
        if all(user in alone for out in instruction.outputs for user in users.get(out, ())):
            alone.add(instruction)
    final: set[Instruction] = set()
    summed: set[Value] = set()
    for instruction in program.instructions:
        if not isinstance(instruction, Apply) or instruction not in alone:
            continue
        if _sums(instruction) or not summed.isdisjoint(instruction.values):
            final.add(instruction)
            summed.update(instruction.outputs)
    return final


def _sums(apply: Apply) -> bool:
    """Whether it adds up over the samples of a shard: over the first axis."""
    if apply.name == "dot":
        return apply.params["transpose_a"] and len(apply.inputs[0].shape) == 2
    if apply.name == "sum_to":
        (x,), (out,) = apply.inputs, apply.outputs
        return len(out.shape) < len(x.shape) or (out.shape[0] == 1 < x.shape[0])
    if apply.name in ("sum", "mean"):
        axis = apply.params["axis"]
        return axis is None or 0 in axis
    return apply.name in _SUMS


class Widening:
    """The rewriting of one program, instruction by instruction, into one of all shards."""

    def __init__(
        self,
        trees: Sequence[Merges],
        chosen: Callable[[int], Callable[[Any], Any]],
        final: set[Instruction],
        rows_kept: bool,
    ) -> None:
        self.trees = trees
        self.count = sum(map(len, trees))
        self.final = final
        self.rows_kept = rows_kept
        self.known: dict[Value, Wide] = {}
        self.made: list[Instruction] = []
        self._chosen = chosen
        self._whole: Apply | None = None

    # Values

    def apply(
        self, name: str, inputs: Sequence[Any], shape: Any, dtype: Any, params: dict[str, Any]
    ) -> Value:
        out = Value(tuple(shape), dtype)
        line = "" if self._whole is None else self._whole.line
        primitive = registry[name]
        self.made.append(
            Apply(
                tuple(inputs),
                (out,),
                primitive=primitive,
                params=params,
                line=line,
            )
        )
        return out

    def reshape(self, value: Value, shape: Sequence[int]) -> Value:
        if value.shape == tuple(shape):
            return value
        return self.apply("reshape_to", [value], shape, value.dtype, {"shape": tuple(shape)})

    def parts(self, value: Any) -> list[Any]:
        """The value of each shard."""
        wide = self.known.get(value) if type(value) is Value else None
        if wide is None:
            return [value] * self.count
        if wide.parts is None:
            assert wide.stacked is not None
            wide.parts = [
                self.apply("getitem", [wide.stacked], value.shape, value.dtype, {"key": (v,)})
                for v in range(self.count)
            ]
        return wide.parts

    def stacked(self, value: Value) -> Value:
        """The values of all shards, along a leading axis."""
        wide = self.known[value]
        if wide.stacked is None:
            rows = [self.reshape(p, (1, *value.shape)) for p in wide.parts or ()]
            shape = (self.count, *value.shape)
            wide.stacked = self.apply("join", rows, shape, value.dtype, {"axis": 0})
        return wide.stacked

    def sums(self, value: Value) -> list[Value]:
        """Its sum over each tree."""
        wide = self.known.get(value)
        if wide is not None and wide.sums is not None:
            return wide.sums
        parts = iter(self.parts(value))
        return [in_tree([_Addend(self, next(parts)) for _ in t], t).value for t in self.trees]

    def whole(self, value: Value) -> Value:
        """As ``stacked``; what is the same for all shards is repeated."""
        if value in self.known:
            return self.stacked(value)
        shape = (self.count, *value.shape)
        return self.apply("broadcast_to", [value], shape, value.dtype, {"shape": shape})

    def is_wide(self, value: Any) -> bool:
        return type(value) is Value and value in self.known

    # Instructions

    def add(self, instruction: Instruction) -> None:
        if isinstance(instruction, Slot):
            (out,) = instruction.outputs
            stacked = Value((self.count, *out.shape), out.dtype)
            draws = [self._chosen(v)(instruction.draw) for v in range(self.count)]
            draw = functools.partial(_drawn, draws)
            self.made.append(replace(instruction, outputs=(stacked,), draw=draw))
            self.known[out] = Wide(stacked)
        elif isinstance(instruction, Call):
            self._add_call(instruction)
        elif not any(map(self.is_wide, instruction.inputs)):
            if not isinstance(instruction, (Read, Apply)):
                raise NotWide(f"a {type(instruction).__name__.lower()} in a shard")
            self.made.append(instruction)
        elif isinstance(instruction, Apply):
            self._add_apply(instruction)
        else:
            raise NotWide(f"a {type(instruction).__name__.lower()} in a shard")

    def _add_call(self, call: Call) -> None:
        if call.writes:
            raise NotWide(f"{call.label} is called, and may write variables")
        if not any(map(self.is_wide, call.inputs)):
            self.made.append(call)
        elif call.any_shape:
            whole = tuple(self.stacked(v) if self.is_wide(v) else v for v in call.inputs)
            self.made.append(replace(call, inputs=whole))
        else:
            for inputs in zip(*map(self.parts, call.inputs), strict=True):
                self.made.append(replace(call, inputs=tuple(inputs)))

    def _add_apply(self, apply: Apply) -> None:
        self._whole = apply
        rule = rule_for(apply)
        made = None
        if rule is not None and apply not in self.final:
            made = rule(self, apply)
        if made is not None:
            self.known[apply.outputs[0]] = Wide(made)
        elif apply.name in SUMS:
            self.known[apply.outputs[0]] = Wide(sums=self._in_trees(apply))
        else:
            self._map(apply)

    def _in_trees(self, apply: Apply) -> list[Value]:
        """A sum over the samples of one shard, as those over all shards of each tree."""
        whole = [
            self.reshape(self.whole(value), (self.count, *value.shape[1:]))
            for value in apply.inputs
        ]
        made, start = [], 0
        for tree in self.trees:
            made.append(self._in_tree(apply, whole, start, tree))
            start += len(tree)
        return made

    def _in_tree(self, apply: Apply, whole: list[Value], start: int, tree: Merges) -> Value:
        """The sum over the shards of one tree from ``start`` on."""
        (out,), rows = apply.outputs, whole[0].shape[1]
        if len(tree) > 1 and len(tree) * rows > _SAMPLES and apply.name == "product_over_shards":
            left, right = halves(tree)
            a = self._in_tree(apply, whole, start, left)
            b = self._in_tree(apply, whole, start + len(left), right)
            return self.apply("add", [a, b], out.shape, out.dtype, {})
        own = whole
        if len(tree) < self.count:
            key = {"key": (slice(start, start + len(tree)),)}
            own = [
                self.apply("getitem", [v], (len(tree), *v.shape[1:]), v.dtype, key) for v in whole
            ]
        params = {**apply.params, "merges": tree}
        return self.apply(apply.name, own, out.shape, out.dtype, params)

    def _map(self, apply: Apply) -> None:
        """Shard by shard, as it is."""
        rows = []
        for inputs in zip(*map(self.parts, apply.inputs), strict=True):
            outputs = tuple(Value(o.shape, o.dtype) for o in apply.outputs)
            self.made.append(replace(apply, inputs=tuple(inputs), outputs=outputs))
            rows.append(outputs)
        for position, out in enumerate(apply.outputs):
            self.known[out] = Wide(parts=[row[position] for row in rows])

    def aligned(self, value: Any, rank: int) -> Any:
        """A stacked value whose own axes are the last of ``rank``; others as they are."""
        if not self.is_wide(value):
            return value
        gap = (1,) * (rank - len(value.shape))
        return self.reshape(self.stacked(value), (self.count, *gap, *value.shape))


class _Addend:
    """A value that is added to others by an instruction."""

    def __init__(self, work: Widening, value: Value) -> None:
        self.work, self.value = work, value

    def __add__(self, other: _Addend) -> _Addend:
        a, b = self.value, other.value
        return _Addend(self.work, self.work.apply("add", [a, b], a.shape, a.dtype, {}))


def _drawn(draws: Sequence[Callable[[], Tensor]]) -> Tensor:
    return Tensor(np.stack([draw()._data for draw in draws]))


# Sums over samples, beside those of `_sums`.
_SUMS = {
    "convolve_grad_w",
    "depthwise_convolve_grad_w",
    "getitem_grad",
    "put_rows",
    "take_grad",
}


class draws_from:
    """Wraps the draws of slots, so that each shard's come from a stream of its own.

    ``streams`` are put in before a run: contexts, one for each shard.
    """

    def __init__(self) -> None:
        self.streams: Sequence[Any] = ()

    def __call__(self, number: int) -> Callable[[Any], Any]:
        return lambda draw: functools.partial(self._draw, number, draw)

    def _draw(self, number: int, draw: Callable[[], Tensor]) -> Tensor:
        with self.streams[number]:
            return draw()

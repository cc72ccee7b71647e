"""A captured shard: its loss and gradients as one program.

The program is made by one eager run of a shard, whose results are thrown away, and runs that shard
as well. Gradients are computed where the caller wants them. Several shards of one worker run at
once, by a program that is made from that of one, where that keeps every bit; on a GPU they run one
after the other, in one launch (`chains`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from distgrad.compile import executors
from distgrad.compile.capture import trace
from distgrad.compile.passes import simplify
from distgrad.compile.passes.shards import Merges, NotWide, draws_from, over_shards
from distgrad.compile.passes.tree_sums import SUMS, sum_over_one_shard
from distgrad.compile.passes.writes import take_writes
from distgrad.compile.program import Apply, Call, Program, Slot
from distgrad.compile.traced import Fallback
from distgrad.core import dispatch, tree
from distgrad.core.dispatch import as_tensor
from distgrad.core.tape import TrainingTape
from distgrad.core.tensor import Tensor
from distgrad.core.undone import overwritten
from distgrad.ops.tree_sums import in_tree
from distgrad.training.frames import (
    Bound,
    Cut,
    Inputs,
    Leaves,
    Outcome,
    Pending,
    Shards,
    Streams,
    flat,
)
from distgrad.training.state import shard

if TYPE_CHECKING:
    from distgrad.training.programs import ShardPrograms

_AT_ONCE = 1 << 25  # bytes of gradients of shards that run at once
_STATISTICS = 2  # outputs before the gradients: the loss, and the sums


class ShardProgram:
    """The program of one shard of a shape, and those of several such shards at once."""

    def __init__(self, made_by: ShardPrograms, arrays: tuple, part: float) -> None:
        self._made_by = made_by
        leaves = [a if type(a) in dispatch.backends else np.asarray(a) for a in flat(arrays)]
        nest = tree.flatten(arrays)
        structure = tree.map_structure(lambda a: None, arrays)
        dtype: list[np.dtype] = []

        def run(*tensors: Tensor) -> Any:
            filled = iter(tensors)
            given = tree.unflatten(structure, [None if a is None else next(filled) for a in nest])
            with TrainingTape() as tape:
                result = made_by.compute(given, True)
            dtype.append(result.loss._data.dtype)
            # A weight of another dtype: that of the loss is known now, and it is traced once more.
            fits = tensors[-1]._data.dtype == dtype[-1]
            weight = tensors[-1] if fits else None
            gradients = tape.gradient(result.loss, made_by.variables, output_gradients=weight)
            # as_tensor makes the IndexedSlices of a gather dense
            dense = [None if g is None else as_tensor(g) for g in gradients]
            over = result.over if isinstance(result.over, Tensor) else float(result.over)
            found = result.sums
            sums = as_tensor(np.asarray(found)) if isinstance(found, np.ndarray) else found
            return result.loss, sums, over, dense

        weight = np.ones((), np.float32)
        program, result, _ = self._trace(run, [*leaves, weight], part)
        if dtype[-1] != weight.dtype:
            weight = np.ones((), dtype[-1])
            program, result, _ = self._trace(run, [*leaves, weight], part)
        self._weight = weight
        _, _, over, gradients = result
        self.present = [g is not None for g in gradients]
        self.there = np.array(self.present, np.float64)
        self._over = over if isinstance(over, float) else None
        self._counter: Any = None
        try:  # before the counter is made, which must not write
            program, self._assigned = take_writes(program, made_by.state)
        except ValueError as error:
            raise Fallback(str(error)) from None
        outputs = list(program.outputs)
        if self._over is None:
            self._counter = executors.make(
                made_by.executor, _only(program, outputs.pop(2)), [*leaves, weight]
            )
        self._program = simplify(program.with_(program.instructions, outputs))
        places = iter(range(_STATISTICS, len(outputs) - len(self._assigned)))
        self._place = {i: next(places) for i, there in enumerate(self.present) if there}
        self._gradients = len(self._place)
        if made_by.executor == "generated":
            # A single shard has nothing to add up but the terms of a weight that is used again.
            least = 1 if made_by.several else 2
            positions = list(self._place.values())
            self._program = sum_over_one_shard(self._program, positions, least)
        instructions = self._program.instructions
        self._draws = any(isinstance(i, Slot) for i in instructions)
        self._in_stream = self._draws or any(  # Python code may draw, but for checks of ours
            (isinstance(i, Call) and not i.any_shape) or (isinstance(i, Apply) and i.primitive.host)
            for i in instructions
        )
        self.at_once = max(1, _AT_ONCE // max(self._bytes_of_a_shard(), 1))
        try:
            self._one = self._bind(self._program, [*leaves, weight], 1)
        except Exception as error:
            raise Fallback(f"its program cannot be laid out ({error})") from error
        self._chains: Any = None
        if made_by.executor == "cuda":
            from distgrad.training.chains import Chains

            self._chains = Chains(
                self._one,
                _STATISTICS,
                [id(variable) for variable in self._assigned],
                weight.dtype,
                made_by.scratch,
            )
            self.at_once = self._chains.at_once
        self._many: dict[tuple[Merges, ...], _Several | None] = {}

    def _bytes_of_a_shard(self) -> int:
        """What the gradients take up for each of several shards, until they are added up."""
        made = {o: i for i in self._program.instructions for o in i.outputs}
        outputs = [self._program.outputs[position] for position in self._place.values()]
        return sum(v.nbytes for v in outputs if getattr(made.get(v), "name", "") not in SUMS)

    @staticmethod
    def _trace(run: Callable[..., Any], arrays: Sequence[np.ndarray], part: float) -> Any:
        with shard(part):
            first = overwritten()
            with first:
                traced = trace(run, arrays, "shard")
            if traced.program is None:  # variables were made, which happens once
                first.undo()  # the step itself is still to come
                traced = trace(run, arrays, "shard")
        if traced.program is None:
            raise Fallback("it makes variables at each call")
        return traced

    def _bind(self, program: Program, arrays: Sequence[np.ndarray], trees: int) -> Bound:
        """An executor of a program for the shards of some trees.

        Its outputs are the loss and the sums (stacked, for several shards), then the gradients for
        each tree, and what is assigned for each shard.
        """
        groups = [
            [
                t * self._gradients + self._place[i]
                for i in group
                if self.present[i]
                for t in range(trees)
            ]
            for group in self._made_by.groups
        ]
        # Without variables, too, the outputs are to have places of their own.
        executor = executors.make(self._made_by.executor, program, arrays, groups or [[]])
        return Bound(executor, self.present, self._place, self._gradients)

    def over(self, arrays: Leaves) -> float:
        """What the mean of the loss is over."""
        if self._counter is None:
            assert self._over is not None
            return self._over
        return float(self._counter([*arrays, self._weight])[0])

    def joins(
        self,
        shards: Shards,
        weights: Sequence[float],
        trees: tuple[Merges, ...],
        streams: Streams,
    ) -> bool:
        """Whether it can run these shards at once, and has the bits of each by itself."""
        if self._chains is not None:
            return True
        if trees not in self._many:
            self._many[trees] = None  # unless all goes well
            try:
                made = self._make_several(shards, weights, trees)
                if self._agrees(made, shards, weights, trees, streams):
                    self._many[trees] = made
            except NotWide:
                pass
        return self._many[trees] is not None

    def run(
        self,
        shards: Shards,
        weights: Sequence[float],
        trees: tuple[Merges, ...],
        streams: Streams,
        buffers: Sequence[Sequence[Any]],
        cut: Cut,
        told: Callable[[int], None] | None = None,
    ) -> Outcome | Pending:
        """Runs it on the arrays of one shard, or on those of several that it ``joins``.

        ``trees`` says how the shards are added up. The gradients of a tree, of which each shard's
        are times its weight, are written into the tree's ``buffers``, one for each bucket;
        ``cut(bucket, buffer)`` gives the places of the bucket's variables. ``streams()`` are the
        contexts that a shard draws in. ``told`` is called with the number of a bucket that is
        full, for all the trees, in order.
        """
        if self._chains is not None:
            return self._chains.run(shards, weights, trees, streams, buffers, cut, told)
        if len(shards) == 1:
            found = self._run_one(shards[0], weights[0], streams, buffers, cut, told)
            return Outcome([float(found[0])], found[1][None], self._written(found))
        several = self._many[trees]
        assert several is not None
        return self._run_several(several, shards, weights, streams, buffers, cut, told)

    def _run_one(
        self,
        arrays: Leaves,
        weight: float,
        streams: Streams,
        buffers: Sequence[Sequence[Any]],
        cut: Cut,
        told: Callable[[int], None] | None = None,
    ) -> list[np.ndarray]:
        self._weight[()] = weight
        frame = self._one.at(buffers, cut)
        inputs = [*arrays, self._weight]
        if not self._in_stream:
            return frame(inputs, told)
        with streams()[0]:
            return frame(inputs, told)

    def _run_several(
        self,
        several: _Several,
        shards: Shards,
        weights: Sequence[float],
        streams: Streams,
        buffers: Sequence[Sequence[Any]],
        cut: Cut,
        told: Callable[[int], None] | None = None,
    ) -> Outcome:
        if self._draws:
            several.streams.streams = streams()
        frame = several.bound.at(buffers, cut)
        found = frame(several.inputs(shards, weights), told)
        written = self._written(found, len(shards), len(buffers))
        return Outcome(found[0].tolist(), found[1], written)

    def _written(
        self, found: Sequence[np.ndarray], count: int = 1, trees: int = 1
    ) -> list[dict[int, np.ndarray]]:
        size = len(self._assigned)
        if not size:
            return [{}] * count
        arrays = iter(found[_STATISTICS + trees * self._gradients :])
        return [{id(v): next(arrays).copy() for v in self._assigned} for _ in range(count)]

    def _make_several(
        self, shards: Shards, weights: Sequence[float], trees: tuple[Merges, ...]
    ) -> _Several:
        chosen = draws_from()
        rows_kept = executors.keeps_rows(self._made_by.executor)
        made = over_shards(
            self._program, trees, chosen, _STATISTICS, self._gradients, rows_kept=rows_kept
        )
        sums = [row[t] for t in range(len(trees)) for row in made.summed]
        outputs = [
            *made.stacked,
            *sums,
            *(row[v] for v in range(len(shards)) for row in made.single),
        ]
        inputs = Inputs([np.asarray(a) for a in shards[0]], self._weight.dtype, len(shards))
        program = made.program.with_(made.program.instructions, outputs)
        bound = self._bind(program, inputs(shards, weights), len(trees))
        return _Several(bound, inputs, chosen)

    def _agrees(
        self,
        several: _Several,
        shards: Shards,
        weights: Sequence[float],
        trees: tuple[Merges, ...],
        streams: Streams,
    ) -> bool:
        """Whether all shards at once give the bits that each gives by itself."""
        sizes = [[(i, self._program.outputs[self._place[i]]) for i in group if self.present[i]]
                 for group in self._made_by.groups]  # fmt: skip

        def scratch(count: int) -> list[list[dict[int, Any]]]:
            return [
                [{i: np.zeros(v.shape, v.dtype) for i, v in group} for group in sizes]
                for _ in range(count)
            ]

        def cut(number: int, places: Any) -> dict[int, Any]:
            return {**dict.fromkeys(self._made_by.groups[number], np.zeros(0)), **places}

        def bits(arrays: Sequence[np.ndarray]) -> list[bytes]:
            return [a.tobytes() for a in arrays]

        together, alone = scratch(len(trees)), scratch(len(shards))
        outcome = self._run_several(several, shards, weights, streams, together, cut)
        same = True
        for v, (arrays, weight) in enumerate(zip(shards, weights, strict=True)):
            own = self._run_one(arrays, weight, partial(_one_of, streams, v), [alone[v]], cut)
            same = same and bits(own[:_STATISTICS]) == bits(
                [np.asarray(outcome.losses[v], own[0].dtype), outcome.sums[v]]
            )
            (written,) = self._written(own)
            same = same and bits(list(written.values())) == bits(list(outcome.written[v].values()))
        start = 0
        for merges, found in zip(trees, together, strict=True):
            own_shards = alone[start : start + len(merges)]
            start += len(merges)
            for number, group in enumerate(sizes):
                for i, _ in group:
                    total = in_tree([own[number][i] for own in own_shards], merges)
                    same = same and total.tobytes() == found[number][i].tobytes()
        self._one.forget()
        several.bound.forget()
        return same


class _Several(NamedTuple):
    """What runs several shards at once."""

    bound: Bound
    inputs: Inputs
    streams: draws_from


def _one_of(streams: Streams, number: int) -> Sequence[Any]:
    return [streams()[number]]


def _only(program: Program, output: Any) -> Program:
    """What gives one output, without calls of Python code: they count once."""
    kept = [i for i in program.instructions if not isinstance(i, Call)]
    return program.with_(kept, [output])

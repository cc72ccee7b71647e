"""Captured shards: a shard's loss and gradients as one program for each shape of its samples.

The program is made at the first shard of a shape, by one eager run whose results are thrown away,
and runs that shard as well. Gradients are computed where the caller wants them. Several shards of
one worker run at once, by a program that is made from that of one, where that keeps every bit.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from distgrad.compile import executors, memory
from distgrad.compile.capture import trace
from distgrad.compile.captured import CaptureError
from distgrad.compile.numpy_exec import Executor, Frame
from distgrad.compile.passes import simplify
from distgrad.compile.passes.shards import NotWide, draws_from, over_shards
from distgrad.compile.passes.writes import take_writes
from distgrad.compile.program import Call, Program
from distgrad.compile.traced import Fallback, warn
from distgrad.core import devices, recording, tree
from distgrad.core.dispatch import as_tensor
from distgrad.core.tape import GradientTape
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.training.state import shard

Jit = Literal["auto", "strict", "numpy", "off"]
ExecutorName = Literal["generated", "numpy", "eager"]

_BUDGET = 16  # shapes of samples, before new ones run eagerly
_FRAMES = 64  # sets of places for the gradients of one program
_AT_ONCE = 1 << 25  # bytes of gradients of shards that run at once


def executor_for(jit: Jit) -> ExecutorName:
    """What runs the steps: "auto" is the fastest this machine has, "off" is eager.

    Raises CaptureError for "strict" on a GPU.
    """
    if jit == "strict" and devices.on_gpu():
        raise CaptureError("a step on a GPU cannot be captured yet: leave strict out, or use a CPU")
    if jit == "off" or devices.on_gpu():
        return "eager"
    return "numpy" if jit == "numpy" else executors.best()


# The places of the variables of a bucket, by position, in a buffer of that bucket.
Cut = Callable[[int, Any], dict[int, Any]]


class Outcome(NamedTuple):
    """What some shards give; their gradients are where the caller wanted them."""

    losses: np.ndarray  # one for each shard, float64
    sums: np.ndarray  # a row for each shard, good until the next run
    written: list[dict[int, np.ndarray]]  # for each shard, by the id of a state variable


class ShardPrograms:
    """The programs of ``compute(arrays, training=True)`` and its gradients.

    ``groups`` are the positions of the variables of each bucket, in the order in which the buckets
    are to be full. A shape that cannot be captured runs eagerly, after one warning that shows the
    line (where ``say``); with ``strict`` that raises CaptureError.
    """

    def __init__(
        self,
        compute: Callable[[tuple, bool], Any],
        variables: Sequence[Variable],
        state: Sequence[Variable],
        groups: Sequence[Sequence[int]],
        executor: executors.Name,
        *,
        strict: bool = False,
        say: bool = True,
    ) -> None:
        self.compute = compute
        self.variables = list(variables)
        self.state = list(state)
        self.groups = [list(group) for group in groups]
        self.executor = executor
        self._strict = strict
        self._say = say
        self._known: dict[Hashable, ShardProgram | None] = {}
        self._kinds: set[Hashable] = set()  # of samples, whatever their number

    def find(self, arrays: tuple, part: float, stream: Callable[[], Any]) -> ShardProgram | None:
        """The program for samples like these, ``part`` of the batch; None where it is to be eager.

        A new program is made in ``stream()``, the context that the shard draws in.
        """
        try:
            key = part, *[(a.shape, a.dtype) for a in arrays]
        except AttributeError:  # nests of arrays, or none
            leaves = tree.flatten(arrays)
            shapes = [getattr(a, "shape", type(a)) for a in leaves]
            dtypes = [getattr(a, "dtype", None) for a in leaves]
            key = part, repr(tree.map_structure(lambda a: None, arrays)), *shapes, *dtypes
        try:
            return self._known[key]
        except KeyError:
            with stream():
                made = self._known[key] = self._make(arrays, part)
            return made

    def _make(self, arrays: tuple, part: float) -> ShardProgram | None:
        try:
            self._count_kind(arrays)
            if recording.stack():
                raise Fallback("a recorder (a tape, a profiler, a check) wants to see every step")
            return ShardProgram(self, arrays, part)
        except Fallback as fallback:
            if self._strict:
                reason = f"the training step cannot be captured: {fallback.reason}"
                raise CaptureError(reason) from None
            if self._say:
                self._say = False
                warn(f"the training step runs eagerly: {fallback.reason}")
            return None

    def _count_kind(self, arrays: tuple) -> None:
        """Few kinds of samples are fine, in numbers that the last batch may change."""
        leaves = _flat(arrays)
        if any(getattr(a, "dtype", np.dtype(object)).kind not in "biufc" for a in leaves):
            raise Fallback("its samples are no numbers")
        self._kinds.add(tuple((a.shape[1:], a.dtype) for a in leaves))
        if len(self._kinds) > _BUDGET:
            shapes = ", ".join(str(list(a.shape)) for a in leaves)
            raise Fallback(
                f"{_BUDGET} shapes of samples were captured, and here is another ({shapes}); "
                "pad them to few shapes"
            )


class ShardProgram:
    """The program of one shard of a shape, and those of several such shards at once."""

    def __init__(self, made_by: ShardPrograms, arrays: tuple, part: float) -> None:
        self._made_by = made_by
        leaves = [np.asarray(a) for a in _flat(arrays)]
        nest = tree.flatten(arrays)
        structure = tree.map_structure(lambda a: None, arrays)
        dtype: list[np.dtype] = []

        def run(*tensors: Tensor) -> Any:
            filled = iter(tensors)
            given = tree.unflatten(structure, [None if a is None else next(filled) for a in nest])
            with GradientTape() as tape:
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
        program, result = self._trace(run, [*leaves, weight], part)
        if dtype[-1] != weight.dtype:
            weight = np.ones((), dtype[-1])
            program, result = self._trace(run, [*leaves, weight], part)
        self._weight = weight
        _, _, over, gradients = result
        self.present = [g is not None for g in gradients]
        self._over = over if isinstance(over, float) else None
        self._counter: Executor | None = None
        outputs = list(program.outputs)
        if self._over is None:
            self._counter = executors.make(
                made_by.executor, _only(program, outputs.pop(2)), [*leaves, weight]
            )
        program = program.with_(program.instructions, outputs)
        try:
            program, self._assigned = take_writes(program, made_by.state)
        except ValueError as error:
            raise Fallback(str(error)) from None
        self._program = simplify(program)
        places = iter(range(_STATISTICS, len(outputs)))
        self._place = {i: next(places) for i, there in enumerate(self.present) if there}
        self._first_state = len(outputs)
        self._size = len(program.outputs) - _STATISTICS  # outputs of each shard
        nbytes = sum(program.outputs[i].nbytes for i in self._place.values())
        self.at_once = max(1, _AT_ONCE // max(nbytes, 1))
        try:
            self._one = self._bind(self._program, [*leaves, weight], 1)
        except Exception as error:
            raise Fallback(f"its program cannot be laid out ({error})") from error
        self._many: dict[int, _Several | None] = {}

    @staticmethod
    def _trace(run: Callable[..., Any], arrays: Sequence[np.ndarray], part: float) -> Any:
        with shard(part):
            traced = trace(run, arrays, "shard")
            if traced.program is None:  # variables were made, which happens once
                traced = trace(run, arrays, "shard")
        if traced.program is None:
            raise Fallback("it makes variables at each call")
        return traced

    def _bind(self, program: Program, arrays: Sequence[np.ndarray], count: int) -> _Bound:
        """An executor of a program for ``count`` shards.

        Its outputs are the loss and the sums (stacked, for several shards), then for each shard
        the gradients and what it assigns.
        """
        groups = [
            [
                v * self._size + self._place[i]
                for i in group
                if self.present[i]
                for v in range(count)
            ]
            for group in self._made_by.groups
        ]
        executor = executors.make(self._made_by.executor, program, arrays, groups)
        return _Bound(executor, self.present, self._place, self._size)

    def over(self, arrays: tuple) -> float:
        """What the mean of the loss is over."""
        if self._counter is None:
            assert self._over is not None
            return self._over
        return float(self._counter([*_flat(arrays), self._weight])[0])

    def run(
        self,
        shards: Sequence[tuple],
        weights: Sequence[float],
        streams: Callable[[], Sequence[Any]],
        buffers: Sequence[Sequence[Any]],
        cut: Cut,
        told: Callable[[int], None] | None = None,
    ) -> Outcome:
        """Runs it on one shard's arrays or on those of several.

        Gradients, times the shard's weight, are written into the shard's ``buffers``, one for each
        bucket; ``cut(bucket, buffer)`` gives the places of the bucket's variables. ``streams()``
        are the contexts that a shard draws in. ``told`` is called with the number of a bucket that
        is full, for all the shards, in order.
        """
        count = len(shards)
        several = self._several(shards, weights, streams) if count > 1 else None
        if several is not None:
            several.streams.streams = streams()
            found = several.bound.at(buffers, cut)(several.inputs(shards, weights), told)
            losses, sums = found[0].astype(np.float64), found[1]
            return Outcome(losses, sums, [self._written(found, v) for v in range(count)])
        losses, rows, written = np.empty(count), [], []
        for v, (arrays, weight, stream) in enumerate(zip(shards, weights, streams(), strict=True)):
            self._weight[()] = weight
            frame = self._one.at([buffers[v]], cut)
            with stream:
                found = frame([*_flat(arrays), self._weight], told if v == count - 1 else None)
            losses[v] = found[0]
            rows.append(found[1] if count == 1 else found[1].copy())
            written.append(self._written(found, 0))
        return Outcome(losses, np.stack(rows), written)

    def _written(self, found: Sequence[np.ndarray], number: int) -> dict[int, np.ndarray]:
        start = self._first_state + number * self._size
        arrays = found[start : start + len(self._assigned)]
        return {id(v): a.copy() for v, a in zip(self._assigned, arrays, strict=True)}

    def _several(
        self, shards: Sequence[tuple], weights: Sequence[float], streams: Any
    ) -> _Several | None:
        """What runs as many shards at once; None where they had better go one by one."""
        count = len(shards)
        if count not in self._many:
            self._many[count] = None  # unless all goes well
            try:
                made = self._make_several(shards, weights)
            except NotWide:
                return None
            if not self._agrees(made, shards, weights, streams):
                self._many[count] = None
        return self._many[count]

    def _make_several(self, shards: Sequence[tuple], weights: Sequence[float]) -> _Several:
        count = len(shards)
        chosen = draws_from()
        program, statistics, rows = over_shards(self._program, count, chosen, _STATISTICS)
        outputs = [*statistics, *(row[v] for v in range(count) for row in rows)]
        leaves = list(map(_flat, shards))
        inputs = _Inputs([np.asarray(a) for a in leaves[0]], self._weight.dtype, count)
        bound = self._bind(
            program.with_(program.instructions, outputs), inputs(leaves, weights), count
        )
        return _Several(bound, inputs, chosen)

    def _agrees(
        self, several: _Several, shards: Sequence[tuple], weights: Sequence[float], streams: Any
    ) -> bool:
        """Whether all shards at once give the bits that each gives by itself."""
        sizes = [[(i, self._program.outputs[self._place[i]]) for i in group if self.present[i]]
                 for group in self._made_by.groups]  # fmt: skip

        def scratch() -> list[list[dict[int, Any]]]:
            return [
                [{i: np.zeros(v.shape, v.dtype) for i, v in group} for group in sizes]
                for _ in shards
            ]

        def cut(number: int, places: Any) -> dict[int, Any]:
            return {**dict.fromkeys(self._made_by.groups[number], np.zeros(0)), **places}

        def bits(outcome: Outcome, buffers: Any) -> Any:
            gradients = [[[a.tobytes() for a in g.values()] for g in own] for own in buffers]
            written = [[a.tobytes() for a in own.values()] for own in outcome.written]
            return gradients, outcome.losses.tobytes(), outcome.sums.tobytes(), written

        alone, together = scratch(), scratch()
        self._many[len(shards)] = None  # so that they run one by one
        one_by_one = bits(self.run(shards, weights, streams, alone, cut), alone)
        self._many[len(shards)] = several
        same = one_by_one == bits(self.run(shards, weights, streams, together, cut), together)
        self._one.forget()
        several.bound.forget()
        return same


class _Bound:
    """An executor, and its frames for the places of the gradients."""

    def __init__(
        self, executor: Executor, present: Sequence[bool], place: dict[int, int], size: int
    ) -> None:
        self.executor = executor
        self._present, self._place, self._size = present, place, size
        self._block = memory.block(executor.nbytes)
        self._frames: dict[tuple[int, ...], tuple[Frame, list[Any], Any]] = {}

    def at(self, buffers: Sequence[Sequence[Any]], cut: Cut) -> Frame:
        """The frame for the buffers of each shard; what has no gradient is made zero there."""
        key = tuple([id(buffer) for own in buffers for buffer in own])
        known = self._frames.get(key)
        if known is None:
            known = self._make(key, buffers, cut)
        for view in known[1]:
            view[...] = 0
        return known[0]

    def forget(self) -> None:
        self._frames.clear()

    def _make(self, key: tuple[int, ...], buffers: Any, cut: Cut) -> tuple[Frame, list[Any], Any]:
        if len(self._frames) >= _FRAMES:
            self._frames.clear()
        places: dict[int, Any] = {}
        absent = []
        for v, own in enumerate(buffers):
            for number, buffer in enumerate(own):
                for position, view in cut(number, buffer).items():
                    if self._present[position]:
                        places[self._place[position] + v * self._size] = view
                    else:
                        absent.append(view)
        frame = self.executor.frame(places, self._block)
        self._frames[key] = frame, absent, buffers  # kept, so that their ids stay theirs
        return self._frames[key]


class _Several(NamedTuple):
    """What runs several shards at once."""

    bound: _Bound
    inputs: _Inputs
    streams: draws_from


class _Inputs:
    """The arrays of several shards along a leading axis: views where they lie side by side."""

    def __init__(self, leaves: Sequence[np.ndarray], weight: np.dtype, count: int) -> None:
        self._held = [np.empty((count, *a.shape), a.dtype) for a in leaves]
        self._weights = np.empty(count, weight)

    def __call__(self, shards: Sequence[Any], weights: Sequence[float]) -> list[np.ndarray]:
        self._weights[:] = weights
        rows = zip(*map(_flat, shards), strict=True)
        return [*map(self._together, self._held, rows), self._weights]

    @staticmethod
    def _together(held: np.ndarray, arrays: Sequence[np.ndarray]) -> np.ndarray:
        first, nbytes = arrays[0], arrays[0].nbytes
        if nbytes > _SMALL and all(a.flags.c_contiguous for a in arrays):
            start = first.__array_interface__["data"][0]
            places = [a.__array_interface__["data"][0] for a in arrays]
            if places == [start + v * nbytes for v in range(len(arrays))]:
                strides = (nbytes, *first.strides)
                return np.lib.stride_tricks.as_strided(first, held.shape, strides, writeable=False)
        for row, array in zip(held, arrays, strict=True):
            row[...] = array
        return held


_STATISTICS = 2  # outputs before those of each shard: the loss, and the sums
_SMALL = 1 << 14  # bytes of a shard's array that is copied sooner than looked at


def _flat(arrays: Any) -> list[Any]:
    """The arrays of a nest; None stands for what was not given."""
    if all(type(a) is np.ndarray for a in arrays):
        return list(arrays)
    return [a for a in tree.flatten(arrays) if a is not None]


def _only(program: Program, output: Any) -> Program:
    """What gives one output, without calls of Python code: they count once."""
    kept = [i for i in program.instructions if not isinstance(i, Call)]
    return program.with_(kept, [output])

"""Captured shards: a shard's loss and gradients as one program for each shape of its samples.

The program is made at the first shard of a shape, by one eager run whose results are thrown away,
and runs that shard as well. Gradients are computed where the caller wants them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from distgrad.compile import executors, memory
from distgrad.compile.capture import trace
from distgrad.compile.captured import CaptureError
from distgrad.compile.numpy_exec import Executor, Frame
from distgrad.compile.passes.writes import take_writes
from distgrad.compile.program import Call, Program
from distgrad.compile.traced import Fallback
from distgrad.core import recording, tree
from distgrad.core.dispatch import as_tensor
from distgrad.core.tape import GradientTape
from distgrad.core.tensor import Tensor
from distgrad.core.variable import Variable
from distgrad.training.state import shard

Jit = Literal["auto", "strict", "numpy", "off"]
ExecutorName = Literal["generated", "numpy", "eager"]

_BUDGET = 16  # shapes of samples, before new ones run eagerly
_FRAMES = 64  # sets of places for the gradients of one program


def executor_for(jit: Jit) -> ExecutorName:
    """What runs the steps: "auto" is the fastest this machine has, "off" is eager."""
    if jit == "off":
        return "eager"
    return "numpy" if jit == "numpy" else executors.best()


class Outcome(NamedTuple):
    """What a shard gives; its gradients are where the caller wanted them."""

    loss: float
    sums: np.ndarray
    written: dict[int, np.ndarray]  # by the id of a state variable


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

    def find(self, arrays: tuple, part: float) -> ShardProgram | None:
        """The program for samples like these, ``part`` of the batch; None where it is to be eager.

        Must be called under the shard's own random stream: a new program is made there.
        """
        try:
            key = part, *[(a.shape, a.dtype) for a in arrays]
        except AttributeError:  # nests of arrays, or none
            leaves = tree.flatten(arrays)
            shapes = [getattr(a, "shape", type(a)) for a in leaves]
            dtypes = [getattr(a, "dtype", None) for a in leaves]
            key = part, repr(tree.map_structure(lambda a: None, arrays)), *shapes, *dtypes
        if key not in self._known:
            self._known[key] = self._make(arrays, part)
        return self._known[key]

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
                warnings.warn(f"the training step runs eagerly: {fallback.reason}", stacklevel=6)
            return None

    def _count_kind(self, arrays: tuple) -> None:
        """Few kinds of samples are fine, in numbers that the last batch may change."""
        leaves = tree.flatten(arrays)
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
    """One program, and the frames that bind it to the places of its gradients."""

    def __init__(self, made_by: ShardPrograms, arrays: tuple, part: float) -> None:
        self._made_by = made_by
        leaves = [np.asarray(a) for a in tree.flatten(arrays)]
        structure = tree.map_structure(lambda a: None, arrays)
        dtype: list[np.dtype] = []

        def run(*tensors: Tensor) -> Any:
            given = tree.unflatten(structure, list(tensors[:-1]))
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
            sums = (
                as_tensor(np.asarray(result.sums))
                if isinstance(result.sums, np.ndarray)
                else (result.sums)
            )
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
        places = iter(range(2, len(outputs)))
        self._places = {i: next(places) for i, there in enumerate(self.present) if there}
        self._first_state = len(outputs)
        groups = [[self._places[i] for i in g if self.present[i]] for g in made_by.groups]
        try:
            self.executor = executors.make(
                made_by.executor, program, [*leaves, weight], groups=groups
            )
        except Exception as error:
            raise Fallback(f"its program cannot be laid out ({error})") from error
        self._block = memory.block(self.executor.nbytes)
        self._frames: dict[tuple[int, ...], tuple[Frame, list[Any], Sequence[Any]]] = {}

    @staticmethod
    def _trace(run: Callable[..., Any], arrays: Sequence[np.ndarray], part: float) -> Any:
        with shard(part):
            traced = trace(run, arrays, "shard")
            if traced.program is None:  # variables were made, which happens once
                traced = trace(run, arrays, "shard")
        if traced.program is None:
            raise Fallback("it makes variables at each call")
        return traced

    def over(self, arrays: tuple) -> float:
        """What the mean of the loss is over."""
        if self._counter is None:
            assert self._over is not None
            return self._over
        return float(self._counter([*tree.flatten(arrays), self._weight])[0])

    def run(
        self,
        arrays: tuple,
        weight: float,
        buffers: Sequence[Any],
        cut: Callable[[int, Any], dict[int, Any]],
        told: Callable[[int], None] | None = None,
    ) -> Outcome:
        """Runs it; gradients, times ``weight``, are written into the buffer of each bucket.

        ``cut(bucket, buffer)`` gives the places of the bucket's variables in a buffer; ``told`` is
        called with the number of a bucket that is full, in order.
        """
        key = tuple(map(id, buffers))
        frame, absent, _ = self._frames.get(key) or self._bound(key, buffers, cut)
        for view in absent:
            view[...] = 0
        self._weight[()] = weight
        found = frame([*_flat(arrays), self._weight], told)
        written = {
            id(variable): array.copy()
            for variable, array in zip(self._assigned, found[self._first_state :], strict=True)
        }
        return Outcome(float(found[0]), found[1], written)

    def _bound(
        self,
        key: tuple[int, ...],
        buffers: Sequence[Any],
        cut: Callable[[int, Any], dict[int, Any]],
    ) -> tuple[Frame, list[Any], Sequence[Any]]:
        if len(self._frames) >= _FRAMES:
            self._frames.clear()
        places, absent = {}, []
        for number, buffer in enumerate(buffers):
            for position, view in cut(number, buffer).items():
                if self.present[position]:
                    places[self._places[position]] = view
                else:
                    absent.append(view)
        frame = self.executor.frame(places, self._block)
        self._frames[key] = frame, absent, buffers  # kept, so that their ids stay theirs
        return self._frames[key]


def _flat(arrays: tuple) -> list[Any]:
    if all(type(a) is np.ndarray for a in arrays):
        return list(arrays)
    return tree.flatten(arrays)


def _only(program: Program, output: Any) -> Program:
    """What gives one output, without calls of Python code: they count once."""
    kept = [i for i in program.instructions if not isinstance(i, Call)]
    return program.with_(kept, [output])

"""The programs of a training step: one for each shape of samples, made when it first comes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal

import numpy as np

from distgrad.compile import executors
from distgrad.compile.captured import CaptureError
from distgrad.compile.traced import Fallback
from distgrad.core import devices, recording, timeline, tree
from distgrad.core.composite import Composite
from distgrad.core.dtypes import is_number
from distgrad.core.user_line import warn
from distgrad.core.variable import Variable
from distgrad.training.frames import flat
from distgrad.training.shard_program import ShardProgram

Jit = Literal["auto", "strict", "numpy", "off"]
ExecutorName = Literal["generated", "numpy", "cuda", "eager"]

_BUDGET = 16  # shapes of samples, before new ones run eagerly


def executor_for(jit: Jit) -> ExecutorName:
    """What runs the steps: "auto" is the fastest on this device, "off" is eager.

    "numpy" is for CPUs: on a GPU such steps are eager.
    """
    if jit == "off" or (jit == "numpy" and devices.on_gpu()):
        return "eager"
    return "numpy" if jit == "numpy" else executors.best()


def fall_back(reason: str, strict: bool, say: bool) -> None:
    """Says why a step runs eagerly, where ``say``; with ``strict`` it raises CaptureError."""
    if strict:
        raise CaptureError(f"the training step cannot be captured: {reason}") from None
    if say:
        warn(f"the training step runs eagerly: {reason}")


class ShardPrograms:
    """The programs of ``compute(arrays, training=True)`` and its gradients.

    ``groups`` are the positions of the variables of each bucket, in the order in which the buckets
    are to be full. ``several`` says that a batch has several shards: their gradients are then
    computed in a way that has the same bits for one of them and for all. A shape that cannot be
    captured runs eagerly, after one warning that shows the line (where ``say``); with ``strict``
    that raises CaptureError.
    """

    def __init__(
        self,
        compute: Callable[[tuple, bool], Any],
        variables: Sequence[Variable],
        state: Sequence[Variable],
        groups: Sequence[Sequence[int]],
        executor: executors.Name,
        *,
        several: bool = False,
        strict: bool = False,
        say: bool = True,
    ) -> None:
        self.compute = compute
        self.variables = list(variables)
        self.state = list(state)
        self.groups = [list(group) for group in groups]
        self.executor = executor
        self.several = several
        self.scratch: dict[tuple[int, int], Any] = {}  # for sums of shards on a GPU
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

    @timeline.timed("capture")
    def _make(self, arrays: tuple, part: float) -> ShardProgram | None:
        try:
            self._count_kind(arrays)
            if recording.stack():
                raise Fallback("a recorder (a tape, a profiler, a check) wants to see every step")
            return ShardProgram(self, arrays, part)
        except Fallback as fallback:
            fall_back(fallback.reason, self._strict, self._say)
            self._say = False
            return None

    def _count_kind(self, arrays: tuple) -> None:
        """Few kinds of samples are fine, in numbers that the last batch may change."""
        leaves = flat(arrays)
        kind = next((a.kind for a in leaves if isinstance(a, Composite)), "")
        if kind:
            more = ": dense ones, by to_tensor(), are faster" if kind == "ragged" else ""
            raise Fallback(f"its samples are {kind}{more}")
        if not all(is_number(getattr(a, "dtype", np.dtype(object))) for a in leaves):
            raise Fallback("its samples are texts: a dataset that makes numbers of them is faster")
        self._kinds.add(tuple((a.shape[1:], a.dtype) for a in leaves))
        if len(self._kinds) > _BUDGET:
            shapes = ", ".join(str(list(a.shape)) for a in leaves)
            raise Fallback(
                f"{_BUDGET} shapes of samples were captured, and here is another ({shapes}); "
                "pad them to few shapes"
            )

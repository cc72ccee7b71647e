"""A program for a GPU at its places: where a node finds its arrays."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from distgrad.compile.cuda.memory import Memory, Row
from distgrad.compile.cuda.nodes import Node
from distgrad.compile.cuda.source import WORD, Kernel
from distgrad.compile.steps import Buffer, View
from distgrad.core.variable import Variable


class Part:
    """One run of a program, among others in a launch; `nodes.Arrays` for its nodes.

    ``places`` are those of outputs, by position; outputs that a caller has no place for get one
    here. Temporary arrays lie in the memory, where runs that follow each other have them in turn;
    inputs lie in a ``row`` of its mail.
    """

    def __init__(self, executor: Any, places: Mapping[int, Any], memory: Memory, row: Row) -> None:
        self.backend = executor.backend
        self.plan = executor.plan
        self._refused: set[int] = executor.refused
        self.row = row
        self.context: Any = contextlib.nullcontext()  # what is drawn on the host is drawn in it
        self.warming = False
        self._executor, self._places, self._memory = executor, dict(places), memory
        self.bind()

    def bind(self) -> None:
        """Looks for all arrays anew."""
        self._bound: list[tuple[Variable, Any]] = []
        self._arrays: dict[View, Any] = {}
        self.held: dict[Buffer, Any] = {}  # what kernels over CuPy gave
        self._fixed: dict[Buffer, Any] = {}  # of those, what must be found where it was

    @property
    def moved(self) -> bool:
        """Whether a variable lies elsewhere: in an arena."""
        return bool([v for v, buffer in self._bound if v._buffer is not buffer])

    def outputs(self) -> list[Any]:
        return [self.array(view) for view in self.plan.outputs]

    # What nodes ask for

    def array(self, view: View) -> Any:
        if view.buffer.kind == "dynamic":
            return self._at(self.held[view.buffer], view)
        found = self._arrays.get(view)
        if found is None:
            found = self._arrays[view] = self._make(view)
        return found

    def _make(self, view: View) -> Any:
        buffer = view.buffer
        if buffer.kind == "temporary":
            return self._placed(self._memory.block + self.plan.homes[buffer], view)
        if buffer.kind == "counter":
            return self._placed(self._memory.counters + self.plan.homes[buffer], view)
        if buffer.kind in ("input", "slot"):
            return self._placed(self.row.place(buffer), view)
        if buffer.kind == "output":
            return self._at(_aligned(self._place(buffer.owner)), view)
        if buffer.kind == "constant":
            return self._at(self._executor.constant(buffer.owner), view)
        self._bound.append((buffer.owner, buffer.owner._buffer))
        return self._at(_aligned(buffer.owner._buffer), view)

    def _place(self, position: int) -> Any:
        if position not in self._places:
            view = self.plan.outputs[position]
            self._places[position] = self.backend.xp.empty(view.shape, dtype=view.dtype)
        return self._places[position]

    def _at(self, array: Any, view: View) -> Any:
        if (view.offset, view.shape, view.strides) == (0, array.shape, array.strides):
            return array
        return self._placed(array.data, view)

    def _placed(self, pointer: Any, view: View) -> Any:
        cupy = self.backend.xp
        return cupy.ndarray(view.shape, view.dtype, pointer + view.offset, view.strides)

    def host(self, view: View) -> np.ndarray:
        if view.buffer.kind == "slot":
            return self.row.on_host(view)
        if view.buffer.kind == "constant":
            return view.buffer.owner
        return self.array(view).get()

    def hold(self, buffer: Buffer, array: Any) -> None:
        fixed = self._fixed.get(buffer)
        if fixed is None:
            self.held[buffer] = array
        else:
            fixed[...] = array
            self.held[buffer] = fixed

    def launch(self, kernel: Kernel) -> None:
        arrays = tuple([self.array(view) for view in kernel.places])
        if self.warming:
            arrays = tuple(map(self._spared, kernel.places, kernel.arguments, arrays))
        self._executor.function(kernel.name)((kernel.blocks,), (kernel.threads,), arrays)

    def _spared(self, view: View, argument: str, array: Any) -> Any:
        """Another array in the place of a variable that is written, which must stay as it is."""
        if view.buffer.kind != "variable" or argument.startswith("const "):
            return array
        return self.backend.xp.empty(array.shape, array.dtype)

    # What becomes of results

    @contextlib.contextmanager
    def allocating(self) -> Iterator[None]:
        """Context in which kernels over CuPy take the memory of the program's own pool."""
        with self.backend.xp.cuda.using_allocator(self._memory.pool.malloc):
            yield

    def alone(self, node: Node) -> bool:
        """Whether a node runs by itself, in no graph."""
        return node.where == "host" or id(node) in self._refused

    def drop(self, node: Node, index: int) -> None:
        """Lets go of what no node after that with this number looks at."""
        for view in node.mentions:
            buffer = view.buffer
            if buffer.kind != "dynamic" or self.plan.last[buffer] > index:
                continue
            if buffer not in self._fixed and not self._seen_alone(buffer):
                self.held.pop(buffer, None)

    def _seen_alone(self, buffer: Buffer) -> bool:
        """Whether a node that runs by itself looks at it: it must find it at every run."""
        return any(
            self.alone(node) and any(view.buffer is buffer for view in node.mentions)
            for node in self.plan.nodes
        )

    def keep(self, node: Node) -> None:
        """Gives the results of a node that runs by itself places for all runs."""
        for view in node.made:
            if view.buffer not in self._fixed:
                with self.allocating():
                    self._fixed[view.buffer] = self.held[view.buffer].copy()
                self.held[view.buffer] = self._fixed[view.buffer]


def _aligned(array: Any) -> Any:
    """The array; its kernels read words, which only start at a multiple of their size."""
    if array.data.ptr % WORD:
        raise ValueError(f"an array of a captured program lies at {array.data.ptr:#x}")
    return array

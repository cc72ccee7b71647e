"""A program for a GPU: what is launched one after the other, and where its arrays lie.

Groups of operations are one kernel each, products go to cuBLAS, both into places that a lifetime
plan gives them in one block. What is left runs by its kernel over CuPy, whose result lies where
CuPy puts it.
"""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Sequence
from typing import Any

from distgrad.compile import memory
from distgrad.compile.cuda import attention, fused, source
from distgrad.compile.cuda.branch import AT_ONCE
from distgrad.compile.cuda.build import Build, multiplied
from distgrad.compile.cuda.gathering import gathered
from distgrad.compile.cuda.nodes import Node, launch
from distgrad.compile.cuda.source import Kernel
from distgrad.compile.numpy_exec import c_strides, ends_of
from distgrad.compile.passes import (
    attentive,
    expand,
    fuse,
    recompute,
    simplify,
    unrounded,
    widened_late,
)
from distgrad.compile.passes.fusion import reduction
from distgrad.compile.program import Apply, Program, Read
from distgrad.compile.steps import Buffer, View

_LEAF = 1 << 29  # multiplications; a guess: some 20 us, and GPUs are full of larger ones anyway
_LASTING = {"temporary", "output", "input", "slot", "constant"}  # nobody writes there meanwhile


class Plan:
    """Nodes, and where the inputs and outputs of a program lie.

    ``groups`` are positions of outputs that the caller has places for; with them every output lies
    at a place of its own. Buffers are of kind "input", "slot", "variable", "constant", "output"
    (owned by a position), "temporary" (in the block), "counter" (0 whenever no kernel of its runs)
    or "dynamic".
    """

    def __init__(self, program: Program, groups: Sequence[Sequence[int]], backend: Any) -> None:
        program = attentive(simplify(program), attention.takes(backend.dnn))
        parts = unrounded(expand(program, source.FLOATS), functools.partial(_wide, backend.blas))
        parts = widened_late(parts, fused.supported)
        program = recompute(fuse(parts, fused.supported, smallest=1, mixed=False))
        copied: set[Read] = set()
        while True:  # a second time where a read must outlive a write to its variable
            build = Build(program, copied, backend)
            late = build.late_reads()
            if not late:
                break
            copied |= late
        self.program = program
        self.nodes = build.nodes
        self.inputs = [build.places[v] for v in program.inputs]
        self.outputs = [build.places[v] for v in program.outputs]
        self.slots = build.slots
        self.checks = build.checks
        given = [position for group in groups for position in group]
        if groups:  # what the others give is looked at when other runs use the memory
            for position in range(len(self.outputs)):
                self._give_away(position)
        self.nodes = gathered(self.nodes, patient=len(groups) < 2)
        self.kernels = [node.kernel for node in self.nodes if node.kernel is not None]
        # Layers alike have kernels alike: by its name, the one that is compiled for them.
        alike: dict[Any, Kernel] = {}
        self.compiled = {
            kernel.name: alike.setdefault((kernel.arguments, kernel.body, kernel.threads), kernel)
            for kernel in self.kernels
        }
        first = min(given, default=len(self.outputs))
        early = range(first)  # outputs that the caller looks at as soon as they are there
        if given:
            self._first(early)
        self.ready = self._end(early)
        self.ends = ends_of(self, groups)  # type: ignore[arg-type]
        # After so many nodes all leaves before them must be done.
        count = len(self.nodes)
        self.joins = sorted({self.ready, count, *(min(end + 1, count) for end in self.ends)})
        self._mark_leaves()
        self.homes, self.nbytes = self._layout()
        self.counted = 0  # bytes of counters
        for buffer in self._of_kind("counter"):
            self.homes[buffer] = self.counted
            self.counted += buffer.nbytes
        self.last: dict[Buffer, int] = {}
        for index, node in enumerate(self.nodes):
            self.last |= {view.buffer: index for view in node.mentions}
        self.last |= {view.buffer: len(self.nodes) for view in self.outputs}

    @property
    def steps(self) -> list[Node]:
        return self.nodes

    @property
    def source(self) -> str:
        """The text of all kernels; empty where there is none."""
        texts = [kernel.source for kernel in dict.fromkeys(self.compiled.values())]
        return "\n".join([fused.head(), *texts]) if texts else ""

    def _first(self, positions: Sequence[int]) -> None:
        """Moves what these outputs are made by before all else: the loss before its gradients.

        Nothing is moved where Python code runs, or variables are written: that has its order.
        """
        written = {view.buffer.kind for node in self.nodes for view in node.writes}
        if "variable" in written or any(node.where == "host" for node in self.nodes):
            return
        needed = {self.outputs[p].buffer for p in positions}
        chosen: set[int] = set()
        for index in reversed(range(len(self.nodes))):
            node = self.nodes[index]
            # Slots are drawn in their order, and so all of them at once.
            if node.where == "before" or needed & {view.buffer for view in node.writes}:
                chosen.add(index)
                needed |= {view.buffer for view in node.mentions}
        order = sorted(range(len(self.nodes)), key=lambda i: (i not in chosen, i))
        self.nodes = [self.nodes[i] for i in order]

    def _mark_leaves(self) -> None:
        """Lets small products run beside what follows: those that no node needs any more.

        Gradients of weights mostly are: so few rows and columns leave most of a GPU idle.
        """
        later: set[Buffer] = set()
        for index in reversed(range(len(self.nodes))):
            node = self.nodes[index]
            kinds = {view.buffer.kind for view in node.mentions}
            needed = any(view.buffer in later for view in node.writes)
            if 0 < node.products <= _LEAF and kinds <= _LASTING and not needed:
                self.nodes[index] = node._replace(leaf=True)
            later |= {view.buffer for view in node.mentions}

    def _end(self, positions: Sequence[int]) -> int:
        """The number of nodes after which these outputs are there."""
        buffers = {self.outputs[p].buffer for p in positions}
        ends = [i + 1 for i, n in enumerate(self.nodes) if buffers & {v.buffer for v in n.writes}]
        return max(ends, default=0)

    def _give_away(self, position: int) -> None:
        """Lets an output be computed where the caller wants it, or copies it there."""
        view = self.outputs[position]
        buffer = view.buffer
        if not math.prod(view.shape):
            return
        whole = buffer.nbytes == math.prod(view.shape) * view.dtype.itemsize
        if buffer.kind == "temporary" and whole and view.contiguous:
            buffer.kind, buffer.owner = "output", position
            return
        target = Buffer(buffer.nbytes, "output", position)
        out = View(target, 0, view.shape, c_strides(view), view.dtype)
        made = (i for i, n in enumerate(self.nodes) if any(v.buffer is buffer for v in n.writes))
        self.nodes.insert(max(made, default=-1) + 1, self._copy(out, view))
        self.outputs[position] = out

    def _copy(self, target: View, origin: View) -> Node:
        name = f"copy_{target.buffer.owner}"
        return launch(fused.copying(name, target, origin), (target,))

    def _of_kind(self, kind: str) -> list[Buffer]:
        mentioned = (view.buffer for node in self.nodes for view in node.mentions)
        return [buffer for buffer in dict.fromkeys(mentioned) if buffer.kind == kind]

    def _layout(self) -> tuple[dict[Buffer, int], int]:
        """Where each temporary buffer starts in the block, and the size of the block."""
        lives: dict[Buffer, list[int]] = {}
        ends = self._ends_of_leaves()
        for index, node in enumerate(self.nodes):
            done = ends.get(index, index)
            for view in node.mentions:
                life = lives.setdefault(view.buffer, [index, index])
                life[1] = max(life[1], done)
        for view in self.outputs:
            lives.setdefault(view.buffer, [len(self.nodes)] * 2)[1] = len(self.nodes)
        own = [b for b in lives if b.kind == "temporary"]
        layout = memory.plan([memory.Lifetime(b.nbytes, *lives[b]) for b in own])
        return dict(zip(own, layout.offsets, strict=True)), layout.nbytes

    def _ends_of_leaves(self) -> dict[int, int]:
        """The last node beside which each leaf may run: before a join, or some leaves later."""
        leaves, ends = [index for index, node in enumerate(self.nodes) if node.leaf], {}
        for number, index in enumerate(leaves):
            join = self.joins[bisect.bisect(self.joins, index)]
            ends[index] = min([join, *leaves[number + AT_ONCE :][:1]]) - 1
        return ends


def _wide(blas: Any, apply: Apply) -> bool:
    """Whether something here gives float32 of narrower factors or terms."""
    if apply.name == "dot":
        return multiplied(apply, blas)
    return reduction(apply) is not None and fused.supported(apply)

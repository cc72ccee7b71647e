"""Kernels that sum columns: a block of warps takes some columns, each warp every so many rows.

Many rows are cut into segments, each of which blocks of its own add up. The block that is the last
to be done with its columns adds those sums, in their order: whichever it is, the order depends on
the numbers of rows and columns alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from distgrad.compile.cuda import source
from distgrad.compile.cuda.source import FLOATS
from distgrad.compile.cuda.writer import MANY, Writer
from distgrad.compile.passes.fusion import Fused, reduction
from distgrad.compile.program import Apply
from distgrad.compile.steps import Buffer, View

_WARPS = 16
_BLOCKS = 512  # four on each multiprocessor of a large GPU
_FEW = 256  # rows that one block adds up sooner than others meet
_SEGMENT = 64  # rows of a segment, at least


class Cuts(NamedTuple):
    """How the rows and columns of a group are shared out."""

    rows: int
    columns: int
    each: int  # columns that a lane takes
    chunks: int  # of columns, one for each block
    segments: int  # of rows, none of them empty
    segment: int  # rows of each; the last one may have fewer


def cuts(fused: Fused) -> Cuts:
    """How the rows and columns of a group are dealt out to blocks and threads."""
    assert fused.trailing is not None
    cut = len(fused.shape) - fused.trailing
    rows, columns = math.prod(fused.shape[:cut]), math.prod(fused.shape[cut:])
    each = 4 if columns % 128 == 0 and rows * columns >= MANY else 1
    chunks = -(-columns // (32 * each))
    wanted = max(1, min(_BLOCKS // chunks, -(-rows // _SEGMENT)))
    segment = -(-rows // wanted) if rows > _FEW else rows
    return Cuts(rows, columns, each, chunks, -(-rows // segment), segment)


def reductions(fused: Fused) -> list[Apply]:
    """The reductions of a group, in order."""
    return [i for i in fused.body if reduction(i) is not None]


class Columns(Writer):
    """Writes the kernel of a group with sums of columns."""

    single = False

    def write(self) -> tuple[int, int]:
        rows, columns, each, chunks, segments, segment = cuts(self.fused)
        self.count = each
        kind = source.index(rows * columns)
        found = reductions(self.fused)
        types = {i: FLOATS[i.inputs[0].dtype.name] for i in found}
        self.lines += [
            "const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;",
            f"const {kind} start = block % {chunks} * {32 * each}, column = start + lane * {each};",
            f"const {kind} segment = block / {chunks}, first = segment * {segment};",
            f"const {kind} rest = {rows} - first, end = first + "
            f"(rest < {segment} ? rest : {segment});",
            f"const bool here = column < {columns};",
            *(f"__shared__ {type_} shared_{type_}[{_WARPS}][33];" for type_ in set(types.values())),
            *(f"{types[i]} part_{self.variables[i.outputs[0]]}[{each}] = {{}};" for i in found),
        ]
        full = [v for v in self.fused.outputs if v not in self.rows]
        which = "j" if each > 1 else "0"

        def add_up() -> None:
            known = self.elements(full, [i.inputs[0] for i in found])
            for i in found:
                self.lines.append(
                    f"part_{self.variables[i.outputs[0]]}[{which}] += {known[i.inputs[0]]};"
                )

        self.loop(
            f"#pragma unroll 4\n"
            f"for ({kind} row = first + warp; here && row < end; row += {_WARPS})",
            add_up,
            f"const {kind} at = row * {columns} + column;",
        )
        cut = cuts(self.fused)
        if segments == 1:
            for i in found:
                self._store_sum(i, types[i], cut, self.arrays[i.outputs[0]])
        else:
            sums = [self._scratch(types[i], segments * columns) for i in found]
            for i, place in zip(found, sums, strict=True):
                self._store_sum(i, types[i], cut, f"{place} + segment * {columns}", whole=False)
            self._last_one(found, sums, cut, kind)
        return chunks * segments, 32 * _WARPS

    def _scratch(self, type_: str, count: int) -> str:
        """Memory of the kernel's own: the name of its argument."""
        dtype = np.dtype(np.float64 if type_ == "double" else np.float32)
        view = View(Buffer(count * dtype.itemsize), 0, (count,), (dtype.itemsize,), dtype)
        return self.further(f"{type_} *", view)

    def _last_one(self, found: Sequence[Apply], sums: Sequence[str], cut: Cuts, kind: str) -> None:
        """The last block of some columns adds up what all of them have; then nobody has counted."""
        dtype = np.dtype(np.uint32)
        counts = View(Buffer(4 * cut.chunks, "counter"), 0, (cut.chunks,), (4,), dtype)
        name = self.further("unsigned int *", counts)
        self.lines += [
            "__shared__ bool last;",
            "__threadfence();",
            "__syncthreads();",
            f"if (threadIdx.x == 0) last = atomicInc(&{name}[block % {cut.chunks}], "
            f"{cut.segments - 1}) == {cut.segments - 1};",
            "__syncthreads();",
            "if (!last) return;",
            "__threadfence();",
        ]
        for i, place in zip(found, sums, strict=True):
            (out,) = i.outputs
            part = f"part_{self.variables[out]}"
            self.lines += [
                "#pragma unroll",
                f"for (int j = 0; j < {cut.each}; j++) {{",
                f"{part}[j] = 0;",
                "#pragma unroll 4",
                f"for ({kind} i = warp; here && i < {cut.segments}; i += {_WARPS})",
                f"{part}[j] += fresh({place} + i * {cut.columns} + column + j);",
                "}",
            ]
            self._store_sum(i, FLOATS[i.inputs[0].dtype.name], cut, self.arrays[out])

    def _store_sum(
        self, instruction: Apply, type_: str, cut: Cuts, array: str, whole: bool = True
    ) -> None:
        """What all warps have of a column, added up by as many lanes; ``whole``: of all rows."""
        (out,), reduced = instruction.outputs, reduction(instruction)
        assert reduced is not None
        over = f" / ({type_}){cut.rows}" if reduced.operation == "mean" and whole else ""
        shared = f"shared_{type_}"
        self.lines += [
            "#pragma unroll",
            f"for (int j = 0; j < {cut.each}; j++) {{",
            f"const int mine = threadIdx.x / {_WARPS};",
            f"{shared}[warp][lane] = part_{self.variables[out]}[j];",
            "__syncthreads();",
            f"const {type_} one = {shared}[threadIdx.x % {_WARPS}][mine];",
            f"const {type_} total = whole<Sum, {_WARPS}>(one, {shared}[0]){over};",
            "__syncthreads();",
            f"const {source.index(cut.rows * cut.columns)} to = start + mine * {cut.each} + j;",
            f"if (threadIdx.x % {_WARPS} == 0 && to < {cut.columns}) put(({array})[to], total);",
            "}",
        ]

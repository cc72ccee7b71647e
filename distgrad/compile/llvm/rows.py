"""Groups of elementwise operations and reductions as one loop over rows, in machine code.

A row is walked through in vectors of 16 elements, as often as its reductions ask for it: a softmax
takes three walks over a row that stays in cache, or in registers where it is short. The code is
one for any number of rows, so that batches and series of several sizes share it. Sums have one
order, whatever the CPU's vectors, the number of rows and the place in memory: lane by lane, and
then the two halves of the lanes, down to one; columns are summed row by row.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from distgrad.compile.llvm import engine, pool
from distgrad.compile.llvm.blocks import LANES
from distgrad.compile.llvm.loops import Native
from distgrad.compile.llvm.parts import WORTH, Cut, Part, ranges
from distgrad.compile.llvm.row_kernel import Kernel
from distgrad.compile.llvm.row_walks import Access, numbers, reductions
from distgrad.compile.passes.fusion import Fused, Reduction
from distgrad.compile.program import Value, alike, once
from distgrad.compile.steps import Step, View


def compile_rows(group: Fused, places: dict[Value, View]) -> list[Step] | None:
    """One step for the group, None where the layouts of its arrays do not allow it."""
    arrays = (*group.inputs, *group.outputs)
    views = [places[v] for v in arrays]
    if not all(v.nbytes for v in arrays):
        return None
    reduced = reductions(group)
    for split in _splits(group):
        accesses = _accesses(group, split, views, reduced)
        if accesses is not None:
            break
    else:
        return None
    rows = int(np.prod(group.shape[:split], dtype=np.int64))
    columns = int(np.prod(group.shape[split:], dtype=np.int64))
    flat = rows == 1 and columns > _SHORT and not reduced
    kinds = {each.kind for each in reduced.values()}
    native = Native(
        lambda: _made_once(group, columns, accesses, flat).address,
        (*all_of(columns if flat else rows), *numbers(accesses)),
        _cut(group, rows, columns, accesses, kinds, flat),
    )
    return [Step(native, tuple(views), {}, views[-1], False, False)]


class Rows(NamedTuple):
    """A function for rows: the first, and where to stop, stand behind the arrays in its table.

    In parts of ``unit`` rows threads can share them; of those that are added up, 0, the first must
    be 0. ``cost`` is about how long a row takes one thread, in nanoseconds.
    """

    native: Native
    unit: int
    cost: float

    def __call__(self, places: Sequence[int], rows: int) -> None:
        """Runs it on addresses; threads share what is worth it. There must be a row."""
        if not self.unit or rows * self.cost < WORTH or pool.threads() == 1:
            self.native.at(*places, *all_of(rows))
            return
        parts = ranges(rows, self.unit, min(rows, pool.threads()))
        pool.shared(self.native, np.array([[*places, *part] for part in parts]))()


def all_of(rows: int) -> tuple[int, int]:
    """What stands behind the arrays where all rows are made."""
    return 0, rows


def any_rows(group: Fused, places: dict[Value, View]) -> Rows | None:
    """The function of a group whose rows lie along the first axis of its shape.

    Inputs come before outputs; None where the layouts do not allow it.
    """
    views, reduced = [places[v] for v in (*group.inputs, *group.outputs)], reductions(group)
    accesses = _accesses(group, 1, views, reduced)
    if accesses is None:
        return None
    columns = int(np.prod(group.shape[1:], dtype=np.int64))
    added = any(each.kind == "column" for each in reduced.values())
    native = _native(Kernel(group, columns, accesses))
    return Rows(native, 0 if added else 1, columns * _each(group, accesses))


def any_length(group: Fused, places: dict[Value, View]) -> Rows:
    """The function of an elementwise group of contiguous arrays of one shape: rows are elements."""
    accesses = _accesses(group, 0, [places[v] for v in (*group.inputs, *group.outputs)], {})
    assert accesses is not None
    kernel = Kernel(group, math.prod(group.shape), accesses, flat=True)
    return Rows(_native(kernel), LANES, _each(group, accesses))


def _each(group: Fused, accesses: Sequence[Access]) -> float:
    """Nanoseconds of an element, about."""
    return len(accesses) * _ARRAY + len(group.body) * _OPERATION


_ARRAY, _OPERATION = 0.1, 0.03  # nanoseconds of an element on one core, about
_SHORT = 8 * LANES  # columns that LLVM writes out
_MOST = 1000  # kernels that are known by what they do
_known: dict[Hashable, Native] = {}


def _cut(
    group: Fused,
    rows: int,
    columns: int,
    accesses: Sequence[Access],
    kinds: Collection[str],
    flat: bool,
) -> Cut | None:
    """By rows; by columns where these are added up, or there is one row; None for neither.

    Nor of float64, whose products are BLAS's: its threads are on the cores then.
    """
    if any(v.dtype == np.float64 for v in (*group.inputs, *group.outputs)):
        return None
    each = _each(group, accesses)
    given = numbers(accesses)
    if flat or ("column" not in kinds and rows > 1):
        size, unit = (columns, LANES) if flat else (rows, 1)

        def by_rows(count: int) -> list[Part]:
            native = _made_once(group, columns, accesses, flat)
            nowhere = (0,) * len(accesses)
            parts = ranges(size, unit, count)
            return [Part(native, [nowhere], (*part, *given)) for part in parts]

        return Cut(rows * columns * each, columns // (4 * LANES) if flat else rows, by_rows)
    made = accesses[len(group.inputs) :]
    if "row" in kinds or not all(a.column for a in made):
        return None
    if any(i.name == "is_class" for i in group.body):  # which looks at the number of its column
        return None
    sizes = [v.dtype.itemsize for v in (*group.inputs, *group.outputs)]

    def by_columns(count: int) -> list[Part]:
        parts = []
        for start, stop in ranges(columns, LANES, count):
            native = _made_once(group, stop - start, accesses)
            moves = tuple(start * a.column * n for a, n in zip(accesses, sizes, strict=True))
            parts.append(Part(native, [moves], (0, rows, *given)))
        return parts

    # Lines of a cache that lie in turns are asked for by both threads.
    return Cut(rows * columns * each, columns // (4 * LANES), by_columns)


def _made_once(
    group: Fused, columns: int, accesses: Sequence[Access], flat: bool = False
) -> Native:
    """The kernel of a group, for all groups alike: loops and layers repeat them."""
    places: dict[Value, int] = {v: i for i, v in enumerate((*group.inputs, *group.outputs))}
    arrays = tuple((v.shape, v.dtype) for v in places), len(group.inputs)
    body = tuple(alike(i, places) for i in group.body)
    key = body, arrays, group.shape, columns, tuple(accesses), flat
    if len(_known) > _MOST:
        _known.clear()
    return once(_known, key, lambda: _native(Kernel(group, columns, accesses, flat)))


def _native(kernel: Kernel) -> Native:
    # LLVM unrolls short walks, which keeps an exponential's units busy; that of long ones takes it
    # five times as long, and is no faster.
    text, few = kernel.text(), kernel.columns <= _SHORT and not kernel.flat
    return Native(engine.address(text, "entry", vectorize=few))


def _splits(group: Fused) -> Sequence[int]:
    ndim = len(group.shape)
    return range(ndim + 1) if group.trailing is None else [ndim - group.trailing]


def _accesses(
    group: Fused, split: int, views: Sequence[View], kinds: Mapping[Value, Reduction]
) -> list[Access] | None:
    """How rows and columns step through the arrays; None if some array has other steps."""
    shape = group.shape
    found = []
    for position, (value, view) in enumerate(
        zip((*group.inputs, *group.outputs), views, strict=True)
    ):
        made = position >= len(group.inputs)
        reduced = kinds.get(value)
        per_row = made and value.shape != shape
        if per_row and not view.contiguous:
            return None
        if reduced is not None and reduced.kind == "column":
            found.append(Access((), 1))
            continue
        if per_row:
            found.append(Access(((1, 0, 1),), 0))
            continue
        strides = _strides(shape, view)
        column = _step(shape[split:], strides[split:])
        if column not in (0, 1):
            return None
        found.append(Access(_terms(shape[:split], strides[:split]), column))
    return found


def _strides(shape: tuple[int, ...], view: View) -> list[int]:
    """Strides in elements over ``shape``, 0 where the array is repeated."""
    lead = len(shape) - len(view.shape)
    return [0] * lead + [
        0 if size == 1 else stride // view.dtype.itemsize
        for size, stride in zip(view.shape, view.strides, strict=True)
    ]


def _step(shape: Sequence[int], strides: Sequence[int]) -> int | None:
    """The one stride of the axes taken as one, None if there is none; 1 of size 1 counts as any."""
    terms = _terms(shape, strides)
    if all(n == 1 for n in shape):
        return 1
    if not terms:
        return 0
    return terms[0][2] if len(terms) == 1 and terms[0][:2] == (1, 0) else None


def _terms(shape: Sequence[int], strides: Sequence[int]) -> tuple[tuple[int, int, int], ...]:
    """Axes that are taken as one where they can be; a size of 0 says that nothing is outside."""
    merged: list[list[int]] = []  # from the last: below, size, stride
    below = 1
    for n, stride in reversed(list(zip(shape, strides, strict=True))):
        if n == 1:
            continue
        if merged and stride == merged[-1][1] * merged[-1][2]:
            merged[-1][1] *= n
        else:
            merged.append([below, n, stride])
        below *= n
    if merged:
        merged[-1][1] = 0
    return tuple((b, n, s) for b, n, s in merged if s)

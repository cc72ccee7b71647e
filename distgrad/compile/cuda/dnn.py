"""What of a program goes to cuDNN: convolutions, and attention that a pass has found."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from distgrad.backend import cudnn
from distgrad.backend.cudnn import ALIGNED, Job, Layout
from distgrad.compile.cuda.nodes import Arrays
from distgrad.compile.numpy_exec import c_strides
from distgrad.compile.passes.attention import Takes
from distgrad.compile.program import Apply, Value
from distgrad.compile.steps import Buffer, View

if TYPE_CHECKING:
    from distgrad.compile.cuda.build import Build

_BYTE = np.dtype(np.uint8)


def _run(build: Build, job: Job, given: Sequence[View], made: Sequence[View]) -> None:
    """Adds the node of a job, with a place for its workspace."""
    nbytes = build._backend.dnn.workspace(job)
    room = [_place(Buffer(nbytes), (nbytes,), _BYTE)] if nbytes else []

    def run(arrays: Arrays) -> None:
        places = [arrays.array(view) for view in (*given, *made)]
        arrays.backend.dnn.run(job, places, arrays.array(room[0]) if room else None)

    build._node(run, *given, *made, *room, writes=tuple(made))


def _place(buffer: Buffer, shape: Sequence[int], dtype: np.dtype) -> View:
    view = View(buffer, 0, tuple(shape), (), dtype)
    return view._replace(strides=c_strides(view))


def _permuted(view: View, order: Sequence[int]) -> View:
    shape, strides = ([part[axis] for axis in order] for part in (view.shape, view.strides))
    return view._replace(shape=tuple(shape), strides=tuple(strides))


# Convolutions


def convolution(build: Build, apply: Apply) -> bool:
    """A convolution, or a gradient of one, where there is a plan for it."""
    (first, second), (out,), dnn = apply.inputs, apply.outputs, build._backend.dnn
    if type(first) is not Value or type(second) is not Value or first.dtype != second.dtype:
        return False
    found = cudnn.convolution(apply.name, first.shape, second.shape, out.dtype, apply.params)
    if found is None or not dnn.takes(found.job):
        return False
    given = [_row_by_row(build, build.places[first])]
    if found.makes_filters:
        given.append(_row_by_row(build, build.places[second]))
        order = found.order
        target = _place(Buffer(out.nbytes), [out.shape[axis] for axis in order], out.dtype)
        build.places[out] = _permuted(target, np.argsort(order).tolist())
    else:
        filters = _permuted(build.places[second], found.order)
        given.append(build._copy_of(filters, filters.shape))
        target = build._own(out)
    _run(build, found.job, given, [target])
    return True


def _row_by_row(build: Build, place: View) -> View:
    if place.contiguous and place.offset % ALIGNED == 0:
        return place
    return build._copy_of(place, place.shape)


# Attention


def takes(dnn: Any) -> Takes:
    """Which attention cuDNN has plans for: of half precision, in all directions asked for."""

    def taken(
        q: Value, k: Value, v: Value, bias: Any, *, scale: float, causal: bool, trained: bool
    ) -> bool:
        kinds = {array.dtype.name for array in (q, k, v)}
        if len(q.shape) not in (3, 4) or len(kinds) > 1 or not kinds <= set(cudnn.KINDS):
            return False
        if q.dtype.itemsize != 2 or not all(array.nbytes for array in (q, k, v)):
            return False
        if type(bias) is Value and (bias.dtype != q.dtype or not spans(bias, q, k)):
            return False
        at = [_dense(value.shape, value.dtype) for value in (q, k, v)]
        at_bias = _bias(bias, len(q.shape))
        jobs = [cudnn.attention(at, at_bias, scale=scale, causal=causal)]
        if trained:
            at_o = _dense((*q.shape[:-1], v.shape[-1]), q.dtype)
            arrays = [at_o, *at, at_o]
            jobs.append(cudnn.attention_grad(arrays, at_bias, scale=scale, causal=causal))
        return all(map(dnn.takes, jobs))

    return taken


def attention(build: Build, apply: Apply) -> bool:
    """Averages of values, and what their gradients need."""
    *arrays, bias = apply.inputs
    o, stats = apply.outputs

    def job(layouts: Sequence[Layout]) -> Job:
        return cudnn.attention(layouts, _bias(bias, len(o.shape)), **apply.params)

    found = _laid_out(build, arrays, job)
    if found is None:
        return False
    more = [] if type(bias) is not Value else [build._whole(bias)]
    _run(build, found[0], [*found[1], *more], [steps_first(build, o), build._own(stats)])
    return True


def attention_grad(build: Build, apply: Apply) -> bool:
    """The gradients of queries, keys and values, in what they are joined to if there is a plan."""
    *arrays, stats, bias = apply.inputs
    at_bias = _bias(bias, len(stats.shape))

    def into(made: Sequence[View]) -> tuple[Job, list[View]] | None:
        results = [_layout(place) for place in made]
        return _laid_out(
            build,
            arrays,
            lambda at: cudnn.attention_grad(at, at_bias, results, **apply.params),
        )

    made = [place for value in apply.outputs if (place := build.part(value)) is not None]
    found = into(made) if len(made) == 3 and all(map(_readable, made)) else None
    if found is None:
        made = [steps_first(build, value) for value in apply.outputs]
        found = into(made)
    if found is None:
        return False
    dy, q, k, v, o = found[1]
    more = [] if type(bias) is not Value else [build._whole(bias)]
    given = [q, k, v, o, dy, build._whole(stats), *more]
    _run(build, found[0], given, made)
    return True


def _laid_out(
    build: Build, values: Sequence[Value], job: Callable[[Sequence[Layout]], Job]
) -> tuple[Job, list[View]] | None:
    """Arrays where they lie, if there is a plan for that, else copies; and the job on them."""
    dnn, places = build._backend.dnn, [build.places[value] for value in values]
    if all(map(_readable, places)):
        made = job([_layout(place) for place in places])
        if dnn.takes(made):
            return made, places
    made = job([_dense(place.shape, place.dtype) for place in places])
    if not dnn.takes(made):
        return None
    return made, [_copied(build, place) for place in places]


def _readable(place: View) -> bool:
    """Whether vectors lie in one piece, and start where cuDNN can read them."""
    steps = [s for n, s in zip(place.shape, place.strides, strict=True) if n > 1]
    if place.strides[-1] != place.dtype.itemsize:
        return False
    return not any(n % ALIGNED for n in (place.offset, *steps[:-1])) and 0 not in steps


def _copied(build: Build, place: View) -> View:
    """An array with its steps first: itself, or a copy."""
    if _readable(place) and _layout(place) == _dense(place.shape, place.dtype):
        return place
    own = _withsteps_first(place.shape, place.dtype)
    build._copied_to(own, place)
    return own


def steps_first(build: Build, value: Value) -> View:
    """The place of a result: heads beside each other, as the next product wants them."""
    build.places[value] = _withsteps_first(value.shape, value.dtype)
    return build.places[value]


def _withsteps_first(shape: tuple[int, ...], dtype: np.dtype) -> View:
    buffer = Buffer(math.prod(shape) * dtype.itemsize)
    if len(shape) == 3:
        return _place(buffer, shape, dtype)
    b, h, s, d = shape
    return _permuted(_place(buffer, (b, s, h, d), dtype), (0, 2, 1, 3))


def _layout(place: View) -> Layout:
    shape, strides = place.shape, tuple(s // place.dtype.itemsize for s in place.strides)
    if len(shape) == 3:
        shape, strides = (shape[0], 1, *shape[1:]), (strides[0], shape[-1], *strides[1:])
    return Layout(shape, strides, place.dtype.name)


def _dense(shape: tuple[int, ...], dtype: np.dtype) -> Layout:
    return Layout.steps_first(shape if len(shape) == 4 else (shape[0], 1, *shape[1:]), dtype.name)


def _bias(bias: Any, rank: int) -> Layout | None:
    """A bias (batch or 1, heads or 1, queries, keys) that lies row by row."""
    if type(bias) is not Value:
        return None
    shape = (1,) * (rank - len(bias.shape)) + bias.shape
    b, h, s, t = shape if rank == 4 else (shape[0], 1, *shape[1:])
    return Layout((b, h, s, t), (h * s * t, s * t, t, 1), bias.dtype.name)


def spans(bias: Value, q: Value, k: Value) -> bool:
    """Whether a bias has one number, or one for all, for each query and key."""
    rank = len(q.shape)
    if not 2 <= len(bias.shape) <= rank:
        return False
    shape = (1,) * (rank - len(bias.shape)) + bias.shape
    pairs = zip(shape[:-2], q.shape[:-2], strict=True)
    return shape[-2:] == (q.shape[-2], k.shape[-2]) and all(n in (1, m) for n, m in pairs)

"""One primitive at a time in machine code, for the eager path; see `distgrad.compile.eager`.

A kernel is made for each number of columns, and takes any number of rows, so that batches of
several sizes share it. Elementwise operations take any number of elements.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from distgrad.compile.llvm import (
    added_rows,
    bands,
    composed,
    composites,
    lstm,
    middle,
    pool,
    products,
    windows,
)
from distgrad.compile.llvm import columns as llvm_columns
from distgrad.compile.llvm.blocks import Code, Int, each_vector
from distgrad.compile.llvm.calls import Planned, argument, number
from distgrad.compile.llvm.composites import ROWS, view_of
from distgrad.compile.llvm.loops import Native, address_of, supported
from distgrad.compile.llvm.parts import WORTH
from distgrad.compile.llvm.random import uniform_native
from distgrad.compile.llvm.rows import Rows, all_of, any_length, any_rows
from distgrad.compile.passes import Fused, expand, fuse, simplify
from distgrad.compile.program import Apply, Program, Value
from distgrad.core.primitive import Primitive, registry

_ANY = (1024,)  # the shape that an elementwise kernel is made for, which takes any number
_FLOAT32 = np.dtype(np.float32)
_ELEMENTS = (_FLOAT32, np.dtype(np.bool_))
_FEWEST_ROWS, _FEWEST_COLUMNS = 12, 32  # of a product: with fewer BLAS is faster


class _Form(NamedTuple):
    """How a primitive works along rows: which arguments have one element for each row, and
    whether the result has.
    """

    per_row: tuple[int, ...] = ()
    reduces: bool = False


_FORMS = {
    "softmax_along": _Form(),
    "softmax_grad": _Form(),
    "log_softmax_along": _Form(),
    "standardize": _Form(),
    "standardize_grad": _Form(),
    "sparse_cross_entropy": _Form((1,), True),
    "sparse_cross_entropy_grad": _Form((0, 2)),
    "cross_entropy": _Form((), True),
    "cross_entropy_grad": _Form((0,)),
}


def run(primitive: Primitive, args: tuple, params: dict[str, Any], out: Any = None) -> Any:
    """What the primitive makes of arrays of float32; None where there is no kernel for them.

    It is written to ``out``, where that is given.
    """
    if primitive.name in composites.NAMES:
        return composites.run(primitive.name, args, params, out)
    if primitive.name in lstm.NAMES:
        return lstm.run(primitive.name, args, out)
    if primitive.name == "observed_moments":
        return llvm_columns.moments(args[0], **params, out=out)
    if out is not None and not out.flags.c_contiguous:
        return None
    form = _FORMS.get(primitive.name)
    if form is not None:
        made = _along_rows(primitive.name, form, args, params, out)
        if made is None and primitive.name.startswith("standardize"):
            made = llvm_columns.standardized(primitive.name, args, params, out)
        return made
    if primitive.name in ("sum", "mean"):
        return middle.run(primitive.name, args[0], out, **params)
    if primitive.name == "sum_to":
        made = llvm_columns.total(args[0], params["shape"], out)
        return middle.run(primitive.name, args[0], out, **params) if made is None else made
    if primitive.name == "take_grad":
        return added_rows.take_grad(*args, **params, out=out)
    if primitive.name in bands.NAMES:
        return bands.run(*args, **params, out=out)
    if primitive.name in composed.NAMES:
        return composed.run(primitive.name, *args, **params, out=out)
    if primitive.name in windows.NAMES:
        return windows.run(primitive.name, *args, **params, out=out)
    return _elementwise(primitive.name, args, params, out)


class _Made(NamedTuple):
    """A kernel, and which argument each of its pointers is."""

    loop: Rows
    order: tuple[int, ...]


@functools.lru_cache(maxsize=1024)
def _made(
    name: str, shapes: tuple[tuple[int, ...], ...], dtypes: tuple, params: tuple, rows: bool = True
) -> _Made | None:
    """The kernel of a primitive on arrays of these shapes, the last of which is the result's.

    It goes along rows, or without them along all elements.
    """
    *inputs, out = map(Value, shapes, dtypes)
    whole = Apply(tuple(inputs), (out,), primitive=registry[name], params=dict(params))
    program = Program(name, tuple(inputs), (whole,), (out,))
    program = fuse(simplify(expand(simplify(program))), supported, smallest=1)
    groups = [i for i in program.instructions if isinstance(i, Fused)]
    reshapes = [i for i in program.instructions if not isinstance(i, Fused)]
    if len(groups) != 1 or any(getattr(i, "name", "") != "reshape_to" for i in reshapes):
        return None
    (group,) = groups
    source = {i.outputs[0]: i.inputs[0] for i in reshapes}
    order = tuple([inputs.index(source.get(v, v)) for v in group.inputs])
    if [source.get(v, v) for v in program.outputs] != list(group.outputs):
        return None
    views = {v: view_of(v) for v in (*group.inputs, *group.outputs)}
    loop = any_rows(group, views) if rows else any_length(group, views)
    return None if loop is None else _Made(loop, order)


# Elementwise


def _elementwise(
    name: str, args: tuple, params: dict[str, Any], out: np.ndarray | None
) -> np.ndarray | None:
    shape = args[0].shape
    dtypes = []
    for x in args:
        if type(x) is not np.ndarray or x.shape != shape or x.dtype not in _ELEMENTS:
            return None
        if not x.flags.c_contiguous:
            return None
        dtypes.append(x.dtype)
    made = _made(name, (_ANY,) * (len(args) + 1), (*dtypes, _FLOAT32), _key(params), False)
    if made is None:
        return None
    out = np.empty(shape, np.float32) if out is None else out
    made.loop([*(address_of(args[i]) for i in made.order), address_of(out)], out.size)
    return out


def _key(params: dict[str, Any]) -> tuple:
    return tuple(params.items())


def select(condition: np.ndarray, x: Any, y: Any, out: np.ndarray | None) -> np.ndarray | None:
    """Elements of one or the other, either of which may be the number 0 or 1, or one repeated."""
    shape, given = condition.shape, [condition]
    if not condition.flags.c_contiguous:
        return None
    kinds = []
    for value in (x, y):
        if type(value) is np.ndarray:
            if value.shape != shape or value.dtype != _FLOAT32:
                return None
            if not value.flags.c_contiguous and any(value.strides):
                return None
            kinds.append("array" if value.flags.c_contiguous else "repeated")
            given.append(value)
        elif type(value) in (int, float) and value in (0, 1):
            kinds.append(f"splat (float {float(value)})")
        else:
            return None
    out = np.empty(shape, np.float32) if out is None else out
    _selecting(*kinds).at(*map(address_of, given), address_of(out), out.size)
    return out


@functools.cache
def _selecting(x: str, y: str) -> Native:
    """A function of a condition, the arrays that there are, a place for the result, and a size."""
    kinds = {"x": x, "y": y}
    names = [name for name, kind in kinds.items() if not kind.startswith("splat")]
    code = Code(["condition", *names, "out"], ["size"])
    for name, kind in kinds.items():
        if kind == "repeated":
            kinds[name] = code.spread(f"%{name}")

    def write(at: Int, lanes: int) -> None:
        a, b = (
            code.load(code.at(f"%{name}", at), lanes) if kind == "array" else kind
            for name, kind in kinds.items()
        )
        no = code.is_byte(code.load_bytes(code.byte_at("%condition", at), lanes), 0)
        code.store(code.where(no, b, a), code.at("%out", at), lanes)

    each_vector(code, "%size", write)
    return code.native()


# Along rows


class _Call(NamedTuple):
    """How a kernel is called for arguments of given shapes."""

    run: Callable[..., None]  # on the arguments and the result
    shape: tuple[int, ...]  # of the result


def _along_rows(
    name: str, form: _Form, args: tuple, params: dict[str, Any], out: np.ndarray | None
) -> np.ndarray | None:
    shapes, kinds = [], ""
    for x in args:
        if type(x) is not np.ndarray:
            return None
        shapes.append(x.shape)
        kinds += x.dtype.char
    call = _call(name, tuple(shapes), kinds, _key(params))
    if call is None:
        return None
    run, shape = call
    given = []
    for i, x in enumerate(args):
        if not x.flags.c_contiguous:
            if i not in form.per_row:
                return None
            x = np.ascontiguousarray(x)
        given.append(x)
    out = np.empty(shape, np.float32) if out is None else out
    run(*given, out)
    return out


@functools.lru_cache(maxsize=4096)
def _call(
    name: str, shapes: tuple[tuple[int, ...], ...], kinds: str, params: tuple
) -> _Call | None:
    form, values = _FORMS[name], dict(params)
    shape = next(s for i, s in enumerate(shapes) if i not in form.per_row)
    trailing = 1
    if "axis" in values:
        axis = values["axis"]
        axes = axis if type(axis) is tuple else (axis,)
        trailing = len(axes)
        if axes != tuple(range(len(shape) - trailing, len(shape))):
            return None
        values["axis"] = (1,) if type(axis) is tuple else 1
    lead, columns = shape[: len(shape) - trailing], math.prod(shape[len(shape) - trailing :])
    rows = math.prod(lead)
    if not rows or columns < 2:
        return None
    given: list[tuple[int, ...]] = []
    for i, (own, kind) in enumerate(zip(shapes, kinds, strict=True)):
        per_row = i in form.per_row
        if own != (lead if per_row else shape) or kind not in ("filq" if per_row else "f"):
            return None
        given.append((ROWS,) if per_row else (ROWS, columns))
    given.append((ROWS,) if form.reduces else (ROWS, columns))
    dtypes = (*map(np.dtype, kinds), _FLOAT32)
    made = _made(name, tuple(given), dtypes, _key(values))
    if made is None:
        return None
    order = *made.order, len(shapes)
    if rows * made.loop.cost >= WORTH and pool.threads() > 1:

        def run(*arrays: np.ndarray) -> None:
            made.loop([address_of(arrays[i]) for i in order], rows)
    else:
        run = Planned((made.loop.native, [*map(argument, order), *map(number, all_of(rows))]))
    return _Call(run, lead if form.reduces else shape)


# Products of matrices


def product(
    a: np.ndarray, b: np.ndarray, transpose_a: bool, transpose_b: bool, out: np.ndarray | None
) -> np.ndarray | None:
    """Float32 arrays multiplied over their last two axes; None where BLAS is faster."""
    a, b = a.swapaxes(-1, -2) if transpose_a else a, b.swapaxes(-1, -2) if transpose_b else b
    if a.shape[-1] != b.shape[-2]:
        return None
    return _products(a, b, out) if b.ndim > 2 else _one(a, b, out)


def _one(a: np.ndarray, b: np.ndarray, out: np.ndarray | None) -> np.ndarray | None:
    """One matrix for all rows."""
    shape, n = a.shape[:-1], b.shape[1]
    if a.ndim > 2:
        if not a.flags.c_contiguous:
            return None
        a = a.reshape(-1, a.shape[-1])
    if len(a) < _FEWEST_ROWS or n < _FEWEST_COLUMNS:
        return None
    out = np.empty((*shape, n), np.float32) if out is None else out
    return out if products.multiply(a, b, out.reshape(-1, n)) else None


def _products(a: np.ndarray, b: np.ndarray, out: np.ndarray | None) -> np.ndarray | None:
    """Many products; shapes that do not fit are BLAS's to refuse."""
    try:
        lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        return None
    if a.ndim < 2 or 0 in lead:
        return None
    shape = (*lead, a.shape[-2], b.shape[-1])
    out = np.empty(shape, np.float32) if out is None else out
    return out if out.shape == shape and products.multiply_many(a, b, out) else None


# Others: NumPy's bits


def uniform(
    key: np.ndarray, shape: tuple[int, ...], dtype: np.dtype, out: np.ndarray | None = None
) -> np.ndarray:
    """Floats in [0, 1) drawn from a key."""
    out = np.empty(shape, dtype) if out is None else out
    key = np.ascontiguousarray(key)
    uniform_native(dtype.name).at(address_of(key), address_of(out), out.size)
    return out
